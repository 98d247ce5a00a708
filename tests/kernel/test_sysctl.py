# SPDX-License-Identifier: GPL-2.0-or-later
"""Sysctls, in a temporary tree and in a real namespace."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from nm_mptcp.kernel import sysctl
from nm_mptcp.kernel.errors import KernelError
from tests.support.network import Network, ip


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sysctl, "ROOT", tmp_path)
    (tmp_path / "net/mptcp").mkdir(parents=True)
    return tmp_path / "net/mptcp"


@pytest.mark.parametrize(
    ("files", "manager", "enabled"),
    [
        ({"enabled": "1\n", "path_manager": "kernel\n", "pm_type": "0\n"}, "kernel", True),
        ({"enabled": "1\n", "path_manager": "userspace\n", "pm_type": "1\n"}, "userspace", True),
        ({"enabled": "0\n", "pm_type": "0\n"}, "kernel", False),
        ({"enabled": "1\n", "pm_type": "1\n"}, "userspace", True),
        ({"enabled": "1\n"}, "kernel", True),
        ({}, "", False),
    ],
)
def test_path_manager_and_enabled_of_old_and_new_kernels(
    tree: Path, files: dict[str, str], manager: str, enabled: bool
) -> None:
    for name, text in files.items():
        (tree / name).write_text(text)
    assert sysctl.path_manager() == manager
    assert sysctl.mptcp_enabled() is enabled


def test_what_is_missing_is_none_and_cannot_be_written(tree: Path) -> None:
    assert sysctl.read("net/mptcp/enabled") is None
    with pytest.raises(KernelError, match="set the sysctl net/mptcp/enabled to 1") as missing:
        sysctl.write("net/mptcp/enabled", 1)
    assert missing.value.absent
    assert not (tree / "enabled").exists()


def test_an_interface_name_is_one_part_of_the_path() -> None:
    assert sysctl.interface("ipv4", "eth0.5", "rp_filter") == "net/ipv4/conf/eth0.5/rp_filter"
    for bad in ("../all", "a/b", "", ".."):
        with pytest.raises(ValueError, match="not an interface's name"):
            sysctl.interface("ipv4", bad, "rp_filter")


def test_the_sysctl_of_an_interface_with_a_dot_is_written(network: Network) -> None:  # noqa: ARG001
    ip("link add name va.5 type veth peer name vb")
    path = sysctl.interface("ipv4", "va.5", "ignore_routes_with_linkdown")
    sysctl.write(path, 1)
    assert sysctl.read(path) == "1"
    sysctl.write("net/mptcp/enabled", 0)
    assert not sysctl.mptcp_enabled()
    sysctl.write("net/mptcp/enabled", 1)
    assert sysctl.mptcp_enabled()
    with pytest.raises(KernelError, match="EINVAL"):
        sysctl.write("net/mptcp/enabled", "yes")


@pytest.fixture
def _uncached() -> Iterator[None]:
    """Without a cached answer, before and after."""
    sysctl.knows_laminar.cache_clear()
    yield
    sysctl.knows_laminar.cache_clear()


@pytest.mark.usefixtures("_uncached")
@pytest.mark.parametrize(
    ("release", "numbers", "laminar"),
    [
        ("6.18.44", (6, 18), True),
        ("6.1.0-18-amd64", (6, 1), False),
        ("7.2-rc1", (7, 2), True),
        ("6.17.9+deb13", (6, 17), False),
        ("strange", (0, 0), False),
    ],
)
def test_laminar_by_the_kernels_release(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, release: str, numbers: tuple[int, int], laminar: bool
) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    assert sysctl.kernel_release() == numbers
    monkeypatch.setattr(sysctl, "TYPES", tmp_path / "none")
    assert sysctl.knows_laminar() is laminar


@pytest.mark.usefixtures("_uncached")
@pytest.mark.parametrize(
    ("before", "known"), [(0, True), (10, True), ((1 << 16) - 5, True), (1 << 18, True), (None, False)]
)
def test_laminar_of_a_backport_by_the_kernels_types(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, before: int | None, known: bool
) -> None:
    types = tmp_path / "vmlinux"
    types.write_bytes(b"mptcpi_csum_enabled" if before is None else bytes(before) + b"mptcpi_endp_laminar_max\0more")
    monkeypatch.setattr(sysctl, "TYPES", types)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release="5.14.0-570.el9.x86_64"))
    assert sysctl.knows_laminar() is known
