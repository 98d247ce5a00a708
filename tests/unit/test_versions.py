# SPDX-License-Identifier: GPL-2.0-or-later
"""Only a whole run of tests writes what passed into the table of versions."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import versions

ROOT = Path(__file__).parents[2]
TESTS = ["tests/test_lint.py", "tests/unit"]


def test_a_run_of_all_tests_is_whole() -> None:
    assert versions.is_whole(
        TESTS, {"keyword": "", "lf": False, "deselect": None, "ignore": None, "markexpr": "not long"}
    )


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ([*TESTS, "tests/unit/test_text.py::test_x"], {}),
        (TESTS, {"keyword": "text"}),
        (TESTS, {"lf": True}),
        (TESTS, {"deselect": ["tests/unit/test_text.py::test_x"]}),
        (TESTS, {"ignore": ["tests/unit/test_text.py"]}),
        (TESTS, {"stepwise": True}),
    ],
    ids=["one test", "-k", "what failed once more", "--deselect", "--ignore", "--stepwise"],
)
def test_a_run_of_chosen_tests_is_not(arguments: list[str], options: dict[str, object]) -> None:
    assert not versions.is_whole(arguments, options)


def test_pytest_itself_has_these_options() -> None:
    """By pytest itself, whose names for its options these are."""
    asked: list[dict[str, object]] = []

    class Seen:
        def pytest_configure(self, config: pytest.Config) -> None:
            asked.append(vars(config.option))

    chosen = ["--collect-only", "-q", "-p", "no:cacheprovider", str(Path(__file__)), "-k", "whole"]
    pytest.main(chosen, plugins=[Seen()])
    (options,) = asked
    assert options["keyword"] == "whole"
    assert not versions.is_whole([__file__], options)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("words", "name"),
    [([], "make test"), (["TESTS=tests/unit/test_text.py"], ""), (["PYTEST_ARGUMENTS=-x"], "")],
    ids=["all tests", "chosen tests", "other arguments"],
)
def test_make_names_a_run_only_where_it_chooses_the_tests(words: list[str], name: str) -> None:
    # What another make was told, that runs these tests, is none of this one's business.
    told = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "PYTEST_ARGUMENTS")
    }
    make = ["make", "-n", "test", *words]
    said = subprocess.run(make, cwd=ROOT, env=told, capture_output=True, text=True, check=True).stdout
    assert f"NM_MPTCP_RUN='{name}'" in said
