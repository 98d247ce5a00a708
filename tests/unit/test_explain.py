# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``explain`` tells of an interface, an address, a profile or a destination, and what it tells to type."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from nm_mptcp.config.settings import DEFAULTS, Config, Origin, PathSection, Setting
from nm_mptcp.model.flags import EndpointFlag, ProfileFlag
from nm_mptcp.model.reasons import Reason, Why
from nm_mptcp.model.state import Limits, Path, RouteResult, Rule, State
from nm_mptcp.policy.decide import decide
from nm_mptcp.report.explain import (
    Known,
    UnknownSubject,
    destination_address,
    explain_destination,
    explain_paths,
    followers,
    subject,
)
from nm_mptcp.report.explain_text import text
from nm_mptcp.report.remedies import remedies

from .situations import BACKUP, SUBFLOW, Situation
from .test_status import HOSTILE, A, B, laptop

SERVER, SERVER6 = "192.0.2.1", "2001:db8:ffff::1"
A6 = "2001:db8:1::2"


def known(situation: Situation, *, config: Config = DEFAULTS, connections: Any = ()) -> Known:
    snapshot = situation.snapshot()
    return Known(snapshot, decide(snapshot, config), config, connections)


def explained(what: str, situation: Situation, **options: Any) -> dict[str, Any]:
    facts = known(situation, **options)
    kind, paths = subject(what, facts)
    assert kind != "destination"
    document = explain_paths(what, kind, paths, facts)
    assert json.loads(json.dumps(document)) == document
    return document


def facts_of(document: dict[str, Any], number: int = 0) -> dict[str, str]:
    return {fact["about"]: fact["says"] for fact in document["paths"][number]["facts"]}


def to(
    destination: str, situation: Situation, ways: dict[str, RouteResult], first: RouteResult | None = None
) -> dict[str, Any]:
    facts = known(situation)
    began = first or RouteResult(2, "10.0.1.1", 254, source=A)
    chosen = followers(destination, began, facts)
    return explain_destination(destination, destination, began, {each: ways[each.address] for each in chosen}, facts)


# --- what is asked about


@pytest.mark.parametrize(
    ("what", "kind", "addresses"),
    [
        ("wlan0", "interface", [A]),
        (A, "address", [A]),
        (f"[{A}]", "address", [A]),
        (f"::ffff:{A}", "address", [A]),
        ("Home", "profile", [A]),
        ("uuid-wlan0", "profile", [A]),
        ("wwan0", "interface", [B]),  # also the name of its profile: the interface is meant
        (SERVER, "destination", []),
        ("2001:DB8:0::1", "destination", []),
        ("eth9", "interface", []),
    ],
)
def test_what_is_named(what: str, kind: str, addresses: list[str]) -> None:
    situation = laptop()
    situation.device("wlan0", profile=replace(situation.devices["wlan0"].profile, id="Home"))  # type: ignore[type-var]
    situation.link("eth9", profile=None)
    found, paths = subject(what, known(situation))
    assert (found, [path.address for path in paths]) == (kind, addresses)


def test_a_modem_is_known_by_its_control_interface_too() -> None:
    situation = laptop()
    situation.device("wwan0", interface="cdc-wdm0")
    assert [path.address for path in subject("cdc-wdm0", known(situation))[1]] == [B]


@pytest.mark.parametrize("what", ["", "nothing", "host.example", "10.0.1", "x" * 70000, "Wi\x1b[2JFi", "\udcff"])
def test_what_nobody_knows_is_an_error_of_one_harmless_line(what: str) -> None:
    with pytest.raises(UnknownSubject) as raised:
        subject(what, known(laptop()))
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    ("what", "address"), [("2001:DB8:0::1", "2001:db8::1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("[::1]", "::1")]
)
def test_an_address_is_told_in_the_kernels_writing(what: str, address: str) -> None:
    assert destination_address(what) == address


# --- the chain


def test_the_chain_goes_from_the_profile_to_the_kernel() -> None:
    situation = laptop()
    situation.rules = [Rule(rule_family(A), 32000 + n, A, t) for n, t in ((0, 42000), (1, 254), (2, 42000))]
    document = explained("wlan0", situation, connections=((A, B), (A,)))
    facts = facts_of(document)
    assert list(facts) == [
        "profile", "NetworkManager", "configuration", "link", "address", "route", "decision", "rules", "endpoint",
        "limits", "connections",
    ]  # fmt: skip
    assert facts["profile"] == "'wlan0' (uuid-wlan0): connection.mptcp-flags is not set: defaults apply"
    assert "disabled, [connection-nm-mptcp] (left to nm-mptcp)" in facts["NetworkManager"]
    assert facts["route"] == "default via 10.0.1.1 dev wlan0 metric 600 in table main"
    assert "[rule flags-of-kind]" in facts["decision"]
    assert facts["rules"].split("; ") == [
        f"32000: from {A} lookup 42000", f"32001: from {A} lookup main", f"32002: from {A} lookup 42000"
    ]  # fmt: skip
    assert facts["endpoint"] == "id 1: subflow, made by nm-mptcp"
    assert facts["connections"] == "2 connections with 2 subflows from this address; 1 from no other"


def rule_family(address: str) -> Any:
    from nm_mptcp.model.state import Family

    return Family.of(address)


def test_it_ends_in_what_to_type() -> None:
    document = explained(A, laptop())
    commands = {each["to"]: each["type"] for each in document["paths"][0]["commands"]}
    assert commands["disable it as a path"] == (
        "nmcli connection modify uuid uuid-wlan0 connection.mptcp-flags disabled && nmcli device reapply wlan0"
    )
    assert "subflow,backup" in commands["use it only as backup"]
    backup = {each["to"] for each in explained(B, laptop())["paths"][0]["commands"]}
    assert "make it a regular path" in backup


def test_what_the_configuration_chose_is_told_with_its_file_and_section() -> None:
    origin = Origin("/etc/nm-mptcp/nm-mptcp.conf", 3, "path-x")
    section = PathSection("path-x", settings={"flags": Setting(ProfileFlag.SUBFLOW | ProfileFlag.BACKUP, origin)})
    document = explained(A, laptop(), config=Config(sections=(section,)))
    assert "flags=subflow,backup, [path-x] in /etc/nm-mptcp/nm-mptcp.conf" in facts_of(document)["configuration"]


def test_an_interface_without_an_address_is_explained_too() -> None:
    situation = laptop()
    situation.link("eth9", profile=None)
    document = explained("eth9", situation)
    assert {fact["about"]: fact["says"] for fact in document["facts"]}["address"] == "none"
    assert "eth9: no path" in text(document)


@pytest.mark.parametrize("why", Why)
@pytest.mark.parametrize("profile", [True, False])
@pytest.mark.parametrize("state", State)
def test_commands_can_be_pasted_whatever_decided(why: Why, profile: bool, state: State) -> None:
    path = Path(
        A, 2, "wl an'0;reboot", state, Reason(why, "x"), profile="a'b" if profile else "", uuid="u-1" if profile else ""
    )
    for what, command in remedies(path):
        assert what.isprintable()
        assert command.isprintable()
        if not command.startswith("in "):
            words = shlex.split(command, comments=True)
            assert words[0] in ("nmcli", "nm-mptcp", "ip", "sysctl", "systemctl")
            assert "reboot" not in words


#: Rules after which there is nothing to type: the address is what it is, or nothing is against it.
NOTHING_TO_TYPE = {
    Why.LINK_LOCAL, Why.UNIQUE_LOCAL, Why.NOT_GLOBAL, Why.TEMPORARY, Why.DEPRECATED
}  # fmt: skip


@pytest.mark.parametrize("why", [why for why in Why if why not in NOTHING_TO_TYPE])
def test_each_rule_ends_in_something_to_type(why: Why) -> None:
    state = State.EXCLUDED if list(Why).index(why) >= list(Why).index(Why.NOT_MANAGED) else State.ACTIVE
    assert remedies(Path(A, 2, "wlan0", state, Reason(why, "x"), profile="p", uuid="u"))


# --- a destination


def test_a_destination_tells_path_subflows_tables_and_what_the_server_learns() -> None:
    situation = laptop(limits=Limits(4, 2))
    document = to(SERVER, situation, {B: RouteResult(3, "10.0.2.1", 42001, source=B)})
    assert document["first"]["interface"] == "wlan0"
    assert (document["first"]["source"], document["first"]["gateway"], document["first"]["table"]) == (
        A, "10.0.1.1", 254
    )  # fmt: skip
    (follower,) = document["subflows"]
    assert follower["follows"]
    assert (follower["address"], follower["interface"], follower["table"]) == (B, "wwan0", 42001)
    assert (follower["priority"], follower["endpoint_id"]) == ("backup", 2)
    assert document["learns"] == [A, B]
    said = text(document)
    assert f"begins from {A} by wlan0 ('wlan0') via 10.0.1.1, table main" in said
    assert f"then from {B} by wwan0 ('wwan0') via 10.0.2.1, table 42001, backup, endpoint 2" in said
    assert f"The server learns of: {A}, {B}" in said


def _no_way(s: Situation) -> dict[str, Any]:
    return to(SERVER, s, {B: RouteResult(error="Network is unreachable")})


def _no_connection(s: Situation) -> dict[str, Any]:
    return to(
        SERVER,
        s,
        {A: RouteResult(error="x"), B: RouteResult(3, None, 254, source=B)},
        RouteResult(error="No route to host"),
    )


def _reached(s: Situation) -> dict[str, Any]:
    return to(SERVER, s, {B: RouteResult(3, None, 254, source=B)})


@pytest.mark.parametrize(
    ("build", "kernel", "reason"),
    [
        (_no_way, {"limits": Limits(4, 2)}, "Network is unreachable"),
        (_reached, {"limits": Limits(0, 2)}, "the limit of 0 additional subflows is reached"),
        (_reached, {"mptcp_enabled": False}, "MPTCP is disabled"),
        (_reached, {"path_manager": "userspace"}, "the path manager is 'userspace', which does not use endpoints"),
        (_no_connection, {}, "the connection itself fails"),
    ],
)
def test_a_subflow_that_cannot_follow_says_why_and_is_not_learnt_of(
    build: Callable[[Situation], dict[str, Any]], kernel: dict[str, Any], reason: str
) -> None:
    document = build(laptop(**kernel))
    assert [each["reason"] for each in document["subflows"] if each["address"] == B] == [reason]
    assert B not in document["learns"]


def test_endpoints_of_the_other_family_without_subflow_or_implicit_do_not_follow() -> None:
    situation = laptop()
    situation.address(2, f"{A6}/64")
    situation.endpoint(A6, 2, SUBFLOW, ours=True)
    situation.endpoint("10.0.9.9", 2, EndpointFlag.SIGNAL, ours=False)
    situation.endpoint("10.0.9.8", 2, SUBFLOW | EndpointFlag.IMPLICIT, ours=False)
    document = to(SERVER, situation, {B: RouteResult(3, None, 254, source=B)})
    assert [each["address"] for each in document["subflows"]] == [B]
    assert document["learns"] == [A, B, "10.0.9.9"]  # which is announced
    assert any("IPv6 endpoints join only if the server announces" in note for note in document["notes"])
    over6 = to(SERVER6, situation, {}, RouteResult(2, None, 254, source=A6))
    assert over6["subflows"] == []


def test_a_connection_around_all_paths_says_so() -> None:
    situation = laptop()
    situation.link("tun0", "10.8.0.2/24", type=16, gateway=False)
    document = to(
        SERVER,
        situation,
        {A: RouteResult(2, None, 254, source=A), B: RouteResult(3, None, 254, source=B)},
        RouteResult(4, None, 254, source="10.8.0.2"),
    )
    assert "leaves from an address that is no path" in " ".join(document["notes"])
    assert document["first"]["state"] == "excluded"


def in_a_tunnel(*announced: str) -> dict[str, Any]:
    """A connection that begins in tun0, on a machine with such endpoints that are announced."""
    situation = laptop()
    tunnel = situation.link("tun0", "10.8.0.2/24", "10.8.0.3/24", type=16, gateway=False)
    for address in announced:
        situation.endpoint(address, tunnel if address.startswith("10.8.") else 2, EndpointFlag.SIGNAL, ours=False)
    ways = {A: RouteResult(2, None, 254, source=A), B: RouteResult(3, None, 254, source=B)}
    return to(SERVER, situation, ways, RouteResult(tunnel, None, 254, source="10.8.0.2"))


def test_a_connection_in_a_tunnel_gets_no_subflow_beside_it() -> None:
    document = in_a_tunnel()
    assert {each["reason"] for each in document["subflows"]} == {"it would bypass the tunnel tun0: dropped (vpn-guard)"}
    assert "The connection begins in the tunnel tun0, and gets no subflow beside it." in document["notes"]
    assert document["learns"] == ["10.8.0.2"]


def test_its_server_is_announced_no_address_unless_only_tunnels_have_some() -> None:
    assert in_a_tunnel("10.8.0.3")["learns"] == ["10.8.0.2", "10.8.0.3"]
    assert in_a_tunnel("10.8.0.3", "10.0.9.9")["learns"] == ["10.8.0.2"]


def test_a_connection_beside_a_tunnel_tells_of_those_that_are_bound_to_it() -> None:
    situation = laptop(limits=Limits(8, 0))
    situation.address(2, f"{A6}/64")
    situation.endpoint(A6, 2, SUBFLOW, ours=True)
    situation.link("tun0", "10.8.0.2/24", type=16, gateway=False)
    notes = to(SERVER, situation, {B: RouteResult(3, None, 254, source=B)})["notes"]
    assert "What is bound to tun0, or marked for it, begins there and stays there." in notes
    assert "IPv6 endpoints do not join while there is a tunnel (vpn-guard)." in notes


def test_this_machine_itself_gets_no_subflows() -> None:
    document = to(
        SERVER,
        laptop(),
        {A: RouteResult(2, None, 254, source=A), B: RouteResult(3, None, 254, source=B)},
        RouteResult(1, source=SERVER, local=True),
    )
    assert not any(each["follows"] for each in document["subflows"])
    assert document["learns"] == [SERVER]
    # They stand where they stand, though the way to them is by lo.
    assert [(each["address"], each["interface"]) for each in document["subflows"]] == [(A, "wlan0"), (B, "wwan0")]
    assert document["commands"] == []


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("224.0.0.1", "'224.0.0.1' is a multicast address, to which there are no connections"),
        ("ff02::1", "'ff02::1' is a multicast address, to which there are no connections"),
        ("255.255.255.255", "'255.255.255.255' is the broadcast address, to which there are no connections"),
        ("0.0.0.0", "'0.0.0.0' is the unspecified address"),
        ("::", "'::' is the unspecified address"),
        ("fe80::1%wlan0", "'fe80::1%wlan0' is link-local: it is reachable by that link only"),
    ],
)
def test_what_no_connection_can_go_to_by_several_paths_is_said(what: str, words: str) -> None:
    with pytest.raises(UnknownSubject) as error:
        subject(what, known(laptop()))
    assert str(error.value) == words


def test_an_own_address_is_explained_whatever_it_is() -> None:
    situation = laptop()
    situation.address(2, "fe80::7/64")
    assert subject("fe80::7", known(situation))[0] == "address"


def test_a_connection_that_fails_ends_in_where_to_look() -> None:
    document = _no_connection(laptop())
    assert [each["type"] for each in document["commands"]] == ["nm-mptcp status"]


def test_a_kernel_without_mptcp_is_not_told_to_turn_it_on() -> None:
    document = to(SERVER, laptop(path_manager="", mptcp_enabled=False), {B: RouteResult(3, None, 254, source=B)})
    assert [each["reason"] for each in document["subflows"]] == ["this kernel has no MPTCP"]
    assert not any("net.mptcp" in each["type"] for each in document["commands"])
    assert document["notes"] == ["The connection is plain TCP: this kernel has no MPTCP."]
    document = to(SERVER, laptop(mptcp_enabled=False), {B: RouteResult(3, None, 254, source=B)})
    assert document["notes"] == ["The connection is plain TCP: MPTCP is disabled."]
    assert document["commands"][0]["type"] == "sysctl -w net.mptcp.enabled=1"


# --- what others wrote


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_no_name_breaks_text_or_json(name: str) -> None:
    situation = Situation()
    situation.link(name[:15], f"{A}/24", profile={"id": name, "uuid": "1-2"})
    situation.endpoint(A, 2, BACKUP, ours=True)
    for what in (A, "1-2", name[:15]):
        document = explained(what, situation)
        json.dumps(document, ensure_ascii=False).encode("utf-8")
        lines = text(document).splitlines()
        assert all(line.isprintable() for line in lines)
        assert all(len(line) < 400 for line in lines)
    if len(name) < 4096:
        assert subject(name, known(situation))[0] == "interface" if len(name) < 16 else True
    document = to(SERVER, situation, {}, RouteResult(2, None, 254, source=A))
    json.dumps(document, ensure_ascii=False).encode("utf-8")
    assert all(line.isprintable() for line in text(document).splitlines())


@pytest.mark.parametrize("width", [40, 60, 80, 160])
def test_a_terminal_gets_lines_that_fit_but_commands_stay_whole(width: int) -> None:
    document = explained("wlan0", laptop())
    told = text(document, width).splitlines()
    commands = {f"      {command['type']}" for path in document["paths"] for command in path["commands"]}
    assert commands <= set(told)
    assert all(len(line) <= width for line in told if line not in commands)
    assert " ".join(" ".join(told).split()) == " ".join(text(document).split())
