# SPDX-License-Identifier: GPL-2.0-or-later
"""A real polkitd in a bed, or none at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nm_mptcp.dbus.polkit import Permission

from ..support.waits import wait_for
from .bed import Bed
from .namespaces import Program

RULE = """\
polkit.addRule(function(action, subject) {{
    if (action.id == "{action}" && subject.user == "nobody")
        return polkit.Result.{answer};
}});
"""
RULES = "/etc/polkit-1/rules.d/50-test.rules"


class Polkit:
    """A real polkitd on the bed's bus, with no rules but the test's."""

    PLACES = (Path("/usr/lib/polkit-1/polkitd"), Path("/usr/libexec/polkit-1/polkitd"))

    def __init__(self, bed: Bed) -> None:
        program = next((place for place in self.PLACES if place.exists()), None)
        if program is None or shutil.which("pkaction") is None:
            pytest.skip("polkitd is not installed")
        self.bed = bed
        bed.sh("mount -t tmpfs -o mode=755 none /etc/polkit-1; mkdir /etc/polkit-1/rules.d")
        without_polkit(bed)  # whoever asks before it has its name would start another one, which then has it
        self.daemon: Program = bed.machine.spawn(str(program))
        wait_for("polkit answers", lambda: self.actions(check=False))

    def actions(self, *, check: bool = True) -> set[str]:
        """Those of nm-mptcp that it knows."""
        known = self.bed.machine.run("pkaction", check=check).split()
        return {each for each in known if each.startswith("org.nm-mptcp1.")}

    def rule(self, action: Permission, answer: str) -> None:
        """What it answers for nobody's user; it reads its rules again by itself."""
        self.bed.write(RULES, RULE.format(action=action, answer=answer), mode=0o644)


def without_polkit(bed: Bed) -> None:
    """None runs, and none is started by the bus."""
    bed.sh("mount -t tmpfs none /usr/share/dbus-1/system-services")
