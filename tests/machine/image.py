# SPDX-License-Identifier: GPL-2.0-or-later
"""What a test machine boots: a Debian kernel, and a Debian root that lives in memory. Built once, kept in ``.cache``.

The root holds what our tests need, but nothing of this tree: that is put into the running machine, so that a change of
the tree needs no new image. Where Debian is fetched from, and how, is what this machine's own apt says.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .archive import apt_settings, knows_debian, sources

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache" / "machine"

PACKAGES = (
    # The system, and what takes the image apart and puts it together.
    *("systemd-sysv", "udev", "dbus", "dbus-bin", "kmod", "cpio", "mount", "util-linux", "procps", "make"),
    # The network, and what looks at it.
    *("network-manager", "systemd-resolved", "iproute2", "dnsmasq-base", "nftables", "strace", "tcpdump"),
    # Wi-Fi at both ends, and a tunnel.
    *("wpasupplicant", "hostapd", "iw", "wireguard-tools", "wireguard-go"),
    # Programs that are brought onto MPTCP: dynamic, static, in Go.
    *("mptcpize", "curl", "busybox-static", "hey"),
    # Users whose sessions are.
    *("libpam-systemd", "login", "passwd", "sudo"),
    # Our tests.
    *("python3", "python3-pyroute2", "python3-pytest", "python3-pytest-timeout", "python3-hypothesis"),
    *("python3-pyelftools", "python3-rich"),
)

#: The D-Bus library that our package would bring there.
DBUS_LIBRARY = {"bookworm": "python3-dbus-next"}

#: What loads a module of SystemTap's, where it knows the kernel.
SYSTEMTAP = {"sid": ("systemtap-runtime",)}

#: The files of these folders only make the image larger.
LEFT_OUT = ("doc", "info", "locale", "man", "lintian", "bug")


@dataclass(frozen=True)
class Image:
    """A kernel and its root."""

    distribution: str
    kernel: Path
    initrd: Path


def reason_to_skip() -> str | None:
    """Why no machine can be built or booted here, None when it can."""
    if os.geteuid() != 0:
        return "needs root (a Debian root is built)"
    if os.uname().machine != "x86_64":
        return f"the test machines are x86_64, this one is {os.uname().machine}"
    for program, package in (
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("mmdebstrap", "mmdebstrap"),
        ("apt-get", "apt"),
    ):
        if shutil.which(program) is None:
            return f"needs {program} (Debian package: {package})"
    if not knows_debian():
        return "this machine's apt knows no Debian archive (main archive of origin Debian)"
    return None


def image(distribution: str) -> Image:
    """The image of a Debian distribution by code name, built if it is not there; RuntimeError when that fails.

    To have the newest packages again, remove the cache.
    """
    place = CACHE / f"{distribution}-{_key(distribution)}"
    if not place.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix=f"building-{distribution}-") as scratch:
            _build(distribution, Path(scratch))
            for old in CACHE.glob(f"{distribution}-*"):
                shutil.rmtree(old)
            Path(scratch, "image").rename(place)
    return Image(distribution, place / "vmlinuz", place / "initrd")


def _packages(distribution: str) -> tuple[str, ...]:
    return (*PACKAGES, DBUS_LIBRARY.get(distribution, "python3-dbus-fast"), *SYSTEMTAP.get(distribution, ()))


def _key(distribution: str) -> str:
    """Changes with all that goes into the image."""
    told = hashlib.sha256(repr((_packages(distribution), LEFT_OUT)).encode())
    for path in sorted((HERE / "guest").iterdir()):
        if path.is_file():
            told.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return told.hexdigest()[:12]


def _build(distribution: str, scratch: Path) -> None:
    settings = scratch / "apt.conf"
    output = scratch / "image"
    output.mkdir()
    settings.write_text(apt_settings())
    command = [
        *("nice", "-n", "10", "mmdebstrap", "--mode=root", "--variant=minbase", "--format=null", "--quiet"),
        f"--include={','.join(_packages(distribution))}",
        f"--aptopt={settings}",
        *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in LEFT_OUT),
        f"--customize-hook={HERE / 'guest' / 'customize'}",
        *(distribution, "-", *sources(distribution)),
    ]
    done = subprocess.run(
        command,
        env={**os.environ, "GUEST": str(HERE / "guest"), "OUTPUT": str(output)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode or not (output / "initrd").exists():
        raise RuntimeError(f"the image of {distribution} cannot be built:\n{done.stdout[-4000:]}")
