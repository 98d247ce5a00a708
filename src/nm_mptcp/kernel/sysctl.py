# SPDX-License-Identifier: GPL-2.0-or-later
"""``/proc/sys``, and what else tells this kernel's version and features."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from pathlib import Path

from .errors import KernelError

#: Where sysctls are (tests use another tree). The network ones are those of this process's namespace.
ROOT = Path("/proc/sys")

#: The kernel's types (BTF), some megabytes (tests use another file).
TYPES = Path("/sys/kernel/btf/vmlinux")


def interface(family: str, name: str, key: str) -> str:
    """The path of an interface's sysctl: ``interface("ipv4", "eth0.5", "rp_filter")``. ``family`` is ipv4 or ipv6.

    Slashes separate its parts, so a dot in an interface's name (a VLAN's) needs no escape. Raises :class:`ValueError` for
    what cannot be a name.
    """
    if "/" in name or name in ("", ".", ".."):
        raise ValueError(f"not an interface's name: {name!r}")
    return f"net/{family}/conf/{name}/{key}"


def read(path: str) -> str | None:
    """A sysctl's value without the newline; None where it does not exist or cannot be read."""
    try:
        return (ROOT / path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def write(path: str, value: str | int) -> None:
    """Set a sysctl. Raises :class:`KernelError`."""
    try:
        # Not write_text, which would create a missing file in another tree than /proc.
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
    """The path manager of new connections: "kernel", "userspace" or another name, "" without MPTCP.

    ``net.mptcp.path_manager`` since 6.15; ``pm_type`` (0 kernel, 1 userspace) since 5.19; before that always the kernel.
    """
    name = read("net/mptcp/path_manager")
    if name is not None:
        return name
    number = read("net/mptcp/pm_type")
    if number is not None:
        return {"0": "kernel", "1": "userspace"}.get(number, number)
    return "kernel" if read("net/mptcp/enabled") is not None else ""


def kernel_release() -> tuple[int, int]:
    """The first two numbers of the running kernel's version; (0, 0) when it has none."""
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


@functools.cache
def knows_laminar() -> bool:
    """Whether this kernel has the endpoint flag ``laminar``: 6.18, or an older one with a backport.

    Kernels accept unknown flags, and some store them. So its types are searched, where they can be read: with the flag came
    ``mptcpi_endp_laminar_max`` (struct mptcp_info).
    """
    return kernel_release() >= (6, 18) or _types_have(b"mptcpi_endp_laminar_max")


def _types_have(name: bytes) -> bool:
    """Whether a type, member or function of the kernel has this name."""
    with contextlib.suppress(OSError), TYPES.open("rb") as types:
        before = b""
        while piece := types.read(1 << 16):
            if name in before + piece:
                return True
            before = piece[-len(name) :]
    return False
