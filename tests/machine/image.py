# SPDX-License-Identifier: GPL-2.0-or-later
"""What a test machine boots: a Debian kernel, and a Debian root that lives in memory. Built once, kept in ``.cache``.

The root holds what our tests need, but nothing of this tree: that is put into the running machine, so that a change of
the tree needs no new image. Where Debian is fetched from, and how, is what this machine's own apt says. The packages of a
root for another architecture (arm64) are only unpacked, since nothing of it can be run here: it has no systemd.
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

#: Those of a root that is only unpacked: what every system has, and what the tests of programs need.
UNPACKED = (
    *("base-files", "base-passwd", "bash", "coreutils", "dash", "findutils", "grep", "gzip", "hostname", "libc-bin"),
    *("sed", "tar", "kmod", "mount", "util-linux", "procps", "iproute2", "strace", "busybox-static", "hey"),
    *("python3", "python3-pyroute2", "python3-pytest", "python3-pytest-timeout", "python3-hypothesis"),
    *("python3-pyelftools", "python3-dbus-fast", "linux-image-arm64"),
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
    architecture: str = "amd64"


def reason_to_skip(architecture: str = "amd64") -> str | None:
    """Why no machine can be built or booted here, None when it can."""
    if os.geteuid() != 0:
        return "needs root (a Debian root is built)"
    if os.uname().machine != "x86_64":
        return f"the test machines are x86_64, this one is {os.uname().machine}"
    needed = [("qemu-system-x86_64", "qemu-system-x86"), ("mmdebstrap", "mmdebstrap"), ("apt-get", "apt")]
    if architecture == "arm64":
        needed = [("qemu-system-aarch64", "qemu-system-arm"), *needed[1:], ("depmod", "kmod"), ("cpio", "cpio")]
    for program, package in needed:
        if shutil.which(program) is None:
            return f"needs {program} (Debian package: {package})"
    if not knows_debian():
        return "this machine's apt knows no Debian archive (main archive of origin Debian)"
    return None


def image(distribution: str, architecture: str = "amd64") -> Image:
    """The image of a Debian distribution by code name, built if it is not there; RuntimeError when that fails.

    To have the newest packages again, remove the cache.
    """
    name = f"{distribution}-{architecture}"
    place = CACHE / f"{name}-{_key(distribution, architecture)}"
    if not place.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix=f"building-{name}-") as scratch:
            _build(distribution, architecture, Path(scratch))
            for old in CACHE.glob(f"{name}-*"):
                shutil.rmtree(old)
            Path(scratch, "image").rename(place)
    return Image(distribution, place / "vmlinuz", place / "initrd", architecture)


def _packages(distribution: str, architecture: str) -> tuple[str, ...]:
    if architecture != "amd64":
        return UNPACKED
    return (*PACKAGES, DBUS_LIBRARY.get(distribution, "python3-dbus-fast"), *SYSTEMTAP.get(distribution, ()))


def _key(distribution: str, architecture: str) -> str:
    """Changes with all that goes into the image."""
    told = hashlib.sha256(repr((_packages(distribution, architecture), LEFT_OUT)).encode())
    for path in sorted((HERE / "guest").iterdir()):
        if path.is_file():
            told.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return told.hexdigest()[:12]


def _build(distribution: str, architecture: str, scratch: Path) -> None:
    settings = scratch / "apt.conf"
    output = scratch / "image"
    output.mkdir()
    settings.write_text(apt_settings())
    variant, hook = ("minbase", "customize") if architecture == "amd64" else ("extract", "unpacked")
    command = [
        *("nice", "-n", "10", "mmdebstrap", "--mode=root", f"--variant={variant}", "--format=null", "--quiet"),
        f"--architectures={architecture}",
        f"--include={','.join(_packages(distribution, architecture))}",
        f"--aptopt={settings}",
        *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in LEFT_OUT),
        f"--{'customize' if variant == 'minbase' else 'extract'}-hook={HERE / 'guest' / hook}",
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
