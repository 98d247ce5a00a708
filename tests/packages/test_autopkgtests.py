# SPDX-License-Identifier: GPL-2.0-or-later
"""The package's own tests (debian/tests), run as autopkgtest would: as root, in the source, with the package installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .built import deb, sdist
from .container import Container, reason_to_skip
from .test_install import DISTRIBUTIONS


@pytest.fixture(scope="module", params=DISTRIBUTIONS)
def system(request: pytest.FixtureRequest) -> Iterator[Container]:
    if reason := reason_to_skip():
        pytest.skip(reason)
    prepare = """
        dpkg --install /root/nm-mptcp*.deb
        systemctl --quiet mask nm-mptcp.service NetworkManager.service
        tar -x -C /root -f /root/nm_mptcp*.tar.gz
        cd /root/nm_mptcp-*/ && mv packaging/debian debian
    """
    with Container(request.param, before=prepare, files=[deb(), sdist()]) as container:
        yield container


@pytest.mark.parametrize("test", ["networkmanager", "unit"])
def test_the_package_passes_its_own(system: Container, test: str) -> None:
    told = system.run(f"cd /root/nm_mptcp-*/; AUTOPKGTEST_TMP=$(mktemp -d) debian/tests/{test}", seconds=300)
    print(told[-200:])
