# SPDX-License-Identifier: GPL-2.0-or-later
"""The peers of programs that speak WireGuard, by their configuration protocol."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nm_mptcp.kernel import wireguard
from nm_mptcp.kernel.wireguard import WireGuardLinks
from nm_mptcp.model.state import Link, WireGuard

LINKS = {3: Link(3, "wg0", "tun")}

KEYS = "private_key=00\nlisten_port=40000\nfwmark=0\npublic_key=11\nallowed_ip=10.9.0.1/32\n"


@contextlib.contextmanager
def program(folder: Path, answer: str | None) -> Iterator[list[bytes]]:
    """A program for ``wg0`` that answers this, or nothing; the requests that it got."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "wg0.sock"))
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    asked.append(connection.recv(100))
                    if answer is not None:
                        connection.sendall(answer.encode())
                        connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield asked
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture
def links(tmp_path: Path) -> Iterator[WireGuardLinks]:
    made = WireGuardLinks((tmp_path,))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("endpoints", "peers"),
    [
        ("", set()),
        ("endpoint=192.0.2.1:51820\n", {"192.0.2.1"}),
        ("endpoint=[2001:db8::1]:51820\n", {"2001:db8::1"}),
        ("endpoint=[fe80::1%2]:51820\n", {"fe80::1"}),
        ("endpoint=[::ffff:192.0.2.1]:51820\n", {"192.0.2.1"}),
        ("".join(f"endpoint=192.0.2.{n}:1\n" for n in range(16)), {f"192.0.2.{n}" for n in range(16)}),
        ("".join(f"endpoint=192.0.2.{n}:1\n" for n in range(17)), set()),  # a server
    ],
)
def test_the_peers_of_a_client_are_read(tmp_path: Path, links: WireGuardLinks, endpoints: str, peers: set[str]) -> None:
    with program(tmp_path, f"{KEYS}{endpoints}errno=0\n\n") as asked:
        assert links.look(LINKS) == WireGuard(peers=frozenset(peers))
    assert asked == [b"get=1\n\n"]


def test_they_are_read_again_when_links_changed(tmp_path: Path, links: WireGuardLinks) -> None:
    assert links.look(LINKS) == WireGuard()
    with program(tmp_path, f"{KEYS}endpoint=192.0.2.1:1\nerrno=0\n\n") as asked:
        assert links.look(dict(LINKS), at_once=True) == WireGuard()
        assert not asked
        assert links.look(dict(LINKS)) == WireGuard(peers=frozenset({"192.0.2.1"}))
    assert links.look({}) == WireGuard()


@pytest.mark.parametrize("answer", ["endpoint=nonsense:1\n\n", None], ids=["malformed", "none"])
def test_what_cannot_be_read_is_not_known_and_said_once(
    tmp_path: Path, links: WireGuardLinks, caplog: pytest.LogCaptureFixture, answer: str | None
) -> None:
    with program(tmp_path, answer):
        assert links.look(LINKS) is None
        assert links.look(dict(LINKS)) is None
    (record,) = caplog.records
    assert record.getMessage().endswith("rules for WireGuard's own packets stay as they are")


def test_a_program_that_does_not_answer_is_asked_again_later_and_later(
    tmp_path: Path, links: WireGuardLinks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wireguard, "_PAUSE", 0.0)
    monkeypatch.setattr(wireguard, "_SHARE", 0)
    clock = 100.0
    monkeypatch.setattr(wireguard.time, "monotonic", lambda: clock)
    times = []
    with program(tmp_path, None) as asked:
        while clock < 110:
            before = len(asked)
            assert links.look(LINKS) is None
            times += [clock - 100] * (len(asked) - before)
            clock += 0.25
        assert times == [0, 0.5, 1.5, 3.5, 7.5]
        assert links.look(dict(LINKS)) is None
        assert len(asked) == 6, "at once after links changed"


def test_a_program_that_answers_late_is_heard(
    tmp_path: Path, links: WireGuardLinks, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 100.0
    monkeypatch.setattr(wireguard.time, "monotonic", lambda: clock)
    with program(tmp_path, None):
        assert links.look(LINKS) is None
    (tmp_path / "wg0.sock").unlink()
    clock += 10
    with program(tmp_path, f"{KEYS}endpoint=192.0.2.1:1\nerrno=0\n\n"):
        assert links.look(LINKS) == WireGuard(peers=frozenset({"192.0.2.1"}))


def test_a_program_that_ended_has_no_peers(tmp_path: Path, links: WireGuardLinks) -> None:
    with program(tmp_path, ""):
        pass
    assert (tmp_path / "wg0.sock").exists()
    assert links.look(LINKS) == WireGuard()
