# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``exec --check`` tells: strace's lines, and the sentences that come of them."""

from __future__ import annotations

import socket
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nm_mptcp.launch.plan import Method
from nm_mptcp.launch.refusals import refused_by_mptcp, sentences
from nm_mptcp.launch.strace import Calls, FailedOption, parse

ULP = FailedOption("setsockopt", 6, 31, "SOL_TCP, TCP_ULP", "ENOPROTOOPT")
NONSENSE = FailedOption("setsockopt", 6, 0x63, "SOL_TCP, 99", "ENOPROTOOPT")

TCP4 = "socket(0x2 /* AF_INET */, 0x1 /* SOCK_STREAM */|0x80000 /* SOCK_CLOEXEC */, {} /* {} */) = {}"
MPTCP = TCP4.format("0x106", "IPPROTO_MPTCP", "3<socket:[77]>")
CONNECT = "connect(3<socket:[77]>, {sa_family=0x2 /* AF_INET */, sin_port=htons(80)}, 16) = 0"
LISTEN = "listen(3<socket:[77]>, 128) = 0"
REFUSED = "= -1 ENOPROTOOPT (Protocol not available)"
ULP_LINE = f'setsockopt(3<socket:[77]>, 0x6 /* SOL_TCP */, 0x1f /* TCP_ULP */, "tls", 3)      {REFUSED}'
MPTCP_ONCE, ULP_ONCE = Counter({262: 1}), Counter({ULP: 1})


@pytest.mark.parametrize(
    ("lines", "calls"),
    [
        ([], Calls()),
        ([MPTCP, CONNECT], Calls(used=MPTCP_ONCE)),
        ([LISTEN, MPTCP], Calls(used=MPTCP_ONCE)),
        # Go makes some to see what there is, and closes them.
        ([MPTCP, CONNECT, TCP4.format("0x6", "IPPROTO_TCP", "3<socket:[78]>")], Calls(used=MPTCP_ONCE)),
        # strace of a user sees no more of a process that is not dumpable.
        ([TCP4.format("0x106", "IPPROTO_MPTCP", "3")], Calls(used=MPTCP_ONCE)),
        (
            ["socket(0xa /* AF_INET6 */, 0x1 /* SOCK_STREAM */, 0) = 3<socket:[77]>", CONNECT],
            Calls(used=Counter({0: 1})),
        ),
        (["socket(0x2 /* AF_INET */, 0x2 /* SOCK_DGRAM */, 0) = 3<socket:[77]>", CONNECT], Calls()),
        (
            ["socket(0x2 /* AF_INET */, 0x1 /* SOCK_STREAM */, 0x84 /* IPPROTO_SCTP */) = 3<socket:[77]>", CONNECT],
            Calls(),
        ),
        (
            [TCP4.format("0x106", "IPPROTO_MPTCP", "-1 EPERM (Operation not permitted)")],
            Calls(not_made=Counter({(262, "EPERM"): 1})),
        ),
        ([MPTCP, CONNECT, ULP_LINE, ULP_LINE], Calls(used=MPTCP_ONCE, failed=Counter({ULP: 2}))),
        # It came from elsewhere, or by accept(2) from one that did.
        ([ULP_LINE], Calls(failed=ULP_ONCE)),
        (["accept4(4<socket:[5]>, NULL, NULL, 0) = 3<socket:[77]>", ULP_LINE], Calls(failed=ULP_ONCE)),
        ([ULP_LINE.replace("<socket:[77]>", "")], Calls(failed=ULP_ONCE)),
        # It is of another kind, as another thread knows.
        ([ULP_LINE, "socket(0x1 /* AF_UNIX */, 0x1 /* SOCK_STREAM */, 0) = 3<socket:[77]>"], Calls()),
        (
            [ULP_LINE, "socket(0x11 /* AF_PACKET */, 0x3 /* SOCK_RAW */, htons(0x3 /* ETH_P_ALL */)) = 3<socket:[77]>"],
            Calls(),
        ),
        ([ULP_LINE, "socketpair(0x1 /* AF_UNIX */, 0x1, 0, [3<socket:[77]>, 4<socket:[78]>]) = 0"], Calls()),
        (
            [
                "socket(0x1 /* AF_UNIX */, 0x1 /* SOCK_STREAM */, 0) = 4<socket:[5]>",
                "accept(4<socket:[5]>, NULL, NULL) = 3<socket:[77]>",
                ULP_LINE,
            ],
            Calls(),
        ),
        ([ULP_LINE.replace("3<socket:[77]>", "3</a/file>")], Calls()),
        (["setsockopt(3<socket:[77]>, 0x6 /* SOL_TCP */, 0x1 /* TCP_NODELAY */, [1], 4) = 0"], Calls()),
        (
            ["getsockopt(3<socket:[7]>, 0x11d, 0x2, 0x7ffc, [4]) = -1 EOPNOTSUPP (Operation not supported)"],
            Calls(failed=Counter({FailedOption("getsockopt", 0x11D, 2, "285, 2", "EOPNOTSUPP"): 1})),
        ),
        (
            [f"setsockopt(3<socket:[7]>, 0x6 /* SOL_TCP */, 0x63 /* TCP_??? */, [1], 4) {REFUSED}"],
            Calls(failed=Counter({NONSENSE: 1})),
        ),
        (['execve("/bin/true", ["true"], 0x7ffd /* 20 vars */) = 0'], Calls(executed=True)),
        (['execve("/bin/true", ["true"], 0x7ffd /* 20 vars */) = -1 ENOEXEC (Exec format error)'], Calls()),
        (["io_uring_setup(8, {flags=0}) = 4<anon_inode:[io_uring]>"], Calls(io_uring=True)),
        (["io_uring_setup(8, {flags=0}) = -1 EPERM (Operation not permitted)"], Calls()),
        (["landlock_restrict_self(3<anon_inode:[landlock-ruleset]>, 0) = 0"], Calls(landlock=True)),
        (["+++ exited with 0 +++", "", "socket(0x2 /* AF_INET */, 0x1 /* SOCK_STREAM */, "], Calls()),
    ],
)
def test_what_strace_writes_is_understood(lines: list[str], calls: Calls) -> None:
    assert parse(lines) == calls


ODD = st.text("0123456789xabcAF_|-? /*<>[]:") | st.sampled_from(["0x2", "1", "262", "-1 EPERM (no)", "3<socket:[77]>"])


@given(
    st.lists(ODD, min_size=4, max_size=4),
    st.sampled_from(["socket({}, {}, {}) = {}", "setsockopt({}, {}, {}, 1, 4) = {}"]),
)
@example(["A", "B", "C", "3"], "socket({}, {}, {}) = {}")
@example(["3<socket:[7]>", "A", "B", "-1 EPERM"], "setsockopt({}, {}, {}, 1, 4) = {}")
def test_no_line_is_too_odd(words: list[str], line: str) -> None:
    assert isinstance(parse([line.format(*words)]), Calls)


SOUND = "no socket option failed because of MPTCP"


@pytest.mark.parametrize(
    ("calls", "method", "told"),
    [
        (Calls(), Method.EBPF, ["it used no TCP socket"]),
        (
            Calls(used=Counter({6: 1})),
            Method.EBPF,
            ["it used 1 MPTCP socket (TCP where it left its control group)", SOUND],
        ),
        (
            Calls(used=Counter({262: 2, 6: 1})),
            Method.PRELOAD,
            ["it used 2 MPTCP sockets, and 1 that stayed TCP", SOUND],
        ),
        (Calls(used=Counter({6: 1})), Method.PRELOAD, ["it used 0 MPTCP sockets, and 1 that stayed TCP"]),
        (
            Calls(used=MPTCP_ONCE, failed=Counter({ULP: 2, NONSENSE: 1})),
            Method.PRELOAD,
            [
                "it used 1 MPTCP socket",
                "setsockopt(SOL_TCP, TCP_ULP) failed because the socket is MPTCP: Protocol not available (ENOPROTOOPT), "
                "2 times; the kernel does not encrypt (kTLS), the program has to",
            ],
        ),
        (
            Calls(not_made=Counter({(262, "EPERM"): 1, (6, "EAFNOSUPPORT"): 3})),
            Method.PRELOAD,
            ["it used no TCP socket", "the kernel refused an MPTCP socket: Operation not permitted (EPERM), once"],
        ),
        (
            Calls(not_made=Counter({(0, "ENOPROTOOPT"): 2, (0, "EMFILE"): 1})),
            Method.EBPF,
            [
                "it used no TCP socket",
                "the kernel refused an MPTCP socket: Protocol not available (ENOPROTOOPT), 2 times",
            ],
        ),
        (
            Calls(io_uring=True, landlock=True),
            Method.EBPF,
            [
                "it used no TCP socket",
                "it uses io_uring: sockets that it makes that way stay TCP",
                "it restricts itself by Landlock: rules for TCP ports, if it has any, do not apply to MPTCP sockets",
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
