# SPDX-License-Identifier: GPL-2.0-or-later
"""Which control groups are registered with the switch, by path; and a group of its own for a program."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from . import control_groups, switch
from .switch import NO_CONTROL_GROUPS, Groups, SwitchError
from .systemctl import booted

#: How groups of our own are called.
_OWN = "nm-mptcp-exec-"

#: Seconds until systemd has moved this process.
_PATIENCE = 10.0


def load() -> None:
    """Load the switch, if it is not. Raises :class:`SwitchError`."""
    with switch.loaded():
        pass


def register(group: Path) -> None:
    """Bring the TCP sockets of a control group onto MPTCP; loads the switch. Raises :class:`SwitchError`."""
    with switch.loaded() as groups:
        prune(groups)
        groups.register(_id(group))


def forget(group: Path) -> None:
    """Its sockets are TCP again. Raises :class:`SwitchError`."""
    with switch.found() as groups:
        if groups is not None:
            with contextlib.suppress(SwitchError):  # it is gone, as are its children
                groups.forget(_id(group))
            prune(groups)


def registered() -> tuple[Path, ...]:
    """The control groups that are registered, and live. Raises :class:`SwitchError`."""
    with switch.found() as groups:
        return tuple(sorted(_living(groups).values())) if groups is not None else ()


def remove_unless(used: Callable[[], bool]) -> bool:
    """Take the switch away when no group that lives is registered, nor anybody uses it; whether it was. Raises as above."""

    def in_use(groups: Groups) -> bool:
        prune(groups)
        return bool(groups.ids()) or used()

    return switch.remove_unless(in_use)


def prune(groups: Groups) -> None:
    """Forget the groups that are gone, and remove those of our own whose program has ended. Raises :class:`SwitchError`."""
    living = _living(groups)
    for number in groups.ids():
        place = living.get(number)
        if place is None or (place.name.startswith(_OWN) and _ended(place)):
            groups.forget(number)


def enter_own() -> Path:
    """Move this process into a control group of its own: a scope of systemd's, or one below its own.

    In a service it is the latter, so that the service keeps its main process. Raises :class:`SwitchError`.
    """
    root = _root()
    name = f"{_OWN}{os.getpid()}-{secrets.token_hex(3)}"
    try:
        if booted() and not in_service(before := control_groups.own(root), root) and _scope(name, before, root):
            return control_groups.own(root)
        group = control_groups.own(root) / name
        group.mkdir()
        try:
            control_groups.enter(group)
        except OSError:
            group.rmdir()
            raise
    except OSError as error:
        raise SwitchError(f"{error.filename or root}: no control group for it: {error.strerror}") from None
    return group


def in_service(group: Path, root: Path) -> bool:
    """Whether this group belongs to a service of the system's (not of a user's) service manager."""
    unit = next((name for name in group.relative_to(root).parts if not name.endswith(".slice")), "")
    return unit.endswith(".service") and not unit.startswith("user@")


def slice_of(group: Path, root: Path) -> str | None:
    """The slice that a group is in, whose limits it has; None at the root."""
    found = None
    for name in group.relative_to(root).parts:
        if not name.endswith(".slice"):
            break
        found = name
    return found


def _scope(name: str, before: Path, root: Path) -> bool:
    """Have systemd move this process into a scope; False where it does not. Raises OSError."""
    properties = [*("PIDs", "au", "1", str(os.getpid())), *("CollectMode", "s", "inactive-or-failed")]
    properties += ["Description", "s", "Program on MPTCP by nm-mptcp"]
    count = 3
    if (place := slice_of(before, root)) is not None:
        properties += ["Slice", "s", place]
        count += 1
    command = [
        *("busctl", "--quiet", f"--timeout={_PATIENCE:g}", "call"),
        *("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"),
        *("StartTransientUnit", "ssa(sv)a(sa(sv))", f"{name}.scope", "fail", str(count), *properties, "0"),
    ]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except FileNotFoundError:
        return False
    deadline = time.monotonic() + _PATIENCE
    while done.returncode == 0 and time.monotonic() < deadline:
        if control_groups.own(root).name == f"{name}.scope":
            return True
        time.sleep(0.002)
    return False


def _living(groups: Groups) -> dict[int, Path]:
    root = _root()
    try:
        places = {number: control_groups.place_of(root, number) for number in groups.ids()}
    except OSError as error:
        raise SwitchError(f"control groups cannot be looked up: {error.strerror}") from None
    return {number: place for number, place in places.items() if place is not None}


def _ended(group: Path) -> bool:
    """Whether nothing runs in a group of our own, which is removed then; systemd removes its scopes itself."""
    with contextlib.suppress(OSError):
        if "populated 0" in (group / "cgroup.events").read_text():
            group.rmdir()
            return True
    return False


def _id(group: Path) -> int:
    try:
        return control_groups.id_of(group)
    except OSError as error:
        raise SwitchError(f"{group}: {error.strerror}") from None


def _root() -> Path:
    root = control_groups.root()
    if root is None:
        raise SwitchError(NO_CONTROL_GROUPS)
    return root
