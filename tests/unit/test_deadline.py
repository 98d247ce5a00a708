# SPDX-License-Identifier: GPL-2.0-or-later
"""A test that hangs is ended and named, by pytest-timeout or, where that does not reach it, with its process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import deadline, inner_pytest

HANGING = """
    import time

    def test_hangs():
        time.sleep(60)

    def test_next():
        pass
"""

#: As `asyncio.run` does with a task that takes no cancellation.
HANGING_IN_CLEANUP = """
    import time

    def test_hangs():
        try:
            time.sleep(60)
        finally:
            time.sleep(60)

    def test_next():
        pass
"""

HANGING_IN_TEARDOWN = """
    import time

    @pytest.fixture
    def bed():
        yield
        time.sleep(60)

    def test_hangs(bed):
        assert False

    def test_next():
        pass
"""


def test_a_test_that_hangs_fails_and_the_others_run(tmp_path: Path) -> None:
    done = inner_pytest.run(tmp_path, HANGING)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "test_inner.py::test_hangs" in done.stdout
    assert "Failed: Timeout" in done.stdout
    assert "1 failed, 1 passed" in done.stdout


@pytest.mark.parametrize("tests", [HANGING_IN_CLEANUP, HANGING_IN_TEARDOWN], ids=["cleanup", "teardown"])
def test_one_that_hangs_on_loses_its_process(tests: str, tmp_path: Path) -> None:
    done = inner_pytest.run(tmp_path, tests)
    assert done.returncode == 1
    assert "Timeout (0:00:02)!" in done.stdout
    assert "test_inner.py" in done.stdout


@pytest.mark.parametrize("tests", [HANGING_IN_CLEANUP, HANGING_IN_TEARDOWN], ids=["cleanup", "teardown"])
def test_beside_others_it_is_named_and_they_run(tests: str, tmp_path: Path) -> None:
    done = inner_pytest.run(tmp_path, tests, "-n1")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "crashed while running" in done.stdout
    assert "test_inner.py::test_hangs" in done.stdout
    assert "1 passed" in done.stdout


def test_what_boots_systems_has_more_time(request: pytest.FixtureRequest) -> None:
    assert all(Path(__file__).parents[1].joinpath(folder).is_dir() for folder in deadline.SECONDS)
    assert float(request.config.getini("timeout")) < min(deadline.SECONDS.values())
