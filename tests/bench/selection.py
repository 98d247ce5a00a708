# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line of the benches that compare tools in scenarios, and the place in which they run."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from ..networkmanager.bed import REPOSITORY, missing
from .tools import TOOLS, Tool, mptcpd


class Named(Protocol):
    """A scenario, by the name that the command line has for it."""

    @property
    def name(self) -> str: ...


_Scenario = TypeVar("_Scenario", bound=Named)


@dataclass(frozen=True)
class Selection(Generic[_Scenario]):
    """What is to be measured."""

    repetitions: int
    scenarios: list[_Scenario]
    tools: list[Tool]
    output: Path

    def write(self, name: str, text: str) -> None:
        """Write one file of the results."""
        self.output.mkdir(parents=True, exist_ok=True)
        (self.output / name).write_text(text)


def select(
    bench: str,
    description: str | None,
    scenarios: Sequence[_Scenario],
    *,
    repetitions: int = 10,
    written: str = "table",
) -> Selection[_Scenario]:
    """Read the command line of ``tests.bench.BENCH``. Exits with status 1 where this machine lacks anything for it."""
    parser = argparse.ArgumentParser(prog=f"tests.bench.{bench}", description=description)
    parser.add_argument("--repetitions", type=int, default=repetitions, metavar="N")
    parser.add_argument("--only", action="append", choices=[each.name for each in scenarios], metavar="SCENARIO")
    parser.add_argument("--tools", action="append", choices=[each.name for each in TOOLS], metavar="TOOL")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs", help=f"where the {written} goes")
    chosen = parser.parse_args()
    tools = [each for each in TOOLS if not chosen.tools or each.name in chosen.tools]
    lacking = missing()
    if any(tool.name == "mptcpd" for tool in tools) and not mptcpd():
        lacking.append("mptcpd")
    if lacking:
        sys.exit(f"The bench needs {', '.join(lacking)}: try 'sudo make bench-{bench}'.")
    return Selection(
        max(chosen.repetitions, 1),
        [each for each in scenarios if not chosen.only or each.name in chosen.only],
        tools,
        chosen.output,
    )


@contextmanager
def workplace() -> Iterator[Path]:
    """A directory for the runs, removed afterwards. An interrupt ends them, and what was measured so far counts."""
    sys.setswitchinterval(0.0005)
    directory = Path(tempfile.mkdtemp(prefix="nm-mptcp-bench-"))
    try:
        yield directory
    except KeyboardInterrupt:
        print("stopped; what was measured so far:", file=sys.stderr)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
