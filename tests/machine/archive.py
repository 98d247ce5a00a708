# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a Debian root is fetched from: the archives that this machine's own apt knows, in the way that it fetches."""

from __future__ import annotations

import re
import shutil
import subprocess


def knows_debian() -> bool:
    """Whether apt is here and has Debian's main archive."""
    return "Debian" in _archives()


def sources(distribution: str) -> list[str]:
    """Lines of sources.list: with the security updates, as everybody has them (sid has none)."""
    archives = _archives()
    lines = [f"deb {archives['Debian']} {distribution} main"]
    if distribution != "sid" and (security := archives.get("Debian-Security")):
        lines.append(f"deb {security} {distribution}-security main")
    return lines


def apt_settings() -> str:
    """This machine's ways of fetching (proxies, certificates, clocks), for the apt of the new root."""
    told = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True).stdout
    # The rest tells which indexes to fetch, which is the new root's own business.
    ways = re.compile(r"Acquire::(http|https|ftp|Check-\w+(-\w+)*|Retries|Force\w+)(::\S*)? ", re.IGNORECASE)
    kept = [line for line in told.splitlines() if ways.match(line) and not line.endswith('"";')]
    # sid's index is good for a week; a mirror that stands still is good enough for a test.
    return "\n".join(['APT::Install-Recommends "false";', *kept, 'Acquire::Check-Valid-Until "false";', ""])


def _archives() -> dict[str, str]:
    """Where this machine gets Debian's archives from, by label: Debian, Debian-Security."""
    if shutil.which("apt-get") is None:
        return {}
    question = ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages"]
    told = subprocess.run(question, capture_output=True, text=True, check=False).stdout
    lines = [line.split("|") for line in told.splitlines()]
    return {label: place for origin, label, place in lines if origin == "Debian"}
