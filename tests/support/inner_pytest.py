# SPDX-License-Identifier: GPL-2.0-or-later
"""A run of pytest within a test, with this tree's own rules for runs and none of its tests."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from . import deadline, retries

ROOT = Path(__file__).parents[2]

#: Seconds, so that nobody waits for the inner run's own waits.
QUICK = {deadline.GRACE_VARIABLE: "1", retries.DELAY_VARIABLE: "0"}


def run(place: Path, tests: str, *arguments: str, named: str = "") -> subprocess.CompletedProcess[str]:
    """Run the tests of this text with `tests/conftest.py`; its output has both channels.

    ``timeout`` is 1 s, the time to clean up 1 s more, and retries come at once. ``named``: as ``NM_MPTCP_RUN`` names it.
    """
    (place / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers -p tests.conftest\ntimeout = 1\n")
    (place / "test_inner.py").write_text("import pytest\n" + textwrap.dedent(tests))
    # What the outer run is called, and is one of several of, is nothing to the inner.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    words = ("-c", str(place / "pytest.ini"), "-p", "no:cacheprovider", *arguments, str(place / "test_inner.py"))
    return subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=ROOT,
        env=environment | QUICK | {"NM_MPTCP_RUN": named},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
