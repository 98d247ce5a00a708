# SPDX-License-Identifier: GPL-2.0-or-later
"""What the service loads: a boot waits for it."""

from __future__ import annotations

import subprocess
import sys


def alone(code: str) -> str:
    """What an interpreter of its own prints."""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_service_loads_of_pyroute2_only_its_messages() -> None:
    """Its database, command line, HTTP server and test tools are 160 ms of processor time and 20 MB."""
    loaded = alone("import sys, nm_mptcp.daemon; print(*sys.modules)").split()
    assert "pyroute2.netlink.rtnl.rtmsg" in loaded
    for name in ("pyroute2.ndb", "pyroute2.iproute", "pyroute2.cli", "http.server", "unittest", "multiprocessing"):
        assert name not in loaded


def test_who_wants_all_of_pyroute2_has_it_before_and_after() -> None:
    for order in ("nm_mptcp.kernel.messages, pyroute2", "pyroute2, nm_mptcp.kernel.messages"):
        theirs = "from pyroute2.netlink.rtnl.rtmsg import rtmsg"
        code = f"import {order}; {theirs}; pyroute2.IPRoute; print(nm_mptcp.kernel.messages.rtmsg is rtmsg)"
        assert alone(code) == "True\n"
