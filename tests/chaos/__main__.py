# SPDX-License-Identifier: GPL-2.0-or-later
"""``make chaos STEPS=n SEED=n``: random steps against the running service, with a real NetworkManager, bus and kernel.

Run as root: ``python -m tests.chaos [--steps N] [--seed N] [--file FILE]``. After each batch of steps everything that was
stopped runs again, and when all is quiet, what README promises has to hold. A failure is tried again with ever fewer steps,
and the shortest sequence that fails is printed; ``--file`` takes such a sequence.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..networkmanager.bed import missing
from ..networkmanager.product import install
from .life import Broken, live
from .script import Batch, lives, read, shortest, written

#: In this many batches, each one finds this many addresses that have to be paths, on average (1.4 were seen).
ENOUGH, PATHS = 40, 0.5


def main() -> int:
    """See above; the exit status is 1 when something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--steps", type=int, default=300, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--file", type=Path, metavar="FILE", help="take these steps")
    parser.add_argument("--quick", action="store_true", help="do not look for a shorter sequence")
    parser.add_argument("-v", "--verbose", action="store_true", help="print each step")
    arguments = parser.parse_args()
    if lacking := missing():
        parser.exit(2, f"chaos needs {', '.join(lacking)}\n")

    def say(line: str) -> None:
        if arguments.verbose:
            print(line, flush=True)

    installed = install(Path(tempfile.mkdtemp(prefix="chaos-installed-")))

    def fails_likewise(batches: Sequence[Batch], kind: str) -> bool:
        try:
            live(batches, installed)
        except Broken as other:
            return other.kind == kind
        return False

    taken = paths = count = 0
    begin = time.monotonic()
    try:
        for batches in [read(arguments.file)] if arguments.file else lives(arguments.steps, arguments.seed):
            try:
                paths += live(batches, installed, say)
            except Broken as broken:
                for name, text in broken.story.items():
                    print(f"--- {name}\n{text}")
                print(f"--- what does not hold after {taken} steps and some more\n{broken}", flush=True)
                if not arguments.quick:
                    less = shortest(batches, partial(fails_likewise, kind=broken.kind))
                    print(f"--- the shortest sequence that was found\n{written(less)}")
                return 1
            taken += sum(map(len, batches))
            count += len(batches)
            spent = f"{time.monotonic() - begin:.0f} s"
            print(
                f"{taken} steps, {spent}: all that is promised holds, of {paths} addresses that had to be paths",
                flush=True,
            )
    finally:
        shutil.rmtree(installed, ignore_errors=True)
    if count >= ENOUGH and paths < count * PATHS:
        print(f"{paths} paths after {count} batches are too few: what is promised was hardly asked for")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
