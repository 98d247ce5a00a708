# SPDX-License-Identifier: GPL-2.0-or-later
"""What TCP sockets, and attempts to reach their peers, tell about a link: a table."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import pytest

from nm_mptcp.kernel.tcp_sockets import Look, TCPSocket
from nm_mptcp.model.state import Family, Place
from nm_mptcp.policy.silence_evidence import Attempts, Evidence, Standing, in_words, is_private, judge, weigh

WIFI, LTE, WIFI6 = Place(Family.IPV4, 2), Place(Family.IPV4, 3), Place(Family.IPV6, 2)
W, C, W6 = "10.0.1.2", "10.0.2.2", "2001:db8:1::2"
PLACES = {W: WIFI, C: LTE, W6: WIFI6}
SERVER = "192.0.2.1"


def tcp(local: str = W, remote: str = SERVER, /, **values: object) -> TCPSocket:
    """An idle connection that was heard long ago, but for these values."""
    usual: dict[str, object] = {
        "local_port": 40000,
        "remote_port": 443,
        "ifindex": 0,
        "token": 0,
        "connecting": False,
        "unacked": 0,
        "retransmitted": 0,
        "timeouts": 0,
        "acked": 1000,
        "heard": 100.0,
        "waited": 0.2,
        "rtt": 0.02,
        "trip": 0.02,
        "shortest": 0.02,
        "sent": 100,
        "resent": 0,
        "cookie": hash((local, remote)),
        "sacked": 0,
        "told": values.get("heard", 100.0),
    }
    return TCPSocket(family=Family.of(local), local=local, remote=remote, **(usual | values))  # type: ignore[arg-type]


def stalled(local: str = W, remote: str = SERVER, /, seconds: float = 0.42, **values: object) -> TCPSocket:
    """A connection whose last packet was retransmitted in vain for so long."""
    usual: dict[str, object] = {"unacked": 1, "retransmitted": 2, "heard": seconds, "waited": seconds}
    return tcp(local, remote, **(usual | values))


def connecting(remote: str, /, times: int = 1, **values: object) -> TCPSocket:
    usual: dict[str, object] = {"connecting": True, "unacked": 1, "retransmitted": times, "waited": 1.0, "rtt": 0.0}
    return tcp(W, remote, **(usual | values))


def near(address: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network("10.0.0.0/8")


def evidence(*sockets: TCPSocket, place: Place = WIFI) -> Evidence:
    return weigh(look(*sockets), PLACES, near).get(place, Evidence())


def look(*sockets: TCPSocket) -> Look:
    return Look(sockets, {each.cookie: each.acked for each in sockets})


@dataclass(frozen=True)
class Row:
    sockets: tuple[TCPSocket, ...]
    attempts: Attempts
    standing: Standing


NONE = Attempts()
BY_LTE = {SERVER: LTE}

ROWS: dict[str, Row] = {
    # the same MPTCP connection advances elsewhere
    "a subflow stalls, its sibling was heard, and attempts are not answered": Row(
        (stalled(token=7), tcp(C, token=7, heard=0.01)), Attempts(unanswered=3), Standing.SUSPECT
    ),
    "and so for a second": Row(
        (stalled(token=7, seconds=1.1, retransmitted=3), tcp(C, token=7, heard=0.01)),
        Attempts(unanswered=8, seconds=0.8),
        Standing.SILENT,
    ),
    "its peers were only asked for a moment: on a busy machine answers may be late": Row(
        (stalled(token=7, seconds=26, retransmitted=7), tcp(C, token=7, heard=0.01)),
        Attempts(unanswered=8, seconds=0.4),
        Standing.SUSPECT,
    ),
    "many packets in a moment are not certain: a Wi-Fi may roam": Row(
        (stalled(token=7, unacked=20), tcp(C, token=7, heard=0.01)), Attempts(unanswered=20), Standing.SUSPECT
    ),
    "few packets may be lost by chance": Row(
        (stalled(token=7), tcp(C, token=7, heard=0.01)), Attempts(unanswered=2), Standing.UNKNOWN
    ),
    "few packets prove nothing however long it lasts": Row(
        (stalled(token=7, seconds=30, retransmitted=8), tcp(C, token=7, heard=0.01)),
        Attempts(unanswered=2),
        Standing.SUSPECT,
    ),
    "many packets of before are not certain: nobody looked meanwhile (sleep), and the link may answer by now": Row(
        (
            *(stalled(token=7, seconds=4, timeouts=4, unacked=10, local_port=n) for n in (1, 2)),
            tcp(C, token=7, heard=0.1),
        ),
        Attempts(unanswered=1),
        Standing.UNKNOWN,
    ),
    "the sibling was not heard since: the server may be dead": Row(
        (stalled(token=7, seconds=2), tcp(C, token=7, heard=3.0)), Attempts(unanswered=20), Standing.UNKNOWN
    ),
    "it is another connection's": Row(
        (stalled(token=7), tcp(C, token=8, heard=0.01)), Attempts(unanswered=20), Standing.UNKNOWN
    ),
    "an attempt is answered": Row(
        (stalled(token=7, seconds=5), tcp(C, token=7, heard=0.01)),
        Attempts(unanswered=9, answered=True),
        Standing.GOOD,
    ),
    # others by the same link
    "another peer was heard in the middle of it: only one packet was lost since": Row(
        (stalled(token=7, seconds=2), tcp(C, token=7, heard=0.01), tcp(W, "192.0.2.9", heard=0.4)),
        Attempts(unanswered=3),
        Standing.UNKNOWN,
    ),
    "only what is sent vanishes: the peer is heard, and acknowledges nothing": Row(
        (stalled(token=7, seconds=1.2, timeouts=3, heard=0.01), tcp(C, token=7, heard=0.01)),
        Attempts(unanswered=10, seconds=1.0),
        Standing.SILENT,
    ),
    "and before the first timeout: what the peer sends is what it sent before": Row(
        (stalled(token=7, heard=0.01, told=0.42), tcp(C, token=7, heard=0.01)), Attempts(unanswered=4), Standing.SUSPECT
    ),
    "it sends something new": Row(
        (stalled(token=7, heard=0.01, told=0.01), tcp(C, token=7, heard=0.01)), Attempts(unanswered=4), Standing.UNKNOWN
    ),
    "it acknowledges something else": Row(
        (stalled(token=7, heard=0.01, told=9.0, sacked=1), tcp(C, token=7, heard=0.01)),
        Attempts(unanswered=4),
        Standing.UNKNOWN,
    ),
    "an upload is acknowledged, though one packet is sent again": Row(
        (tcp(unacked=30, retransmitted=1, heard=0.01, told=9.0, token=7), tcp(C, token=7, heard=0.01)),
        Attempts(unanswered=4),
        Standing.UNKNOWN,
    ),
    "a neighbour on its own network was heard: that tells nothing about the way beyond": Row(
        (stalled(token=7, seconds=2), tcp(C, token=7, heard=0.01), tcp(W, "10.0.1.9", heard=0.01)),
        Attempts(unanswered=10, seconds=1.0),
        Standing.SILENT,
    ),
    "a dead server is sent to again a while after another answered": Row(
        (stalled(W, "192.0.2.9", seconds=300, retransmitted=10), tcp(heard=3.0)),
        Attempts(unanswered=4, elsewhere=BY_LTE),
        Standing.UNKNOWN,
    ),
    "acknowledgements of something new arrive, though one packet is sent again": Row(
        (tcp(unacked=30, retransmitted=1, heard=0.01, token=7), tcp(C, token=7, heard=0.01)),
        Attempts(unanswered=0),
        Standing.UNKNOWN,
    ),
    # a long way
    "a round-trip takes 0.6 s: 0.7 s are not late": Row(
        (stalled(token=7, seconds=0.7, rtt=0.6), tcp(C, token=7, heard=0.01)), NONE, Standing.UNKNOWN
    ),
    # plain TCP
    "three new connections are not answered, and one peer is by the other link": Row(
        tuple(connecting(f"192.0.2.{number}") for number in (1, 2, 3)),
        Attempts(unanswered=2, elsewhere=BY_LTE),
        Standing.SUSPECT,
    ),
    "they are not answered by the other link either": Row(
        tuple(connecting(f"198.51.100.{number}") for number in range(200)), Attempts(unanswered=20), Standing.UNKNOWN
    ),
    "a peer that was never reached may be blocked here": Row(
        (connecting(SERVER, 5),), Attempts(unanswered=20, elsewhere=BY_LTE), Standing.UNKNOWN
    ),
    "one that was reached before is not": Row(
        (stalled(seconds=1.5),), Attempts(unanswered=10, seconds=1.2, elsewhere=BY_LTE), Standing.SILENT
    ),
    # clients of a server here
    "a client went away": Row(
        (stalled(local_port=443, remote_port=50000, token=7), tcp(C, token=7, heard=0.01)), NONE, Standing.UNKNOWN
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_what_is_known(row: Row) -> None:
    found = evidence(*row.sockets)
    assert judge(found, row.attempts, found.quiet) is row.standing


def test_a_socket_that_is_bound_to_another_interface_is_no_evidence_for_the_address() -> None:
    assert not evidence(stalled(ifindex=3)).waiting
    assert evidence(stalled(ifindex=2)).waiting


def test_a_connection_that_began_in_a_tunnel_is_no_evidence_about_the_links_beside_it() -> None:
    inside, join = tcp("10.8.0.2", token=7, heard=0.01), connecting(SERVER, 3, token=7)
    found = weigh(look(inside, join, connecting("192.0.2.2")), PLACES, near, inside={"10.8.0.2"})
    assert [each.remote for each in found[WIFI].waiting] == ["192.0.2.2"]


def test_what_goes_through_a_tunnel_that_is_watched_is_evidence_about_that() -> None:
    tunnel = Place(Family.IPV4, 4)
    through, beside = stalled("10.8.0.2", token=7), stalled(W, "192.0.2.2", token=7)
    found = weigh(look(through, beside), {**PLACES, "10.8.0.2": tunnel}, near, inside={"10.8.0.2"})
    assert found.keys() == {tunnel}
    assert found[tunnel].waiting == (through,)


def test_nothing_is_asked_while_somebody_is_heard() -> None:
    assert evidence(stalled(seconds=0.3)).suspicious
    assert not evidence(stalled(seconds=0.3), tcp(W, "192.0.2.9", heard=0.1)).suspicious
    assert not evidence(tcp()).suspicious


def test_progress_is_what_a_peer_acknowledges_of_new_and_old_connections() -> None:
    before = evidence(stalled(acked=1000))
    assert not evidence(stalled(acked=1000), connecting("192.0.2.2")).progress(before, 1.0)
    assert evidence(stalled(acked=1001)).progress(before, 1.0)
    new = tcp(W, "192.0.2.2", acked=1, heard=0.2)
    assert evidence(stalled(acked=1000), new).progress(before, 1.0)
    assert not evidence(stalled(acked=1000), new._replace(heard=90.0)).progress(before, 1.0), "it was idle, and sends"


def test_of_a_socket_that_waited_before_the_last_answer_one_packet_counts() -> None:
    waits_long = stalled(W, "192.0.2.9", seconds=300, retransmitted=12)
    assert evidence(waits_long).packets == 6
    assert evidence(waits_long, tcp(heard=2.0)).packets == 1


def test_other_peers_are_asked_as_well_the_latest_heard_first() -> None:
    found = evidence(
        stalled(token=7),
        tcp(C, "192.0.2.2", token=7, heard=0.01),
        tcp(W, "192.0.2.4", heard=9),
        tcp(W, "192.0.2.3", heard=5),
    )
    assert found.others == (("192.0.2.2", 443), ("192.0.2.3", 443), ("192.0.2.4", 443))


def test_whom_a_program_talks_to_by_this_link_on_purpose_is_not_asked_by_another() -> None:
    bound = stalled(W, "192.0.2.2", ifindex=2)
    assert set(evidence(stalled(W), bound).elsewhere_too) == {SERVER}
    assert evidence(tcp(W, "192.0.2.2", ifindex=2, heard=1.0), tcp(W, heard=2.0)).others_elsewhere == ((SERVER, 443),)
    subflow = tcp(W, "192.0.2.3", ifindex=2, token=7)
    assert evidence(subflow).others_elsewhere == (("192.0.2.3", 443),), "the kernel binds those of our endpoints"


def test_the_evidence_in_words() -> None:
    names = {2: "wlan0", 3: "wwan0"}
    one = evidence(stalled(token=7, seconds=1.04), tcp(C, token=7, heard=0.01))
    assert in_words(one, NONE, one.quiet, names) == "a peer unanswered for 1.0 s, it answers by wwan0"
    three = evidence(*(connecting(f"192.0.2.{number}") for number in (1, 2, 3)))
    assert (
        in_words(three, Attempts(elsewhere=BY_LTE), three.quiet, names)
        == "3 peers unanswered for 1.0 s, 1 of them answers by wwan0"
    )


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("192.168.1.1", True),
        ("10.1.2.3", True),
        ("100.64.0.1", True),
        ("169.254.1.1", True),
        ("fd00::1", True),
        ("fe80::1", True),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
    ],
)
def test_private_addresses_are_other_hosts_elsewhere(address: str, private: bool) -> None:
    assert is_private(address) is private
