# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever these tests start as root, it finds no network of this machine's to change."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.network import Network, reason_to_skip


@pytest.fixture(scope="session", autouse=True)
def _network_of_their_own() -> Iterator[None]:
    if reason_to_skip():
        yield  # without the right to make one there is none to change anything
        return
    network = Network()
    try:
        with network.entered():
            yield
    finally:
        network.close()
