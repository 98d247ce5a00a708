# SPDX-License-Identifier: GPL-2.0-or-later
"""Network namespaces for tests, and what is put in them. The machine's own network is never touched.

A namespace belongs to the *thread* that steps into it (and to threads and programs that it starts meanwhile); a socket
stays in the one where it was made.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")

CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def reason_to_skip() -> str | None:
    """Why there can be no namespace here, None when there can."""
    if os.geteuid() != 0:
        return "needs root (try: unshare -Urn)"
    try:
        Network().close()
    except OSError as error:
        return f"no network namespace can be made here: {error.strerror}"
    return None


class Network:
    """A network namespace of its own, with loopback up; gone when it and the sockets in it are closed."""

    def __init__(self) -> None:
        with _home():
            _check(_libc.unshare(CLONE_NEWNET), "unshare")
            self._descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            ip("link set lo up")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is in the namespace; programs and threads that it starts are, too."""
        with _home():
            _check(_libc.setns(self._descriptor, CLONE_NEWNET), "setns")
            yield

    def ip(self, command: str) -> str:
        """Run ``ip COMMAND`` in it."""
        with self.entered():
            return ip(command)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket that is in it for good."""
        with self.entered():
            return socket.socket(family, kind, protocol)

    @property
    def path(self) -> str:
        """What ``ip link set DEV netns`` takes."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def close(self) -> None:
        """Let go of it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def ip(command: str) -> str:
    """Run ``ip COMMAND`` in the namespace of this thread; AssertionError with its words when it fails."""
    done = subprocess.run(["ip", *shlex.split(command)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"ip {command}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def batch(commands: str) -> None:
    """Run many ``ip`` commands, one a line."""
    done = subprocess.run(["ip", "-batch", "-"], input=commands, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"ip -batch: {done.stderr.strip()}")


def veth(name: str, peer: str, *, peer_network: Network | None = None) -> int:
    """A pair of veths, both up; the first one's ifindex. The peer may live in another namespace."""
    where = f" netns {peer_network.path}" if peer_network is not None else ""
    ip(f"link add name {name} type veth peer name {peer}{where}")
    ip(f"link set {name} up")
    (peer_network.ip if peer_network is not None else ip)(f"link set {peer} up")
    return socket.if_nametoindex(name)


@contextlib.contextmanager
def _home() -> Iterator[None]:
    """Come back to the namespace that this thread is in now."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        try:
            _check(_libc.setns(home, CLONE_NEWNET), "setns")
        finally:
            os.close(home)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
