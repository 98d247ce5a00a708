# SPDX-License-Identifier: GPL-2.0-or-later
"""What the service imports: a boot waits for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ..support.datagrams import Datagrams
from ..support.waits import wait_for


def alone(code: str) -> str:
    """The output of a separate interpreter."""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif("COVERAGE_PROCESS_CONFIG" in os.environ, reason="coverage.py loads modules of its own")
def test_the_service_loads_of_pyroute2_only_its_messages() -> None:
    """Its database, command line, HTTP server and test tools are 160 ms of processor time and 20 MB."""
    loaded = alone("import sys, nm_mptcp.service.daemon; print(*sys.modules)").split()
    assert "pyroute2.netlink.rtnl.fibmsg" in loaded
    for name in ("pyroute2.ndb", "pyroute2.iproute", "pyroute2.cli", "http.server", "unittest", "multiprocessing"):
        assert name not in loaded


def test_who_wants_all_of_pyroute2_has_it_before_and_after() -> None:
    for order in ("nm_mptcp.kernel.messages, pyroute2", "pyroute2, nm_mptcp.kernel.messages"):
        theirs = "from pyroute2.netlink.rtnl.fibmsg import fibmsg"
        code = f"import {order}; {theirs}; pyroute2.IPRoute; print(nm_mptcp.kernel.messages.fibmsg is fibmsg)"
        assert alone(code) == "True\n"


#: The command, which gets a SIGHUP as soon as it begins.
EARLY = """
import os, signal, sys
from nm_mptcp.cli import daemon, main
original = daemon.record_of

def record_of(arguments):
    os.kill(os.getpid(), signal.SIGHUP)
    return original(arguments)

daemon.record_of = record_of
sys.exit(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a network namespace of its own")
def test_an_early_sighup_does_not_end_it_and_is_handled_later(tmp_path: Path) -> None:
    manager = Datagrams(tmp_path / "notify")
    process = subprocess.Popen(
        ["unshare", "-n", sys.executable, "-c", EARLY, "--state-dir", str(tmp_path), "daemon"],
        env={
            **os.environ,
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent",
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert wait_for("it is ready", lambda: b"READY=1" in b"".join(manager.take()) or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=10)
    finally:
        process.kill()
        manager.close()
    assert process.returncode == 0
    assert "configuration reloaded" in said
