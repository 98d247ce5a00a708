# SPDX-License-Identifier: GPL-2.0-or-later
"""A laptop's life: batch by batch, and what is promised after each."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..networkmanager.bed import Bed
from ..support.waits import wait_for
from .laptop import Laptop
from .promises import NOT_AT_REST, Facts, Promises, after_clear
from .script import Batch

#: Seconds after which it is asked again whether all holds, after each so many batches.
HOLDS, _AGAIN = 2.0, 4

#: Seconds until all that is promised has to hold again: a link that has flapped is held back for up to 30 of them.
QUIET = 45.0


class Broken(Exception):
    """What does not hold, a line each, and what the machine says of it."""

    def __init__(self, text: str, story: dict[str, str]) -> None:
        super().__init__(text)
        self.story = story

    @property
    def kind(self) -> str:
        """The first line, without what is another one each time."""
        return re.sub(r"[0-9a-f]*[:.][0-9a-f:.]+|\d+", "#", str(self).partition("\n")[0])


def live(batches: Sequence[Batch], installed: Path, say: Callable[[str], None] = lambda _: None) -> int:
    """A laptop's life: how often an address had to be a path, and was. Broken when something does not hold."""
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    bed = Bed(directory, installed=installed)
    with contextlib.ExitStack() as ends:
        ends.callback(shutil.rmtree, directory, ignore_errors=True)
        ends.callback(bed.stop)
        try:
            laptop = Laptop.boot(bed)
            ends.callback(laptop.end)
            return _live(laptop, batches, say)
        except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
            raise Broken(str(error), bed.story()) from error


def _live(laptop: Laptop, batches: Sequence[Batch], say: Callable[[str], None]) -> int:
    promises = Promises(laptop)
    foreign = Facts.read(laptop).foreign()
    laptop.begin()
    for number, batch in enumerate(batches, 1):
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
        settled = time.monotonic()
        _wait_until_all_holds(laptop, promises, say)
        if number % _AGAIN == 0 and (broken := _after_a_while(laptop, promises)):
            raise AssertionError("\n".join([*broken, f"all held {HOLDS:g} s before"]))
        say(f"    settled after {settled - begin:.1f} s, quiet {time.monotonic() - settled:.1f} s later")
    laptop.hang_up()
    if broken := after_clear(promises, foreign):
        raise AssertionError("\n".join(broken))
    return promises.paths_seen


def _after_a_while(laptop: Laptop, promises: Promises) -> list[str]:
    """What does not hold some time later, although nothing happened."""
    end = time.monotonic() + HOLDS
    while time.monotonic() < end:
        laptop.talk()
        time.sleep(0.1)
    laptop.wait_until_settled()
    # Something may change just then, as a link that is not held back any more.
    for _ in range(5):
        if (broken := promises.broken()) != [NOT_AT_REST]:
            break
    return broken


def _wait_until_all_holds(laptop: Laptop, promises: Promises, say: Callable[[str], None]) -> None:
    broken: list[str] = []
    began = time.monotonic()

    def quiet() -> bool:
        laptop.talk()
        before = list(broken)
        try:
            broken[:] = promises.broken()
        except AssertionError as error:  # a command failed
            broken[:] = [str(error)]
        if broken not in ([], before):
            say(f"    {time.monotonic() - began:.1f} s: {'; '.join(broken)}")
        return not broken

    try:
        wait_for("all holds", quiet, seconds=QUIET, every=0.25)
    except AssertionError:
        raise AssertionError("\n".join(broken)) from None
