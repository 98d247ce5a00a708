# SPDX-License-Identifier: GPL-2.0-or-later
"""``make bench-behind``: is any connection lost, or does any wait longer, that NetworkManager alone keeps or serves sooner?

Run as root: ``python -m tests.bench.behind [--only HARDSHIP ...] [--seed N]``. NetworkManager alone (twice, so that one sees
what is chance) and nm-mptcp live through the same, on machines of their own that run at the same time.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from ..networkmanager.bed import REPOSITORY, missing
from ..networkmanager.connectivity import CheckServer
from ..networkmanager.logind import POLICY, Logind
from ..networkmanager.namespaces import die_with_parent
from ..networkmanager.product import install
from .behind_report import Lived, Run, Stream, page
from .crowd import PLAIN_TCP, Crowd, Name
from .hardships import HARDSHIPS, Hardship, Stage
from .links import ECHO, NEAR, NO_JOIN, NO_SUBFLOWS, ONCE, PLAIN, World
from .scenarios import ORDINARY
from .streams import EchoServer
from .tools import TOOLS, Tool, versions
from .watch import Subflows, until

#: How many connections there are of each kind, by the link on which they begin.
BEGUN = {"Wi-Fi": 6, "LTE": 3}

#: Seconds after the end in which a connection may answer again, and then without an answer, before it counts as lost.
_PATIENCE, _SILENT = 10.0, 1.0

_KINDS = {
    ORDINARY: (NEAR, ECHO),
    "no joins to its address": (NO_JOIN, ECHO),
    "takes no subflows": (NO_SUBFLOWS, ECHO),
    "stopped listening": (NEAR, ONCE),
    PLAIN_TCP: (NEAR, PLAIN),
}

_ALONE, _PRODUCT = TOOLS[0], TOOLS[-1]


@dataclass(frozen=True)
class Part:
    """One machine: with or without the second link, with which tool, for the how-manieth time."""

    both: bool
    tool: Tool
    number: int

    @property
    def run(self) -> Run:
        """As the report knows it."""
        return Run("two links" if self.both else "lone link", self.tool.product, self.number)


def _connect(world: World, crowd: Crowd, both: bool) -> None:
    """The links come up, and on each its connections begin."""
    bed = world.bed
    world.servers()
    once = iter(range(ONCE + 100, ONCE + 200))

    def begin(origin: str) -> None:
        for number in range(BEGUN[origin]):
            for kind, (server, port) in _KINDS.items():
                name = Name(kind, origin, number + 1)
                if port == ONCE:
                    # The client asks for more subflows as soon as data was acknowledged: not before the listener is gone.
                    port = next(once)
                    crowd.join(name, server, port, before_data=EchoServer(bed.far, port, once=True).stopped.wait)
                else:
                    crowd.join(name, server, port)

    world.connect(both=both, before_wifi=(lambda: begin("LTE")) if both else None)
    world.settle()
    begin("Wi-Fi")
    subflows = Subflows(bed.machine)
    wanted = sum(BEGUN.values()) if both else BEGUN["Wi-Fi"]

    def complete() -> bool:
        places = [local for local, _ in subflows.to(NEAR, ECHO)]
        return all(places.count(link.address) >= wanted for link in world.links)

    assert until(complete, seconds=5), "not all connections to an ordinary server stand on each link"
    crowd.begin()
    since = time.monotonic()
    assert until(lambda: crowd.flows(since), seconds=5), "the streams do not flow"


def live_through(
    part: Part, hardship: Hardship, *, directory: Path, installed: Path, seed: int, start: Barrier
) -> Lived:
    """One hardship on one machine; all machines begin together."""
    tool = dataclasses.replace(part.tool, configuration=part.tool.configuration + hardship.configuration)
    with tool.machine(directory, installed) as bed:
        world = World(bed, tool)
        try:
            logind = Logind(bed) if hardship.sleeps else None
            check = CheckServer(bed) if hardship.checks else None
            crowd = Crowd(bed.machine)
            _connect(world, crowd, part.both)
            if logind:
                logind.wait_inhibitor("NetworkManager")
            stage = Stage(world, crowd, random.Random(seed), logind, check)
            start.wait(60)
            hardship.run(stage)
            ended = time.monotonic()
            until(lambda: crowd.flows(ended), seconds=_PATIENCE)
            until(lambda: time.monotonic() > ended + _SILENT, seconds=_SILENT)
            end = time.monotonic()
            streams = [
                Stream(
                    told.name,
                    told.error or ("no answer" if end - told.arrivals[-1] > _SILENT else ""),
                    told.waits(stage.marks, end),
                )
                for told in crowd.end()
            ]
        except AssertionError as error:
            story = "\n".join(f"--- {title}\n{text}" for title, text in bed.story().items())
            raise AssertionError(f"{hardship.name}, {part.run}: {error}\n{story}") from error
        return Lived(part.run, hardship.name, streams)


def _work(
    part: Part, hardship: Hardship, place: Path, installed: Path, seed: int, start: Barrier, said: Queue[Lived | str]
) -> None:
    die_with_parent()
    sys.setswitchinterval(0.0005)
    try:
        said.put(live_through(part, hardship, directory=place, installed=installed, seed=seed, start=start))
    except (AssertionError, OSError, threading.BrokenBarrierError) as error:
        start.abort()
        said.put(f"{part.run}: {type(error).__name__}: {error}")


def together(
    parts: Sequence[Part], hardship: Hardship, *, directory: Path, installed: Path, seed: int
) -> list[Lived | str]:
    """One hardship on all machines at the same time; instead of a result, why there is none."""
    context = multiprocessing.get_context("fork")
    start = context.Barrier(len(parts))
    said: Queue[Lived | str] = context.Queue()
    workers = []
    for place, part in enumerate(parts):
        arguments = (part, hardship, directory / f"{hardship.name}-{place}", installed, seed, start, said)
        workers.append(context.Process(target=_work, args=arguments, daemon=True))
        workers[-1].start()
    try:
        return [said.get(timeout=300) for _ in workers]
    finally:
        for worker in workers:
            worker.join(20)
            worker.kill()


def main() -> int:
    """Measure, print the page, write it; fails when somebody was left behind."""
    parser = argparse.ArgumentParser(prog="tests.bench.behind", description=__doc__)
    parser.add_argument("--only", action="append", choices=[each.name for each in HARDSHIPS], metavar="HARDSHIP")
    parser.add_argument("--seed", type=int, default=1, help="of the times of the flaps")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs", help="where the page goes")
    chosen = parser.parse_args()
    lacking = missing() + ([] if POLICY.exists() else ["systemd (logind's bus policy)"])
    if lacking:
        print(f"The bench needs {', '.join(lacking)}: try 'sudo make bench-behind'.", file=sys.stderr)
        return 1
    hardships = [each for each in HARDSHIPS if not chosen.only or each.name in chosen.only]
    parts = [
        Part(both, tool, number) for both in (False, True) for tool, number in ((_ALONE, 1), (_PRODUCT, 1), (_ALONE, 2))
    ]
    directory = Path(tempfile.mkdtemp(prefix="nm-mptcp-bench-"))
    installed = install(directory / "root")
    lived: list[Lived] = []
    failures: list[str] = []
    begin = time.monotonic()
    try:
        for hardship in hardships:
            for time_of_it in range(hardship.times):
                seed = chosen.seed + 1000 * time_of_it
                for outcome in together(parts, hardship, directory=directory, installed=installed, seed=seed):
                    if isinstance(outcome, Lived):
                        lived.append(dataclasses.replace(outcome, time_of_it=time_of_it))
                    else:
                        failures.append(outcome)
                        print(f"{hardship.name}: a run failed: {outcome}", file=sys.stderr)
                print(f"[{time.monotonic() - begin:5.0f} s] {hardship.title}", flush=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    text, behind = page(
        lived, hardships, versions=versions([_ALONE, _PRODUCT]), seed=chosen.seed, failures=len(failures)
    )
    print(f"\n{text}")
    chosen.output.mkdir(parents=True, exist_ok=True)
    (chosen.output / "bench-behind.md").write_text(text)
    return 1 if failures or behind else 0


if __name__ == "__main__":
    sys.exit(main())
