# SPDX-License-Identifier: GPL-2.0-or-later
"""A systemd unit as ``systemctl show`` prints it, and the drop-in that makes it use MPTCP.

Either its control group is registered at each start, which makes a new one, or variables are set. A later ``Environment=``
line adds to earlier ones, but its ``LD_PRELOAD=`` replaces theirs; so the drop-in repeats what was there before.
``EnvironmentFile=`` overrides any ``Environment=`` (systemd.exec(5)).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

#: Where the administrator's drop-ins are, and ours.
DIRECTORY = "/etc/systemd/system"
FILE = "50-nm-mptcp.conf"

#: The first systemd with ``SocketProtocol=mptcp``.
SOCKET_SINCE = 257

#: How our drop-in begins, so that another file in its place is noticed.
MARK = "# Made by nm-mptcp"

#: The properties that are read; systemctl ignores those that a kind of unit does not have.
PROPERTIES = (
    *("Id", "LoadState", "ActiveState", "FragmentPath", "DropInPaths", "TriggeredBy", "Triggers", "MainPID"),
    "ControlGroup",
    *("Environment", "EnvironmentFiles", "UnsetEnvironment", "ExecStart", "User", "DynamicUser"),
    *("RootDirectory", "RootImage", "NoExecPaths", "ExecPaths", "InaccessiblePaths", "TemporaryFileSystem"),
    *("SELinuxContext", "Listen", "SocketProtocol", "ActiveEnterTimestamp"),
)

#: The instance that is shown for a template: systemd shows instances only.
_INSTANCE = "nm-mptcp-any-instance"

#: Suffixes of other units: systemctl does not add ``.service`` to these.
_OTHER_KINDS = ("automount", "device", "mount", "path", "scope", "swap", "target", "timer")

_NAME = re.compile(r"[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\@-]*)?\.(service|socket|slice)")

#: A user's slice, and what starts in it before anything else of the user's.
_USER_SLICE, _USER_FIRST = re.compile(r"user-(\d+)\.slice"), "user-runtime-dir@{}.service"

#: Registers a slice that is no user's; its name follows the ``@``.
SLICE_SERVICE = "nm-mptcp-group@{}.service"


class UnitError(Exception):
    """Something cannot be done with a unit; the message is one line."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit's properties."""

    name: str  #: its own name, also when an alias was asked for
    state: str = "loaded"  #: LoadState: loaded, not-found, masked, ...
    active: bool = False
    drop_ins: tuple[str, ...] = ()  #: in the order in which they are read
    environment: Mapping[str, str] = field(default_factory=dict)
    environment_files: tuple[str, ...] = ()
    unset: tuple[str, ...] = ()  #: UnsetEnvironment=, names and assignments
    programs: tuple[str, ...] = ()  #: of ExecStart=
    user: str = ""
    dynamic_user: bool = False
    root: str = ""  #: RootDirectory=
    root_image: str = ""
    no_exec: tuple[str, ...] = ()
    exec: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()  #: InaccessiblePaths= and TemporaryFileSystem=
    selinux: str = ""
    listens: tuple[str, ...] = ()  #: of a socket unit: "0.0.0.0:80 (Stream)"
    protocol: int = 0  #: of a socket unit
    triggered_by: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    pid: int = 0
    group: str = ""  #: its control group, below the root; "" while it does not run

    @property
    def is_slice(self) -> bool:
        """Whether it is a slice, which has other units in it."""
        return self.name.endswith(".slice")

    @property
    def is_socket(self) -> bool:
        """Whether it is a socket unit."""
        return self.name.endswith(".socket")

    def variable(self, name: str) -> str:
        """A variable of its environment, "" where it has none."""
        return self.environment.get(name, "")


def full_name(word: str) -> str:
    """A unit's full name: without a suffix it is a service. Raises :class:`UnitError`."""
    if word.rpartition(".")[2] in _OTHER_KINDS:
        raise UnitError(f"{word}: only services, sockets and slices can use MPTCP")
    name = word if word.endswith((".service", ".socket", ".slice")) else f"{word}.service"
    if not _NAME.fullmatch(name) or len(name) > 255:
        raise UnitError(f"{word!r} is not the name of a service, socket or slice")
    if name == "-.slice":
        raise UnitError(f"{name} has systemd itself in it: use system.slice and user.slice")
    return name


def is_template(name: str) -> bool:
    """Whether this is a template, ``NAME@.service``, whose drop-ins are those of each instance."""
    return name.rpartition(".")[0].endswith("@")


def shown_as(name: str) -> str:
    """The name to show: the unit's, or that of a template's instance."""
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}{_INSTANCE}{dot}{suffix}" if is_template(name) else name


def parse_unit(name: str, properties: Mapping[str, Sequence[str]]) -> Unit:
    """A unit from the lines of ``systemctl show`` by property; ``name`` is the one that was asked for."""

    def one(key: str) -> str:
        return "".join(properties.get(key, ())[:1])

    def words(*keys: str) -> tuple[str, ...]:
        return tuple(word for key in keys for line in properties.get(key, ()) for word in split(line))

    template = is_template(name)
    environment = assignments(one("Environment"))
    return Unit(
        name=name if template else one("Id") or name,
        state=one("LoadState"),
        active=one("ActiveState") in ("active", "activating", "reloading"),
        drop_ins=words("DropInPaths"),
        # The value of a template's specifier is the instance's name.
        environment={
            key: value.replace("%", "%%").replace(_INSTANCE, "%i") if template else value.replace("%", "%%")
            for key, value in environment.items()
        },
        environment_files=tuple(
            re.sub(r" \(ignore_errors=(yes|no)\)$", "", line) for line in properties.get("EnvironmentFiles", ()) if line
        ),
        unset=words("UnsetEnvironment"),
        programs=tuple(
            found[1]
            for line in properties.get("ExecStart", ())
            if (found := re.match(r"\{ path=(.*?) ; argv\[\]=", line))
        ),
        user=one("User"),
        dynamic_user=one("DynamicUser") == "yes",
        root=one("RootDirectory"),
        root_image=one("RootImage"),
        no_exec=words("NoExecPaths"),
        exec=words("ExecPaths"),
        hidden=words("InaccessiblePaths", "TemporaryFileSystem"),
        selinux=one("SELinuxContext"),
        listens=tuple(line for line in properties.get("Listen", ()) if line),
        protocol=int(one("SocketProtocol")) if one("SocketProtocol").isdigit() else 0,
        triggered_by=words("TriggeredBy"),
        triggers=words("Triggers"),
        pid=int(one("MainPID")) if one("MainPID").isdigit() else 0,
        group=one("ControlGroup"),
    )


def split(line: str) -> list[str]:
    """The words of a list as systemctl prints it: with special characters in double quotes, with backslashes."""
    words, word, quoted, inside = [], "", False, False
    characters = iter(line)
    for character in characters:
        if character == '"':
            quoted, inside = not quoted, True
        elif character == "\\":
            word, inside = word + next(characters, "\\"), True
        elif character == " " and not quoted:
            if inside:
                words.append(word)
            word, inside = "", False
        else:
            word, inside = word + character, True
    return [*words, word] if inside else words


def assignments(line: str) -> dict[str, str]:
    """Variables from a list of ``NAME=VALUE``."""
    return {name: value for name, equals, value in (word.partition("=") for word in split(line)) if equals}


def service_drop_in(variables: Mapping[str, str]) -> str:
    """The drop-in of a service with these variables, in which each ``%`` is doubled (it begins a specifier)."""
    lines = [_quoted(f"{name}={value}") for name, value in variables.items()]
    return "\n".join([_head(), "[Service]", *(f"Environment={line}" for line in lines), ""])


def registrar(name: str) -> str:
    """The unit whose drop-in registers this one when it starts: its own, but of a user's slice the first service in it.

    And system.slice is never started, it is just there (systemd: slice.c).
    """
    if name == "system.slice":
        return "basic.target"
    found = _USER_SLICE.fullmatch(name)
    return _USER_FIRST.format(found[1]) if found else name


def by_service(name: str) -> bool:
    """Whether it is a slice that :data:`SLICE_SERVICE` registers."""
    return name.endswith(".slice") and not _USER_SLICE.fullmatch(name)


def group_drop_in(name: str, command: str) -> str:
    """The drop-in of :func:`registrar`, by which ``command`` registers the control group of each start.

    With ``+`` it has root's rights, whatever the service has; a failure (``-``) leaves the service on TCP.
    """
    if by_service(name):
        return "\n".join([_head(), "[Unit]", f"Wants={SLICE_SERVICE.format(name)}", ""])
    words, what = _word(command), "%n" if registrar(name) == name else name
    lines = [f"ExecStartPre=+-{words} unit enter {what}", f"ExecStopPost=+-{words} unit leave {what}"]
    return "\n".join([_head(), "[Service]", *lines, ""])


def registers_group(text: str) -> bool:
    """Whether this drop-in of ours is one of :func:`group_drop_in`."""
    return "\nEnvironment=" not in text and "\nSocketProtocol=" not in text


def group_obstacle(unit: Unit) -> str | None:
    """Why a unit's control group cannot be registered when it starts, None when it can."""
    if unit.is_socket:
        return "systemd makes its socket, in a control group of its own"
    if (place := unit.root or unit.root_image) and place != "/":
        # systemd.service(5): "+" lifts all restrictions but RootDirectory= and RootImage=.
        return f"it runs in {place} (RootDirectory=, RootImage=), where nm-mptcp cannot be run when it starts"
    return None


def socket_drop_in() -> str:
    """The drop-in of a socket."""
    return "\n".join([_head(), "[Socket]", "SocketProtocol=mptcp", ""])


def socket_obstacle(unit: Unit, version: int) -> str | None:
    """Why this socket unit cannot use MPTCP with this version of systemd, None when it can."""
    if version < SOCKET_SINCE:
        return (
            f"{unit.name}: systemd {version} has no SocketProtocol=mptcp, {SOCKET_SINCE} has;"
            " before that, only a service that makes its listening socket itself can use MPTCP"
        )
    streams = [line.rpartition(" ")[0] for line in unit.listens if line.endswith("(Stream)")]
    if others := [place for place in streams if place.startswith(("/", "@", "vsock:"))]:
        # systemd: socket.c applies the protocol to every stream of the unit, and would fail to make such a socket.
        return (
            f"{unit.name} also listens at {others[0]}, not a TCP socket, so with SocketProtocol= it would fail to start"
        )
    if not streams:
        return f"{unit.name} listens on no TCP port (ListenStream=)"
    return None


def setting_obstacles(unit: Unit, variables: Mapping[str, str], wrapper: str | None) -> Iterator[str]:
    """What of a service's settings keeps it on plain TCP, as far as settings show it."""
    for name in sorted(variables.keys() & {word.partition("=")[0] for word in unit.unset}):
        yield f"its UnsetEnvironment= removes {name} again"
    if wrapper is None:
        return
    if unit.root_image:
        yield f"it runs in {unit.root_image} (RootImage=), which needs {wrapper} as well"
    if any(_covers(path, wrapper) for path in unit.hidden):
        yield f"it does not see {wrapper} (InaccessiblePaths= or TemporaryFileSystem=)"
    refused = max((len(path) for path in unit.no_exec if _covers(path, wrapper)), default=0)
    allowed = max((len(path) for path in unit.exec if _covers(path, wrapper)), default=0)
    if refused > allowed:
        yield f"it may not run code from {wrapper} (NoExecPaths=; ExecPaths={wrapper} would allow it)"
    if unit.selinux:
        yield "it changes its SELinux context (SELinuxContext=), and then the loader may ignore LD_PRELOAD"


def _covers(path: str, file: str) -> bool:
    # Optional prefixes (systemd.exec(5)), and options of TemporaryFileSystem= behind the colon.
    folder = path.lstrip("-+").partition(":")[0]
    return folder == "/" or file == folder or file.startswith(folder.rstrip("/") + "/")


def _head() -> str:
    return f"{MARK}: 'nm-mptcp unit disable' removes it."


def _quoted(assignment: str) -> str:
    escaped = assignment.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _word(path: str) -> str:
    """A path as the first word of a command line (systemd.service(5), "Command lines")."""
    path = path.replace("%", "%%").replace("$", "$$")
    return path if re.fullmatch(r"[\w/.@%$+-]+", path, re.ASCII) else _quoted(path)


def drop_in_path(name: str) -> str:
    """The path of this unit's drop-in."""
    return os.path.join(DIRECTORY, f"{registrar(name)}.d", FILE)
