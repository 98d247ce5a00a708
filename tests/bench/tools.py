# SPDX-License-Identifier: GPL-2.0-or-later
"""What is compared: NetworkManager alone, with mptcpd beside it, with nm-mptcp beside it. Each as somebody who knows it
would set it up, on a machine that is otherwise the same.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..networkmanager.bed import Bed, command


def mptcpd() -> str | None:
    """Where mptcpd is."""
    return shutil.which("mptcpd", path="/usr/libexec:/usr/sbin:/usr/lib/mptcpd")


@dataclass(frozen=True)
class Tool:
    """One of the three; ``start`` starts what runs beside NetworkManager."""

    name: str
    title: str
    product: bool
    configuration: str
    start: Callable[[Bed], None]
    afresh: bool = False  #: whether it is started anew when the links are up, so that it knows of no losses before

    @contextmanager
    def machine(self, directory: Path, installed: Path) -> Iterator[Bed]:
        """A machine with NetworkManager, set up for this tool, which does not run yet."""
        directory.mkdir()
        bed = Bed(
            directory,
            installed=installed,
            product=self.product,
            dropin=self.product,
            configuration=self.configuration,
        )
        try:
            # Without a limit nobody but nm-mptcp (which raises it as needed) has a second subflow for each path.
            bed.sh("ip mptcp limits set subflows 4 add_addr_accepted 4")
            if self.product:
                bed.wait_for_dispatcher()
            yield bed
        finally:
            bed.stop()
            shutil.rmtree(directory, ignore_errors=True)


def _networkmanager(bed: Bed) -> None:
    """It runs already."""


def _mptcpd(bed: Bed) -> None:
    found = mptcpd()
    assert found
    bed.machine.spawn(found, "--log=stderr", "--addr-flags=subflow", log="mptcpd")


def _nm_mptcp(bed: Bed) -> None:
    if bed.service:
        bed.service.stop()
    bed.start_service()


TOOLS = (
    Tool("networkmanager", "NetworkManager alone", False, "", _networkmanager),
    Tool(
        "mptcpd",
        "NetworkManager + mptcpd",
        False,
        # Both writing endpoints would be NetworkManager alone: mptcpd finds each address taken.
        "[connection]\nconnection.mptcp-flags=1\n",
        _mptcpd,
    ),
    Tool("nm-mptcp", "NetworkManager + nm-mptcp", True, "", _nm_mptcp, afresh=True),
)


def versions(tools: Iterable[Tool]) -> dict[str, str]:
    """The versions of the programs that these tools are."""
    asked = {"NetworkManager": ["NetworkManager", "--version"], "nm-mptcp": [*command(), "--version"]}
    found = mptcpd()
    if found and any(tool.name == "mptcpd" for tool in tools):
        asked["mptcpd"] = [found, "--version"]
    told = {}
    for name, words in asked.items():
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        number = re.search(r"\d+(\.\d+)+\S*", done.stdout)
        told[name] = number[0] if number else ""
    return told
