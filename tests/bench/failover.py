# SPDX-License-Identifier: GPL-2.0-or-later
"""``make bench-failover``: losses of links under NetworkManager alone, with mptcpd, and with nm-mptcp, side by side.

Run as root: ``python -m tests.bench.failover [--repetitions N] [--only SCENARIO ...] [--tools TOOL ...]``. Each run has a
machine of its own, in namespaces; the tools take turns within each repetition.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..networkmanager.product import install
from .delay import Done
from .links import World
from .report import Results, picture, table
from .scenarios import SCENARIOS, Outcome, Scenario
from .selection import select, workplace
from .tools import Tool, versions


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
    installed = install(directory / "root")
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
    chosen = select("failover", __doc__, SCENARIOS, written="table and the picture")
    results = Results(versions=versions(chosen.tools))
    with workplace() as directory:
        measure(results, chosen.scenarios, chosen.tools, chosen.repetitions, directory)
    text = table(results, chosen.scenarios, chosen.tools)
    print(f"\n{text}")
    chosen.write("bench-failover.md", text)
    drawn = picture(results, chosen.tools)
    if drawn:
        chosen.write("failover.svg", drawn)
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
