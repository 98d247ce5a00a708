# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds out on disk and from the kernel: which program a command runs, which wrappers are installed, is MPTCP enabled."""

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
from dataclasses import dataclass, replace
from pathlib import Path

from .elf import MAGIC, Elf, ElfError, read

#: Scripts whose interpreter is a script again; the kernel follows no more (fs/exec.c: exec_binprm()).
_SCRIPTS_MAX = 5

#: Bytes of a script's first line that the kernel reads (BINPRM_BUF_SIZE).
_LINE_MAX = 256

#: Where distributions install ``libmptcpwrap.so``, whose name ends with a version.
_WRAPPERS = (
    "usr/lib/*/mptcpize/libmptcpwrap.so*",
    "usr/lib64/mptcpize/libmptcpwrap.so*",
    "usr/lib/mptcpize/libmptcpwrap.so*",
    "usr/local/lib/*/mptcpize/libmptcpwrap.so*",
    "usr/local/lib64/mptcpize/libmptcpwrap.so*",
    "usr/local/lib/mptcpize/libmptcpwrap.so*",
)


class Form(enum.Enum):
    """How a program makes sockets."""

    DYNAMIC = "dynamic"  #: it has a loader, which reads LD_PRELOAD
    STATIC = "static"
    GO = "go"  #: without the C library, whether dynamic or not
    UNKNOWN = "unknown"  #: not an ELF file, or an unreadable one


@dataclass(frozen=True, slots=True)
class Program:
    """The program that a command runs."""

    path: str  #: the file of that name
    form: Form
    elf: Elf | None = None
    #: the files from the script to the interpreter that runs it, both included; empty when ``path`` is the program itself
    script: tuple[str, ...] = ()
    #: why the loader ignores LD_PRELOAD: "setuid", "setgid", "file capabilities"
    privileges: tuple[str, ...] = ()
    shell: bool = False  #: a text without ``#!``, which shells run with /bin/sh, and the kernel refuses

    @property
    def runs(self) -> str:
        """The program, which for a script is its interpreter."""
        return self.script[-1] if self.script else self.path


@dataclass(frozen=True, slots=True)
class Wrapper:
    """A ``libmptcpwrap.so``, mptcpd's library that makes MPTCP sockets where a program asks for TCP."""

    path: str
    elf: Elf


class ProgramError(Exception):
    """A command cannot be run; ``status`` is a shell's: 127 not found, 126 not executable."""

    def __init__(self, words: str, status: int) -> None:
        super().__init__(words)
        self.status = status


def examine(command: str, environment: Mapping[str, str], *, uid: int, gid: int) -> Program:
    """The program of a command's first word, for this real user and group. Raises :class:`ProgramError`, ImportError."""
    program = resolve(command, environment)
    form, elf = _form(program.runs)
    return replace(program, form=form, elf=elf, privileges=tuple(privileges(program.runs, uid=uid, gid=gid)))


def resolve(command: str, environment: Mapping[str, str]) -> Program:
    """As :func:`examine`, but without a look at what kind of program it is. Raises :class:`ProgramError`."""
    path = find(command, environment.get("PATH", os.defpath))
    chain = [path]
    shell = False
    while (line := _first_line(chain[-1])) is not None and len(chain) <= _SCRIPTS_MAX:
        interpreter = _interpreter(line, environment)
        if interpreter is None:
            break
        if not os.path.exists(interpreter):
            raise ProgramError(f"{chain[-1]}: its interpreter {interpreter} does not exist", 127)
        chain.append(interpreter)
    if line is None and _is_text(chain[-1]):
        shell = True
        chain.append("/bin/sh")
    return Program(path=path, form=Form.UNKNOWN, script=tuple(chain) if len(chain) > 1 else (), shell=shell)


def find(command: str, path: str) -> str:
    """The file of a command, searched as by a shell. Raises :class:`ProgramError`."""
    candidates = [command] if "/" in command else [os.path.join(folder, command) for folder in path.split(os.pathsep)]
    refused = ""
    for candidate in candidates if command else []:
        if os.path.isdir(candidate):
            refused = refused or f"{candidate}: is a directory"
        elif os.access(candidate, os.X_OK):
            return candidate
        elif os.path.exists(candidate):
            refused = refused or f"{candidate}: permission denied"
    # Shells skip a directory of that name in PATH.
    if refused and ("/" in command or not refused.endswith("directory")):
        raise ProgramError(refused, 126)
    raise ProgramError(f"{command or repr(command)}: command not found", 127)


def privileges(path: str, *, uid: int, gid: int) -> Iterator[str]:
    """What raises the privileges of this real user, so that the loader ignores LD_PRELOAD.

    Kernel: security/commoncap.c, ``secureexec``: an id that changes, or capabilities gained by anyone but root; neither on a
    file system mounted ``nosuid`` or with NoNewPrivileges.
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
    """The installed wrappers; those next to this ``mptcpize`` first. Raises ImportError."""
    places = [(root, pattern) for pattern in _WRAPPERS]
    if mptcpize:
        prefix = Path(os.path.realpath(mptcpize)).parent.parent
        beside = ("lib/mptcpize", "lib64/mptcpize", "lib/*/mptcpize")
        places = [(prefix, f"{folder}/libmptcpwrap.so*") for folder in beside] + places
    found: dict[str, Wrapper] = {}
    for folder, pattern in places:
        # Of several names of one file the shortest, libmptcpwrap.so.0: an update keeps it.
        for path in sorted(folder.glob(pattern), key=lambda path: (len(path.name), str(path))):
            with contextlib.suppress(OSError, ElfError), path.open("rb") as file:
                found.setdefault(os.path.realpath(path), Wrapper(str(path), read(file)))
    return tuple(found.values())


def mptcp_error() -> int:
    """The errno of making an MPTCP socket in this network namespace, 0 when it was made."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, socket.IPPROTO_MPTCP).close()
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0


def _first_line(path: str) -> str | None:
    """What follows ``#!`` in a script's first line; None where there is no ``#!``."""
    data = _head(path, _LINE_MAX)
    if not data.startswith(b"#!"):
        return None
    return os.fsdecode(data[2:].partition(b"\n")[0]).strip(" \t")


def _interpreter(line: str, environment: Mapping[str, str]) -> str | None:
    """The program that the words after ``#!`` run, also through ``env``."""
    words = re.split(r"[ \t]+", line, maxsplit=1)
    if not words[0]:
        return None
    if os.path.basename(words[0]) != "env" or len(words) == 1:
        return words[0]
    rest = words[1]
    if rest.startswith(("-S", "--split-string")):
        with contextlib.suppress(ValueError):
            rest = next((w for w in shlex.split(re.sub(r"^(-S|--split-string=?)", "", rest)) if _is_program(w)), "")
    with contextlib.suppress(ProgramError):
        return find(rest, environment.get("PATH", os.defpath)) if _is_program(rest) else words[0]
    return words[0]


def _is_program(word: str) -> bool:
    """Whether this argument of ``env`` is the program, neither an option nor an assignment."""
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
    """Whether a shell would run it as a script: no NUL at its beginning."""
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
