# SPDX-License-Identifier: GPL-2.0-or-later
"""``make coverage``: which lines and branches of the program all tests together run, as one page.

Run as root: ``python -m tests.coverage_page [--output FILE] PYTEST-ARGUMENT...``. Each Python interpreter that the tests
start, also within a bed or as another user, measures itself (coverage.py's ``patch = subprocess``).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from . import versions

ROOT = Path(__file__).parents[1]
SOURCE = "src/nm_mptcp"

_HEAD = """\
<!-- made by `make coverage`; do not edit -->

# Coverage

Lines and branches of `{source}` that the tests run: `{tests}`, in this process, in its workers, and in every
`nm-mptcp` that they start (service, dispatcher, commands, in namespaces).

{system}; {outcome}.

Not counted: what only runs in containers (`tests/packages`) and machines (`tests/machine`), and what a process did that was
killed without a chance to write it down (`kill -9` of the service in restart tests).
"""


def page(report: Mapping[str, Any], *, tests: str, outcome: str, system: str) -> str:
    """The report of ``coverage json`` in Markdown: all, each package, each module."""
    files = {Path(name).relative_to(SOURCE): data["summary"] for name, data in report["files"].items()}
    packages = sorted({str(file.parent) for file in files})
    lines = [_HEAD.format(source=SOURCE, tests=tests, outcome=outcome, system=system)]
    lines += [
        "| package | module | lines | run | branches | taken |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        _row("**all**", "", [report["totals"]]),
    ]
    for package in packages:
        modules = {file.stem: data for file, data in sorted(files.items()) if str(file.parent) == package}
        name = "(top)" if package == "." else package
        lines.append(_row(f"**{name}**", "", list(modules.values())))
        lines += [_row(name, module, [data]) for module, data in modules.items() if data["num_statements"]]
    return "\n".join(lines) + "\n"


def _row(package: str, module: str, summaries: list[Mapping[str, int]]) -> str:
    def total(name: str) -> int:
        return sum(summary[name] for summary in summaries)

    cells = (
        package,
        module and f"`{module}`",
        f"{total('num_statements'):,}",
        _percent(total("covered_lines"), total("num_statements")),
        f"{total('num_branches'):,}",
        _percent(total("covered_branches"), total("num_branches")),
    )
    return f"| {' | '.join(cells)} |"


def _percent(part: int, whole: int) -> str:
    # 100 % is only what is whole.
    return f"{100 * part // whole} %" if whole else "-"


def measure(arguments: list[str], place: Path) -> tuple[Mapping[str, Any], str]:
    """Run pytest with these; the report of ``coverage json``, and pytest's last line."""
    place.chmod(0o1777)  # programs of other users write there too
    data = place / "data"
    coverage = [sys.executable, "-m", "coverage"]
    outcome = ""
    command = [*coverage, "run", f"--data-file={data}", "-m", "pytest", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        for line in run.stdout:
            print(line, end="", flush=True)
            outcome = line.strip(" =\n") or outcome
    for words in (["combine", "--quiet"], ["json", "--quiet", "-o", str(place / "report.json")]):
        subprocess.run([*coverage, words[0], f"--data-file={data}", *words[1:]], cwd=ROOT, check=True)
    report: Mapping[str, Any] = json.loads((place / "report.json").read_text())
    return report, outcome


def main() -> int:
    """Measure, and write the page; the exit status is not that of the tests, which measuring makes slower."""
    parser = argparse.ArgumentParser(prog="tests.coverage_page", description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "coverage.md", metavar="FILE")
    chosen, arguments = parser.parse_known_args()
    seen = versions.seen()
    system = ", ".join(
        (seen["distribution"], *(f"{name} {seen[name]}" for name in ("kernel", "NetworkManager", "Python")))
    )
    place = Path(tempfile.mkdtemp(prefix="nm-mptcp-coverage-"))
    report, outcome = measure(arguments, place)
    shutil.rmtree(place)  # where something failed, what took so long is still there
    tests = "`, `".join(_folders(arguments))
    chosen.output.write_text(page(report, tests=tests, outcome=outcome, system=system))
    totals = report["totals"]
    print(f"{chosen.output}: lines {_percent(totals['covered_lines'], totals['num_statements'])}", end=", ")
    print(f"branches {_percent(totals['covered_branches'], totals['num_branches'])}")
    return 0


def _folders(arguments: list[str]) -> Iterator[str]:
    return (argument for argument in arguments if argument.startswith("tests/"))


if __name__ == "__main__":
    sys.exit(main())
