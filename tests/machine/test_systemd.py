# SPDX-License-Identifier: GPL-2.0-or-later
"""The unit under a real systemd (252 in bookworm): it is ready, reloads, and is not brought down by a bad file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .conftest import DISTRIBUTIONS
from .image import image, reason_to_skip
from .machine import Machine

INSTALL = """
    make -s -C /nm-mptcp install
    systemctl daemon-reload
    systemctl reload dbus
    systemctl restart NetworkManager
    systemctl start nm-mptcp
"""


@pytest.fixture(scope="module", params=DISTRIBUTIONS)
def installed(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A machine with systemd, the product installed and its service started."""
    if reason := reason_to_skip():
        pytest.skip(reason)
    with Machine(image(request.param), systemd=True) as machine:
        machine.put_tree()
        machine.shell(INSTALL, seconds=300).checked()
        yield machine


def journal(machine: Machine) -> str:
    return machine.run("journalctl", "-u", "nm-mptcp", "-o", "cat").checked()


def test_a_reload_is_done_when_systemctl_comes_back_and_fails_for_a_bad_file(installed: Machine) -> None:
    machine = installed
    pid = machine.run("systemctl", "show", "-P", "MainPID", "nm-mptcp").checked()
    machine.shell(
        "printf '[main]\\nlimits=keep\\n' >/etc/nm-mptcp/conf.d/10-test.conf; systemctl reload nm-mptcp"
    ).checked()
    machine.shell(
        "until journalctl -u nm-mptcp -o cat | grep -q 'configuration reloaded'; do sleep 0.2; done"
    ).checked()

    machine.shell("printf '[main]\\nlimits=none\\n' >/etc/nm-mptcp/conf.d/10-test.conf").checked()
    assert machine.run("systemctl", "reload", "nm-mptcp").status != 0
    line = "/etc/nm-mptcp/conf.d/10-test.conf, line 2: [main] limits=none: must be auto or keep"
    assert line in journal(machine)
    machine.shell("kill -HUP $(systemctl show -P MainPID nm-mptcp)").checked()
    machine.shell(
        "until journalctl -u nm-mptcp -o cat | grep -q 'keeping the current configuration'; do sleep 0.2; done"
    ).checked()

    machine.run("systemctl", "is-active", "nm-mptcp").checked()
    assert machine.run("systemctl", "show", "-P", "MainPID", "nm-mptcp").checked() == pid

    # It has to come up with it as well.
    machine.run("systemctl", "restart", "nm-mptcp", seconds=120).checked()
    assert f"{line}; ignored" in journal(machine)
    machine.run("systemctl", "is-active", "nm-mptcp").checked()
