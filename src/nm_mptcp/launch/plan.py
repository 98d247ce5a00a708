# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure: how a program comes to make MPTCP sockets, and what stands in the way.

There are two ways that need nothing of the kernel and no change of the program. ``libmptcpwrap.so``, preloaded, puts itself
in front of the C library's socket(). Go's programs do not use that; since Go 1.21 their ``GODEBUG=multipathtcp=1`` does the
same (https://go.dev/doc/godebug). Both are environment, so children get them too; a program of either kind may start one
of the other, so both are always set.
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

#: The first Go that has the setting.
GO_SINCE = (1, 21)

SETTING = "multipathtcp=1"

#: What to install for the wrapper, by the name that Debian, Ubuntu and Fedora have for it.
INSTALL = "install mptcpize (Debian, Ubuntu: package mptcpize; Fedora, RHEL: mptcpd)"

#: Programs that start another with a fresh environment or in another place: the preloaded library does not get there.
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


class Obstacle(enum.Enum):
    """What keeps a program on plain TCP; the value is its name in JSON."""

    NO_MPTCP = "no-mptcp"  #: the kernel gives no MPTCP socket
    NO_WRAPPER = "no-wrapper"
    STATIC = "static"
    OLD_GO = "old-go"
    PRIVILEGED = "privileged"
    ARCHITECTURE = "architecture"
    LIBC = "libc"
    DOOR = "door"  #: the program only starts others, elsewhere or with a fresh environment
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """An obstacle, and a sentence for a person: what, and what to do."""

    obstacle: Obstacle
    text: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What a plan is made from."""

    program: Program
    wrappers: tuple[Wrapper, ...] = ()
    mptcpize: str | None = None  #: the path of mptcpize(8)
    error: int = 0  #: errno of the try to make an MPTCP socket; 0: it worked
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to execute. ``file`` is the program, ``arguments`` are all of them, with the one that names it."""

    file: str
    arguments: tuple[str, ...]
    variables: Mapping[str, str]  #: what is set in the environment, and nothing else
    findings: tuple[Finding, ...] = ()
    wrapper: str | None = None

    @property
    def works(self) -> bool:
        """Whether the program itself will use MPTCP."""
        return not self.findings

    def shell(self) -> str:
        """As a line for a shell."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.variables.items()]
        return " ".join([*variables, shlex.join(self.arguments)])


def plan(facts: Facts, command: Sequence[str]) -> Plan:
    """How to run this command, its first word being what leads to ``facts.program``."""
    program = facts.program
    file, arguments = program.path, tuple(command)
    if program.shell:
        file, arguments = program.runs, (program.runs, program.path, *command[1:])
    findings = tuple(_findings(facts))
    variables: dict[str, str] = {}
    wrapper = None
    # The wrapper does not fall back to TCP: where the kernel refuses, the program could make no connection at all.
    if not facts.error:
        variables["GODEBUG"] = godebug(facts.environment.get("GODEBUG", ""))
        found = choose(facts.wrappers, program.elf)
        if any(finding.obstacle is Obstacle.LIBC for finding in findings):
            pass  # a library of another C library keeps a program from starting
        elif found is not None:
            wrapper = found.path
            variables["LD_PRELOAD"] = preload(facts.environment.get("LD_PRELOAD", ""), wrapper)
        elif facts.mptcpize:
            file, arguments = facts.mptcpize, ("mptcpize", "run", file, *arguments[1:])
    return Plan(file, arguments, variables, findings, wrapper)


def choose(wrappers: Sequence[Wrapper], elf: Elf | None) -> Wrapper | None:
    """The wrapper of a program's architecture; any for a program that cannot load it, for its children's sake."""
    if elf is None:
        return wrappers[0] if wrappers else None
    return next((one for one in wrappers if one.elf.architecture == elf.architecture), None)


def godebug(before: str) -> str:
    """``GODEBUG`` with the setting appended; of several for one name the last counts."""
    kept = [word for word in before.split(",") if word and not word.startswith("multipathtcp=")]
    return ",".join([*kept, SETTING])


def preload(before: str, wrapper: str) -> str:
    """``LD_PRELOAD`` with the wrapper appended, unless it is there; spaces and colons separate (ld.so(8))."""
    words = [word for word in re.split(r"[ :]+", before) if word]
    return ":".join(words if wrapper in words else [*words, wrapper])


def refusal(error: int) -> str:
    """Why the kernel gives no MPTCP socket, and what to do (kernel: Documentation/networking/mptcp.rst)."""
    if error == errno.ENOPROTOOPT:
        return "MPTCP is switched off: sysctl -w net.mptcp.enabled=1"
    if error in (errno.EINVAL, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
        return "this kernel has no MPTCP: it needs Linux 5.6 or later, built with CONFIG_MPTCP"
    if error in (errno.EACCES, errno.EPERM):
        return "MPTCP sockets are forbidden here, by SELinux or another security module, or by a seccomp or BPF filter"
    return f"the kernel gives no MPTCP socket ({os.strerror(error)})"


def _findings(facts: Facts) -> Iterator[Finding]:
    program = facts.program
    name = os.path.basename(os.path.realpath(program.runs))
    if facts.error:
        yield Finding(Obstacle.NO_MPTCP, f"{refusal(facts.error)}; this runs with plain TCP")
        return
    if (remedy := ENVIRONMENT_BOUNDARIES.get(name)) is not None:
        yield Finding(Obstacle.DOOR, door(name, remedy))
        return
    if program.form is Form.GO:
        yield from _go(program)
        return
    if program.form is Form.UNKNOWN:
        yield Finding(Obstacle.UNKNOWN, f"{program.runs} cannot be read or is no ELF program: it may stay on plain TCP")
        return
    if program.form is Form.STATIC:
        yield Finding(
            Obstacle.STATIC,
            f"{program.runs} is static, nothing can be preloaded: it stays on plain TCP (see nm-mptcp-exec(8) for eBPF)",
        )
        return
    if program.privileges:
        yield Finding(
            Obstacle.PRIVILEGED,
            f"{program.runs} has rights of its own ({', '.join(program.privileges)}), so the loader drops what is preloaded:"
            " it stays on plain TCP",
        )
        return
    yield from _wrapper(facts)


def printable(text: str) -> str:
    """Text with names of files in it, in one line and without what could disturb a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def door(name: str, remedy: str) -> str:
    """What to say of a program that starts others where the environment does not get."""
    way = f"put it behind: {remedy}" if remedy else "set it up inside"
    return f"{name} starts programs elsewhere or with a fresh environment, so they stay on plain TCP; {way}"


def _go(program: Program) -> Iterator[Finding]:
    assert program.elf is not None
    if program.elf.go_release is None and program.elf.go:
        return  # a build of the development tree: nothing speaks against it
    if program.elf.go_release is None or program.elf.go_release < GO_SINCE:
        version = program.elf.go or "a Go before 1.18"
        yield Finding(
            Obstacle.OLD_GO,
            f"{program.runs} was built with {version}, which knows no GODEBUG=multipathtcp (Go 1.21 does):"
            " it stays on plain TCP",
        )


def _wrapper(facts: Facts) -> Iterator[Finding]:
    program = facts.program
    assert program.elf is not None
    found = choose(facts.wrappers, program.elf)
    if found is not None:
        if _libc(program.elf) != _libc(found.elf):
            yield Finding(
                Obstacle.LIBC,
                f"{program.runs} runs with {_libc(program.elf)}, {found.path} with {_libc(found.elf)}:"
                " it stays on plain TCP",
            )
    elif facts.wrappers:
        yield Finding(
            Obstacle.ARCHITECTURE,
            f"{program.runs} is a program of {program.elf.bits} bits for machine {program.elf.machine},"
            f" {facts.wrappers[0].path} of {facts.wrappers[0].elf.bits} for {facts.wrappers[0].elf.machine}:"
            " it stays on plain TCP (Debian: install libmptcpwrap0 for that architecture)",
        )
    elif not facts.mptcpize:
        yield Finding(Obstacle.NO_WRAPPER, f"libmptcpwrap.so is not found, so this stays on plain TCP: {INSTALL}")


def _libc(elf: Elf) -> str:
    """The C library of a program, by its loader, or of a library, by what it is linked with."""
    words = (os.path.basename(elf.interpreter),) if elf.interpreter else elf.needed
    if any("musl" in word or word == "libc.so" for word in words):
        return "musl"
    if any(word.startswith("linker") for word in words):
        return "bionic"
    return "glibc"
