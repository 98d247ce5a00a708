# SPDX-License-Identifier: GPL-2.0-or-later
"""echo.py serve|talk ADDRESS PORT: a live MPTCP stream, to see what becomes of it while packages come and go.

``talk`` sends a word every 5 ms and says, when its input ends, in JSON: how many came back, and the longest gap in ms.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

MPTCP = 262


def serve(place: tuple[str, int]) -> None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(place)
    listener.listen()
    print("ready", flush=True)
    stream, _ = listener.accept()
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while said := stream.recv(65536):
        stream.sendall(said)


def talk(place: tuple[str, int]) -> None:
    stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP)
    stream.connect(place)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print("ready", flush=True)
    last, longest, sent, back = time.monotonic(), 0.0, 0, 0
    due = last
    while True:
        readable, _, _ = select.select([stream, sys.stdin], [], [], max(0.0, due - time.monotonic()))
        now = time.monotonic()
        if sys.stdin in readable:
            break
        if stream in readable:
            back += len(stream.recv(65536)) // 8
            longest, last = max(longest, now - last), now
        if now >= due:
            stream.sendall(sent.to_bytes(8, "big"))
            sent += 1
            due = max(due + 0.005, now)
    longest = max(longest, time.monotonic() - last)
    print(json.dumps({"back": back, "longest_gap_ms": round(longest * 1000, 1)}), flush=True)


{"serve": serve, "talk": talk}[sys.argv[1]]((sys.argv[2], int(sys.argv[3])))
