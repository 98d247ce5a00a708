# SPDX-License-Identifier: GPL-2.0-or-later
"""``/proc/sys``: what MPTCP needs of it, and which kernel this is."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from pathlib import Path

from .errors import KernelError

#: Where sysctls are; a test points it at a tree of its own. The network ones are those of this process's namespace.
ROOT = Path("/proc/sys")

#: What the kernel tells of its own types (BTF), some megabytes; a test points it at a file of its own.
TYPES = Path("/sys/kernel/btf/vmlinux")


def interface(family: str, name: str, key: str) -> str:
    """The path of an interface's sysctl: ``interface("ipv4", "eth0.5", "rp_filter")``. ``family`` is ipv4 or ipv6.

    Parts are separated by slashes, so a dot in an interface's name (a VLAN's) is nothing special; a slash cannot be in one.
    """
    if "/" in name or name in ("", ".", ".."):
        raise ValueError(f"not an interface's name: {name!r}")
    return f"net/{family}/conf/{name}/{key}"


def read(path: str) -> str | None:
    """A sysctl's value without the newline; None where it is missing or may not be read."""
    try:
        return (ROOT / path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def write(path: str, value: str | int) -> None:
    """Set a sysctl. Raises :class:`KernelError`."""
    try:
        # Not write_text: that would create the file in a tree that is not /proc.
        descriptor = os.open(ROOT / path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(descriptor, f"{value}\n".encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KernelError(error.errno or 0, f"set the sysctl {path} to {value}", error.strerror) from error


def mptcp_enabled() -> bool:
    """``net.mptcp.enabled``; False where the kernel has no MPTCP."""
    return (read("net/mptcp/enabled") or "0") not in ("0", "")


def path_manager() -> str:
    """Who manages paths of new connections: "kernel", "userspace" or another by name, "" without MPTCP.

    ``net.mptcp.path_manager`` since 6.15; ``pm_type`` (0 kernel, 1 userspace) since 5.19; before, only the kernel could.
    """
    name = read("net/mptcp/path_manager")
    if name is not None:
        return name
    number = read("net/mptcp/pm_type")
    if number is not None:
        return {"0": "kernel", "1": "userspace"}.get(number, number)
    return "kernel" if read("net/mptcp/enabled") is not None else ""


def kernel_release() -> tuple[int, int]:
    """The running kernel's version, its first two numbers; (0, 0) when it has none."""
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


@functools.cache
def knows_laminar() -> bool:
    """Whether this kernel knows the endpoint flag ``laminar``: 6.18, or an older one that it was brought into.

    What does not know it takes any flag without a word, and some keep it. So its types are asked, where it tells of them:
    with the flag came ``mptcpi_endp_laminar_max`` (struct mptcp_info).
    """
    return kernel_release() >= (6, 18) or _tells_of(b"mptcpi_endp_laminar_max")


def _tells_of(name: bytes) -> bool:
    """Whether a type, a member or a function of the kernel has this name."""
    with contextlib.suppress(OSError), TYPES.open("rb") as types:
        before = b""
        while piece := types.read(1 << 16):
            if name in before + piece:
                return True
            before = piece[-len(name) :]
    return False
