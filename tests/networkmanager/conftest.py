# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures: an installed product, a fresh bed for each test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .bed import Bed, missing
from .product import install
from .traffic import EchoServer
from .uplinks import Links

if TYPE_CHECKING:
    import pluggy

FAILED = pytest.StashKey[bool]()
FIGURES = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "bed(dropin=True, product=True, configuration=''): how the bed's NetworkManager is configured when it starts; "
        "without the product there are no dispatcher scripts and no bus policy",
    )


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``make install`` puts on a system, the command replaced by the one under test."""
    return install(tmp_path_factory.mktemp("installed"))


def skip_without_tools() -> None:
    """Skip the test, with the names, where tools for a bed are missing."""
    lacking = missing()
    if lacking:
        (pytest.fail if os.environ.get("NM_MPTCP_TESTS") == "all" else pytest.skip)(f"a bed needs {', '.join(lacking)}")


@pytest.fixture
def bed(request: pytest.FixtureRequest, tmp_path: Path, installed: Path) -> Iterator[Bed]:
    """A machine with NetworkManager, nothing plugged in yet."""
    skip_without_tools()
    marker = request.node.get_closest_marker("bed")
    made = Bed(tmp_path, installed=installed, **(marker.kwargs if marker else {}))
    try:
        yield made
    finally:
        made.stop()
        if not request.node.stash.get(FAILED, False):
            shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def links(bed: Bed) -> Links:
    """Two networks with DHCP."""
    return Links.plug_in(bed)


@pytest.fixture
def up(bed: Bed, links: Links) -> Links:
    """Only the service acts; both links up."""
    bed.without_dispatcher_scripts()
    EchoServer(bed.far)
    bed.start_service()
    links.bring_up()
    return links


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> dict[str, str]:
    """Figures to print at the end of the run: measured, not asserted."""
    return request.config.stash.setdefault(FIGURES, {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for name, value in config.stash.get(FIGURES, {}).items():
        terminalreporter.write_line(f"{name}: {value}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pluggy.Result[pytest.TestReport], None]:
    if (yield).get_result().failed:
        item.stash[FAILED] = True
