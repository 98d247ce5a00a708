# SPDX-License-Identifier: GPL-2.0-or-later
"""A Debian system with systemd and NetworkManager in namespaces, to install our package on: up in some seconds.

Its root is built once by mmdebstrap and kept in ``.cache``; what a container changes is gone with it. It has a network
namespace of its own, without a way out, and can change nothing of the machine that it runs on.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from ..machine.archive import apt_settings, knows_debian, sources
from .system import ENVIRONMENT, System

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache" / "roots"

#: All that the package depends on, so that it installs without a network; and what the tests look with.
PACKAGES = (
    *("systemd-sysv", "udev", "dbus", "dbus-bin", "kmod", "procps", "util-linux", "mount"),
    *("network-manager", "iproute2", "dnsmasq-base", "nftables", "strace", "man-db"),
    *(
        "python3",
        "python3-pyroute2",
        "python3-dbus-fast",
        "python3-pytest",
        "python3-pytest-timeout",
        "python3-hypothesis",
        "python3-pyelftools",
        "python3-rich",
    ),
)


def reason_to_skip() -> str | None:
    """Why there can be no container here, None when there can."""
    if os.geteuid() != 0:
        return "needs root (a Debian root is built and booted)"
    for program, package in (("mmdebstrap", "mmdebstrap"), ("unshare", "util-linux"), ("setpriv", "util-linux")):
        if shutil.which(program) is None:
            return f"needs {program} (Debian package: {package})"
    if not knows_debian():
        return "this machine's apt knows no Debian archive (main archive of origin Debian)"
    if _cgroups() is None:
        return "no cgroup2 file system is mounted"
    return None


def root(distribution: str) -> Path:
    """The root of a Debian distribution by code name, built if it is not there; RuntimeError when that fails."""
    key = hashlib.sha256(repr(PACKAGES).encode()).hexdigest()[:12]
    place = CACHE / f"{distribution}-{key}"
    if not place.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix=f"building-{distribution}-") as scratch:
            settings = Path(scratch, "apt.conf")
            settings.write_text(apt_settings())
            done = subprocess.run(
                [
                    *("nice", "-n", "10", "mmdebstrap", "--mode=root", "--variant=minbase", "--quiet"),
                    *("--skip=cleanup/apt", f"--include={','.join(PACKAGES)}", f"--aptopt={settings}"),
                    *(distribution, f"{scratch}/root", *sources(distribution)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
            )
            if done.returncode:
                raise RuntimeError(f"the root of {distribution} cannot be built:\n{done.stdout[-4000:]}")
            for old in CACHE.glob(f"{distribution}-*"):
                shutil.rmtree(old)
            Path(scratch, "root").rename(place)
            place.chmod(0o755)
    return place


class Container(System):
    """A booted system on a root."""

    def __init__(self, distribution: str, *, before: str = "", files: Iterable[Path] = ()) -> None:
        """``before``: a shell script run there before systemd is; ``files``: what it finds in /root."""
        self.distribution = distribution
        self._scratch = Path(tempfile.mkdtemp(prefix="nm-mptcp-container-"))
        self._said = Path(f"{self._scratch}.log")
        cgroups = _cgroups()
        assert cgroups is not None
        self._cgroup = cgroups / f"nm-mptcp-test-{os.getpid()}-{self._scratch.name[-8:]}"
        self._cgroup.mkdir()
        # The shell is in the new cgroup before `unshare` makes that the root of what the container sees.
        script = f'echo $$ >{self._cgroup}/cgroup.procs; exec unshare "$@"'
        self._unshare = subprocess.Popen(
            [
                *("sh", "-ec", script, "sh", "--mount", "--net", "--pid", "--ipc", "--uts", "--cgroup"),
                *("--fork", "--kill-child", "--propagation", "private"),
                *(str(HERE / "boot"), str(root(distribution)), str(self._scratch), before, *map(str, files)),
            ],
            stdin=subprocess.DEVNULL,
            stderr=self._said.open("w"),
        )

    def __enter__(self) -> Container:
        try:
            self._init = self._wait_for_init()
            self.wait("test -S /run/systemd/private", seconds=60)
            state = self.run("systemctl is-system-running --wait || true", seconds=120).strip()
            if state != "running":
                raise RuntimeError(f"{self.distribution} is {state}:\n{self.run('systemctl --failed --no-legend')}")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all that runs there, and take away what it wrote."""
        # Its init alone, by its process id, and with it the namespace; unshare ends when it has.
        for child in self._children():
            os.kill(child, signal.SIGKILL)
        if self._unshare.poll() is None and not self._children():
            self._unshare.kill()
        self._unshare.wait()
        deadline = time.monotonic() + 10
        while any(self._cgroup.rglob("*")) and time.monotonic() < deadline:
            for place in sorted((p for p in self._cgroup.rglob("*") if p.is_dir()), reverse=True):
                try:
                    place.rmdir()
                except OSError:
                    time.sleep(0.05)
                    continue
            try:
                self._cgroup.rmdir()
                break
            except OSError:
                time.sleep(0.05)
        self._said.unlink()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def run_quietly(self, script: str, *, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command("sh", "-ec", script),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )

    def _command(self, *command: str) -> list[str]:
        inside = ("env", "-i", *(f"{name}={value}" for name, value in ENVIRONMENT.items()))
        enter = ("nsenter", f"--target={self._init}", "--mount", "--net", "--pid", "--ipc", "--uts", "--cgroup")
        return [*enter, "--root", "--wdns=/", *inside, *command]

    def put(self, file: Path, place: str) -> None:
        with file.open("rb") as content:
            subprocess.run(self._command("sh", "-ec", f"cat >{place}"), stdin=content, check=True)

    def _children(self) -> list[int]:
        try:
            words = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text().split()
        except OSError:
            return []
        return [int(word) for word in words]

    def _wait_for_init(self) -> int:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self._unshare.poll() is not None:
                raise RuntimeError(f"{self.distribution} cannot be booted: {self._said.read_text().strip()}")
            for child in self._children():
                try:
                    if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                        return child
                except OSError:
                    continue
            time.sleep(0.02)
        raise RuntimeError(f"{self.distribution} has no systemd within 60 s")


def _cgroups() -> Path | None:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    return None
