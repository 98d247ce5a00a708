# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp unit enable|disable|status NAME``: make a systemd unit use MPTCP, with a drop-in.

The drop-in registers the unit's control group (:mod:`.unit_group`), or sets variables, or a socket's protocol.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pwd
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from ..launch import programs, systemctl, units
from ..launch.plan import LaunchContext, LaunchPlan, Method, ObstacleKind, plan_launch, refusal
from ..launch.units import Unit, UnitError
from ..text import printable
from . import fail, unit_group
from .exec import method_option

#: The user and group of a service with DynamicUser= or an unknown User=: any but root.
_NOT_ROOT = 65534

_ACTIONS = "enable, disable or status"

#: What a drop-in calls; nobody types these.
_CALLED = {"enter": unit_group.enter, "leave": unit_group.leave}


def options(parser: argparse.ArgumentParser) -> None:
    """The action, the unit, ``--method``, ``--restart``, ``--dry-run``, ``--json``."""
    parser.usage = "nm-mptcp unit [OPTION...] ACTION NAME"
    actions = ("enable", "disable", "status", *_CALLED)
    parser.add_argument("action", choices=actions, metavar="ACTION", help=_ACTIONS)
    parser.add_argument("unit", metavar="NAME", help="a service, socket, slice, template (NAME@) or instance")
    method_option(parser)
    parser.add_argument("--restart", action="store_true", help="restart the unit, if it is running")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and write nothing")
    parser.add_argument("--json", action="store_true", help="with status: print one JSON document")
    parser.epilog = "Exit status of status: 0 the drop-in is in force; 1 it is not. See nm-mptcp-exec(8)."


def main(arguments: argparse.Namespace) -> int:
    """The exit status of ``status``: 0 when the drop-in is in force, else 1."""
    try:
        name = units.full_name(arguments.unit)
        if arguments.action == "status":
            return _status(name, as_json=arguments.json)
        if os.geteuid() != 0 and not arguments.dry_run:
            raise UnitError(f"only root may change units: sudo nm-mptcp unit {arguments.action} {arguments.unit}")
        if arguments.action in _CALLED:
            return _CALLED[arguments.action](name)
        if arguments.action == "disable":
            return _disable(name, restart=arguments.restart, dry_run=arguments.dry_run)
        return _enable(name, Method(arguments.method), restart=arguments.restart, dry_run=arguments.dry_run)
    except UnitError as error:
        return fail(printable(str(error), longest=None))


def _enable(name: str, asked: Method, *, restart: bool, dry_run: bool) -> int:
    unit = _loaded(name)
    if error := programs.mptcp_error():
        # Nothing falls back to TCP, neither the switch nor the wrapper nor systemd: its sockets could not be made at all.
        raise UnitError(f"{unit.name} not changed: {refusal(error)}")
    path = units.drop_in_path(unit.name)
    before = systemctl.read_own(path)
    method, trouble = Method.PRELOAD, None
    if not unit.is_socket or asked is Method.EBPF:
        method, trouble = unit_group.method(unit, asked, dry_run=dry_run)
    variables: dict[str, str] = {}
    if unit.is_socket:
        if refused := units.socket_obstacle(unit, systemctl.version()):
            raise UnitError(refused)
        text = units.socket_drop_in()
    elif method is Method.EBPF:
        text = unit_group.drop_in(unit)
    else:
        variables = _variables_without(unit, path, before if not dry_run else None, trouble)
        text = units.service_drop_in(variables)
    if dry_run:
        print(f"# {path}\n{text}", end="")
        return 0
    systemctl.write(path, text)
    systemctl.reload()
    now = systemctl.show(name)
    if refused := _not_in_force(now, path, variables):
        _restore(path, None)
        raise UnitError(f"{unit.name} not changed: {refused}")
    print(f"{unit.name}: {'unchanged' if before == text else 'wrote'} {path}")
    if now.triggered_by and not unit.is_socket:
        sockets = [one for one in now.triggered_by if one.endswith(".socket")]
        for one in sockets:
            print(f"{unit.name}: its listening socket is made by {one}: nm-mptcp unit enable {one}")
    if method is Method.EBPF:
        return _apply_group(now, began=unit_group.begin(now), restart=restart)
    if before is not None and units.registers_group(before):
        unit_group.end(now)
    return _apply(now, restart=restart)


def _variables_without(unit: Unit, path: str, before: str | None, trouble: str | None) -> dict[str, str]:
    """The variables to set for a service, as it is without our drop-in, which may be older than its settings."""
    if before is None:
        return _variables(unit, trouble)
    systemctl.remove(path)
    systemctl.reload()
    try:
        return _variables(_loaded(unit.name), trouble)
    except UnitError:
        _restore(path, before)
        raise


def _disable(name: str, *, restart: bool, dry_run: bool) -> int:
    unit = systemctl.show(name)
    path = units.drop_in_path(unit.name)
    text = systemctl.read_own(path)
    if text is None:
        print(f"{unit.name}: there is no {path}")
        return 0
    if dry_run:
        print(f"rm {path}")
        return 0
    systemctl.remove(path)
    systemctl.reload()
    print(f"{unit.name}: removed {path}")
    if units.registers_group(text):
        unit_group.end(unit)
        return _apply_group(unit, began=unit.active, restart=restart, protocol="TCP")
    return _apply(unit, restart=restart)


def _status(name: str, *, as_json: bool) -> int:
    unit = systemctl.show(name)
    path = units.drop_in_path(unit.name)
    text = systemctl.read_own(path)
    by_group = text is not None and units.registers_group(text)
    variables = {} if text is None or unit.is_socket or by_group else _variables_of(text)
    trouble = "there is no drop-in" if text is None else _not_in_force(unit, path, variables)
    running = None if unit.is_socket or not unit.pid or by_group else _running(unit.pid, variables)
    registered = unit_group.is_registered(unit)
    obstacles = (
        [] if unit.is_socket or unit.is_slice or by_group or unit.state != "loaded" else _obstacles(unit, variables)
    )
    if not trouble and (error := programs.mptcp_error()):
        obstacles.append(f"{refusal(error)}; until then its sockets cannot be made at all")
    if as_json:
        document = {
            "unit": unit.name,
            "drop_in": None if text is None else path,
            "method": None if text is None or unit.is_socket else (Method.EBPF if by_group else Method.PRELOAD).value,
            "registered": registered,
            "in_force": not trouble,
            "trouble": trouble or None,
            "active": unit.active,
            "running_with_it": running,
            "findings": obstacles,
        }
        print(json.dumps(document, indent=2))
        return 0 if not trouble else 1
    words = f"MPTCP by {path}" if not trouble else f"no MPTCP: {trouble}"
    print(f"{unit.name}: {words}")
    if by_group and registered is not None:
        print(f"{unit.name}: its control group is {'' if registered else 'not '}registered")
    if by_group and registered is False:
        print(f"{unit.name}: apply it with: nm-mptcp unit enable {unit.name}")
    if running is not None:
        print(f"{unit.name}: its process {unit.pid} was started {'with' if running else 'without'} it")
    if not trouble and running is False:
        print(f"{unit.name}: apply it with: systemctl restart {unit.name}")
    for obstacle in obstacles:
        fail(printable(f"{unit.name}: {obstacle}", longest=None))
    return 0 if not trouble else 1


def _loaded(name: str) -> Unit:
    unit = systemctl.show(name)
    if unit.state == "loaded":
        return unit
    why = {"not-found": "there is no such unit", "masked": "it is masked"}.get(unit.state, f"systemd says {unit.state}")
    raise UnitError(f"{unit.name}: {why}")


def _variables(unit: Unit, trouble: str | None) -> dict[str, str]:
    """The variables to set for a service; prints what cannot work, and why (``trouble``) there is no other way.

    Raises :class:`UnitError` when nothing can be set.
    """
    given = {key: value.replace("%", "%%") for key, value in systemctl.environment().items()} | dict(unit.environment)
    plans = _plans(unit, given)
    variables: dict[str, str] = {}
    for plan in plans:
        variables = {**plan.variables, **variables}
    missing = [one for plan in plans for one in plan.obstacles if one.kind is ObstacleKind.NO_WRAPPER]
    if not variables or missing:
        raise UnitError(
            f"{unit.name} not changed: "
            + (missing[0].text if missing else "none of its programs can be examined (ExecStart=)")
        )
    wrapper = next((plan.wrapper for plan in plans if plan.wrapper), None)
    if unit.root and wrapper and not Path(unit.root, wrapper.lstrip("/")).exists():
        fail(f"{unit.name}: it runs in {unit.root} (RootDirectory=), which needs {wrapper} as well")
    for name in variables:
        if files := systemctl.files_that_set(unit.environment_files, name):
            raise UnitError(
                f"{unit.name} not changed: {files[-1]} sets {name}, which overrides a drop-in:"
                f" append {_last(name, variables[name])} there"
            )
    texts = _texts(plans)
    if trouble and (texts or unit.root or unit.root_image):
        texts.append(f"it cannot be done by eBPF either: {trouble}")
    for text in (*texts, *units.setting_obstacles(unit, variables, wrapper)):
        fail(printable(f"{unit.name}: {text}", longest=None))
    return variables


def _obstacles(unit: Unit, variables: dict[str, str]) -> list[str]:
    plans = _plans(unit, unit.environment)
    wrapper = next((plan.wrapper for plan in plans if plan.wrapper), None)
    return [*_texts(plans), *units.setting_obstacles(unit, variables, wrapper)]


def _texts(plans: list[LaunchPlan]) -> list[str]:
    return list(dict.fromkeys(obstacle.text for plan in plans for obstacle in plan.obstacles))


def _plans(unit: Unit, environment: Mapping[str, str]) -> list[LaunchPlan]:
    """For each program of ``ExecStart=`` that can be examined."""
    uid, gid = _identity(unit)
    wrappers = programs.wrappers(shutil.which("mptcpize"))
    plans = []
    for path in unit.programs:
        with contextlib.suppress(programs.ProgramError):
            inside = os.path.join(unit.root, path.lstrip("/")) if unit.root else path
            program = programs.examine(inside, {}, uid=uid, gid=gid)
            context = LaunchContext(program=program, wrappers=wrappers, environment=environment)
            plans.append(plan_launch(context, [program.path]))
    return plans


def _identity(unit: Unit) -> tuple[int, int]:
    """User and group of a service."""
    if not unit.user and not unit.dynamic_user:
        return (0, 0)
    with contextlib.suppress(KeyError):
        if not unit.dynamic_user:
            entry = pwd.getpwuid(int(unit.user)) if unit.user.isdigit() else pwd.getpwnam(unit.user)
            return (entry.pw_uid, entry.pw_gid)
    return (_NOT_ROOT, _NOT_ROOT)


def _not_in_force(unit: Unit, path: str, variables: dict[str, str]) -> str:
    """Why the drop-in is not in force, "" when it is."""
    drop_ins = unit.drop_ins
    if (first := units.registrar(unit.name)) != unit.name:
        drop_ins = systemctl.show(first).drop_ins
    if path not in drop_ins:
        return f"systemd has not read {path} (systemctl daemon-reload)"
    if unit.is_socket:
        if unit.protocol == socket.IPPROTO_MPTCP:
            return ""
        lost = ["SocketProtocol"]
    else:
        lost = [name for name, value in variables.items() if unit.variable(name) != value]
    if lost:
        later = unit.drop_ins[unit.drop_ins.index(path) + 1 :]
        remedy = f": append {_last(lost[0], variables[lost[0]])} there" if lost[0] in variables else ""
        return f"{lost[0]} is set again by {' or '.join(later) or 'the unit'}, which is read later{remedy}"
    wrapper = _last("LD_PRELOAD", variables.get("LD_PRELOAD", ""))
    if wrapper and not unit.root and not os.path.exists(wrapper):
        return f"{wrapper} is gone: nm-mptcp unit enable {unit.name}"
    return ""


def _last(name: str, value: str) -> str:
    """What we append to this variable."""
    return value.rpartition(":" if name == "LD_PRELOAD" else ",")[2].replace("%%", "%")


def _variables_of(text: str) -> dict[str, str]:
    """The variables that our drop-in sets."""
    lines = [line.partition("=")[2] for line in text.splitlines() if line.startswith("Environment=")]
    return units.assignments(" ".join(lines))


def _running(pid: int, variables: dict[str, str]) -> bool | None:
    """Whether this process was started with the drop-in's variables; None when its environment may not be read."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    given = dict(os.fsdecode(word).partition("=")[::2] for word in environment)
    wanted = {name: value.replace("%%", "%") for name, value in variables.items()}
    return bool(wanted) and all(given.get(name) == value for name, value in wanted.items())


def _restore(path: str, text: str | None) -> None:
    if text is not None:
        systemctl.write(path, text)
    elif os.path.exists(path):
        systemctl.remove(path)
    systemctl.reload()


def _apply_group(unit: Unit, *, began: bool, restart: bool, protocol: str = "MPTCP") -> int:
    """What happens to the sockets of a unit by control group."""
    if restart and unit.active and not units.is_template(unit.name) and not unit.is_slice:
        return _apply(unit, restart=True)
    if not began:
        print(f"{unit.name}: it takes effect at the next start")
        return 0
    print(f"{unit.name}: sockets that it makes from now on are {protocol}")
    if not unit.is_slice:
        what = f'"{unit.name.replace("@.", "@*.")}"' if units.is_template(unit.name) else unit.name
        print(f"{unit.name}: a socket that it listens on already becomes so by: systemctl restart {what}")
    return 0


def _apply(unit: Unit, *, restart: bool) -> int:
    if units.is_template(unit.name):
        pattern = unit.name.replace("@.", "@*.")
        print(f'{unit.name}: apply it to running instances with: systemctl restart "{pattern}"')
    elif not unit.active:
        print(f"{unit.name}: it takes effect at the next start")
    elif restart:
        systemctl.restart(unit)
        print(f"{unit.name}: restarted")
    elif unit.is_socket and unit.triggers:
        print(f"{unit.name}: apply it with: systemctl stop {' '.join(unit.triggers)}; systemctl restart {unit.name}")
    else:
        print(f"{unit.name}: apply it with: systemctl restart {unit.name}")
    return 0
