# SPDX-License-Identifier: GPL-2.0-or-later
"""Who has the command alone, as pip installs it, is told what else a package brings."""

from __future__ import annotations

from pathlib import Path

import pytest

from nm_mptcp.cli.installation import missing, note


def test_the_command_alone_says_what_only_a_package_brings(tmp_path: Path) -> None:
    words = note(tmp_path)
    assert words is not None
    for what in ("the service", "dispatcher scripts", "connection.mptcp-flags", "D-Bus policy", "make install"):
        assert what in words
    assert "\n" not in words


@pytest.mark.parametrize(
    "file",
    [
        "usr/lib/systemd/system/nm-mptcp.service",
        "etc/systemd/system/nm-mptcp.service",
        "usr/local/lib/systemd/system/nm-mptcp.service",
        "usr/lib/NetworkManager/dispatcher.d/10-nm-mptcp",
        "etc/NetworkManager/dispatcher.d/10-nm-mptcp",
        "etc/NetworkManager/conf.d/10-nm-mptcp.conf",
        "usr/share/dbus-1/system.d/org.nm_mptcp1.conf",
    ],
)
def test_where_any_of_it_is_installed_nothing_is_said(tmp_path: Path, file: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).touch()
    assert len(missing(tmp_path)) == 3
    assert note(tmp_path) is None
