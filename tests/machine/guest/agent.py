# SPDX-License-Identifier: GPL-2.0-or-later
"""Inside a test machine: run what the other end of the virtio port asks for, one command at a time.

A line of JSON each way. In: ``command`` (a list), ``input`` (base64), ``seconds``. Out: at first ``ready``, then for each
command any number of ``output`` (base64, both streams), and one ``status`` (an exit status, negative for a signal, null
when it took more than its seconds and was killed).
"""

from __future__ import annotations

import base64
import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

PORT = "org.nm_mptcp.machine"


def main() -> None:
    """Serve for ever."""
    with open(_port(), "r+b", buffering=0) as port:

        def tell(answer: dict[str, Any]) -> None:
            left = memoryview(json.dumps(answer).encode() + b"\n")
            while left:
                left = left[port.write(left) :]

        tell({"ready": os.uname().release})
        waiting = b""
        while True:
            piece = port.read(1 << 16)
            if not piece:  # nobody at the other end
                time.sleep(0.05)
                continue
            waiting += piece
            while b"\n" in waiting:
                line, _, waiting = waiting.partition(b"\n")
                _run(json.loads(line), tell)


def _port() -> Path:
    """The device of our port, without udev's help; it may be a moment until it is there."""
    while True:
        for name in Path("/sys/class/virtio-ports").glob("*/name"):
            if name.read_text().strip() == PORT:
                return Path("/dev", name.parent.name)
        time.sleep(0.02)


def _run(asked: dict[str, Any], tell: Any) -> None:
    with tempfile.TemporaryFile() as given:
        given.write(base64.b64decode(asked["input"]))
        given.seek(0)
        try:
            process = subprocess.Popen(
                asked["command"],
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            tell({"output": base64.b64encode(f"{error}\n".encode()).decode()})
            tell({"status": 127})
            return
    assert process.stdout is not None
    end = time.monotonic() + asked["seconds"]
    late = False
    with selectors.DefaultSelector() as selector, process.stdout as output:
        selector.register(output, selectors.EVENT_READ)
        # Not until the end of the stream: a program that was left behind may hold it open.
        while True:
            ready = selector.select(0.1)
            if ready:
                piece = os.read(output.fileno(), 1 << 16)
                if piece:
                    tell({"output": base64.b64encode(piece).decode()})
                elif process.poll() is None and time.monotonic() <= end:
                    time.sleep(0.05)
            if process.poll() is not None and (not ready or not piece):
                break
            if time.monotonic() > end and not late:
                late = True
                os.killpg(process.pid, signal.SIGKILL)
    tell({"status": None if late else process.wait()})


if __name__ == "__main__":
    main()
