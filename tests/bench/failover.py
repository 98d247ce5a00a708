# SPDX-License-Identifier: GPL-2.0-or-later
"""``make bench-failover``: losses of links under NetworkManager alone, with mptcpd, and with nm-mptcp, side by side.

Run as root: ``python -m tests.bench.failover [--repetitions N] [--only SCENARIO ...] [--tools TOOL ...]``. Each run has a
machine of its own, in namespaces; the tools take turns within each repetition.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ..networkmanager.bed import REPOSITORY, missing
from ..networkmanager.product import install
from .delay import Done
from .links import World
from .report import Results, picture, table
from .scenarios import SCENARIOS, Outcome, Scenario
from .tools import TOOLS, Tool, mptcpd, versions


def run_once(scenario: Scenario, tool: Tool, directory: Path, installed: Path) -> tuple[Outcome, Done | None]:
    """One scenario with one tool, on a fresh machine; and what the relay did, where there was one."""
    with tool.machine(directory, installed) as bed:
        world = World(bed, tool)
        try:
            outcome = scenario.run(world)
            return outcome, world.relay.stop() if world.relay else None
        except AssertionError as error:
            told = "\n".join(f"--- {title}\n{text}" for title, text in bed.story().items())
            raise AssertionError(f"{scenario.name} with {tool.title}: {error}\n{told}") from error


def measure(
    results: Results, scenarios: Sequence[Scenario], tools: Sequence[Tool], repetitions: int, directory: Path
) -> None:
    """All of it, interleaved; a run that could not be made is told and counted."""
    root = directory / "root"
    root.mkdir()
    installed = install(root)
    begin = time.monotonic()
    for repetition in range(repetitions):
        for scenario in scenarios:
            for tool in tools:
                if not (tool.product or scenario.elsewhere):
                    continue
                place = directory / f"{scenario.name}-{tool.name}-{repetition}"
                try:
                    outcome, relayed = run_once(scenario, tool, place, installed)
                except (AssertionError, OSError) as error:
                    results.failed(scenario, tool, str(error))
                    print(f"a run failed: {error}", file=sys.stderr)
                    continue
                results.add(scenario, tool, outcome)
                if relayed:
                    results.relayed.append(relayed)
                shown = ", ".join(
                    f"{key} {'never' if it is None else f'{it:.0f}'}" for key, it in outcome.figures.items()
                )
                print(
                    f"[{time.monotonic() - begin:5.0f} s] {repetition + 1} {scenario.name} {tool.name}: {shown}",
                    flush=True,
                )


def main() -> int:
    """Measure, print the table, write it and the picture."""
    parser = argparse.ArgumentParser(prog="tests.bench.failover", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=10, metavar="N")
    parser.add_argument("--only", action="append", choices=[each.name for each in SCENARIOS], metavar="SCENARIO")
    parser.add_argument("--tools", action="append", choices=[each.name for each in TOOLS], metavar="TOOL")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs", help="where the table and the picture go")
    chosen = parser.parse_args()
    scenarios = [each for each in SCENARIOS if not chosen.only or each.name in chosen.only]
    tools = [each for each in TOOLS if not chosen.tools or each.name in chosen.tools]
    lacking = missing()
    if any(tool.name == "mptcpd" for tool in tools) and not mptcpd():
        lacking.append("mptcpd")
    if lacking:
        print(f"The bench needs {', '.join(lacking)}: try 'sudo make bench-failover'.", file=sys.stderr)
        return 1
    sys.setswitchinterval(0.0005)
    directory = Path(tempfile.mkdtemp(prefix="nm-mptcp-bench-"))
    results = Results(versions=versions(tools))
    try:
        measure(results, scenarios, tools, max(chosen.repetitions, 1), directory)
    except KeyboardInterrupt:
        print("stopped; what was measured so far:", file=sys.stderr)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    text = table(results, scenarios, tools)
    print(f"\n{text}")
    chosen.output.mkdir(parents=True, exist_ok=True)
    (chosen.output / "bench-failover.md").write_text(text)
    drawn = picture(results, tools)
    if drawn:
        (chosen.output / "failover.svg").write_text(drawn)
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
