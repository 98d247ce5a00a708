# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel that answers late, never, in part or with nonsense: each request ends in its answers or in one KernelError, and the
next request has its own answers.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nm_mptcp.kernel.errors import KernelError
from nm_mptcp.kernel.netlink import (
    GENERIC,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    Netlink,
)

KIND = 30
HEADER = struct.Struct("=IHHII")
WHAT = "a test"


def message(kind: int, sequence: int, payload: bytes = b"", flags: int = 0) -> bytes:
    data = HEADER.pack(16 + len(payload), kind, flags, sequence, 0) + payload
    return data + bytes(-len(data) % 4)


def ack(sequence: int, number: int = 0, flags: int = 0, rest: bytes = b"") -> bytes:
    return message(NLMSG_ERROR, sequence, struct.pack("=i", -number) + bytes(16) + rest, flags)


def done(sequence: int, number: int = 0) -> bytes:
    return message(NLMSG_DONE, sequence, struct.pack("=i", -number))


class Kernel:
    """A netlink socket whose other end says what a test tells it to: datagrams, or errors."""

    def __init__(self, *answers: Callable[[int], list[bytes | OSError]]) -> None:
        self.answers = list(answers)  #: to each request, by its sequence number
        self._waiting: list[bytes | OSError] = []

    def socket(self, *_: object) -> Kernel:
        self._waiting.clear()
        return self

    def settimeout(self, seconds: float) -> None:
        assert seconds > 0

    def setsockopt(self, *_: object) -> None:
        pass

    def close(self) -> None:
        self._waiting.clear()

    def sendto(self, data: bytes, _: object) -> None:
        self._waiting += self.answers.pop(0)(HEADER.unpack_from(data)[3])

    def recvmsg_into(self, buffers: list[bytearray]) -> tuple[int, list[object], int, object]:
        if not self._waiting:
            raise TimeoutError("timed out")
        answer = self._waiting.pop(0)
        if isinstance(answer, OSError):
            raise answer
        size = min(len(answer), len(buffers[0]))
        buffers[0][:size] = answer[:size]
        return size, [], socket.MSG_TRUNC if size < len(answer) else 0, (0, 0)


def asked(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> Netlink:
    monkeypatch.setattr(socket, "socket", kernel.socket)
    return Netlink(GENERIC)


def good(sequence: int) -> list[bytes | OSError]:
    return [message(KIND, sequence, b"good"), ack(sequence)]


def whole_dump(sequence: int) -> list[bytes | OSError]:
    return [message(KIND, sequence, b"one.") + message(KIND, sequence, b"two."), done(sequence)]


def payloads(found: list[object]) -> list[bytes]:
    return [each.data[each.start : each.end] for each in found]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("answers", "number"),
    [
        (lambda _: [], errno.ETIMEDOUT),
        (lambda n: [message(KIND, n, b"one.")], errno.ETIMEDOUT),  # its acknowledgement never comes
        (lambda n: [ack(n - 1)], errno.ETIMEDOUT),  # that of another request
        (lambda n: [ack(n, errno.EBUSY)], errno.EBUSY),
        (lambda _: [OSError(errno.ENOBUFS, "no buffer space")], errno.ENOBUFS),
        (lambda n: [ack(n)[:-5]], errno.EBADMSG),
        (lambda _: [b"\1"], errno.EBADMSG),
        (lambda n: [message(KIND, n, bytes(300_000))], errno.EMSGSIZE),
        (lambda n: [ack(n, errno.EINVAL, 0x300, struct.pack("=HH", 900, 1))], errno.EINVAL),  # its text is broken
        (lambda n: [message(NLMSG_ERROR, n, struct.pack("=i", -errno.EINVAL), 0x200)], errno.EINVAL),
    ],
    ids=["never", "half", "another", "refused", "overflow", "truncated", "short", "long", "text", "no-header"],
)
@pytest.mark.parametrize("method", ["request", "dump"])
def test_a_request_without_its_answer_is_one_error_and_the_next_has_its_own(
    monkeypatch: pytest.MonkeyPatch,
    answers: Callable[[int], list[bytes | OSError]],
    number: int,
    method: str,
) -> None:
    kernel = Kernel(answers, good if method == "request" else whole_dump)
    netlink = asked(kernel, monkeypatch)
    ask: Callable[[], list[object]] = {
        "request": lambda: netlink.request(KIND, 0, b"", what=WHAT),
        "dump": lambda: netlink.dump(KIND, b"", what=WHAT),
    }[method]  # type: ignore[assignment]
    with pytest.raises(KernelError) as raised:
        ask()
    assert raised.value.errno == number
    text = str(raised.value)
    assert WHAT in text
    assert text.isprintable()
    assert payloads(ask()) == ([b"good"] if method == "request" else [b"one.", b"two."])


def test_answers_to_an_earlier_request_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(lambda n: [message(KIND, n - 1, b"old."), ack(n - 1), *good(n)])
    assert payloads(asked(kernel, monkeypatch).request(KIND, 0, b"", what=WHAT)) == [b"good"]  # type: ignore[arg-type]


def interrupted(sequence: int) -> list[bytes | OSError]:
    return [message(KIND, sequence, b"old.", NLM_F_DUMP_INTR), done(sequence)]


def test_a_dump_that_was_interrupted_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    netlink = asked(Kernel(interrupted, interrupted, whole_dump), monkeypatch)
    assert payloads(netlink.dump(KIND, b"", what=WHAT)) == [b"one.", b"two."]  # type: ignore[arg-type]


def test_one_that_is_interrupted_each_time_is_an_error_to_try_again_after(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KernelError, match="kept changing") as raised:
        asked(Kernel(*[interrupted] * 8), monkeypatch).dump(KIND, b"", what=WHAT)
    assert raised.value.errno == errno.EAGAIN


def test_a_dump_that_fails_in_its_middle_is_an_error_and_no_part_of_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    netlink = asked(Kernel(lambda n: [message(KIND, n, b"one."), done(n, errno.EINTR)]), monkeypatch)
    with pytest.raises(KernelError) as raised:
        netlink.dump(KIND, b"", what=WHAT)
    assert raised.value.errno == errno.EINTR


@given(st.binary(max_size=60), st.sampled_from([0, 0x100, 0x200, 0x300]), st.sampled_from([NLMSG_ERROR, NLMSG_DONE]))
def test_any_acknowledgement_is_success_or_an_error_of_one_line(payload: bytes, flags: int, kind: int) -> None:
    kernel = Kernel(lambda n: [message(kind, n, payload, flags), ack(n)])
    with pytest.MonkeyPatch.context() as patched:
        netlink = asked(kernel, patched)
        try:
            netlink.request(KIND, NLM_F_DUMP, b"", what=WHAT)
            text = "success"
        except KernelError as error:
            text = str(error)
    assert text.isprintable()
