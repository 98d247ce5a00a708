# SPDX-License-Identifier: GPL-2.0-or-later
"""Looks at the disk and asks the kernel: what would run for a command, which wrappers there are, is there MPTCP."""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import re
import shlex
import socket
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .elf import MAGIC, Elf, ElfError, read

#: Scripts whose interpreter is a script: the kernel goes no further (BINPRM_MAX_RECURSION and a little).
_SCRIPTS_MAX = 5

#: Bytes of the first line of a script that the kernel looks at (BINPRM_BUF_SIZE).
_LINE_MAX = 256

#: Where distributions put ``libmptcpwrap.so``; the parts of a file's name that are a version come after these.
_WRAPPERS = (
    "usr/lib/*/mptcpize/libmptcpwrap.so*",
    "usr/lib64/mptcpize/libmptcpwrap.so*",
    "usr/lib/mptcpize/libmptcpwrap.so*",
    "usr/local/lib/*/mptcpize/libmptcpwrap.so*",
    "usr/local/lib64/mptcpize/libmptcpwrap.so*",
    "usr/local/lib/mptcpize/libmptcpwrap.so*",
)


class Form(enum.Enum):
    """What a program is, as far as making sockets goes."""

    DYNAMIC = "dynamic"  #: it has a loader, which looks at LD_PRELOAD
    STATIC = "static"
    GO = "go"  #: makes its sockets by itself, dynamic or not
    UNKNOWN = "unknown"  #: no ELF file that can be read: another format, or no right to read it


@dataclass(frozen=True, slots=True)
class Program:
    """What would run for a command."""

    path: str  #: what the command's name leads to
    form: Form
    elf: Elf | None = None
    #: the files from a script to the program that runs it, both with it; empty when ``path`` is the program itself
    script: tuple[str, ...] = ()
    #: what makes the loader drop LD_PRELOAD: "setuid", "setgid", "file capabilities"
    privileges: tuple[str, ...] = ()
    shell: bool = False  #: a text without ``#!``, which shells run by /bin/sh, and the kernel does not

    @property
    def runs(self) -> str:
        """The program itself, which for a script is its interpreter."""
        return self.script[-1] if self.script else self.path


@dataclass(frozen=True, slots=True)
class Wrapper:
    """A ``libmptcpwrap.so``: the library, made by mptcpd's project, that turns TCP sockets into MPTCP sockets."""

    path: str
    elf: Elf


class ProgramError(Exception):
    """A command that cannot be run; ``status`` is what a shell would end with: 127 not found, 126 not to be run."""

    def __init__(self, words: str, status: int) -> None:
        super().__init__(words)
        self.status = status


def look(command: str, environment: Mapping[str, str], *, uid: int, gid: int) -> Program:
    """What would run for a command's first word, for this real user and group. Raises :class:`ProgramError`."""
    path = find(command, environment.get("PATH", os.defpath))
    chain = [path]
    shell = False
    while (line := _first_line(chain[-1])) is not None and len(chain) <= _SCRIPTS_MAX:
        interpreter = _interpreter(line, environment)
        if interpreter is None:
            break
        if not os.path.exists(interpreter):
            raise ProgramError(f"{chain[-1]}: its interpreter {interpreter} is not there", 127)
        chain.append(interpreter)
    if line is None and _is_text(chain[-1]):
        shell = True
        chain.append("/bin/sh")
    form, elf = _form(chain[-1])
    return Program(
        path=path,
        form=form,
        elf=elf,
        script=tuple(chain) if len(chain) > 1 else (),
        privileges=tuple(privileges(chain[-1], uid=uid, gid=gid)),
        shell=shell,
    )


def find(command: str, path: str) -> str:
    """The file of a command, looked for as a shell does. Raises :class:`ProgramError`."""
    candidates = [command] if "/" in command else [os.path.join(folder, command) for folder in path.split(os.pathsep)]
    refused = ""
    for candidate in candidates if command else []:
        if os.path.isdir(candidate):
            refused = refused or f"{candidate}: is a directory"
        elif os.access(candidate, os.X_OK):
            return candidate
        elif os.path.exists(candidate):
            refused = refused or f"{candidate}: permission denied"
    # A folder of that name in PATH is passed over, as shells do.
    if refused and ("/" in command or not refused.endswith("directory")):
        raise ProgramError(refused, 126)
    raise ProgramError(f"{command or repr(command)}: command not found", 127)


def privileges(path: str, *, uid: int, gid: int) -> Iterator[str]:
    """What of a program raises the rights of this real user, so that its loader drops LD_PRELOAD.

    Kernel: security/commoncap.c, ``secureexec``: an id that changes, or capabilities gained by anyone but root. Nothing
    counts on a file system mounted ``nosuid`` or where NoNewPrivileges is set.
    """
    with contextlib.suppress(OSError):
        info = os.stat(path)
        if os.statvfs(path).f_flag & os.ST_NOSUID or _no_new_privileges():
            return
        if info.st_mode & stat.S_ISUID and info.st_uid != uid:
            yield "setuid"
        if info.st_mode & stat.S_ISGID and info.st_mode & stat.S_IXGRP and info.st_gid != gid:
            yield "setgid"
        if uid != 0:
            os.getxattr(path, "security.capability")  # ENODATA where there are none
            yield "file capabilities"


def wrappers(mptcpize: str | None = None, root: Path = Path("/")) -> tuple[Wrapper, ...]:
    """The wrappers on this system, one for each architecture and place; those beside this ``mptcpize`` first."""
    places = [(root, pattern) for pattern in _WRAPPERS]
    if mptcpize:
        prefix = Path(os.path.realpath(mptcpize)).parent.parent
        beside = ("lib/mptcpize", "lib64/mptcpize", "lib/*/mptcpize")
        places = [(prefix, f"{folder}/libmptcpwrap.so*") for folder in beside] + places
    found: dict[str, Wrapper] = {}
    for folder, pattern in places:
        # The shortest name of several for one file, libmptcpwrap.so.0: it stays when the library is updated.
        for path in sorted(folder.glob(pattern), key=lambda path: (len(path.name), str(path))):
            with contextlib.suppress(OSError, ElfError), path.open("rb") as file:
                found.setdefault(os.path.realpath(path), Wrapper(str(path), read(file)))
    return tuple(found.values())


def mptcp_error() -> int:
    """0 when an MPTCP socket can be made in this process's network namespace, else the errno that tells why not."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, socket.IPPROTO_MPTCP).close()
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0


def _first_line(path: str) -> str | None:
    """What follows ``#!`` in a script's first line; None for what is no script."""
    data = _head(path, _LINE_MAX)
    if not data.startswith(b"#!"):
        return None
    return os.fsdecode(data[2:].partition(b"\n")[0]).strip(" \t")


def _interpreter(line: str, environment: Mapping[str, str]) -> str | None:
    """The program that the words after ``#!`` lead to; through ``env``, which only goes on to another."""
    words = re.split(r"[ \t]+", line, maxsplit=1)
    if not words[0]:
        return None
    if os.path.basename(words[0]) != "env" or len(words) == 1:
        return words[0]
    rest = words[1]
    if rest.startswith(("-S", "--split-string")):
        with contextlib.suppress(ValueError):
            rest = next((w for w in shlex.split(re.sub(r"^(-S|--split-string=?)", "", rest)) if _names(w)), "")
    with contextlib.suppress(ProgramError):
        return find(rest, environment.get("PATH", os.defpath)) if _names(rest) else words[0]
    return words[0]


def _names(word: str) -> bool:
    """Whether this argument of ``env`` is the program: neither an option nor an assignment."""
    return bool(word) and not word.startswith("-") and "=" not in word


def _form(path: str) -> tuple[Form, Elf | None]:
    try:
        with open(path, "rb") as file:
            elf = read(file)
    except (OSError, ElfError):
        return Form.UNKNOWN, None
    if elf.go is not None:
        return Form.GO, elf
    return (Form.STATIC if elf.interpreter is None else Form.DYNAMIC), elf


def _is_text(path: str) -> bool:
    """What a shell would run as a script: no NUL in its beginning."""
    data = _head(path, _LINE_MAX)
    return bool(data) and not data.startswith(MAGIC) and b"\0" not in data


def _head(path: str, size: int) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(size) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
    except OSError:
        return b""


def _no_new_privileges() -> bool:
    with contextlib.suppress(OSError):
        return "\nNoNewPrivs:\t1\n" in Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    return False
