# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp unit enable|disable|status NAME``: a systemd unit onto MPTCP, by a drop-in of our own."""

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

from ..launch import plan as launch_plan
from ..launch import programs, systemctl, units
from ..launch.units import Unit, UnitError
from . import fail

#: Who a service is that systemd gives a user of its own, or one that is not known here: anybody but root.
_SOMEBODY = 65534

_ACTIONS = "enable, disable or status"


def options(parser: argparse.ArgumentParser) -> None:
    """The action, the unit, ``--restart``, ``--dry-run``, ``--json``."""
    parser.add_argument("action", choices=("enable", "disable", "status"), metavar="ACTION", help=_ACTIONS)
    parser.add_argument("unit", metavar="NAME", help="a service, socket, template (NAME@) or its instance")
    parser.add_argument("--restart", action="store_true", help="restart the unit, if it runs")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and write nothing")
    parser.add_argument("--json", action="store_true", help="with status: print one JSON document")
    parser.epilog = "Exit status of status: 0 the drop-in counts; 1 it does not. See nm-mptcp-exec(8)."


def main(arguments: argparse.Namespace) -> int:
    """``status`` ends with 0 when the drop-in counts, with 1 when not."""
    try:
        name = units.full_name(arguments.unit)
        if arguments.action == "status":
            return _status(name, as_json=arguments.json)
        if os.geteuid() != 0 and not arguments.dry_run:
            raise UnitError(f"only root may change units: sudo nm-mptcp unit {arguments.action} {arguments.unit}")
        if arguments.action == "disable":
            return _disable(name, restart=arguments.restart, dry_run=arguments.dry_run)
        return _enable(name, restart=arguments.restart, dry_run=arguments.dry_run)
    except UnitError as error:
        return fail(launch_plan.printable(str(error)))


def _enable(name: str, *, restart: bool, dry_run: bool) -> int:
    unit = _loaded(name)
    if error := programs.mptcp_error():
        # Neither the wrapper nor systemd falls back to TCP: the unit's sockets could not be made at all.
        raise UnitError(f"{unit.name} is left as it is: {launch_plan.refusal(error)}")
    path = units.drop_in_path(unit.name)
    before = systemctl.ours(path)
    if unit.is_socket:
        if trouble := units.socket_trouble(unit, systemctl.version()):
            raise UnitError(trouble)
        text, variables = units.socket_drop_in(), {}
    else:
        if before is not None and not dry_run:
            # What the unit has without our drop-in, which may be older than the unit's own words.
            systemctl.remove(path)
            systemctl.reload()
        try:
            unit = _loaded(name)
            variables = _variables(unit)
        except UnitError:
            _restore(path, before)
            raise
        text = units.service_drop_in(variables)
    if dry_run:
        print(f"# {path}\n{text}", end="")
        return 0
    systemctl.write(path, text)
    systemctl.reload()
    now = systemctl.show(name)
    if trouble := _not_in_force(now, path, variables):
        _restore(path, None)
        raise UnitError(f"{unit.name} is left as it is: {trouble}")
    print(f"{unit.name}: {'still as' if before == text else 'wrote'} {path}")
    if now.triggered_by and not unit.is_socket:
        sockets = [one for one in now.triggered_by if one.endswith(".socket")]
        for one in sockets:
            print(f"{unit.name}: its listening socket is made by {one}: nm-mptcp unit enable {one}")
    return _counts(now, restart=restart)


def _disable(name: str, *, restart: bool, dry_run: bool) -> int:
    unit = systemctl.show(name)
    path = units.drop_in_path(unit.name)
    if systemctl.ours(path) is None:
        print(f"{unit.name}: there is no {path}")
        return 0
    if dry_run:
        print(f"rm {path}")
        return 0
    systemctl.remove(path)
    systemctl.reload()
    print(f"{unit.name}: removed {path}")
    return _counts(unit, restart=restart)


def _status(name: str, *, as_json: bool) -> int:
    unit = systemctl.show(name)
    path = units.drop_in_path(unit.name)
    text = systemctl.ours(path)
    variables = {} if text is None or unit.is_socket else _written(text)
    trouble = "there is no drop-in" if text is None else _not_in_force(unit, path, variables)
    running = None if unit.is_socket or not unit.pid else _running(unit.pid, variables)
    findings = [] if unit.is_socket or unit.state != "loaded" else _findings(unit, variables)
    if not trouble and (error := programs.mptcp_error()):
        findings.append(f"{launch_plan.refusal(error)}; until then its sockets cannot be made at all")
    if as_json:
        facts = {
            "unit": unit.name,
            "drop_in": None if text is None else path,
            "in_force": not trouble,
            "trouble": trouble or None,
            "active": unit.active,
            "running_with_it": running,
            "findings": findings,
        }
        print(json.dumps(facts, indent=2))
        return 0 if not trouble else 1
    words = f"MPTCP by {path}" if not trouble else f"no MPTCP: {trouble}"
    print(f"{unit.name}: {words}")
    if running is not None:
        print(f"{unit.name}: its process {unit.pid} runs {'with' if running else 'without'} it")
    if not trouble and running is False:
        print(f"{unit.name}: 'systemctl restart {unit.name}' for it to count")
    for finding in findings:
        fail(launch_plan.printable(f"{unit.name}: {finding}"))
    return 0 if not trouble else 1


def _loaded(name: str) -> Unit:
    unit = systemctl.show(name)
    if unit.state == "loaded":
        return unit
    why = {"not-found": "there is no such unit", "masked": "it is masked"}.get(unit.state, f"systemd says {unit.state}")
    raise UnitError(f"{unit.name}: {why}")


def _variables(unit: Unit) -> dict[str, str]:
    """What to set for a service, and says what cannot work. Raises :class:`UnitError` when nothing can be set."""
    given = {key: value.replace("%", "%%") for key, value in systemctl.environment().items()} | dict(unit.environment)
    wrappers = programs.wrappers(shutil.which("mptcpize"))
    plans = [launch_plan.plan(facts, [facts.program.path]) for facts in _facts(unit, given, wrappers)]
    variables: dict[str, str] = {}
    for plan in plans:
        variables = {**plan.variables, **variables}
    missing = [one for plan in plans for one in plan.findings if one.obstacle is launch_plan.Obstacle.NO_WRAPPER]
    if not variables or missing:
        raise UnitError(
            f"{unit.name} is left as it is: "
            + (missing[0].text if missing else "nothing is known of its programs (ExecStart=)")
        )
    wrapper = next((plan.wrapper for plan in plans if plan.wrapper), None)
    if unit.root and wrapper and not Path(unit.root, wrapper.lstrip("/")).exists():
        fail(f"{unit.name}: it runs in {unit.root} (RootDirectory=): {wrapper} has to be in there")
    for name in variables:
        if files := systemctl.setters(unit.environment_files, name):
            raise UnitError(
                f"{unit.name} is left as it is: {files[-1]} sets {name}, and that counts more than a drop-in:"
                f" append {_last(name, variables[name])} there"
            )
    for words in (*_findings_of(plans), *units.hindrances(unit, variables, wrapper)):
        fail(launch_plan.printable(f"{unit.name}: {words}"))
    return variables


def _findings(unit: Unit, variables: dict[str, str]) -> list[str]:
    wrappers = programs.wrappers(shutil.which("mptcpize"))
    plans = [launch_plan.plan(facts, [facts.program.path]) for facts in _facts(unit, unit.environment, wrappers)]
    wrapper = next((plan.wrapper for plan in plans if plan.wrapper), None)
    return [*_findings_of(plans), *units.hindrances(unit, variables, wrapper)]


def _findings_of(plans: list[launch_plan.Plan]) -> list[str]:
    return list(dict.fromkeys(finding.text for plan in plans for finding in plan.findings))


def _facts(unit: Unit, given: Mapping[str, str], wrappers: tuple[programs.Wrapper, ...]) -> list[launch_plan.Facts]:
    """Of each program of ``ExecStart=`` that is there."""
    uid, gid = _identity(unit)
    found = []
    for path in unit.programs:
        with contextlib.suppress(programs.ProgramError):
            inside = os.path.join(unit.root, path.lstrip("/")) if unit.root else path
            program = programs.look(inside, {}, uid=uid, gid=gid)
            found.append(launch_plan.Facts(program=program, wrappers=wrappers, environment=given))
    return found


def _identity(unit: Unit) -> tuple[int, int]:
    """User and group that a service runs as, as far as it is known beforehand."""
    if not unit.user and not unit.dynamic_user:
        return (0, 0)
    with contextlib.suppress(KeyError):
        if not unit.dynamic_user:
            entry = pwd.getpwuid(int(unit.user)) if unit.user.isdigit() else pwd.getpwnam(unit.user)
            return (entry.pw_uid, entry.pw_gid)
    return (_SOMEBODY, _SOMEBODY)


def _not_in_force(unit: Unit, path: str, variables: dict[str, str]) -> str:
    """Why the drop-in does not count, "" when it does."""
    if path not in unit.drop_ins:
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
        return f"{lost[0]} is set again by {' or '.join(later) or 'the unit'}, which comes later{remedy}"
    wrapper = _last("LD_PRELOAD", variables.get("LD_PRELOAD", ""))
    if wrapper and not unit.root and not os.path.exists(wrapper):
        return f"{wrapper} is gone: nm-mptcp unit enable {unit.name}"
    return ""


def _last(name: str, value: str) -> str:
    """What we appended to this variable."""
    return value.rpartition(":" if name == "LD_PRELOAD" else ",")[2].replace("%%", "%")


def _written(text: str) -> dict[str, str]:
    """The variables of our own drop-in."""
    lines = [line.partition("=")[2] for line in text.splitlines() if line.startswith("Environment=")]
    return units.assignments(" ".join(lines))


def _running(pid: int, variables: dict[str, str]) -> bool | None:
    """Whether this process was started with what the drop-in sets; None when that may not be seen."""
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


def _counts(unit: Unit, *, restart: bool) -> int:
    if units.is_template(unit.name):
        pattern = unit.name.replace("@.", "@*.")
        print(f"{unit.name}: 'systemctl restart \"{pattern}\"' for it to count in instances that run")
    elif not unit.active:
        print(f"{unit.name}: it counts from its next start on")
    elif restart:
        systemctl.restart(unit)
        print(f"{unit.name}: restarted")
    elif unit.is_socket and unit.triggers:
        print(f"{unit.name}: 'systemctl stop {' '.join(unit.triggers)}; systemctl restart {unit.name}' for it to count")
    else:
        print(f"{unit.name}: 'systemctl restart {unit.name}' for it to count")
    return 0
