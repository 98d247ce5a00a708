# SPDX-License-Identifier: GPL-2.0-or-later
"""Endpoints and limits, on the real path manager."""

from __future__ import annotations

import errno
import socket

import pytest

from nm_mptcp.kernel import genl, sysctl
from nm_mptcp.kernel.errors import KernelError
from nm_mptcp.kernel.path_manager import PathManager
from nm_mptcp.kernel.sock_diag import subflows
from nm_mptcp.model.flags import EndpointFlag
from nm_mptcp.model.state import Endpoint, Limits
from tests.support.mptcp import Echo, two_paths
from tests.support.network import Network, ip, veth
from tests.support.waits import wait_for

SIGNAL, SUBFLOW, BACKUP, FULLMESH = (
    EndpointFlag.SIGNAL,
    EndpointFlag.SUBFLOW,
    EndpointFlag.BACKUP,
    EndpointFlag.FULLMESH,
)


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint("10.0.0.1", flags=SUBFLOW),
        Endpoint("2001:db8::1", flags=SUBFLOW),
        Endpoint("10.0.0.1", flags=SUBFLOW | BACKUP, id=200),
        Endpoint("10.0.0.1", flags=SUBFLOW | FULLMESH | BACKUP),
        Endpoint("10.0.0.1", flags=SUBFLOW, ifindex=300),
        Endpoint("2001:db8::1", flags=SIGNAL, ifindex=70000),
        Endpoint("127.0.0.2", flags=SIGNAL, port=5000),
        Endpoint("10.0.0.1"),
    ],
    ids=str,
)
def test_an_endpoint_is_read_back_as_it_was_added(manager: PathManager, endpoint: Endpoint) -> None:
    manager.add(endpoint)
    (there,) = manager.endpoints()
    assert there.place == endpoint.place
    assert (there.flags, there.port) == (endpoint.flags, endpoint.port)
    assert there.id == (endpoint.id or 1)
    manager.delete(there)
    assert manager.endpoints() == ()


def test_laminar_is_stored_where_the_kernel_has_it_and_else_dropped_silently(manager: PathManager) -> None:
    """6.1.176 and 6.12.107 drop it; other old kernels may store an unknown flag."""
    manager.add(Endpoint("10.0.0.1", flags=SUBFLOW | EndpointFlag.LAMINAR))
    (there,) = manager.endpoints()
    if sysctl.knows_laminar():
        assert there.flags == SUBFLOW | EndpointFlag.LAMINAR
    else:
        assert there.flags & ~EndpointFlag.LAMINAR == SUBFLOW


def test_ip_mptcp_shows_what_was_added(manager: PathManager) -> None:
    veth("v1", "p1")
    ip("addr add 10.0.0.1/24 dev v1")  # the kernel listens on the port
    manager.add(Endpoint("10.0.0.1", socket.if_nametoindex("v1"), SIGNAL | BACKUP, id=4, port=5000))
    assert ip("mptcp endpoint show").split() == ["10.0.0.1", "port", "5000", "id", "4", "signal", "backup", "dev", "v1"]


def test_only_the_endpoint_with_that_id_is_deleted(manager: PathManager) -> None:
    for last in (1, 2, 3):
        manager.add(Endpoint(f"10.0.0.{last}", flags=SUBFLOW))
    first, second, third = manager.endpoints()
    manager.delete(second)
    assert manager.endpoints() == (first, third)


def test_errors_have_a_text_and_can_be_distinguished(manager: PathManager) -> None:
    manager.add(Endpoint("10.0.0.1", flags=SUBFLOW, id=1))
    with pytest.raises(KernelError) as twice:
        manager.add(Endpoint("10.0.0.1", flags=SUBFLOW))
    assert twice.value.exists
    assert str(twice.value) == "cannot add endpoint 10.0.0.1 id 0: too many addresses or duplicate one (EEXIST)"
    with pytest.raises(KernelError) as conflict:
        manager.add(Endpoint("10.0.0.2", flags=SUBFLOW, id=1))
    assert conflict.value.errno == errno.EBUSY
    with pytest.raises(KernelError) as missing:
        manager.delete(Endpoint("10.0.0.9", id=99))
    assert missing.value.absent
    with pytest.raises(KernelError) as unchangeable:
        manager.set_flags(Endpoint("10.0.0.9", id=99), BACKUP)
    assert unchangeable.value.absent
    with pytest.raises(KernelError) as bad:
        manager.add(Endpoint("10.0.0.3", flags=SIGNAL | FULLMESH))
    assert bad.value.errno == errno.EINVAL
    assert "signal and fullmesh" in bad.value.text
    for error in (twice.value, conflict.value, missing.value, unchangeable.value, bad.value):
        assert [error.exists, error.absent, error.full].count(True) <= 1
        assert "\n" not in str(error)


@pytest.mark.usefixtures("network")
def test_without_mptcp_the_error_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(genl, "MPTCP_PM", "mptcp_none")  # an unknown name, as where MPTCP is missing
    with pytest.raises(KernelError, match="cannot read the endpoints: this kernel has no 'mptcp_none'") as missing:
        PathManager().endpoints()
    assert missing.value.absent
    assert "\n" not in str(missing.value)


def test_a_full_table_is_an_error_of_its_own(manager: PathManager) -> None:
    for last in range(manager.endpoints_max()):
        manager.add(Endpoint(f"10.0.0.{last + 1}", flags=SUBFLOW))
    with pytest.raises(KernelError) as full:
        manager.add(Endpoint("10.0.1.1", flags=SUBFLOW))
    assert full.value.full
    assert len(manager.endpoints()) == manager.endpoints_max()


def test_backup_and_fullmesh_are_changed_in_place(manager: PathManager) -> None:
    manager.add(Endpoint("10.0.0.1", flags=SUBFLOW))
    manager.add(Endpoint("2001:db8::1", flags=SUBFLOW))
    for endpoint in manager.endpoints():
        manager.set_flags(endpoint, SUBFLOW | BACKUP | FULLMESH)
    assert {endpoint.flags for endpoint in manager.endpoints()} == {SUBFLOW | BACKUP | FULLMESH}
    for endpoint in manager.endpoints():
        manager.set_flags(endpoint, SUBFLOW)
    assert {endpoint.flags for endpoint in manager.endpoints()} == {SUBFLOW}


def test_other_flags_cannot_be_changed_in_place(manager: PathManager) -> None:
    manager.add(Endpoint("10.0.0.1", flags=SUBFLOW))
    with pytest.raises(ValueError, match="only backup and fullmesh"):
        manager.set_flags(manager.endpoints()[0], SIGNAL)


def test_limits_are_set_together(manager: PathManager) -> None:
    assert manager.limits() == Limits(subflows=2, add_addr_accepted=0)
    manager.set_limits(Limits(subflows=5, add_addr_accepted=3))
    assert manager.limits() == Limits(subflows=5, add_addr_accepted=3)
    with pytest.raises(KernelError, match="greater than maximum"):
        manager.set_limits(Limits(subflows=256, add_addr_accepted=0))
    assert manager.limits() == Limits(subflows=5, add_addr_accepted=3)


def test_the_maximum_is_determined_without_changing_anything(manager: PathManager) -> None:
    manager.set_limits(Limits(subflows=3, add_addr_accepted=1))
    most = manager.endpoints_max()
    assert manager.limits() == Limits(subflows=3, add_addr_accepted=1)
    manager.set_limits(Limits(subflows=most, add_addr_accepted=most))
    with pytest.raises(KernelError):
        manager.set_limits(Limits(subflows=most + 1, add_addr_accepted=0))


class FakeKernel:
    """A kernel with another maximum."""

    def __init__(self, most: int, *, reports: bool = True) -> None:
        self.most, self.reports = most, reports

    def allows(self, number: int) -> bool | None:
        return number <= self.most if self.reports else None


@pytest.mark.parametrize("most", [8, 9, 63, 64, 255])
def test_a_greater_maximum_is_found(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = PathManager()
    monkeypatch.setattr(manager, "_allows", FakeKernel(most).allows)
    assert manager.endpoints_max() == most


def test_a_kernel_that_does_not_report_its_maximum_allows_8(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = PathManager()
    monkeypatch.setattr(manager, "_allows", FakeKernel(64, reports=False).allows)
    assert manager.endpoints_max() == 8


def test_an_endpoint_opens_and_closes_its_subflow_and_id_0_closes_the_initial_one(
    manager: PathManager, network: Network, far: Network
) -> None:
    _, second = two_paths(network, far)

    def addresses() -> set[str]:
        return {subflow.local for subflow in subflows() if subflow.established}

    with Echo(far, "10.9.0.1") as echo:
        manager.add(Endpoint("10.2.0.1", second, SUBFLOW))
        wait_for("both subflows", lambda: addresses() == {"10.1.0.1", "10.2.0.1"})
        manager.delete(Endpoint("10.1.0.1"))
        wait_for("the second alone", lambda: addresses() == {"10.2.0.1"})
        echo.echo()


def test_id_0_with_a_port_closes_one_initial_subflow_and_sends_rm_addr(
    manager: PathManager, network: Network, far: Network
) -> None:
    _, second = two_paths(network, far)
    manager.add(Endpoint("10.2.0.1", second, SUBFLOW))

    def places(port: int) -> set[str]:
        with far.entered():
            return {each.remote for each in subflows() if each.local_port == port and each.established}

    with Echo(far, "10.9.0.1", port=5001) as moved, Echo(far, "10.9.0.1", port=5002) as other:
        for port in (5001, 5002):
            wait_for("both subflows", lambda port=port: places(port) == {"10.1.0.1", "10.2.0.1"})
        initial = next(each for each in subflows() if each.remote_port == 5001 and each.initial)
        far.ip("link set v1 down")  # so that the peer gets RM_ADDR by the other path
        manager.delete(Endpoint("10.1.0.1", port=initial.local_port))
        wait_for("the second alone", lambda: places(5001) == {"10.2.0.1"})
        moved.echo()
        assert places(5002) == {"10.1.0.1", "10.2.0.1"}
        far.ip("link set v1 up")
        other.echo()


def test_a_changed_priority_reaches_the_live_subflow(manager: PathManager, network: Network, far: Network) -> None:
    _, second = two_paths(network, far)
    manager.add(Endpoint("10.2.0.1", second, SUBFLOW))

    def backup() -> list[bool]:
        return [subflow.backup for subflow in subflows() if subflow.local == "10.2.0.1" and subflow.established]

    with Echo(far, "10.9.0.1"):
        wait_for("a regular subflow", lambda: backup() == [False])
        ports = {subflow.local_port for subflow in subflows()}
        manager.set_flags(manager.endpoints()[0], SUBFLOW | BACKUP)
        wait_for("a backup subflow", lambda: backup() == [True])
        assert {subflow.local_port for subflow in subflows()} == ports


def test_an_implicit_endpoint_is_read_as_such_and_is_replaced(
    manager: PathManager, network: Network, far: Network
) -> None:
    _, second = two_paths(network, far)
    far.ip("mptcp endpoint add 10.2.0.2 dev v2 signal")
    with Echo(far, "10.9.0.1"):
        implicit = wait_for("an implicit endpoint", manager.endpoints)
        assert implicit[0].flags & EndpointFlag.IMPLICIT
        manager.add(Endpoint(implicit[0].address, second, SUBFLOW))
        assert [each.flags for each in manager.endpoints()] == [SUBFLOW]
