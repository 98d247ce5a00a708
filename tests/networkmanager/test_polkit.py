# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may change something over the bus: root, and others where a real polkit authorizes them."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from nm_mptcp.dbus.polkit import Permission

from ..support.waits import wait_for
from .bed import Bed, command
from .caller import NOBODY, calls
from .polkit import Polkit, without_polkit
from .uplinks import Links

ROOT, INTERFACE = "/org/nm_mptcp1", "org.nm_mptcp1"
SYNC, RELOAD = [ROOT, INTERFACE, "Sync", ""], [ROOT, INTERFACE, "Reload", ""]
AGGREGATE, CONFIGURED = [ROOT, INTERFACE, "SetMode", "s", "aggregate"], [ROOT, INTERFACE, "SetMode", "s", ""]
ASKED = {Permission.SYNC: SYNC, Permission.RELOAD: RELOAD, Permission.SET_MODE: AGGREGATE}

DENIED = "org.freedesktop.DBus.Error.AccessDenied"
ASKS = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"


def answer(bed: Bed, call: list[Any]) -> tuple[str, str]:
    """The name of the error that nobody's user gets, and its words."""
    (said,) = calls(bed, call, nobody=True)
    return said.get("error", ""), said.get("text", "")


@pytest.mark.usefixtures("up")
def test_without_polkit_only_root_may(bed: Bed) -> None:
    without_polkit(bed)
    for call in (SYNC, RELOAD, AGGREGATE):
        error, words = answer(bed, call)
        assert error == DENIED
        assert words == "permission denied: must be root (polkit is not available)"
        assert "reply" in calls(bed, call)[0]
    said = bed.machine.attempt(*NOBODY, *command(), "mode", "handover")
    assert said.returncode == 1
    assert said.stderr.splitlines() == [
        "nm-mptcp: the service returned an error: permission denied: must be root (polkit is not available)"
    ]
    assert bed.status()["mode"] == "aggregate"


@pytest.mark.usefixtures("up")
def test_a_user_may_do_what_polkit_authorizes(bed: Bed) -> None:
    polkit = Polkit(bed)
    assert polkit.actions() == set(Permission)

    # Nobody has a session: a password is asked for, where anybody can be.
    for permission, call in ASKED.items():
        error, words = answer(bed, call)
        assert error == ASKS
        assert words == f"polkit requires authentication for {permission}: the call does not allow interaction"
    said = bed.machine.attempt(*NOBODY, *command(), "mode", "handover")
    assert said.returncode == 1
    assert "there is no agent to ask" in said.stderr
    assert len(said.stderr.splitlines()) == 1
    assert bed.status()["mode_from"] == "configuration"

    # What an administrator allows, and nothing else.
    polkit.rule(Permission.SET_MODE, "YES")
    wait_for("it is allowed", lambda: answer(bed, AGGREGATE) == ("", ""))
    assert (bed.status()["mode"], bed.status()["mode_from"]) == ("aggregate", "runtime")
    assert answer(bed, RELOAD)[0] == ASKS
    said = bed.machine.attempt(*NOBODY, *command(), "mode", "--reset")
    assert (said.returncode, said.stderr) == (0, "")
    assert bed.status()["mode_from"] == "configuration"
    for method in ("Clear", "ClearAll", "Resume"):
        assert answer(bed, [ROOT, INTERFACE, method, ""])[0] == DENIED

    polkit.rule(Permission.SET_MODE, "NO")
    wait_for("it is forbidden", lambda: answer(bed, AGGREGATE)[0] == DENIED)
    assert answer(bed, AGGREGATE)[1] == "polkit does not authorize org.nm-mptcp1.set-mode"
    assert bed.status()["mode_from"] == "configuration"
    # Root is not asked.
    assert "reply" in calls(bed, AGGREGATE)[0]
    assert "reply" in calls(bed, CONFIGURED)[0]


def test_root_does_not_wait_for_a_polkit_that_hangs(bed: Bed, up: Links) -> None:
    polkit = Polkit(bed)
    polkit.daemon.send(signal.SIGSTOP)
    for call in (SYNC, RELOAD, AGGREGATE, CONFIGURED):
        assert "reply" in calls(bed, call)[0]
    polkit.daemon.send(signal.SIGKILL)
    assert bed.status().path(up.wifi.address)["state"] == "active"


@pytest.mark.usefixtures("up")
def test_a_service_that_is_stopped_while_a_caller_waits_ends_cleanly(bed: Bed) -> None:
    service, polkit = bed.service, Polkit(bed)
    assert service
    polkit.daemon.send(signal.SIGSTOP)
    waiting = bed.machine.spawn(
        *NOBODY, "dbus-send", "--system", "--print-reply", "--dest=org.nm_mptcp1", ROOT, f"{INTERFACE}.Sync"
    )
    tell = ["dbus-send", "--system", "--type=method_call", "--dest=org.nm_mptcp1", ROOT, f"{INTERFACE}.Sync"]
    for _ in range(20):
        bed.machine.run(*tell)
    assert service.stop() == 0
    assert waiting.wait() != 0
    assert "Traceback" not in service.log()
    assert "Error" not in service.log()
