# SPDX-License-Identifier: GPL-2.0-or-later
"""How to run a program so that it makes MPTCP sockets, and the obstacles.

Where the kernel has a place for the switch (:mod:`.switch`), root registers the program's control group, and whatever runs in
it makes MPTCP sockets. Two other ways need no help of the kernel. ``libmptcpwrap.so``, preloaded, overrides the C library's
socket(). Go's programs do not call that; since Go 1.21 ``GODEBUG=multipathtcp=1`` does the same for them
(https://go.dev/doc/godebug). Both are environment variables, so children inherit them; as a program of either kind may start
one of the other, both are always set.
"""

from __future__ import annotations

import enum
import errno
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .elf import Elf
from .programs import Form, Program, Wrapper

#: The first Go with the setting.
GO_SINCE = (1, 21)

SETTING = "multipathtcp=1"

#: How to install the wrapper.
INSTALL = "install mptcpize (Debian, Ubuntu: package mptcpize; Fedora, RHEL: mptcpd)"

#: Programs that start others with a fresh environment or in another root, and what to run instead ("": set it up inside).
ENVIRONMENT_BOUNDARIES = {
    "sudo": "sudo nm-mptcp exec -- COMMAND",
    "doas": "doas nm-mptcp exec -- COMMAND",
    "pkexec": "pkexec nm-mptcp exec -- COMMAND",
    "systemd-run": "systemd-run nm-mptcp exec -- COMMAND",
    "docker": "",
    "podman": "",
    "flatpak": "",
    "snap": "",
    "machinectl": "",
}


#: Programs that start others in a control group elsewhere: by a service manager, or by pam_systemd.
GROUP_BOUNDARIES = ("su", "systemd-run", "machinectl", "docker", "podman", "flatpak", "snap", "at", "batch", "crontab")


class Method(enum.StrEnum):
    """How a program is brought onto MPTCP; the value is that of ``--method``."""

    AUTO = "auto"  #: by the switch for root where the kernel has a place for it, else by the environment
    EBPF = "ebpf"  #: by the switch
    PRELOAD = "preload"  #: by LD_PRELOAD and GODEBUG


class ObstacleKind(enum.Enum):
    """What keeps a program on plain TCP; the value is its name in JSON."""

    NO_MPTCP = "no-mptcp"  #: the kernel refuses MPTCP sockets
    NO_SWITCH = "no-ebpf"  #: the switch was asked for, and cannot be loaded
    NO_WRAPPER = "no-wrapper"
    STATIC = "static"
    OLD_GO = "old-go"
    PRIVILEGED = "privileged"
    ARCHITECTURE = "architecture"
    LIBC = "libc"
    ENVIRONMENT_BOUNDARY = "door"  #: it is one of :data:`ENVIRONMENT_BOUNDARIES` or :data:`GROUP_BOUNDARIES`
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What keeps this program on plain TCP."""

    kind: ObstacleKind
    text: str  #: a sentence: what it is, and what to do


@dataclass(frozen=True, slots=True)
class LaunchContext:
    """What a plan depends on."""

    program: Program
    wrappers: tuple[Wrapper, ...] = ()
    mptcpize: str | None = None  #: the path of mptcpize(8)
    error: int = 0  #: errno of making an MPTCP socket; 0: it was made
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """What to execute: the program's ``file``, and ``arguments`` from argv[0] on."""

    file: str
    arguments: tuple[str, ...]
    variables: Mapping[str, str]  #: what is set in the environment
    obstacles: tuple[Obstacle, ...] = ()
    wrapper: str | None = None
    method: Method = Method.PRELOAD  #: never AUTO

    @property
    def works(self) -> bool:
        """Whether the program itself will use MPTCP."""
        return not self.obstacles

    def shell(self) -> str:
        """As a line for a shell."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.variables.items()]
        return " ".join([*variables, shlex.join(self.arguments)])


def plan_switched(program: Program, command: Sequence[str], trouble: str | None = None) -> LaunchPlan:
    """How to run this command in a registered control group; ``trouble`` is why there can be none."""
    file, arguments = _started(program, command)
    name = os.path.basename(os.path.realpath(program.runs))
    obstacles = []
    if trouble is not None:
        obstacles.append(Obstacle(ObstacleKind.NO_SWITCH, trouble))
    if name in GROUP_BOUNDARIES:
        words = f"{name} starts programs in another control group, so they stay on plain TCP; set it up inside"
        obstacles.append(Obstacle(ObstacleKind.ENVIRONMENT_BOUNDARY, words))
    return LaunchPlan(file, arguments, {}, tuple(obstacles), method=Method.EBPF)


def root_could(plan: LaunchPlan, command: Sequence[str], user: str) -> str | None:
    """What root could do about the obstacles of a plan for this user, None where that is nothing."""
    if not any(obstacle.kind in _SWITCHED for obstacle in plan.obstacles):
        return None
    return f"root can bring it onto MPTCP: sudo nm-mptcp exec --user {shlex.quote(user)} -- {shlex.join(command)}"


#: Obstacles that the switch does not know.
_SWITCHED = frozenset(
    (
        *(ObstacleKind.NO_WRAPPER, ObstacleKind.STATIC, ObstacleKind.OLD_GO, ObstacleKind.PRIVILEGED),
        *(ObstacleKind.ARCHITECTURE, ObstacleKind.LIBC, ObstacleKind.UNKNOWN),
    )
)


def _started(program: Program, command: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The file to execute and its arguments."""
    if program.shell:
        return program.runs, (program.runs, program.path, *command[1:])
    return program.path, tuple(command)


def plan_launch(context: LaunchContext, command: Sequence[str]) -> LaunchPlan:
    """How to run this command, whose first word leads to ``context.program``."""
    program = context.program
    file, arguments = _started(program, command)
    obstacles = tuple(_obstacles(context))
    variables: dict[str, str] = {}
    wrapper = None
    # The wrapper does not fall back to TCP: where the kernel refuses, the program could make no connection at all.
    if not context.error:
        variables["GODEBUG"] = godebug(context.environment.get("GODEBUG", ""))
        found = choose(context.wrappers, program.elf)
        if any(obstacle.kind is ObstacleKind.LIBC for obstacle in obstacles):
            pass  # with a library for another C library the program would not start
        elif found is not None:
            wrapper = found.path
            variables["LD_PRELOAD"] = preload(context.environment.get("LD_PRELOAD", ""), wrapper)
        elif context.mptcpize:
            file, arguments = context.mptcpize, ("mptcpize", "run", file, *arguments[1:])
    return LaunchPlan(file, arguments, variables, obstacles, wrapper)


def choose(wrappers: Sequence[Wrapper], elf: Elf | None) -> Wrapper | None:
    """The wrapper of a program's architecture; for a program that cannot load any, one for its children."""
    if elf is None:
        return wrappers[0] if wrappers else None
    return next((one for one in wrappers if one.elf.architecture == elf.architecture), None)


def godebug(before: str) -> str:
    """``GODEBUG`` with the setting appended; of several with one name the last is in force."""
    kept = [word for word in before.split(",") if word and not word.startswith("multipathtcp=")]
    return ",".join([*kept, SETTING])


def preload(before: str, wrapper: str) -> str:
    """``LD_PRELOAD`` with the wrapper appended, unless it is there; spaces and colons separate (ld.so(8))."""
    words = [word for word in re.split(r"[ :]+", before) if word]
    return ":".join(words if wrapper in words else [*words, wrapper])


def refusal(error: int) -> str:
    """Why the kernel refuses an MPTCP socket, and what to do (kernel: Documentation/networking/mptcp.rst)."""
    if error == errno.ENOPROTOOPT:
        return "MPTCP is switched off: sysctl -w net.mptcp.enabled=1"
    if error in (errno.EINVAL, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
        return "this kernel has no MPTCP: it needs Linux 5.6 or later, built with CONFIG_MPTCP"
    if error in (errno.EACCES, errno.EPERM):
        return "MPTCP sockets are forbidden here, by SELinux or another security module, or by a seccomp or BPF filter"
    return f"the kernel refuses MPTCP sockets ({os.strerror(error)})"


def _obstacles(context: LaunchContext) -> Iterator[Obstacle]:
    program = context.program
    name = os.path.basename(os.path.realpath(program.runs))
    if context.error:
        yield Obstacle(ObstacleKind.NO_MPTCP, f"{refusal(context.error)}; this runs with plain TCP")
        return
    if (remedy := ENVIRONMENT_BOUNDARIES.get(name)) is not None:
        yield Obstacle(ObstacleKind.ENVIRONMENT_BOUNDARY, environment_boundary(name, remedy))
        return
    if program.form is Form.GO:
        yield from _go(program)
        return
    if program.form is Form.UNKNOWN:
        yield Obstacle(
            ObstacleKind.UNKNOWN, f"{program.runs} cannot be read or is not an ELF program: it may stay on plain TCP"
        )
        return
    if program.form is Form.STATIC:
        yield Obstacle(
            ObstacleKind.STATIC,
            f"{program.runs} is static, so nothing can be preloaded: it stays on plain TCP (see nm-mptcp-exec(8) for eBPF)",
        )
        return
    if program.privileges:
        yield Obstacle(
            ObstacleKind.PRIVILEGED,
            f"{program.runs} raises privileges ({', '.join(program.privileges)}), so the loader ignores LD_PRELOAD:"
            " it stays on plain TCP",
        )
        return
    yield from _wrapper(context)


def environment_boundary(name: str, remedy: str) -> str:
    """The sentence on one of :data:`ENVIRONMENT_BOUNDARIES`."""
    way = f"use: {remedy}" if remedy else "set it up inside"
    return f"{name} starts programs in another root or with a fresh environment, so they stay on plain TCP; {way}"


def _go(program: Program) -> Iterator[Obstacle]:
    assert program.elf is not None
    if program.elf.go_release is None and program.elf.go:
        return  # a build of the development tree, so most likely a recent one
    if program.elf.go_release is None or program.elf.go_release < GO_SINCE:
        version = program.elf.go or "a Go before 1.18"
        yield Obstacle(
            ObstacleKind.OLD_GO,
            f"{program.runs} was built with {version}, which has no GODEBUG=multipathtcp (Go 1.21 has):"
            " it stays on plain TCP",
        )


def _wrapper(context: LaunchContext) -> Iterator[Obstacle]:
    program = context.program
    assert program.elf is not None
    found = choose(context.wrappers, program.elf)
    if found is not None:
        if _libc(program.elf) != _libc(found.elf):
            yield Obstacle(
                ObstacleKind.LIBC,
                f"{program.runs} runs with {_libc(program.elf)}, {found.path} with {_libc(found.elf)}:"
                " it stays on plain TCP",
            )
    elif context.wrappers:
        yield Obstacle(
            ObstacleKind.ARCHITECTURE,
            f"{program.runs} is a {program.elf.bits}-bit program for machine {program.elf.machine},"
            f" {context.wrappers[0].path} of {context.wrappers[0].elf.bits} for {context.wrappers[0].elf.machine}:"
            " it stays on plain TCP (Debian: install libmptcpwrap0 for that architecture)",
        )
    elif not context.mptcpize:
        yield Obstacle(ObstacleKind.NO_WRAPPER, f"libmptcpwrap.so is not found, so this stays on plain TCP: {INSTALL}")


def _libc(elf: Elf) -> str:
    """The C library of a program, by its loader; that of a library, by what it is linked with."""
    words = (os.path.basename(elf.interpreter),) if elf.interpreter else elf.needed
    if any("musl" in word or word == "libc.so" for word in words):
        return "musl"
    if any(word.startswith("linker") for word in words):
        return "bionic"
    return "glibc"
