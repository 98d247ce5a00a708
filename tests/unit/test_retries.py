# SPDX-License-Identifier: GPL-2.0-or-later
"""Only marked tests are retried, each retry is printed and counted, and more than a few fail the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import inner_pytest, retries

pytest.importorskip("pytest_rerunfailures")

#: Fails so many times, then passes.
LATE = """
    import pathlib

    def late(name, times):
        seen = pathlib.Path(__file__).with_name(f"seen-{{name}}")
        seen.touch()
        seen.write_text(seen.read_text() + "x")
        assert len(seen.read_text()) > times, "it came late"

    {mark}
    @pytest.mark.parametrize("number", range({tests}))
    def test_it(number):
        late(number, {times})
"""

MARK = '@pytest.mark.may_be_late(reason="a lease takes its time")'


@pytest.mark.parametrize("arguments", [[], ["-n2"]], ids=["alone", "by workers"])
def test_a_marked_test_is_retried_printed_and_counted(arguments: list[str], tmp_path: Path) -> None:
    done = inner_pytest.run(tmp_path, LATE.format(mark=MARK, tests=1, times=2), *arguments)
    assert done.returncode == pytest.ExitCode.OK
    assert done.stdout.count("test_inner.py::test_it[0]: may be late: a lease takes its time\n") == 2
    assert "AssertionError: it came late" in done.stdout
    assert "2 retries (at most 3 in a run)" in done.stdout
    assert "1 passed, 2 rerun" in done.stdout


def test_after_three_failures_it_has_failed(tmp_path: Path) -> None:
    done = inner_pytest.run(tmp_path, LATE.format(mark=MARK, tests=1, times=3))
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "1 failed, 2 rerun" in done.stdout


@pytest.mark.parametrize("arguments", [[], ["-n2"]], ids=["alone", "by workers"])
@pytest.mark.parametrize(("tests", "status"), [(retries.MOST, 0), (retries.MOST + 1, 1)], ids=["three", "more"])
def test_more_than_three_retries_fail_the_run(tests: int, status: int, arguments: list[str], tmp_path: Path) -> None:
    done = inner_pytest.run(tmp_path, LATE.format(mark=MARK, tests=tests, times=1), *arguments)
    assert f"{tests} passed, {tests} rerun" in done.stdout
    assert done.returncode == status
    assert ("more than 3: the run has failed" in done.stdout) is bool(status)


def test_no_other_test_is(tmp_path: Path) -> None:
    done = inner_pytest.run(tmp_path, LATE.format(mark="", tests=1, times=1))
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "= 1 failed in" in done.stdout


@pytest.mark.parametrize(
    "mark",
    [
        "@pytest.mark.may_be_late",
        "@pytest.mark.may_be_late()",
        '@pytest.mark.may_be_late(reason=" ")',
        '@pytest.mark.may_be_late("a lease takes its time")',
        "@pytest.mark.flaky(reruns=2)",
    ],
)
def test_no_mark_without_a_reason(mark: str, tmp_path: Path) -> None:
    done = inner_pytest.run(tmp_path, LATE.format(mark=mark, tests=1, times=1))
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "may_be_late(reason=" in done.stdout


def test_nobody_retries_all(tmp_path: Path) -> None:
    done = inner_pytest.run(tmp_path, LATE.format(mark="", tests=1, times=1), "--reruns=2")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize(("times", "kept"), [(0, 1), (1, 0)], ids=["without a retry", "after one"])
def test_a_run_with_retries_is_none_for_the_table(times: int, kept: int, tmp_path: Path) -> None:
    tests = LATE.format(mark=MARK, tests=1, times=times)
    tests += f"""
    from tests import versions
    versions.KEPT = pathlib.Path({str(tmp_path)!r}, "kept")
"""
    done = inner_pytest.run(tmp_path, tests, named="make test")
    assert done.returncode == pytest.ExitCode.OK
    assert len(list((tmp_path / "kept").glob("*.json"))) == kept
