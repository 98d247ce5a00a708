# SPDX-License-Identifier: GPL-2.0-or-later
"""Nothing of a bed outlives a test that hangs, whether it is timed out or has to end with its process."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..support import inner_pytest
from ..support.waits import wait_for
from .conftest import skip_without_tools
from .namespaces import has_ended

HANGING = """
    import pathlib, time
    from tests.networkmanager.conftest import bed, installed

    @pytest.mark.timeout(15)
    def test_hangs(bed):
        program = bed.machine.spawn("sleep", "infinity")
        pathlib.Path(__file__).with_name("pids").write_text(f"{bed.init} {program.pid} {bed.networkmanager.pid}")
        try:
            time.sleep(600)
        finally:
            time.sleep(SECONDS_TO_CLEAN_UP)
"""


@pytest.mark.parametrize(("cleanup", "said"), [("0", "Failed: Timeout"), ("600", "Timeout (0:00:16)!")])
def test_a_bed_ends_with_its_test(cleanup: str, said: str, tmp_path: Path) -> None:
    skip_without_tools()
    done = inner_pytest.run(tmp_path, HANGING.replace("SECONDS_TO_CLEAN_UP", cleanup))
    assert done.returncode == 1
    assert said in done.stdout
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 3
    wait_for("all have ended", lambda: all(has_ended(int(pid)) for pid in pids))
