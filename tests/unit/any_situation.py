# SPDX-License-Identifier: GPL-2.0-or-later
"""Any situation, for properties that hold in all of them (hypothesis)."""

from __future__ import annotations

from hypothesis import strategies as st

from nm_mptcp.config.selector import Selector
from nm_mptcp.config.settings import Config, IPv6Address, PathSection, Setting
from nm_mptcp.model.flags import EndpointFlag, ProfileFlag
from nm_mptcp.model.state import PROTOCOL, RULE_PRIORITY, DefaultFlags, DeviceState, Family, Hop, Limits, Route, Rule

from .situations import BACKUP, LEFT_TO_US, MODEM, SUBFLOW, WIFI, Situation, rules_of

#: Addresses that a situation's rules may already have.
A, B = "10.0.1.2", "10.0.2.2"
OTHERS = Rule(Family.IPV4, RULE_PRIORITY, A, 7)


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    situation = Situation(
        endpoints_max=draw(st.sampled_from([2, 3, 8])),
        mptcp_enabled=draw(st.sampled_from([True, True, True, False])),
        limits=Limits(draw(st.integers(0, 2)), draw(st.integers(0, 2))),
    )
    situation.version = draw(st.sampled_from(["1.38.0", "1.42.4", "1.56.0"]))
    situation.running = draw(st.sampled_from([True, True, True, False]))
    plain = draw(st.booleans())  # nothing hinders its links from being paths
    for number in range(1, draw(st.integers(0, 4)) + 1):
        hosts = draw(st.lists(st.integers(2, 4), max_size=2, unique=True))
        addresses = [f"10.0.{number}.{host}/24" for host in hosts]
        addresses += [
            f"2001:db8:{number}::{host}/64" for host in draw(st.lists(st.integers(2, 4), max_size=2, unique=True))
        ]
        ifindex = situation.link(
            f"e{number}",
            *addresses,
            gateway=plain or draw(st.booleans()),
            metric=draw(st.sampled_from([100, 600])),
            flags=0 if plain else draw(st.sampled_from([0, 0, 0x01, 0x20, 0x21, 0x40])),
            type=draw(st.sampled_from([1, WIFI, MODEM] if plain else [1, WIFI, MODEM, 16])),
            metered=draw(st.integers(0, 4)),
            state=DeviceState.ACTIVATED
            if plain
            else draw(st.sampled_from([DeviceState.ACTIVATED, DeviceState.ACTIVATED, *DeviceState])),
            default_flags=LEFT_TO_US if plain else draw(st.sampled_from([LEFT_TO_US, LEFT_TO_US, DefaultFlags()])),
            profile={
                "mptcp_flags": ProfileFlag(0 if plain else draw(st.sampled_from([0, 0, 0, 1, 0x22, 0x62, 0x0A]))),
                "ipv4_route_table": draw(st.sampled_from([0, 0, 0, 100])),
            },
        )
        for text in addresses:
            if len(situation.endpoints) < situation.kernel["endpoints_max"] and draw(st.integers(0, 3)) == 0:
                flags = draw(st.sampled_from([SUBFLOW, BACKUP, EndpointFlag.SIGNAL, EndpointFlag.IMPLICIT]))
                index = draw(st.sampled_from([ifindex, 0, 99]))
                mine = bool(index) and draw(st.booleans()) and not flags & EndpointFlag.IMPLICIT
                port = draw(st.sampled_from([0, 443, 444])) if flags is EndpointFlag.SIGNAL else 0
                address = text.split("/")[0]
                situation.endpoint(address, index, flags, ours=mine, port=port)
    places = ["192.0.2.9", *(address.address for group in situation.addresses.values() for address in group)]
    stands = st.frozensets(st.sampled_from(places), min_size=1, max_size=2)
    situation.connections = draw(st.one_of(st.none(), st.just({}), st.dictionaries(stands, st.just(1), max_size=3)))
    foreign = draw(st.sampled_from([None, 42000, 42001, 42]))
    if foreign:
        situation.routes.append(Route("192.0.2.0/24", foreign, (Hop(2),), protocol=4))
        situation.rules.append(Rule(Family.IPV4, 100, "192.0.2.7", foreign))
    situation.rules.append(Rule(Family.IPV4, 32002, A, 42003, protocol=draw(st.sampled_from([PROTOCOL, 3]))))
    some = st.sampled_from([*rules_of(A), *rules_of("2001:db8:1::2", 42001), *rules_of(B, 42001), OTHERS])
    situation.rules += draw(st.lists(some, max_size=8))
    situation.rules.sort(key=lambda rule: (rule.family, rule.priority))
    return situation


CONFIGURATIONS = [
    Config(),
    *(
        Config(sections=(PathSection("path-x", Selector(), settings),))
        for settings in (
            {"flags": Setting(ProfileFlag.ENABLED | ProfileFlag.SIGNAL), "signal_port": Setting(443)},
            {"ipv6_address": Setting(IPv6Address.TEMPORARY)},
            {"ipv6_address": Setting(IPv6Address.ALL)},
        )
    ),
]
