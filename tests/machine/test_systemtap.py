# SPDX-License-Identifier: GPL-2.0-or-later
"""The recipe for SystemTap in nm-mptcp-exec(8): built beside the machine, of the kernel that runs in it, and loaded there."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.asker import asker
from .archive import apt_settings, sources
from .conftest import DISTRIBUTIONS
from .image import image, reason_to_skip
from .machine import Machine

PAGE = Path(__file__).parents[2] / "packaging/man/nm-mptcp-exec.8.scd"

#: Those whose SystemTap knows their kernel; the manual says what the others do.
KNOWN = ("sid",)

USER = 1000


@pytest.fixture(params=DISTRIBUTIONS)
def booted(request: pytest.FixtureRequest) -> Iterator[Machine]:
    if reason := reason_to_skip():
        pytest.skip(reason)
    if request.param not in KNOWN:
        pytest.skip(f"the SystemTap of {request.param} does not know its kernel")
    with Machine(image(request.param)) as machine:
        yield machine


def recipe() -> str:
    """The script of the manual."""
    (script,) = re.findall(r"_mptcp\.stp_:\n\n```\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(script)


def module(machine: Machine) -> bytes:
    """The script, built for the machine's kernel with its headers. Skips where the archive has these no more."""
    kernel = machine.kernel
    with tempfile.TemporaryDirectory() as place:
        settings, root = Path(place, "apt.conf"), Path(place, "root")
        settings.write_text(apt_settings())
        include = f"--include=systemtap,gcc,make,kmod,linux-headers-{kernel}"
        how = ("--mode=root", "--variant=minbase", "--quiet", include, f"--aptopt={settings}")
        distribution = machine.image.distribution
        made = subprocess.run(
            ["mmdebstrap", *how, distribution, root, *sources(distribution)], capture_output=True, text=True
        )
        if f"Unable to locate package linux-headers-{kernel}" in made.stderr:
            pytest.skip(f"{distribution} has no headers of {kernel} any more: remove .cache/machine")
        assert made.returncode == 0, made.stderr[-2000:]
        # On a machine of its own it would find the functions' names in /proc/kallsyms.
        (root / f"boot/System.map-{kernel}").write_text(machine.run("cat", "/proc/kallsyms", seconds=120).checked())
        (root / "root/mptcp.stp").write_text(recipe())
        build = f"cd /root; exec stap -p4 -g -m mptcp -r {kernel} mptcp.stp {USER}"
        inside = f'mount -t proc proc {root}/proc; exec chroot {root} sh -c "$0"'
        apart = ("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child")
        built = subprocess.run([*apart, "sh", "-ec", inside, build], capture_output=True, text=True)
        assert built.returncode == 0, built.stderr[-4000:] + built.stdout[-2000:]
        return (root / "root/mptcp.ko").read_bytes()


def test_systemtap_switches_the_programs_of_a_user_and_of_nobody_else(booted: Machine, tmp_path: Path) -> None:
    machine = booted
    for name, content in (("mptcp.ko", module(machine)), ("asker", asker(tmp_path / "asker").read_bytes())):
        machine.run("sh", "-c", f"cat >/usr/bin/{name}; chmod 755 /usr/bin/{name}", given=content).checked()

    def asked(uid: int) -> int | None:
        return machine.run("setpriv", f"--reuid={uid}", "--clear-groups", "/usr/bin/asker").status

    assert (asked(USER), asked(USER + 1), asked(0)) == (0, 0, 0)
    machine.shell("setsid -f staprun /usr/bin/mptcp.ko >/run/staprun 2>&1 </dev/null").checked()
    machine.shell(
        f"until setpriv --reuid={USER} --clear-groups /usr/bin/asker; [ $? = 1 ]; do sleep 0.2; done"
    ).checked()
    assert (asked(USER), asked(USER + 1), asked(0)) == (1, 0, 0)
    machine.shell("pkill -INT stapio; while grep -q '^mptcp ' /proc/modules; do sleep 0.2; done").checked()
    assert asked(USER) == 0
    assert machine.complaints() == []
