# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine that boots: an image in qemu, in software (nested KVM is not to be relied on), and commands run inside it.

What happens in it does not reach this machine's network: it has no network card. Commands go over a virtio port, the
kernel's console into a file.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .guest.agent import PORT
from .image import Image

ROOT = Path(__file__).parents[2]

#: Seconds that a boot may take here: about 10 without and 40 with systemd when nothing else runs, six times as many when much
#: does. A machine that dies ends at once.
BOOT = 900

#: How often a machine is started whose kernel panics while it boots.
_BOOTS = 3

#: What goes from this tree into a machine.
TREE = ("src", "tests", "dispatcher.d", "packaging", "Makefile", "pyproject.toml", "README.md", "LICENSE")

#: What a kernel says when something is wrong with it.
_COMPLAINT = re.compile(r"WARNING:|BUG:|Oops|general protection|KASAN|UBSAN|refcount_t|blocked for more than|\bstall")

# The first process of a machine that is made ready before its init is there.
_PREPARE = """\
#!/bin/sh
set -e
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null || true
{before}
rm /prepare
exec {init}
"""

#: What emulates a machine of an architecture, and its console.
_EMULATORS = {
    # In software, AVX is slower than what programs do without it.
    "amd64": (("qemu-system-x86_64", "-cpu", "max,-avx,-avx2"), "ttyS0"),
    "arm64": (("qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a72"), "ttyAMA0"),
}

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Done:
    """A command that has ended; ``status`` is None when it took too long and was killed."""

    command: tuple[str, ...]
    status: int | None
    output: str

    def checked(self) -> str:
        """Its output; AssertionError with it when the command failed."""
        if self.status != 0:
            how = "took too long" if self.status is None else f"failed ({self.status})"
            raise AssertionError(f"in the machine, {' '.join(self.command)} {how}:\n{self.output}")
        return self.output


class Machine:
    """A running machine; killed at the end of ``with``, or with this process. ``kernel`` is its kernel's release."""

    def __init__(
        self,
        image: Image,
        *,
        systemd: bool = False,
        before: str = "",
        files: Iterable[Path] = (),
        in_turn: bool = False,
    ) -> None:
        """``before``: a shell script run there before systemd is; ``files``: what it finds in /root.

        ``in_turn``: its processors are emulated in turn. At the same time (qemu 7.2) one now and then still runs what another
        has replaced in the kernel's code: a panic for "int3" where a BPF program is attached and detached again and again.
        """
        self.image = image
        self._threads = "single" if in_turn else "multi"
        self._stack = contextlib.ExitStack()
        self._place = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="nm-mptcp-machine-")))
        self._console = self._place / "console"
        self._received = b""
        init = "/sbin/init" if systemd else "/usr/lib/nm-mptcp-machine/init"
        initrd = image.initrd
        try:
            if before:
                more = [(f"root/{file.name}", 0o644, file.read_bytes()) for file in files]
                more.append(("prepare", 0o755, _PREPARE.format(before=before, init=init).encode()))
                initrd, init = self._place / "initrd", "/prepare"
                shutil.copyfile(image.initrd, initrd)
                with initrd.open("ab") as archive:  # the kernel unpacks one after the other
                    archive.write(cpio(more))
            self.kernel = self._booted(initrd, init)
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
        """Kill it."""
        self._stack.close()

    def run(self, *command: str, given: bytes = b"", seconds: float = 60) -> Done:
        """Run a command in it as root, ``given`` on its standard input; AssertionError when the machine is dead."""
        asked = {"command": command, "input": base64.b64encode(given).decode(), "seconds": seconds}
        self._port.settimeout(seconds + 60)
        try:
            self._port.sendall(json.dumps(asked).encode() + b"\n")
        except OSError as error:
            raise AssertionError(f"the machine takes no command ({error})\n{self._last_words()}") from None
        output = b""
        while True:
            answer = self._answer(seconds + 60, " ".join(command))
            if "status" in answer:
                return Done(command, answer["status"], output.decode(errors="replace"))
            output += base64.b64decode(answer["output"])

    def shell(self, script: str, *, seconds: float = 60) -> Done:
        """Run a shell script in it."""
        return self.run("sh", "-euc", script, seconds=seconds)

    def put_tree(self, place: str = "/nm-mptcp") -> None:
        """Put this tree into it (what is in the working copy now)."""
        packed = io.BytesIO()

        def wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
            name = Path(member.name).name
            return None if name == "__pycache__" or name.endswith(".egg-info") else member

        with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=3) as archive:
            for name in TREE:
                if (ROOT / name).exists():
                    archive.add(ROOT / name, name, filter=wanted)
        self.run("mkdir", "-p", place).checked()
        self.run("tar", "-xz", "--no-same-owner", "-C", place, given=packed.getvalue()).checked()

    def complaints(self) -> list[str]:
        """What its kernel complained of since it started: warnings with a trace, bugs, stalls."""
        said = self._console.read_text(errors="replace").splitlines()
        said += self.run("dmesg").checked().splitlines()
        return list(dict.fromkeys(re.sub(r"^\[[^]]*\] ", "", line) for line in said if _COMPLAINT.search(line)))

    def _booted(self, initrd: Path, init: str) -> str:
        """Start it, and come back with its kernel's release when it is ready. A kernel that panics on the way there was
        let down by the emulator, as was seen: it is started again.
        """
        boots = 0
        while True:
            boots += 1
            self._start(initrd, init)
            self._port = self._stack.enter_context(self._connected())
            try:
                return str(self._answer(BOOT, "boot")["ready"])
            except AssertionError:
                if boots == _BOOTS or "Kernel panic" not in self._console.read_text(errors="replace"):
                    raise

    def _start(self, initrd: Path, init: str) -> None:
        emulator, console = _EMULATORS[self.image.architecture]
        qemu = [
            *("nice", "-n", "10", *emulator, "-nodefaults", "-no-user-config", "-no-reboot"),
            *("-display", "none", "-monitor", "none", "-nic", "none"),
            *("-accel", f"tcg,thread={self._threads}", "-smp", "2", "-m", "3072"),
            *("-kernel", str(self.image.kernel), "-initrd", str(initrd)),
            # The console is slow, and who prints there waits for it: the agent's output goes elsewhere, and only errors of the
            # kernel are there (warnings, with their traces, are in its log). A panic ends the machine. Nobody attacks it.
            *(
                "-append",
                f"rdinit={init} console={console} loglevel=4 panic=-1 mitigations=off systemd.log_target=journal",
            ),
            *("-serial", f"file:{self._console}"),
            *("-device", "virtio-rng-pci"),
            *("-chardev", f"socket,id=agent,path={self._place / 'agent'},server=on,wait=off"),
            *("-device", "virtio-serial-pci", "-device", f"virtserialport,chardev=agent,name={PORT}"),
        ]
        with (self._place / "qemu").open("wb") as log:
            self._qemu = subprocess.Popen(
                qemu, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent
            )
        self._stack.callback(self._qemu.wait)
        self._stack.callback(self._qemu.kill)

    def _connected(self) -> socket.socket:
        end = time.monotonic() + 30
        while True:
            port = socket.socket(socket.AF_UNIX)
            try:
                port.connect(str(self._place / "agent"))
            except OSError:
                port.close()
                if self._qemu.poll() is not None or time.monotonic() > end:
                    raise AssertionError(f"qemu does not start\n{self._last_words()}") from None
                time.sleep(0.05)
            else:
                return port

    def _answer(self, seconds: float, what: str) -> dict[str, Any]:
        self._port.settimeout(seconds)
        while b"\n" not in self._received:
            try:
                piece = self._port.recv(1 << 16)
            except TimeoutError:
                raise AssertionError(f"after {seconds:g} s no answer: {what}\n{self._last_words()}") from None
            except OSError:
                piece = b""
            if not piece:
                raise AssertionError(f"the machine has ended: {what}\n{self._last_words()}")
            self._received += piece
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        said = ""
        for name in ("qemu", "console"):
            if (path := self._place / name).exists():
                said += path.read_text(errors="replace")[-3000:]
        return said


def cpio(files: Iterable[tuple[str, int, bytes]]) -> bytes:
    """An archive of names, permissions and contents, as the kernel unpacks it (newc: initramfs-buffer-format)."""
    archive = b""
    for name, mode, content in (
        *((name, 0o100000 | mode, content) for name, mode, content in files),
        ("TRAILER!!!", 0, b""),
    ):
        numbers = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % number for number in numbers) + name.encode() + b"\0"
        for part in (head, content):
            archive += part + bytes(-len(part) % 4)
    return archive


def _die_with_parent() -> None:
    _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
