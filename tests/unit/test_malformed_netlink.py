# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever bytes come for a netlink message, its parser gives a value, nothing, or one of the errors that are documented."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nm_mptcp.kernel import path_manager, path_manager_events, rtnl_parse, sock_diag, xfrm
from nm_mptcp.kernel.netlink import Message, messages
from nm_mptcp.kernel.tcp_sockets import _Scan

#: What a malformed message may be told by.
DOCUMENTED = (ValueError, struct.error, OSError)

#: Each parser, the types of message that it gets, and the size of what stands before the attributes.
PARSERS: dict[str, tuple[Callable[[Message], Any], tuple[int, ...], int]] = {
    "events": (path_manager_events.parse, (30,), 4),
    "link": (rtnl_parse.link, (16, 17), 16),
    "address": (rtnl_parse.address, (20, 21), 8),
    "routes": (rtnl_parse.routes, (24, 25), 12),
    "lookup": (rtnl_parse.lookup, (24,), 12),
    "rule": (rtnl_parse.rule, (32, 33), 12),
    "event": (rtnl_parse.event, (16, 17, 20, 21, 24, 25, 32, 33, 104, 105), 12),
    "endpoint": (path_manager._endpoint, (30,), 4),
    "subflow": (sock_diag._subflow, (20,), 72),
    "policy": (xfrm.parse, (19,), 168),
}

#: Attributes as the kernel might send them, and nested ones.
NUMBERS = st.sampled_from([0, 1, 2, 10, 0xFF, 0xFFFF, 0xFFFFFFFF])
PAYLOADS = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([b"", bytes(1), bytes(4), bytes(16), b"eth0\0", struct.pack("=HBBi", 8, 0, 0, 2)]),
)


@st.composite
def attributes(draw: st.DrawFn, depth: int = 2) -> bytes:
    data = b""
    for kind in draw(st.lists(st.integers(0, 34), max_size=5)):
        payload = draw(attributes(depth - 1)) if depth and draw(st.booleans()) else draw(PAYLOADS)
        length = 4 + len(payload) + draw(st.sampled_from([0, 0, 0, 0, 1, -4]))
        data += struct.pack("=HH", max(length, 0), kind) + payload + bytes(-len(payload) % 4)
    return data


@st.composite
def payloads(draw: st.DrawFn, head: int) -> bytes:
    family = draw(st.sampled_from([0, 2, 10, 7]))
    rest = draw(st.binary(min_size=head, max_size=head)) if draw(st.booleans()) else bytes(head)
    return (bytes([family]) + rest[1:] + draw(attributes()))[
        : draw(st.sampled_from([None, None, head, head - 1, 3, 0]))
    ]


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=400)
@given(data=st.data())
def test_no_message_raises_anything_else(name: str, data: st.DataObject) -> None:
    parser, kinds, head = PARSERS[name]
    payload = data.draw(payloads(head))
    message = Message(data.draw(st.sampled_from(kinds)), 0, 1, payload, 0, len(payload))
    with contextlib.suppress(*DOCUMENTED):
        parser(message)


@given(st.binary(max_size=64))
@example(b"")
def test_no_datagram_raises_anything_else(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        for message in messages(data):
            for parser, _, _ in PARSERS.values():
                with contextlib.suppress(*DOCUMENTED):
                    parser(message)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_no_datagram_of_sockets_raises_anything_else(data: st.DataObject) -> None:
    datagram = b""
    for payload in data.draw(st.lists(payloads(72), max_size=4)):
        info = struct.pack("=HH", 204, 2) + data.draw(st.binary(min_size=200, max_size=200))
        payload += info if data.draw(st.booleans()) else b""
        kind = data.draw(st.sampled_from([18, 18, 18, 3]))
        datagram += struct.pack("=IHHII", 16 + len(payload), kind, 2, 1, 0) + payload
    scan = _Scan({"0.0.0.0": 1, "::": 2}, frozenset(), lambda _: False)
    with contextlib.suppress(ValueError):
        assert 0 <= scan.take(datagram) <= len(datagram)
    assert len(scan.look().sockets) <= 4
    assert len(scan.subflows()) <= 4


@pytest.mark.parametrize(
    ("name", "kind", "payload"),
    [
        ("events", 30, b""),
        ("rule", 32, struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 0, 0, 1, 0) + struct.pack("=HH", 4, 21)),
        ("routes", 24, struct.pack("=BBBBBBBBI", 10, 0, 0, 0, 254, 0, 0, 1, 0) + struct.pack("=HH", 4, 20)),
        ("link", 16, struct.pack("=BxHiII", 0, 1, 2, 0, 0)),
    ],
)
def test_what_was_an_index_or_a_key_that_is_not_there(name: str, kind: int, payload: bytes) -> None:
    with pytest.raises(DOCUMENTED):
        PARSERS[name][0](Message(kind, 0, 1, payload, 0, len(payload)))
