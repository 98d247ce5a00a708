# SPDX-License-Identifier: GPL-2.0-or-later
"""What README.md and the manual pages have somebody type does what it should, typed on a machine with real NetworkManager."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest

from nm_mptcp.config.files import ConfigurationFiles

from ..support import shown
from ..support.waits import wait_for
from .bed import SERVER, Bed
from .traffic import EchoServer
from .uplinks import Links

TOOLS = ("nm-mptcp", "nmcli", "busctl", "ip", "make", "apt", "dnf", "systemctl", "systemd-run", "bpftool", "clang")

#: Not typed here: the beginning of the command, and why.
LEFT_OUT = {
    "make": "builds and installs on this very machine; the targets are jobs of CI",
    "apt": "installs a package: tests/packages",
    "dnf": "installs a package",
    "systemctl": "needs systemd: tests/packages",
    "nm-mptcp unit": "needs systemd: tests/kernel/test_units.py",
    "nm-mptcp daemon": "the bed runs it, as the service",
    "clang": "builds a BPF program that Linux 6.6 takes: needs clang and libbpf",
    "bpftool": "loads that program into the kernel of this machine",
    "systemd-run": "needs systemd",
    "nm-mptcp --log-level debug daemon": "the same, to look for faults",
}

#: Commands that a sentence names; they are not typed so.
NAMED = {"nm-mptcp exec", "nm-mptcp explain", "nmcli connection down", "apt purge"}

#: What stands for something of the reader's own -> what it is here.
PLACEHOLDERS = {
    r"https://(?:HOST/LARGE-FILE|example\.org\S*)": f"http://{SERVER}/big",
    r"\bHOST\b": SERVER,
    r"\bPORT\b": "443",
    r"\bPROFILE\b": "LTE",
    r"\buuid [0-9a-f]{8}-[0-9a-f-]{27}": "id Wi-Fi",
    r"\b(?:INTERFACE|WHAT)\b": "wlan0",
    r"\bNUMBER\b": "650",
    r"\bNAME\b": "auto",
    r"\bMETHOD\b": "auto",
    r"\bUSER\b": "root",
    r"\b(?:COMMAND|PROGRAM)\b": "true",
    r"--check \[FILE\]": "--check [/run/shown.conf]",
    r"--report FILE\b": "--report /run/report",
}

#: Exit statuses other than 0 that tell of this machine (a tool that is missing here), and not of the command.
TELLING = {"nm-mptcp check": (0, 1, 2)}


def examples() -> list[str]:
    """Each line that is typed, as it is printed, without what is only said of it."""
    typed = [re.sub(r"\s+#.*|\s{2,}\S.*", "", line.removeprefix("$ ")) for line in shown.lines()]
    return list(dict.fromkeys(line for line in typed if re.match(rf"(?:sudo )?(?:{'|'.join(TOOLS)}) [a-z-]", line)))


def typed(example: str) -> list[str]:
    """What somebody who follows it types: here, and where something is optional, without and with it."""
    line = example.replace("sudo ", "")
    for placeholder, here in PLACEHOLDERS.items():
        line = re.sub(placeholder, here, line)
    return list(dict.fromkeys((re.sub(r" \[[^]]*\]", "", line), re.sub(r"[][]", "", line))))


def left_out(example: str) -> str | None:
    """What it is left out by, if it is."""
    line = example.replace("sudo ", "")
    if line in NAMED:
        return line
    return next((begin for begin in LEFT_OUT if f"{line} ".startswith(f"{begin} ")), None)


def test_what_is_left_out_is_there_to_be_left_out() -> None:
    assert {left_out(example) for example in examples()} - {None} == LEFT_OUT.keys() | NAMED


def test_there_are_examples_of_all_that_matters() -> None:
    done = [line for example in examples() if left_out(example) is None for line in typed(example)]
    for command in ("status", "explain", "watch", "check", "mode", "config", "exec", "apply", "clear"):
        assert any(line.startswith(f"nm-mptcp {command}") for line in done), command
    for tool in ("nmcli", "busctl"):
        assert any(line.startswith(f"{tool} ") for line in done), tool


def test_each_example_does_what_it_should(bed: Bed, up: Links) -> None:
    bed.write("/run/shown.conf", settings()[0])
    EchoServer(bed.far, 443)
    served = bed.directory / "served"
    served.mkdir()
    (served / "big").write_bytes(bytes(1 << 20))
    bed.far.spawn(sys.executable, "-m", "http.server", "80", "--bind", SERVER, "--directory", str(served), log="http")
    wait_for("the server listens", lambda: ":80" in bed.far.run("ss", "-Hltn", "sport = :80"))
    failed = []
    lines = [line for example in examples() if left_out(example) is None for line in typed(example)]
    for line in sorted(lines, key=lambda each: each.startswith("nm-mptcp clear")):
        if line.startswith("nm-mptcp watch"):
            status, errors = watched(bed, line)
        else:
            done = bed.machine.attempt("sh", "-c", f"cd /run && {line}", seconds=60)
            status, errors = done.returncode, done.stderr
        known = next((each for begin, each in TELLING.items() if line.startswith(begin)), (0,))
        wrong = re.search(r"usage:|Traceback|--help'\)|not found", errors)
        if wrong or status not in known:
            failed.append(f"{line}: {status}: {errors}")
    assert failed == []
    assert up.wifi.address not in [endpoint.address for endpoint in bed.endpoints()]  # clear came last
    bed.sh("nm-mptcp apply")
    bed.wait_endpoint(up.wifi.address)


def watched(bed: Bed, line: str) -> tuple[int, str]:
    """What goes on until somebody ends it, ended as a person does once it has shown something: status and output."""
    program = bed.machine.spawn("sh", "-c", f"cd /run && exec {line}", log="watched")
    wait_for("it shows something", lambda: program.output() or not program.running, seconds=30)
    status = program.stop(signal.SIGINT)
    output = program.output()
    program.log.unlink()
    return status, output


def settings() -> list[str]:
    """The configuration files that are shown."""
    blocks = shown.blocks_of_readme() + [block for page in shown.PAGES for block in shown.blocks_of(page)]
    return [f"{block}\n" for block in blocks if re.match(r"\[[a-z]+(-\w+)?\]\n", block)]


def test_there_are_settings_to_try() -> None:
    assert len(settings()) >= 4


@pytest.mark.parametrize("text", settings(), ids=lambda text: text.split()[0])
def test_each_configuration_that_is_shown_is_taken_whole(text: str, tmp_path: Path) -> None:
    file = tmp_path / "nm-mptcp.conf"
    file.write_text(text)
    reading = ConfigurationFiles(file).read()
    assert reading.problems == ()
    assert reading.given
