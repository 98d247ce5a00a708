# SPDX-License-Identifier: GPL-2.0-or-later
"""What a check found, on what evidence, and what to type."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class Result(enum.StrEnum):
    """How it stands; worst first."""

    BAD = "bad"  #: it does not work
    WARNING = "warning"  #: it works, but less well than it could, or only for now
    UNKNOWN = "unknown"  #: it could not be looked at, and the evidence says why
    GOOD = "good"
    NOT_APPLICABLE = "not-applicable"


@dataclass(frozen=True, slots=True)
class Remedy:
    """What makes it good: commands for a root shell, in this order, or words where no command can."""

    commands: tuple[str, ...] = ()
    words: str = ""
    safe: bool = False  #: ``--fix`` may do it: it only brings back what nm-mptcp, or its installation, would make


@dataclass(frozen=True, slots=True)
class Finding:
    """One check of one thing."""

    check: str  #: its name, which is kept
    result: Result
    evidence: str  #: one line
    subject: str = ""  #: what was looked at, where a check looks at several things: an address, an interface
    remedy: Remedy | None = None


def good(check: str, evidence: str, subject: str = "") -> Finding:
    """It is as it should be."""
    return Finding(check, Result.GOOD, evidence, subject)


def not_applicable(check: str, evidence: str, subject: str = "") -> Finding:
    """There is nothing to check."""
    return Finding(check, Result.NOT_APPLICABLE, evidence, subject)


def unknown(check: str, evidence: str, subject: str = "", remedy: Remedy | None = None) -> Finding:
    """It could not be looked at."""
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
    """A remedy that no command is."""
    return Remedy(words=words)


def worst(findings: Iterable[Finding]) -> Result:
    """The worst result of all; good where there is none. What could not be looked at is not held against anybody."""
    found = {finding.result for finding in findings}
    return next((result for result in (Result.BAD, Result.WARNING) if result in found), Result.GOOD)
