# SPDX-License-Identifier: GPL-2.0-or-later
"""A real systemd in its own namespaces, with the test's own units; it starts nothing else and reaches nothing.

It runs in the network namespace that the test is in, has the machine's files but an ``/etc/systemd`` and a ``/run`` of its
own, and may write no sysctl but those of the network namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from ..support.waits import wait_for

_SYSTEMD = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")

_START = r"""
mount --make-rprivate /
mount -t proc proc /proc
mkdir -p /run/lock
mount -t tmpfs tmpfs /run
mkdir /run/keep
mount --bind /proc/sys/net /run/keep
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount --bind /run/keep /proc/sys/net
umount /run/keep
mount -t sysfs -o ro sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /etc/systemd
mkdir /etc/systemd/system
printf '[Unit]\nDescription=Nothing\nDefaultDependencies=no\n' >/etc/systemd/system/nothing.target
export container=nm-mptcp
exec "$1" --system --unit=nothing.target --log-target=null --show-status=0
"""

_libc = ctypes.CDLL(None, use_errno=True)


def reason_to_skip() -> str | None:
    """Why systemd cannot run here, None when it can."""
    if _program() is None or shutil.which("systemctl") is None:
        return "systemd is not installed"
    if _control_groups() is None:
        return "no cgroup2 file system is mounted"
    return None


class Nested:
    """A running systemd; at the end of ``with`` it and all that it started are gone."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        try:
            groups = _control_groups()
            assert groups is not None
            group = Path(tempfile.mkdtemp(prefix="nm-mptcp-test-", dir=groups))
            self._stack.callback(_dissolve, group)
            script = 'echo 0 >"$1/cgroup.procs"; shift; exec "$@"'
            spaces = ("unshare", "-m", "-p", "-i", "-u", "-C", "-f", "--kill-child")
            self._unshare = subprocess.Popen(
                ["sh", "-ec", script, "sh", group, *spaces, "sh", "-ec", _START, "sh", str(_program())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                preexec_fn=_die_with_parent,
            )
            self._stack.callback(self._end)
            self.pid = wait_for("systemd is the first process", self._first_process)
            wait_for("systemd runs", self._runs, seconds=30, every=0.05)
            self.units = Path(f"/proc/{self.pid}/root/etc/systemd/system")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self._stack.close()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command there, as root."""
        entered = ["nsenter", "-t", str(self.pid), "-m", "-p", "-i", "-u", "-C", *command]
        return subprocess.run(
            entered, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120
        )

    def systemctl(self, *words: str) -> str:
        """Run systemctl; AssertionError with its words when it fails."""
        done = self.run("systemctl", *words)
        assert done.returncode == 0, f"systemctl {' '.join(words)}: {done.stderr}"
        return done.stdout

    def put(self, name: str, text: str) -> Path:
        """Write a file below /etc/systemd/system, and have it read."""
        path = self.units / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        self.systemctl("daemon-reload")
        return path

    @property
    def version(self) -> int:
        """As it says itself."""
        digits = "".join(c if c.isdigit() else " " for c in self.systemctl("show", "--property=Version", "--value"))
        return int(digits.split()[0])

    def _first_process(self) -> int:
        if self._unshare.poll() is not None:
            assert self._unshare.stderr is not None
            raise AssertionError(f"systemd does not start: {self._unshare.stderr.read().decode(errors='replace')}")
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdigit():
                    parent = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[1]
                    if int(parent) == self._unshare.pid and Path("/proc", entry, "comm").read_text() == "systemd\n":
                        return int(entry)
        return 0

    def _runs(self) -> bool:
        return self.run("systemctl", "is-active", "nothing.target").stdout.strip() == "active"

    def _end(self) -> None:
        self._unshare.send_signal(signal.SIGKILL)
        self._unshare.wait()
        assert self._unshare.stderr is not None
        self._unshare.stderr.close()


def _program() -> str | None:
    return next((path for path in _SYSTEMD if os.access(path, os.X_OK)), None)


def _control_groups() -> str | None:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind = line.split()[:3]
        if kind == "cgroup2" and os.access(place, os.W_OK):
            return place
    return None


def _dissolve(group: Path) -> None:
    """Take a control group away with all below it, once its processes are gone."""

    def gone() -> bool:
        with contextlib.suppress(OSError):
            for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
                folder.rmdir()
            group.rmdir()
        return not group.exists()

    wait_for("the control groups are empty", gone)


def _die_with_parent() -> None:
    _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
