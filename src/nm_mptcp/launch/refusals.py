# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of the calls that failed in a program failed because its sockets are MPTCP ones, and what that means."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator

from .plan import Method
from .strace import Calls, FailedOption

#: What a socket answers to an option that it does not know.
_UNKNOWN = (errno.ENOPROTOOPT, errno.EOPNOTSUPP)

#: What comes of it, by level and number of the option (linux/tcp.h, asm-generic/socket.h).
_MEANS = {
    (6, 14): "BGP and LDP sessions with a password do not come up",  # TCP_MD5SIG
    (6, 18): "a peer that is gone is noticed later",  # TCP_USER_TIMEOUT
    (6, 19): "CRIU cannot take such a connection along",  # TCP_REPAIR
    (6, 31): "the kernel does not encrypt (kTLS), the program has to",  # TCP_ULP
    (1, 47): "it is not paced",  # SO_MAX_PACING_RATE
    (1, 60): "what is sent is copied",  # SO_ZEROCOPY
}


def refused_by_mptcp(option: FailedOption) -> bool:
    """Whether an MPTCP socket does not know this option, and a TCP socket does.

    Both are asked: sockets that are made for that and closed unused, with a value of four zero bytes. So the caller must not be
    in a registered control group.
    """
    if getattr(errno, option.error, None) not in _UNKNOWN:
        return False
    try:
        return not _knows(socket.IPPROTO_MPTCP, option) and _knows(socket.IPPROTO_TCP, option)
    except OSError:  # without MPTCP sockets nothing fails because of them
        return False


def _knows(protocol: int, option: FailedOption) -> bool:
    family = socket.AF_INET6 if option.level == socket.IPPROTO_IPV6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM, protocol) as asked:
        try:
            if option.call == "getsockopt":
                asked.getsockopt(option.level, option.number, 4)
            else:
                asked.setsockopt(option.level, option.number, bytes(4))
        except OSError as error:
            return error.errno not in _UNKNOWN
    return True


def sentences(calls: Calls, method: Method, refused: Callable[[FailedOption], bool]) -> Iterator[str]:
    """What to tell of a program that was run by this method, a sentence each."""
    yield _used(calls, method)
    for (protocol, error), times in sorted(calls.not_made.items()):
        # TCP sockets are refused for other reasons, as where there is no IPv6.
        if protocol == socket.IPPROTO_MPTCP or (method is Method.EBPF and error == "ENOPROTOOPT"):
            yield f"the kernel refused an MPTCP socket: {_error(error)}, {_times(times)}"
    failed = sorted(
        ((option, times) for option, times in calls.failed.items() if refused(option)), key=lambda each: each[0].name
    )
    for option, times in failed:
        means = _MEANS.get((option.level, option.number))
        how = f"{_error(option.error)}, {_times(times)}"
        told = f"{option.call}({option.name}) failed because the socket is MPTCP: {how}"
        yield f"{told}; {means}" if means else told
    if not failed and _mptcp(calls, method):
        yield "no socket option failed because of MPTCP"
    if calls.io_uring:
        yield "it uses io_uring: sockets that it makes that way stay TCP"
    if calls.landlock:
        yield "it restricts itself by Landlock: rules for TCP ports, if it has any, do not apply to MPTCP sockets"


def _mptcp(calls: Calls, method: Method) -> int:
    return calls.used.total() if method is Method.EBPF else calls.used[socket.IPPROTO_MPTCP]


def _used(calls: Calls, method: Method) -> str:
    total, mptcp = calls.used.total(), _mptcp(calls, method)
    if not total:
        return "it used no TCP socket"
    told = f"it used {mptcp} MPTCP {'socket' if mptcp == 1 else 'sockets'}"
    if method is Method.EBPF:
        return f"{told} (TCP where it left its control group)"
    return f"{told}, and {total - mptcp} that stayed TCP" if total > mptcp else told


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _error(name: str) -> str:
    with contextlib.suppress(AttributeError):
        return f"{os.strerror(getattr(errno, name))} ({name})"
    return name
