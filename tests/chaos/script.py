# SPDX-License-Identifier: GPL-2.0-or-later
"""Sequences of steps: drawn by chance, written down, and shortened while they still fail."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from .steps import Step, drawn

#: Steps that happen before all has to be quiet again.
Batch = tuple[Step, ...]

#: Steps in a batch, at most; batches on one laptop, before another one is made.
BATCH, BATCHES = 8, 40

#: How many times a failure is tried again with fewer steps.
TRIES = 40


def read(path: Path) -> list[Batch]:
    """A file with a step in each line, and an empty one after each batch."""
    blocks = path.read_text(encoding="utf-8").split("\n\n")
    return [tuple(map(Step.read, filter(None, block.splitlines()))) for block in blocks if block.strip()]


def written(batches: Sequence[Batch]) -> str:
    """The text of such a file."""
    return "\n\n".join("\n".join(map(str, batch)) for batch in batches)


def lives(steps: int, seed: int) -> list[list[Batch]]:
    """So many steps for as many laptops as they need, the same for the same seed."""
    chance = random.Random(seed)
    found: list[list[Batch]] = [[]]
    while steps > 0:
        batch = tuple(drawn(chance) for _ in range(min(steps, chance.randint(1, BATCH))))
        steps -= len(batch)
        if len(found[-1]) == BATCHES:
            found.append([])
        found[-1].append(batch)
    return found


def shortest(batches: Sequence[Batch], fails: Callable[[Sequence[Batch]], bool], tries: int = TRIES) -> list[Batch]:
    """Ever fewer batches, then steps, that still fail; ``fails`` is asked so many times at most."""
    found = list(batches)
    asked = 0

    def still(less: list[Batch]) -> bool:
        nonlocal asked, found
        asked += 1
        if asked <= tries and any(less) and fails(less):
            found = less
            return True
        return False

    size = max(1, len(found) // 2)
    while size and asked < tries:
        places = range(0, len(found), size)
        if not any(still(found[:place] + found[place + size :]) for place in places):
            size //= 2
    for number in range(len(found)):
        for place in reversed(range(len(found[number]))):
            batch = found[number]
            still([*found[:number], batch[:place] + batch[place + 1 :], *found[number + 1 :]])
    return [batch for batch in found if batch]
