# SPDX-License-Identifier: GPL-2.0-or-later
"""Units by systemctl(1), and our drop-ins on disk."""

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

#: Seconds for one call; a restart may take as long as the unit's own time-outs allow.
_TIMEOUT = 60.0


def booted() -> bool:
    """Whether systemd runs this system (sd_booted(3))."""
    return os.path.isdir("/run/systemd/system")


def show(name: str) -> Unit:
    """A unit; of a template, any instance of it. Raises :class:`UnitError`."""
    options = [f"--property={','.join(units.PROPERTIES)}", "--no-pager", "--all"]
    text = _systemctl("show", *options, "--", units.shown_as(name))
    properties: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            properties.setdefault(key, []).append(value)
    return units.parse_unit(name, properties)


def version() -> int:
    """The version of the systemd that is running, 0 when it is unknown. Raises :class:`UnitError`."""
    found = re.search(r"\d+", _systemctl("show", "--property=Version", "--value"))
    return int(found[0]) if found else 0


def environment() -> dict[str, str]:
    """The manager's environment, which every service inherits. Raises :class:`UnitError`."""
    return units.assignments(_systemctl("show", "--property=Environment", "--value").strip())


def reload() -> None:
    """Make systemd read its unit files again. Raises :class:`UnitError`."""
    _systemctl("daemon-reload")


def restart(unit: Unit) -> None:
    """Restart a unit; a socket only restarts while its service is stopped, so stop that. Raises :class:`UnitError`."""
    if unit.is_socket and unit.triggers:
        _systemctl("stop", *unit.triggers, timeout=None)
    _systemctl("restart", unit.name, timeout=None)


def instances(template: str) -> list[Unit]:
    """The instances of a template that run. Raises :class:`UnitError`."""
    options = ["--plain", "--no-legend", "--no-pager", "--full", "--state=active,activating,reloading"]
    lines = _systemctl("list-units", *options, "--", template.replace("@.", "@*.")).splitlines()
    return [show(line.split()[0]) for line in lines if line.split()]


def stop(name: str) -> None:
    """Stop a unit, if it is there and runs. Raises :class:`UnitError`."""
    _systemctl("stop", name)


def write(path: str, text: str) -> None:
    """Write a drop-in atomically. Raises :class:`UnitError`."""
    folder = Path(path).parent
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".nm-mptcp-") as scratch:
            file = Path(scratch, "drop-in")
            file.write_text(text, encoding="utf-8", errors="surrogateescape")
            file.chmod(0o644)
            os.replace(file, path)
    except OSError as error:
        raise UnitError(f"{path} cannot be written: {error.strerror}") from None


def remove(path: str) -> None:
    """Remove a drop-in, and its directory when that is empty then. Raises :class:`UnitError`."""
    try:
        os.unlink(path)
    except OSError as error:
        raise UnitError(f"{path} cannot be removed: {error.strerror}") from None
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(path))


def read_own(path: str) -> str | None:
    """The text of our drop-in, None where there is none. Raises :class:`UnitError` when another file is there."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnitError(f"{path} cannot be read: {error.strerror}") from None
    if not text.startswith(units.MARK):
        raise UnitError(f"{path} was not made by nm-mptcp: move it away")
    return text


def own_drop_ins() -> list[tuple[str, str]]:
    """Our drop-ins: path and text."""
    found = []
    for path in sorted(Path(units.DIRECTORY).glob(f"*.d/{units.FILE}")):
        with contextlib.suppress(UnitError):
            if (text := read_own(str(path))) is not None:
                found.append((str(path), text))
    return found


def files_that_set(files: Sequence[str], name: str) -> list[str]:
    """Which of these ``EnvironmentFile=`` set a variable, as far as they can be read."""
    found = []
    for pattern in files:
        folder, wild = os.path.split(pattern)
        for path in sorted(Path(folder).glob(wild)) if wild else []:
            with contextlib.suppress(OSError):
                text = path.read_text(encoding="utf-8", errors="replace")
                if re.search(rf"^[ \t]*{name}[ \t]*=", text, re.MULTILINE):
                    found.append(str(path))
    return found


def _systemctl(*arguments: str, timeout: float | None = _TIMEOUT) -> str:
    if not booted():
        raise UnitError("this system was not booted with systemd, so there are no units")
    try:
        done = subprocess.run(
            ["systemctl", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise UnitError("systemctl: command not found") from None
    except subprocess.TimeoutExpired:
        raise UnitError(f"systemctl {arguments[0]}: no answer after {timeout:g} s") from None
    if done.returncode != 0:
        words = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise UnitError(f"systemctl {arguments[0]}: {words[0]}")
    return done.stdout
