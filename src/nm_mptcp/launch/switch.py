# SPDX-License-Identifier: GPL-2.0-or-later
"""The switch: a program in the kernel that makes MPTCP sockets of the TCP sockets of registered control groups.

It is two pins in the BPF file system, and nothing else: ``groups``, the table of ids, and ``link-VERSION``, what attaches the
program, named for it. The link is pinned last, so that whoever dies on the way leaves either no switch or one that works; what
is left of the former is cleared away by the next who loads it. An upgrade attaches its program beside the old one, with the
same table, before that goes. All happens under a lock on their directory, which belongs to root alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from . import bpf, btf, control_groups, program

#: Where the pins are; the file system is systemd's to mount.
FILE_SYSTEM = Path("/sys/fs/bpf")
DIRECTORY = FILE_SYSTEM / "nm-mptcp"

#: The kernel's own types.
BTF = Path("/sys/kernel/btf/vmlinux")

#: Control groups at a time. The empty table takes 16 bytes for each.
MOST_GROUPS = 4096

_TABLE, _LINK = "groups", "link-"

#: The kernel's own ENOTSUPP, which has no name for programs.
_ENOTSUPP = 524


class SwitchError(Exception):
    """It cannot be loaded, or does not work; the message is one line."""


class Table(Protocol):
    """The ids of the registered control groups."""

    def add(self, key: int) -> None:
        """Add one, or leave it there. Raises OSError."""

    def discard(self, key: int) -> None:
        """Remove one, if it is there. Raises OSError."""

    def keys(self) -> Iterator[int]:
        """All of them. Raises OSError."""

    def close(self) -> None:
        """Let go of it."""


class Kernel(Protocol):
    """What is asked of the kernel: :class:`BpfKernel`, and in tests what stands for it."""

    def new_table(self) -> Table:
        """An empty one. Raises OSError."""

    def pin_table(self, table: Table, path: Path) -> None:
        """Raises OSError."""

    def pinned_table(self, path: Path) -> Table:
        """Raises OSError, ValueError."""

    def attach(self, table: Table) -> int:
        """The program for this table, until the result is closed. Raises OSError, :class:`SwitchError`."""

    def pin(self, link: int, path: Path) -> None:
        """Keep it attached until the path is removed. Raises OSError."""

    def works(self, table: Table) -> bool:
        """Whether a socket of a registered control group is MPTCP. Raises OSError."""


class BpfKernel:
    """The real one."""

    def new_table(self) -> bpf.Table:
        """See :class:`Kernel`."""
        return bpf.Table.create("nm_mptcp_groups", value_size=program.VALUE_SIZE, entries=MOST_GROUPS)

    def pin_table(self, table: Table, path: Path) -> None:
        """See :class:`Kernel`."""
        assert isinstance(table, bpf.Table)
        bpf.pin(table.handle, path)

    def pinned_table(self, path: Path) -> bpf.Table:
        """See :class:`Kernel`."""
        return bpf.Table.pinned(path, value_size=program.VALUE_SIZE)

    def attach(self, table: Table) -> int:
        """See :class:`Kernel`."""
        assert isinstance(table, bpf.Table)
        try:
            function = btf.find_function(BTF.read_bytes(), program.FUNCTION)
        except btf.BtfError as error:
            raise SwitchError(str(error)) from None
        if function is None or function.parameters != program.PARAMETERS:
            raise SwitchError(NO_HOOK)
        loaded = bpf.load("nm_mptcp", program.instructions(table.handle), function.id)
        try:
            return bpf.attach(loaded)
        finally:
            os.close(loaded)

    def pin(self, link: int, path: Path) -> None:
        """See :class:`Kernel`."""
        bpf.pin(link, path)

    def works(self, table: Table) -> bool:
        """See :class:`Kernel`."""
        root = control_groups.root()
        if root is None:
            raise SwitchError(NO_CONTROL_GROUPS)
        with control_groups.temporary(root) as group:
            number = control_groups.id_of(group)
            table.add(number)
            try:
                return control_groups.switched_in(group)
            finally:
                table.discard(number)


NO_HOOK = f"this kernel has no hook for it ({program.FUNCTION}(family, type, protocol); Linux 6.6 and later have)"
NO_BTF = f"this kernel does not tell its types ({BTF}): it was built without CONFIG_DEBUG_INFO_BTF"
NO_FILE_SYSTEM = f"no BPF file system is mounted: mount -t bpf bpf {FILE_SYSTEM}"
NOT_ASKED = "the kernel took the program, but a TCP socket is no MPTCP socket all the same"
NO_CONTROL_GROUPS = "no cgroup2 file system is mounted"
NO_FTRACE = "the kernel's function tracing is off, so that no program is asked: sysctl -w kernel.ftrace_enabled=1"


def obstacle() -> str | None:
    """Why it cannot be loaded here, as far as that shows without trying; None when nothing does."""
    if os.geteuid() != 0:
        return "only root can load a program into the kernel"
    if bpf.number() is None:
        return f"the number of bpf() is not known on this machine ({os.uname().machine})"
    if (told := unsupported()) is not None:
        return told
    if _text("/proc/sys/kernel/ftrace_enabled") == "0":
        return NO_FTRACE
    if FILE_SYSTEM not in control_groups.mounted("bpf"):
        return NO_FILE_SYSTEM
    if control_groups.root() is None:
        return NO_CONTROL_GROUPS
    return None


def unsupported() -> str | None:
    """Why this kernel has no place for it, None where it has; as any user. By its types, never by its version."""
    try:
        function = btf.find_function(BTF.read_bytes(), program.FUNCTION)
    except btf.BtfError as error:
        return str(error)
    except OSError:
        return NO_BTF
    return None if function is not None and function.parameters == program.PARAMETERS else NO_HOOK


@contextlib.contextmanager
def loaded(directory: Path = DIRECTORY, kernel: Kernel | None = None) -> Iterator[Groups]:
    """The switch's table, while nobody else changes it; the switch is loaded if it is not. Raises :class:`SwitchError`."""
    with _locked(directory, make=True):
        try:
            with _errors():
                table = _load(directory, kernel or BpfKernel())
        except BaseException:
            _clear_if_unused(directory)
            raise
        try:
            yield Groups(table)
        finally:
            table.close()


@contextlib.contextmanager
def found(directory: Path = DIRECTORY, kernel: Kernel | None = None) -> Iterator[Groups | None]:
    """As :func:`loaded`, but None where it is not loaded. Raises :class:`SwitchError`."""
    with _locked(directory, make=False) as there:
        if not there or not _links(directory) or not (directory / _TABLE).exists():
            yield None
            return
        with _errors():
            table = (kernel or BpfKernel()).pinned_table(directory / _TABLE)
        try:
            yield Groups(table)
        finally:
            table.close()


def remove_unless(used: Callable[[Groups], bool], directory: Path = DIRECTORY, kernel: Kernel | None = None) -> bool:
    """Take it away unless it is used, so that all sockets are TCP again; whether it was. Raises :class:`SwitchError`."""
    with found(directory, kernel) as groups:
        if groups is None or used(groups):
            return False
        with _errors():
            _unlink(_links(directory))
            _clear_if_unused(directory)
        return True


class Groups:
    """The registered control groups, by id."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def register(self, number: int) -> None:
        """From now on the TCP sockets of this group, and of all below it, are MPTCP. Raises :class:`SwitchError`."""
        with _errors():
            self._table.add(number)

    def forget(self, number: int) -> None:
        """No longer. Raises :class:`SwitchError`."""
        with _errors():
            self._table.discard(number)

    def ids(self) -> frozenset[int]:
        """All that are registered. Raises :class:`SwitchError`."""
        with _errors():
            return frozenset(self._table.keys())


def _load(directory: Path, kernel: Kernel) -> Table:
    """The table of a switch that works, and is of this version."""
    wanted = directory / f"{_LINK}{program.version()}"
    place = directory / _TABLE
    others = [path for path in _links(directory) if path != wanted]
    if place.exists() and wanted in _links(directory):
        _unlink(others)
        return kernel.pinned_table(place)
    if not (place.exists() and others):
        # What one that died has left: a table that no program reads, or a program whose table has no name any more.
        _unlink([*_links(directory), place])
        others = []
    table = kernel.pinned_table(place) if others else kernel.new_table()
    try:
        if not others:
            kernel.pin_table(table, place)
        link = kernel.attach(table)
        try:
            if not kernel.works(table):
                raise SwitchError(NOT_ASKED)
            kernel.pin(link, wanted)
        finally:
            os.close(link)
        _unlink(others)
    except BaseException:
        table.close()
        raise
    return table


def _links(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"{_LINK}*"))


def _unlink(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _clear_if_unused(directory: Path) -> None:
    """Without a link there is nothing to keep."""
    if not _links(directory):
        with contextlib.suppress(OSError):
            _unlink([directory / _TABLE])
            directory.rmdir()


@contextlib.contextmanager
def _locked(directory: Path, *, make: bool) -> Iterator[bool]:
    """Nobody else is inside meanwhile; False where the directory is not there."""
    with _errors():
        handle = _lock(directory, make=make)
    if handle is None:
        yield False
        return
    try:
        # Where others may make directories beside it, it may be another's.
        here = os.fstat(handle)
        if here.st_uid != os.geteuid() or stat.S_IMODE(here.st_mode) & 0o077:
            raise SwitchError(f"{directory} is not root's alone: remove it")
        yield True
    finally:
        os.close(handle)


def _lock(directory: Path, *, make: bool) -> int | None:
    """The open directory; None where it is not there."""
    while True:
        if make:
            with contextlib.suppress(FileExistsError):
                directory.mkdir(mode=0o700)
        try:
            handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            if not make:
                return None
            continue
        fcntl.flock(handle, fcntl.LOCK_EX)
        if _is_still(directory, handle):
            return handle
        os.close(handle)  # removed while we waited


def _is_still(directory: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(directory, follow_symlinks=False), os.fstat(handle))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """What the kernel says, as a sentence."""
    try:
        yield
    except ValueError as error:
        raise SwitchError(str(error)) from None
    except OSError as error:
        raise SwitchError(refusal(error)) from None


def refusal(error: OSError) -> str:
    """Why the kernel refuses it, and what may be done."""
    if error.errno in (errno.EPERM, errno.EACCES):
        locked = "[none]" not in (_text("/sys/kernel/security/lockdown") or "[none]")
        why = "it is locked down, or " if locked else ""
        return f"the kernel refuses the program ({error.strerror}): {why}a container or a security module forbids it"
    if error.errno == _ENOTSUPP:
        return f"the kernel cannot attach programs to its functions on this machine ({os.uname().machine})"
    if error.errno == errno.E2BIG:
        return f"{MOST_GROUPS} control groups are registered, which is the most"
    if error.errno == errno.ENOSYS:
        return "this kernel was built without bpf() (CONFIG_BPF_SYSCALL)"
    where = f"{error.filename}: " if error.filename else "the kernel refuses the program: "
    return f"{where}{error.strerror}"


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
