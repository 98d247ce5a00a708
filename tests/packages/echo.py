# SPDX-License-Identifier: GPL-2.0-or-later
"""echo.py serve ADDRESS PORT | talk ADDRESS PORT [MS] | load ADDRESS PORT SECONDS: a live MPTCP stream to look at.

``talk`` sends a word every 5 (or so many) ms and looks that each comes back, in order. For each line of its input it says
in JSON how many came back since the last, and the longest time in ms without any. ``load`` sends all it can, for so long.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sys
import threading
import time
from collections.abc import Callable

MPTCP = 262


def serve(place: tuple[str, int]) -> None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(place)
    listener.listen()
    print("ready", flush=True)
    while True:
        threading.Thread(target=send_back, args=(listener.accept()[0],), daemon=True).start()


def send_back(stream: socket.socket) -> None:
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with stream, contextlib.suppress(OSError):
        while said := stream.recv(65536):
            stream.sendall(said)


def talk(place: tuple[str, int], every: float = 5.0) -> None:
    stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP)
    stream.connect(place)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setblocking(False)
    print("ready", flush=True)
    due = last = time.monotonic()
    longest, sent, back, told = 0.0, 0, 0, 0
    outgoing, incoming = b"", b""
    while True:
        readable, _, _ = select.select([stream, sys.stdin], [], [], max(0.0, due - time.monotonic()))
        now = time.monotonic()
        if stream in readable:
            piece = stream.recv(65536)
            if not piece:
                sys.exit("the other end closed")
            incoming += piece
            while len(incoming) >= 8:
                word, incoming = int.from_bytes(incoming[:8], "big"), incoming[8:]
                if word != back:
                    sys.exit(f"{word} came back, and not {back}")
                back += 1
            longest, last = max(longest, now - last), now
        if sys.stdin in readable:
            more = sys.stdin.readline()
            longest = max(longest, now - last)
            print(json.dumps({"back": back - told, "longest_gap_ms": round(longest * 1000, 1)}), flush=True)
            longest, told = 0.0, back
            if not more:
                return
        if now >= due:
            outgoing += sent.to_bytes(8, "big")
            sent += 1
            due = max(due + every / 1000, now)
        if outgoing:
            with contextlib.suppress(BlockingIOError):
                outgoing = outgoing[stream.send(outgoing) :]


def load(place: tuple[str, int], seconds: float) -> None:
    stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP)
    stream.connect(place)
    stream.setblocking(False)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        readable, writable, _ = select.select([stream], [stream], [], 1)
        if readable:
            stream.recv(65536)
        if writable:
            with contextlib.suppress(BlockingIOError):
                stream.send(bytes(65536))


def main(what: str, address: str, port: str, *more: str) -> None:
    programs: dict[str, Callable[..., None]] = {"serve": serve, "talk": talk, "load": load}
    programs[what]((address, int(port)), *map(float, more))


if __name__ == "__main__":
    main(*sys.argv[1:])
