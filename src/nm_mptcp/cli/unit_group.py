# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp unit`` by control group: a drop-in that registers it at each start, and the running one at once."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from ..launch import control_groups, programs, registration, systemctl, units
from ..launch.plan import Method, refusal
from ..launch.switch import NOT_ASKED, SwitchError
from ..launch.units import Unit, UnitError
from ..text import printable
from . import fail
from .exec import method_here


def method(unit: Unit, asked: Method, *, dry_run: bool) -> tuple[Method, str | None]:
    """The method for a unit, and why the switch cannot be used; loads the switch, but in a dry run.

    Raises :class:`UnitError` where no method is left.
    """
    if asked is Method.PRELOAD:
        how, trouble = Method.PRELOAD, None
    elif (trouble := units.group_obstacle(unit)) is not None:
        how = asked if asked is Method.EBPF else Method.PRELOAD
    else:
        how, trouble = method_here(asked)
        if how is Method.EBPF and trouble is None and not dry_run:
            try:
                registration.load()
            except SwitchError as error:
                how, trouble = (Method.PRELOAD if asked is Method.AUTO else how), str(error)
    if how is Method.EBPF and trouble:
        raise UnitError(f"{unit.name} not changed: {trouble}")
    if how is Method.PRELOAD and unit.is_slice:
        raise UnitError(f"{unit.name} not changed: {trouble or 'a slice has no environment: --method=ebpf is the way'}")
    return how, trouble


def drop_in(unit: Unit) -> str:
    """The drop-in that registers a unit. Raises :class:`UnitError`."""
    name = units.SLICE_SERVICE.format(unit.name)
    if units.by_service(unit.name) and systemctl.show(name).state != "loaded":
        raise UnitError(f"{unit.name} not changed: {name} is not installed")
    return units.group_drop_in(unit.name, _command())


def begin(unit: Unit) -> bool:
    """Register what runs of a unit; whether something does. Raises :class:`UnitError`."""
    groups = _groups(unit)
    _registered(groups)
    return bool(groups)


def end(unit: Unit) -> None:
    """Forget what runs of a unit, and take the switch away when nobody uses it any more. Raises :class:`UnitError`."""
    try:
        for group in _groups(unit):
            registration.forget(group)
        if units.by_service(unit.name):
            systemctl.stop(units.SLICE_SERVICE.format(unit.name))
        registration.remove_unless(lambda: any(units.registers_group(text) for _, text in systemctl.own_drop_ins()))
    except SwitchError as error:
        raise UnitError(f"{unit.name}: {error}") from None


def enter(name: str) -> int:
    """What the drop-in calls before a start: register the control group."""
    unit = systemctl.show(name)
    if error := programs.mptcp_error():
        # Else it could make no TCP socket at all.
        raise UnitError(f"{unit.name} stays on TCP: {refusal(error)}")
    groups = _groups(unit)
    _registered(groups)
    root = control_groups.root()
    inside = root is not None and any(control_groups.own(root).is_relative_to(group) for group in groups)
    if inside and not control_groups.switched():
        leave(name)
        raise UnitError(f"{unit.name} stays on TCP: {NOT_ASKED}")
    return 0


def leave(name: str) -> int:
    """What the drop-in calls after a stop."""
    try:
        for group in _groups(systemctl.show(name)):
            registration.forget(group)
    except SwitchError as error:
        raise UnitError(f"{name}: {error}") from None
    return 0


def switched_groups() -> tuple[str, ...]:
    """The control groups that are registered, to root; none where that cannot be known."""
    if os.geteuid() != 0:
        return ()
    try:
        root, groups = control_groups.root(), registration.registered()
    except SwitchError:
        return ()
    return tuple(str(group.relative_to(root)) for group in groups) if root is not None else ()


def is_registered(unit: Unit) -> bool | None:
    """Whether the running unit is; None when it does not run, or this user may not know."""
    groups = _groups(unit)
    if not groups or os.geteuid() != 0:
        return None
    try:
        return set(groups) <= set(registration.registered())
    except SwitchError as error:
        fail(printable(str(error), longest=None))
        return None


def _registered(groups: list[Path]) -> None:
    try:
        for group in groups:
            registration.register(group)
    except SwitchError as error:
        raise UnitError(str(error)) from None


def _groups(unit: Unit) -> list[Path]:
    """The control groups of a unit, or of a template's instances."""
    root = control_groups.root()
    running = systemctl.instances(unit.name) if units.is_template(unit.name) else [unit]
    return [root / one.group.strip("/") for one in running if one.group] if root is not None else []


def _command() -> str:
    """Where this command is, for a drop-in. Raises :class:`UnitError`."""
    given = sys.argv[0] if os.path.basename(sys.argv[0]) == "nm-mptcp" else None
    found = given or shutil.which("nm-mptcp")
    if found is None:
        raise UnitError("where nm-mptcp is installed cannot be found (it is not in PATH)")
    return os.path.abspath(found)
