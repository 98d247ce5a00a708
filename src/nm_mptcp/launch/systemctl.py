# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks systemd, by systemctl(1): what a unit is; and has it read its files again."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import units
from .units import Unit, UnitError

#: Seconds for one answer; a restart may take as long as the unit's own time-outs allow.
_PATIENCE = 60.0


def booted() -> bool:
    """Whether systemd runs this system (sd_booted(3))."""
    return os.path.isdir("/run/systemd/system")


def show(name: str) -> Unit:
    """What systemd says of a unit (of a template: of any instance). Raises :class:`UnitError`."""
    options = [f"--property={','.join(units.PROPERTIES)}", "--no-pager", "--all"]
    text = _systemctl("show", *options, "--", units.shown_as(name))
    properties: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            properties.setdefault(key, []).append(value)
    return units.unit(name, properties)


def version() -> int:
    """Which systemd runs; 0 when it does not say. Raises :class:`UnitError`."""
    found = re.search(r"\d+", _systemctl("show", "--property=Version", "--value"))
    return int(found[0]) if found else 0


def environment() -> dict[str, str]:
    """The variables that systemd gives to every service. Raises :class:`UnitError`."""
    return units.assignments(_systemctl("show", "--property=Environment", "--value").strip())


def reload() -> None:
    """Have systemd read its files again. Raises :class:`UnitError`."""
    _systemctl("daemon-reload")


def restart(unit: Unit) -> None:
    """Restart a unit; a socket cannot be while its service runs, so that is stopped. Raises :class:`UnitError`."""
    if unit.is_socket and unit.triggers:
        _systemctl("stop", *unit.triggers, patience=None)
    _systemctl("restart", unit.name, patience=None)


def write(path: str, text: str) -> None:
    """Write a drop-in, whole or not at all. Raises :class:`UnitError`."""
    place = Path(path)
    try:
        place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # systemd reads no file whose name does not end in .conf.
        descriptor, scratch = tempfile.mkstemp(prefix=".nm-mptcp-", dir=place.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
                os.fchmod(descriptor, 0o644)
                file.write(text)
            os.rename(scratch, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(scratch)
            raise
    except OSError as error:
        raise UnitError(f"{path} cannot be written: {error.strerror}") from None


def remove(path: str) -> None:
    """Take a drop-in away, and its folder when that was the last. Raises :class:`UnitError`."""
    try:
        os.unlink(path)
    except OSError as error:
        raise UnitError(f"{path} cannot be removed: {error.strerror}") from None
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(path))


def ours(path: str) -> str | None:
    """What our drop-in says, None where there is none. Raises :class:`UnitError` when there is one that is not ours."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnitError(f"{path} cannot be read: {error.strerror}") from None
    if not text.startswith(units.MARK):
        raise UnitError(f"{path} was not made by nm-mptcp: move it away")
    return text


def setters(files: Sequence[str], name: str) -> list[str]:
    """Which of these files for ``EnvironmentFile=`` set a variable; those that cannot be read do not."""
    found = []
    for pattern in files:
        folder, wild = os.path.split(pattern)
        for path in sorted(Path(folder).glob(wild)) if wild else []:
            with contextlib.suppress(OSError):
                text = path.read_text(encoding="utf-8", errors="replace")
                if re.search(rf"^[ \t]*{name}[ \t]*=", text, re.MULTILINE):
                    found.append(str(path))
    return found


def _systemctl(*arguments: str, patience: float | None = _PATIENCE) -> str:
    if not booted():
        raise UnitError("this system was not started by systemd, so there are no units")
    try:
        done = subprocess.run(
            ["systemctl", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=patience,
            check=False,
        )
    except FileNotFoundError:
        raise UnitError("systemctl is not found") from None
    except subprocess.TimeoutExpired:
        raise UnitError(f"systemd does not answer (systemctl {arguments[0]})") from None
    if done.returncode != 0:
        words = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise UnitError(f"systemctl {arguments[0]}: {words[0]}")
    return done.stdout
