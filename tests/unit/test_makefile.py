# SPDX-License-Identifier: GPL-2.0-or-later
"""`make help` fits a screen, and what it names is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*words: str) -> subprocess.CompletedProcess[str]:
    # The flags of a make that runs these tests are not those of this one.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    }
    return subprocess.run(["make", *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_help_fits_a_screen() -> None:
    lines = make("help").stdout.splitlines()
    assert 10 < len(lines) <= 24
    assert max(map(len, lines)) <= 80


def test_what_help_names_is_a_target() -> None:
    targets = set(re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = {name for line in targets for name in line.split()}
    for line in make("help").stdout.splitlines():
        if found := re.match(r"  make (\S+(?:, \S+)*)  ", line):
            for name in found[1].split(", "):
                assert name in known or name == "bench-NAME", name


PROGRAMS = sorted(
    path.stem for path in (ROOT / "tests/bench").glob("*.py") if '__name__ == "__main__"' in path.read_text()
)


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "delay"])  # which the others start
def test_every_bench_has_its_command_and_starts(name: str) -> None:
    said = make("-n", f"bench-{name}").stdout.splitlines()[-1]
    assert said.split()[1:] == ["-m", f"tests.bench.{name}"]
    command = [sys.executable, "-m", f"tests.bench.{name}", "--help"]
    assert subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode == 0
