# SPDX-License-Identifier: GPL-2.0-or-later
"""What the stories on a machine measured: printed at once, and kept in ``docs/machine-wifi.md`` when the run has passed.

A page of sections, one a distribution, each written by the last whole run of ``make test-machine`` that passed with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..versions import ROOT, Row

PAGE = ROOT / "docs" / "machine-wifi.md"

_HEAD = """\
<!-- made by `make test-machine`; do not edit -->

# Real Wi-Fi, in machines that boot

What `make test-machine` measured on its way: Debian with its own kernel and NetworkManager, the package installed with apt, two
access points (mac80211_hwsim, hostapd, WPA2) of one network, and a metered wire beside them. An MPTCP connection sends a word
each 20 ms, and each has to come back; its longest gap is the longest time without any. Under the upgrade of another package,
with the same modules and no service, it is measured as well: what the machine costs is in both. Boots, with the package and
without, have two links that NetworkManager brings up by itself.

The machines are emulated in software, which makes all that computes ten to twenty times slower: these figures are no measure of
speed (`docs/bench-failover.md` has those), but of what a connection goes through.
"""


@dataclass
class Figures:
    """Those of one distribution, in the order in which they were measured."""

    system: Row
    rows: list[tuple[str, str]] = field(default_factory=list)

    def tell(self, what: str, value: str) -> None:
        """One more."""
        self.rows.append((what, value))
        print(f"{self.system['distribution']}: {what}: {value}")

    def section(self) -> str:
        """As Markdown."""
        head = "{distribution}: kernel {kernel}, NetworkManager {NetworkManager}".format(**self.system)
        lines = [f"## {head}", "", "| what happens | what was measured |", "| --- | --- |"]
        return "\n".join([*lines, *(f"| {what} | {value} |" for what, value in self.rows), ""])


def write(measured: Iterable[Figures], page: Path = PAGE) -> None:
    """Put these into the page, all of one distribution in the place of what it has of that distribution."""
    told: dict[str, Figures] = {}
    for each in measured:
        told.setdefault(each.system["distribution"], Figures(each.system)).rows.extend(each.rows)
    sections = re.findall(r"^## .*?(?=^## |\Z)", page.read_text() if page.exists() else "", re.MULTILINE | re.DOTALL)
    kept = {section.partition(":")[0]: section.rstrip() + "\n" for section in sections}
    kept |= {section.partition(":")[0]: section for section in (each.section() for each in told.values() if each.rows)}
    page.write_text("\n".join([_HEAD, *(kept[key] for key in sorted(kept))]))
