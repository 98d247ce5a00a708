# SPDX-License-Identifier: GPL-2.0-or-later
"""Our stories with another NetworkManager, kernel, Python and D-Bus library: the distribution's own, inside a machine."""

from __future__ import annotations

import pytest

from .machine import Machine
from .suite import run_tests

#: Those that tell most about a version, and those about tunnels that only such a kernel has. Each test takes half a minute in
#: an emulated machine.
STORIES = {
    "paths": ("tests/networkmanager/test_paths.py",),
    "tunnels of the kernel": (
        *("tests/networkmanager/test_wireguard.py", "tests/networkmanager/test_tunnel_kinds.py"),
        *("tests/networkmanager/test_tunnels.py", "tests/networkmanager/test_silence_below_tunnels.py"),
        *("-k", "'(kernel and not silence_below) or ipsec or announce or (kernel and returns_when)'"),
    ),
}


@pytest.mark.parametrize("story", STORIES)
def test_the_stories_come_true_with_this_networkmanager(machine: Machine, story: str) -> None:
    # The system's interpreter has the libraries; the command is the one of this tree.
    machine.shell("""
        cd /nm-mptcp
        printf '%s\\n' '#!/usr/bin/python3 -I' 'import sys' 'sys.path.insert(0, "/nm-mptcp/src")' \\
            'from nm_mptcp.cli import main' 'sys.exit(main())' >command
        chmod 0755 command
    """).checked()
    run_tests(machine, *STORIES[story], seconds=2400)
