# SPDX-License-Identifier: GPL-2.0-or-later
"""The product as a bed has it: what ``make install`` puts on a system, with the command under test."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from .bed import MEASURED, REPOSITORY, command


def install(root: Path) -> Path:
    """``make install`` into ``root``, the command replaced by the one under test (it notes each start); gives ``root``."""
    subprocess.run(
        ["make", "-C", str(REPOSITORY), "install", f"DESTDIR={root}", "PREFIX=/usr"],
        check=True,
        capture_output=True,
        text=True,
    )
    runner = root / "usr/bin/nm-mptcp"
    runner.parent.mkdir(parents=True, exist_ok=True)
    runner.unlink(missing_ok=True)
    setting = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in MEASURED.items())
    runner.write_text(f'#!/bin/sh\necho "$*" >>/run/nm-mptcp-started\n{setting}exec {shlex.join(command())} "$@"\n')
    runner.chmod(0o755)
    _let_modems_onto_the_bus(root)
    for directory in (root, *root.parents):
        if directory.stat().st_uid != os.geteuid() or directory == Path("/tmp"):
            break
        directory.chmod(directory.stat().st_mode | 0o055)  # dbus-daemon reads its policy as messagebus
    return root


#: Who may be ModemManager: its own package says so, which a bed's machine need not have.
_MODEM_MANAGER_POLICY = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
  "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <policy user="root">
    <allow own="org.freedesktop.ModemManager1"/>
    <allow send_destination="org.freedesktop.ModemManager1"/>
  </policy>
</busconfig>
"""


def _let_modems_onto_the_bus(root: Path) -> None:
    policy = root / "usr/share/dbus-1/system.d/bed-ModemManager1.conf"
    policy.parent.mkdir(parents=True, exist_ok=True)
    policy.write_text(_MODEM_MANAGER_POLICY)
    policy.chmod(0o644)
