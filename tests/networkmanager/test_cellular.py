# SPDX-License-Identifier: GPL-2.0-or-later
"""A real gsm profile: backup beside other paths, and no path while it roams."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ..support.waits import wait_for
from .bed import DEFAULT_FLAGS, SERVER, Bed
from .modemmanager import ModemManager, Registration, mobile_profile, plug_in_modem
from .traffic import Connection, EchoServer
from .uplinks import Uplink

RESERVE = DEFAULT_FLAGS | {"backup"}

#: What a server says that takes no subflow to the address that it was reached at (many a CDN).
REFUSE_JOINS = {"net.mptcp.allow_join_initial_addr_port": "0"}


@dataclass
class Laptop:
    """A Wi-Fi (an Ethernet stands for it) and a modem, each with its profile; an echo server far away."""

    bed: Bed
    wifi: Uplink
    modem: ModemManager

    @property
    def cellular(self) -> str:
        return self.modem.uplink.address

    def rule(self, address: str) -> tuple[str, str]:
        shown = self.bed.status().path(address)
        return shown["state"], shown["rule"]

    def wait_rule(self, address: str, state: str, rule: str) -> None:
        wait_for(f"{address} is {state} ({rule})", lambda: self.rule(address) == (state, rule))

    def connect(self, *addresses: str) -> Connection:
        connection = Connection(self.bed.machine, SERVER)
        for address in addresses:
            connection.wait_subflow(address)
        return connection


@pytest.fixture
def laptop(bed: Bed) -> Laptop:
    """Nothing is up yet; the service runs."""
    wifi = bed.uplink("wlan0", dhcp="10.1.0.0/24")
    bed.profile("Wi-Fi", "wlan0", "ipv4.route-metric 600")
    modem = plug_in_modem(bed)
    mobile_profile(bed, "Mobile")
    bed.without_dispatcher_scripts()
    EchoServer(bed.far)
    bed.start_service()
    return Laptop(bed, wifi, modem)


@pytest.fixture
def up(laptop: Laptop) -> Laptop:
    """Both are up and are paths."""
    laptop.bed.up("Wi-Fi", "Mobile")
    for address in (laptop.wifi.address, laptop.cellular):
        laptop.bed.wait_endpoint(address)
    laptop.bed.sync()
    return laptop


def ports(connection: Connection, address: str) -> set[int]:
    return {port for local, port in connection.subflows() if local == address}


def wait_left(connection: Connection, address: str) -> None:
    wait_for(f"no subflow from {address}", lambda: not ports(connection, address))


def test_a_gsm_profile_is_a_path_in_reserve_at_the_modems_data_port(up: Laptop) -> None:
    endpoint = up.bed.endpoint(up.cellular)
    assert endpoint
    assert (endpoint.device, endpoint.flags) == ("wwan0", RESERVE)
    shown = up.bed.status().path(up.cellular)
    assert (shown["interface"], shown["kind"], shown["profile"]) == ("wwan0", "cellular", "Mobile")
    assert (shown["state"], shown["reason"]) == ("active", "backup, as cellular is by default")
    assert up.bed.default_of(up.cellular)["gateway"] == up.modem.uplink.gateway


def test_not_one_byte_of_a_stream_goes_over_cellular_while_wifi_lives_and_all_of_it_when_wifi_dies(
    up: Laptop, figures: dict[str, str]
) -> None:
    connection = up.connect(up.wifi.address, up.cellular)
    wifi, cellular = up.wifi.capture(both=True), up.modem.uplink.capture(both=True)
    piece = bytes(16384)
    for _ in range(64):
        connection.echo(piece)
    assert cellular.data() == 0
    assert wifi.data() >= 2 * 64 * len(piece)
    figures["a stream with cellular in reserve"] = (
        f"{wifi.data():,} bytes over Wi-Fi, {cellular.data():,} over cellular"
    )
    up.wifi.carrier(False)
    for _ in range(64):
        connection.echo(piece)
    assert cellular.data() >= 2 * 64 * len(piece)
    up.wifi.carrier(True)
    connection.wait_subflow(up.wifi.address)


def test_a_roaming_modem_is_no_path_until_it_is_home_again(up: Laptop) -> None:
    connection = up.connect(up.wifi.address, up.cellular)
    kept = ports(connection, up.wifi.address)
    up.modem.register(Registration.ROAMING)
    up.bed.wait_no_endpoint(up.cellular)
    assert up.rule(up.cellular) == ("excluded", "roaming")
    wait_left(connection, up.cellular)
    capture = up.modem.uplink.capture(both=True)
    for _ in range(16):
        connection.echo(bytes(4096))
    assert capture.data() == 0
    up.modem.register(Registration.HOME)
    assert up.bed.wait_endpoint(up.cellular).flags == RESERVE
    connection.wait_subflow(up.cellular)
    assert ports(connection, up.wifi.address) == kept


def test_where_roaming_is_all_there_is_its_connections_live_until_there_is_something_else(laptop: Laptop) -> None:
    laptop.bed.up("Mobile")
    laptop.bed.wait_endpoint(laptop.cellular)
    connection = laptop.connect(laptop.cellular)
    laptop.modem.register(Registration.ROAMING)
    laptop.wait_rule(laptop.cellular, "active", "kept-last")
    connection.echo()
    laptop.bed.up("Wi-Fi")
    connection.wait_subflow(laptop.wifi.address)
    laptop.bed.wait_no_endpoint(laptop.cellular)
    wait_left(connection, laptop.cellular)
    connection.echo()


def test_a_connection_that_began_abroad_leaves_as_soon_as_it_can(laptop: Laptop) -> None:
    laptop.modem.register(Registration.ROAMING)
    laptop.bed.up("Mobile")
    laptop.wait_rule(laptop.cellular, "excluded", "roaming")
    connection = laptop.connect(laptop.cellular)
    laptop.bed.up("Wi-Fi")
    connection.wait_subflow(laptop.wifi.address)
    wait_left(connection, laptop.cellular)
    connection.echo()


def test_a_connection_that_cannot_move_keeps_its_subflow_abroad_and_no_other_one_gets_any(laptop: Laptop) -> None:
    laptop.bed.up("Mobile")
    laptop.bed.wait_endpoint(laptop.cellular)
    laptop.bed.far.sysctl(**REFUSE_JOINS)
    old = laptop.connect(laptop.cellular)
    its = ports(old, laptop.cellular)
    laptop.bed.up("Wi-Fi")
    laptop.bed.wait_endpoint(laptop.wifi.address)
    laptop.modem.register(Registration.ROAMING)
    laptop.wait_rule(laptop.cellular, "suspended", "kept-for-connections")
    assert laptop.bed.wait_endpoint(laptop.cellular).flags == RESERVE
    old.echo()
    laptop.bed.far.sysctl(**dict.fromkeys(REFUSE_JOINS, "1"))
    new = laptop.connect(laptop.wifi.address)
    wait_for("no subflow there but the old one", lambda: ports(new, laptop.cellular) == its)
    capture = laptop.modem.uplink.capture(both=True)
    for _ in range(16):
        new.echo(bytes(4096))
    assert capture.data() == 0
    old.echo()
    assert capture.data() > 0
    old.close()
    laptop.bed.wait_no_endpoint(laptop.cellular)
    assert laptop.rule(laptop.cellular) == ("excluded", "roaming")
    new.echo()


def test_connections_on_a_roaming_link_go_on_leaving_by_it(up: Laptop) -> None:
    up.modem.register(Registration.ROAMING)
    up.bed.wait_no_endpoint(up.cellular)
    capture = up.modem.uplink.capture()
    with up.bed.machine.socket(2, 1) as plain:
        plain.bind((up.cellular, 0))
        plain.settimeout(5)
        plain.connect((SERVER, 5000))
    assert set(capture.sources()) == {up.cellular}


def test_explicit_flags_of_the_profile_apply_while_roaming(laptop: Laptop) -> None:
    laptop.bed.modify("Mobile", "connection.mptcp-flags 0x22")
    laptop.modem.register(Registration.ROAMING)
    laptop.bed.up("Wi-Fi", "Mobile")
    laptop.bed.wait_endpoint(laptop.wifi.address)
    assert laptop.bed.wait_endpoint(laptop.cellular).flags == {"subflow"}
    laptop.bed.sync()
    assert laptop.rule(laptop.cellular) == ("active", "flags-of-profile")


def test_a_modem_that_is_registered_abroad_for_messages_only_is_roaming(up: Laptop) -> None:
    up.modem.register(Registration.ROAMING_SMS_ONLY)
    up.bed.wait_no_endpoint(up.cellular)


def test_a_malformed_registration_is_logged_once_and_ignored(up: Laptop) -> None:
    for nonsense in ("roaming", "home", "roaming"):
        up.modem.register(nonsense, "s")
    up.modem.register(Registration.ROAMING)
    up.bed.wait_no_endpoint(up.cellular)
    assert up.bed.service
    said = [line for line in up.bed.service.log().splitlines() if "ModemManager" in line]
    assert len(said) == 2, said
    assert "RegistrationState of /org/freedesktop/ModemManager1/Modem/0 is 'roaming', not a number" in said[0]


def test_modemmanager_and_its_modem_come_and_go(up: Laptop) -> None:
    connection = up.connect(up.wifi.address, up.cellular)
    up.modem.stop()
    up.bed.wait_no_endpoint(up.cellular)
    connection.echo()
    up.modem.start()
    wait_for(
        "NetworkManager has the modem",
        lambda: "cdc-wdm0:disconnected" in up.bed.nmcli("-t", "-f", "DEVICE,STATE", "device"),
    )
    up.modem.register(Registration.ROAMING)
    up.bed.up("Mobile")
    up.wait_rule(up.cellular, "excluded", "roaming")
    up.modem.unplug()
    wait_for("the modem is gone", lambda: "cdc-wdm0" not in up.bed.nmcli("-t", "-f", "DEVICE", "device"))
    up.modem.plug_in()
    up.modem.register(Registration.HOME)
    wait_for(
        "NetworkManager has the modem",
        lambda: "cdc-wdm0:disconnected" in up.bed.nmcli("-t", "-f", "DEVICE,STATE", "device"),
    )
    up.bed.up("Mobile")
    assert up.bed.wait_endpoint(up.cellular).flags == RESERVE
    connection.echo()


def test_a_service_that_starts_abroad_never_makes_it_a_path(up: Laptop) -> None:
    assert up.bed.service
    up.bed.service.stop()
    up.bed.nm_mptcp("clear")
    up.modem.register(Registration.ROAMING)
    before = len(up.bed.service.log())
    service = up.bed.start_service()
    up.bed.wait_endpoint(up.wifi.address)
    up.bed.sync()
    assert up.rule(up.cellular) == ("excluded", "roaming")
    assert f"{up.cellular} ('Mobile'): active" not in service.log()[before:]


def test_without_a_service_roaming_counts_as_well(up: Laptop) -> None:
    assert up.bed.service
    up.modem.register(Registration.ROAMING)
    up.bed.service.kill()
    up.bed.nm_mptcp("apply")
    assert up.bed.endpoint(up.cellular) is None
    assert up.rule(up.cellular) == ("excluded", "roaming")
