# SPDX-License-Identifier: GPL-2.0-or-later
"""What failover relies on, on other kernels: see :mod:`.subflows`, which runs inside the machine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .machine import Machine
from .subflows import SITUATIONS

#: An endpoint added while the server still deals with its deletion may get no subflow: its join is refused, or the late
#: RM_ADDR takes the new subflow away (seen on 6.18 only). Nobody may rely on it; the connection has to live all the same.
TOO_SOON = [name for name in SITUATIONS if "added 0 s later" in name or "at once" in name]


@pytest.fixture(scope="module")
def results(machine: Machine) -> dict[str, dict[str, Any]]:
    """What each situation gave in this machine."""
    done = machine.shell("cd /nm-mptcp; PYTHONPATH=src exec python3 -m tests.machine.subflows", seconds=1500)
    told = [json.loads(line) for line in done.checked().splitlines()]
    print(*(f"{each.get('worked', '')}/{each.get('tries', '')} {each}" for each in told), sep="\n")
    return {each["name"]: each for each in told if "name" in each}


@pytest.mark.parametrize("name", [name for name in SITUATIONS if name not in TOO_SOON])
def test_it_works_every_time(results: dict[str, dict[str, Any]], name: str) -> None:
    result = results[name]
    assert (result["worked"], result["troubles"], result["complaints"]) == (result["tries"], [], [])


@pytest.mark.parametrize("name", TOO_SOON)
def test_added_too_soon_it_harms_no_transfer(results: dict[str, dict[str, Any]], name: str) -> None:
    result = results[name]
    assert result["worked"]
    assert not [trouble for trouble in result["troubles"] if "the transfer" in trouble]
    assert not result["complaints"]
