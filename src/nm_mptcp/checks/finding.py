# SPDX-License-Identifier: GPL-2.0-or-later
"""What a check found, on what evidence, and how to change it."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class Result(enum.StrEnum):
    """The result of a check, the worst first."""

    BAD = "bad"  #: it does not work
    WARNING = "warning"  #: it works, but less well than it could, or only for now
    UNKNOWN = "unknown"  #: it could not be examined; the evidence says why
    GOOD = "good"
    NOT_APPLICABLE = "not-applicable"


@dataclass(frozen=True, slots=True)
class Remedy:
    """What to do: commands for a root shell in their order, or only words where no command is right."""

    commands: tuple[str, ...] = ()
    words: str = ""
    safe: bool = False  #: for ``--fix``: restores what nm-mptcp or its installation sets


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check for one subject."""

    check: str  #: its name, an interface
    result: Result
    evidence: str  #: one line
    subject: str = ""  #: an address or an interface, for a check of several
    remedy: Remedy | None = None


def good(check: str, evidence: str, subject: str = "") -> Finding:
    """It is as it should be."""
    return Finding(check, Result.GOOD, evidence, subject)


def not_applicable(check: str, evidence: str, subject: str = "") -> Finding:
    """There is nothing to check."""
    return Finding(check, Result.NOT_APPLICABLE, evidence, subject)


def unknown(check: str, evidence: str, subject: str = "", remedy: Remedy | None = None) -> Finding:
    """It could not be examined."""
    return Finding(check, Result.UNKNOWN, evidence, subject, remedy)


def warning(check: str, evidence: str, subject: str = "", remedy: Remedy | None = None) -> Finding:
    """It could be better."""
    return Finding(check, Result.WARNING, evidence, subject, remedy)


def bad(check: str, evidence: str, subject: str = "", remedy: Remedy | None = None) -> Finding:
    """It does not work."""
    return Finding(check, Result.BAD, evidence, subject, remedy)


def commands(*lines: str, words: str = "", safe: bool = False) -> Remedy:
    """A remedy of commands."""
    return Remedy(lines, words, safe)


def advice(words: str) -> Remedy:
    """A remedy without commands."""
    return Remedy(words=words)


def worst(findings: Iterable[Finding]) -> Result:
    """The worst result, good without any; ``unknown`` does not count."""
    found = {finding.result for finding in findings}
    return next((result for result in (Result.BAD, Result.WARNING) if result in found), Result.GOOD)
