# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``exec --check`` tells: strace's lines, and the sentences that come of them."""

from __future__ import annotations

import socket
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nm_mptcp.launch.plan import Method
from nm_mptcp.launch.refusals import refused_by_mptcp, sentences
from nm_mptcp.launch.strace import Calls, FailedOption, parse

ULP = FailedOption("setsockopt", 6, 31, "SOL_TCP, TCP_ULP", "ENOPROTOOPT")
NONSENSE = FailedOption("setsockopt", 6, 0x63, "SOL_TCP, TCP_???", "ENOPROTOOPT")

TCP4 = "socket(0x2 /* AF_INET */, 0x1 /* SOCK_STREAM */|0x80000 /* SOCK_CLOEXEC */, {} /* {} */) = {}"
MPTCP = TCP4.format("0x106", "IPPROTO_MPTCP", "3<socket:[77]>")
ULP_LINE = (
    'setsockopt(3<socket:[77]>, 0x6 /* SOL_TCP */, 0x1f /* TCP_ULP */, "tls", 3)      '
    "= -1 ENOPROTOOPT (Protocol not available)"
)


@pytest.mark.parametrize(
    ("lines", "calls"),
    [
        ([], Calls()),
        ([MPTCP, MPTCP], Calls(made=Counter({262: 2}))),
        ([TCP4.format("0x6", "IPPROTO_TCP", "3<socket:[77]>")], Calls(made=Counter({6: 1}))),
        (
            ["socket(0xa /* AF_INET6 */, 0x1 /* SOCK_STREAM */, 0 /* IPPROTO_IP */) = 3<socket:[7]>"],
            Calls(made=Counter({0: 1})),
        ),
        (["socket(0x2 /* AF_INET */, 0x2 /* SOCK_DGRAM */, 0 /* IPPROTO_IP */) = 3<socket:[7]>"], Calls()),
        (["socket(0x2 /* AF_INET */, 0x1 /* SOCK_STREAM */, 0x84 /* IPPROTO_SCTP */) = 3<socket:[7]>"], Calls()),
        (
            [TCP4.format("0x106", "IPPROTO_MPTCP", "-1 EPERM (Operation not permitted)")],
            Calls(not_made=Counter({"EPERM": 1})),
        ),
        ([MPTCP, ULP_LINE, ULP_LINE], Calls(made=Counter({262: 1}), failed=Counter({ULP: 2}))),
        # The socket was made before, or came by accept(2).
        ([ULP_LINE], Calls(failed=Counter({ULP: 1}))),
        # It is of another kind, which another thread made.
        ([ULP_LINE, "socket(0x1 /* AF_UNIX */, 0x1 /* SOCK_STREAM */, 0) = 3<socket:[77]>"], Calls()),
        (["setsockopt(3<socket:[77]>, 0x6 /* SOL_TCP */, 0x1 /* TCP_NODELAY */, [1], 4) = 0"], Calls()),
        (
            ["getsockopt(3<socket:[7]>, 0x11d, 0x2, 0x7ffc, [4]) = -1 EOPNOTSUPP (Operation not supported)"],
            Calls(failed=Counter({FailedOption("getsockopt", 0x11D, 2, "285, 2", "EOPNOTSUPP"): 1})),
        ),
        (["io_uring_setup(8, {flags=0}) = 4<anon_inode:[io_uring]>"], Calls(io_uring=True)),
        (["io_uring_setup(8, {flags=0}) = -1 EPERM (Operation not permitted)"], Calls()),
        (["landlock_restrict_self(3<anon_inode:[landlock-ruleset]>, 0) = 0"], Calls(landlock=True)),
        (["+++ exited with 0 +++", "", "socket(0x2 /* AF_INET */, 0x1 /* SOCK_STREAM */, "], Calls()),
    ],
)
def test_what_strace_writes_is_understood(lines: list[str], calls: Calls) -> None:
    assert parse(lines) == calls


@given(
    st.lists(st.text() | st.builds(lambda line, end: line[:end], st.sampled_from([MPTCP, ULP_LINE]), st.integers(0)))
)
def test_no_line_is_too_odd(lines: list[str]) -> None:
    assert isinstance(parse(lines), Calls)


@pytest.mark.parametrize(
    ("calls", "method", "told"),
    [
        (Calls(), Method.EBPF, ["it made no TCP socket"]),
        (
            Calls(made=Counter({6: 1})),
            Method.EBPF,
            ["it made 1 MPTCP socket", "no socket option failed because of MPTCP"],
        ),
        (
            Calls(made=Counter({262: 2, 6: 1})),
            Method.PRELOAD,
            ["it made 2 MPTCP sockets, and 1 that stayed TCP", "no socket option failed because of MPTCP"],
        ),
        (
            Calls(made=Counter({262: 1}), failed=Counter({ULP: 2, NONSENSE: 1})),
            Method.PRELOAD,
            [
                "it made 1 MPTCP socket",
                "setsockopt(SOL_TCP, TCP_ULP) failed because the socket is MPTCP: Protocol not available (ENOPROTOOPT), "
                "2 times; the kernel does not encrypt (kTLS), the program has to",
            ],
        ),
        (
            Calls(not_made=Counter({"EPERM": 1})),
            Method.PRELOAD,
            ["it made no TCP socket", "the kernel refused a socket: Operation not permitted (EPERM), once"],
        ),
        (
            Calls(io_uring=True, landlock=True),
            Method.EBPF,
            [
                "it made no TCP socket",
                "it uses io_uring: sockets that it makes that way stay TCP",
                "it restricts itself by Landlock, whose rules for TCP ports do not apply to MPTCP sockets",
            ],
        ),
    ],
)
def test_what_is_told(calls: Calls, method: Method, told: list[str]) -> None:
    assert list(sentences(calls, method, lambda option: option == ULP)) == told


@pytest.mark.parametrize(
    ("option", "refused"),
    [
        (ULP, True),
        (FailedOption("setsockopt", 1, 60, "SOL_SOCKET, SO_ZEROCOPY", "EOPNOTSUPP"), True),
        # Neither knows it; both do, and it failed for another reason; it failed on a socket of another kind.
        (NONSENSE, False),
        (FailedOption("setsockopt", 6, 31, "SOL_TCP, TCP_ULP", "ENOENT"), False),
        (FailedOption("setsockopt", 6, 1, "SOL_TCP, TCP_NODELAY", "EOPNOTSUPP"), False),
        (FailedOption("setsockopt", 6, 1, "SOL_TCP, TCP_NODELAY", "EUNHEARDOF"), False),
    ],
)
def test_the_kernel_is_asked_what_mptcp_refuses(option: FailedOption, refused: bool) -> None:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP).close()
    except OSError as error:
        pytest.skip(f"no MPTCP socket: {error}")
    assert refused_by_mptcp(option) is refused
