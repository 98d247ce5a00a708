# SPDX-License-Identifier: GPL-2.0-or-later
"""A laptop's life: batch by batch, and what is promised after each."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..networkmanager.bed import Bed
from ..support.waits import wait_for
from .laptop import Laptop
from .promises import Facts, Promises, after_clear
from .script import Batch

#: Seconds until all that is promised has to hold again: a link that has flapped is held back for up to 30 of them.
QUIET = 45.0


class Broken(Exception):
    """What does not hold, a line each, and what the machine says of it."""

    def __init__(self, lines: Sequence[str], story: dict[str, str]) -> None:
        super().__init__("\n".join(lines))
        self.story = story


def live(batches: Sequence[Batch], installed: Path, say: Callable[[str], None] = lambda _: None) -> int:
    """A laptop's life: how often an address had to be a path, and was. Broken when something does not hold."""
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    bed = Bed(directory, installed=installed)
    try:
        laptop = Laptop.boot(bed)
        try:
            return _live(laptop, batches, say)
        except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
            raise Broken([str(error)], bed.story()) from error
        finally:
            laptop.end()
    finally:
        bed.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _live(laptop: Laptop, batches: Sequence[Batch], say: Callable[[str], None]) -> int:
    promises = Promises(laptop)
    foreign = Facts.read(laptop).foreign()
    laptop.begin()
    for batch in batches:
        say(" ; ".join(map(str, batch)))
        for step in batch:
            laptop.talk()
            if (now := Facts.read(laptop).foreign()) != foreign:
                raise AssertionError(f"before {step}: what belongs to others was changed from {foreign} to {now}")
            step.happen(laptop)
            if step.name == "foreign":
                foreign = Facts.read(laptop).foreign()
        begin = time.monotonic()
        laptop.recover()
        laptop.wait_until_settled()
        _wait_until_all_holds(laptop, promises)
        say(f"    quiet after {time.monotonic() - begin:.1f} s")
    laptop.hang_up()
    if broken := after_clear(laptop, foreign):
        raise AssertionError("\n".join(broken))
    return promises.paths_seen


def _wait_until_all_holds(laptop: Laptop, promises: Promises) -> None:
    broken: list[str] = []

    def quiet() -> bool:
        laptop.talk()
        try:
            broken[:] = promises.broken()
        except AssertionError as error:  # a command failed
            broken[:] = [str(error)]
        return not broken

    try:
        wait_for("all holds", quiet, seconds=QUIET, every=0.25)
    except AssertionError:
        raise AssertionError("\n".join(broken)) from None
