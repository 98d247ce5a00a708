# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp check``: whether everything that MPTCP needs is there, the evidence, and commands where it is not."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from .. import __version__
from ..checks import run_checks
from ..checks.collect import system_facts
from ..checks.facts import SystemFacts
from ..checks.finding import Finding, Result, worst
from ..config.files import ConfigurationFiles
from ..engine.record_file import Record
from ..report.documents import CheckDocument
from ..report.styles import Line, Span, Style, rendered
from ..text import printable, width_of, wrapped
from . import fail, record_of
from .unit_group import switched_groups

#: Result -> exit status.
_STATUS = {Result.BAD: 2, Result.WARNING: 1}

_STYLES = {
    Result.GOOD: Style.GOOD,
    Result.WARNING: Style.WARNING,
    Result.BAD: Style.BAD,
    Result.UNKNOWN: Style.DIM,
    Result.NOT_APPLICABLE: Style.DIM,
}
_LABELS = {Result.BAD: "BAD", Result.NOT_APPLICABLE: "n/a"}

#: Seconds for a command of ``--fix``.
_TIMEOUT = 60


def options(parser: argparse.ArgumentParser) -> None:
    """``--fix``, ``--reach``, ``--report``, ``--json`` and their options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "Exit status: 0 working; 1 warnings; 2 not working.\n"
        "It only reads, but for --fix and --report. Run as root to see everything."
    )
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="read this file instead of nm-mptcp.conf and conf.d"
    )
    parser.add_argument("--all", action="store_true", help="show also checks that do not apply here")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--fix", action="store_true", help="run the safe remedies, each after confirmation")
    parser.add_argument("--yes", action="store_true", help="with --fix: without confirmation")
    parser.add_argument(
        "--reach",
        metavar="HOST[:PORT]",
        help="check whether HOST can be reached by MPTCP",
    )
    parser.add_argument("--report", metavar="FILE", help="write everything for a bug report ('-': print)")
    parser.add_argument("--mask", action="store_true", help="with --report: mask addresses and names")


def main(arguments: argparse.Namespace) -> int:
    """Run the checks and print the findings; remedies, connections and a report on request."""
    if (arguments.mask and not arguments.report) or (arguments.yes and not arguments.fix):
        return _usage("--mask requires --report, and --yes requires --fix")
    if arguments.fix and os.geteuid() != 0:
        return _usage("--fix: permission denied: must be root")
    target = None
    if arguments.reach is not None:
        from ..checks import reach

        try:
            target = reach.parse(arguments.reach)
        except ValueError as error:
            return _usage(str(error))
    record, configuration = record_of(arguments), ConfigurationFiles(arguments.config)
    from ..kernel.errors import KernelError

    try:
        facts = _facts(record, configuration)
        findings = run_checks(facts)
        if arguments.fix and _fix(findings, record, ask=not arguments.yes):
            facts = _facts(record, configuration)
            findings = run_checks(facts)
    except KernelError as error:
        print(f"nm-mptcp: {error}", file=sys.stderr)
        return 2
    if target is not None:
        findings += reach.reach(facts, *target)
    if arguments.report:
        from ..checks import bug_report

        try:
            text = bug_report.text(facts, document(findings))
            reached = target[0] if target else None
            bug_report.write(arguments.report, text, mask=arguments.mask, facts=facts, reached=reached)
        except OSError as error:
            return fail(f"cannot write the report {arguments.report}: {error.strerror}")
    if arguments.json:
        print(json.dumps(document(findings), indent=2))
    elif arguments.report != "-":
        sys.stdout.write(_text(findings, facts, everything=arguments.all))
    return _STATUS.get(worst(findings), 0)


def _facts(record: Record, configuration: ConfigurationFiles) -> SystemFacts:
    return replace(system_facts(record, configuration), switched=switched_groups())


def document(findings: list[Finding]) -> CheckDocument:
    """The findings; nm-mptcp-json(5) has each name."""
    return {
        "version": __version__,
        "result": worst(findings).value,
        "summary": {result.value: sum(1 for each in findings if each.result is result) for result in Result},
        "findings": [
            {
                "check": finding.check,
                "subject": finding.subject,
                "result": finding.result.value,
                "evidence": finding.evidence,
                "remedy": {
                    "commands": list(finding.remedy.commands),
                    "words": finding.remedy.words,
                    "safe": finding.remedy.safe,
                }
                if finding.remedy
                else None,
            }
            for finding in findings
        ],
    }


def _usage(words: str) -> int:
    print(f"nm-mptcp check: {words}", file=sys.stderr)
    return 2


def _text(findings: list[Finding], facts: SystemFacts, *, everything: bool) -> str:
    """A line for each finding, below it its remedy; wrapped for a terminal, but for commands.

    The worst come last, where a terminal shows them when the command ends.
    """
    shown = [finding for finding in findings if everything or finding.result is not Result.NOT_APPLICABLE]
    shown.sort(key=lambda finding: finding.result in _STATUS)
    fine = sum(1 for finding in shown if finding.result not in _STATUS)
    names = max((len(finding.check) for finding in shown), default=0)
    width = width_of(sys.stdout)
    indent = " " * 9
    lines: list[Line] = []
    for number, finding in enumerate(shown):
        if number == fine:
            lines.append(())
        subject = f"{printable(finding.subject)}: " if finding.subject else ""
        label = _LABELS.get(finding.result, finding.result.value)
        begin = f"{label:<7}  {finding.check.ljust(names)}  "
        first, *rest = wrapped(f"{subject}{printable(finding.evidence, 1000)}", begin, " " * len(begin), width)
        lines += [(Span(label, _STYLES[finding.result]), Span(first[len(label) :])), *map(_plain, rest)]
        if finding.remedy:
            lines += [_plain(f"{indent}-> {printable(command, 1000)}") for command in finding.remedy.commands]
            words = wrapped(printable(finding.remedy.words, 1000), f"{indent}   ", f"{indent}   ", width)
            lines += map(_plain, words)
    lines += [(), *map(_plain, wrapped(_conclusion(findings, facts), "", "", width))]
    return rendered(lines, sys.stdout)


def _plain(words: str) -> Line:
    return (Span(words),)


def _conclusion(findings: list[Finding], facts: SystemFacts) -> str:
    counted = {result: sum(1 for finding in findings if finding.result is result) for result in Result}
    overall = {
        Result.BAD: "Not working",
        Result.WARNING: "Degraded",
        Result.GOOD: "Working",
    }[worst(findings)]
    numbers = ", ".join(
        f"{counted[result]} {result.value}"
        for result in (Result.BAD, Result.WARNING, Result.UNKNOWN, Result.GOOD)
        if counted[result]
    )
    sentences = [f"{overall}: {numbers}."]
    if any(finding.remedy and finding.remedy.safe for finding in findings if finding.result is not Result.GOOD):
        sentences.append("'nm-mptcp check --fix' runs the safe remedies.")
    if counted[Result.UNKNOWN] and not facts.root:
        sentences.append("Run as root to see everything.")
    return " ".join(sentences)


def _fix(findings: list[Finding], record: Record, *, ask: bool) -> bool:
    """Run the safe remedies, each once; returns whether a command succeeded."""
    done = False
    seen: set[tuple[str, ...]] = set()
    for finding in findings:
        remedy = finding.remedy
        if remedy is None or not remedy.safe or finding.result is Result.GOOD or remedy.commands in seen:
            continue
        seen.add(remedy.commands)
        subject = f"{printable(finding.subject)}: " if finding.subject else ""
        print(f"{finding.check}: {subject}{printable(finding.evidence, 1000)}", file=sys.stderr)
        for command in remedy.commands:
            if ask and not _confirmed(command):
                break
            if not _run(command, record):
                break
            done = True
    if not seen:
        print("nm-mptcp: no safe remedy to run", file=sys.stderr)
    return done


def _confirmed(command: str) -> bool:
    print(f"  run '{command}'? [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        print(file=sys.stderr)
    return answer.strip().lower() in ("y", "yes")


def _run(command: str, record: Record) -> bool:
    """Run a command of a remedy; ``nm-mptcp`` is this very program, wherever it is installed."""
    words = ["sh", "-c", command] if ">" in command else shlex.split(command)
    if words[0] == "nm-mptcp":
        words = [sys.executable, *(["-I"] if sys.flags.isolated else []), "-c", _NM_MPTCP, *words[1:]]
    print(f"  {command}", file=sys.stderr)
    environment = os.environ | {
        "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
        "NM_MPTCP_STATE_DIR": str(record.directory),
        "NM_MPTCP_PACKAGE": str(Path(__file__).parents[2]),
    }
    try:
        status = subprocess.run(words, env=environment, timeout=_TIMEOUT, check=False).returncode
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"nm-mptcp: {command}: {error}", file=sys.stderr)
        return False
    if status:
        print(f"nm-mptcp: {command}: exit status {status}", file=sys.stderr)
    return status == 0


_NM_MPTCP = (
    "import os, sys; sys.path.insert(0, os.environ.pop('NM_MPTCP_PACKAGE'));"
    " from nm_mptcp.cli import main; sys.exit(main(sys.argv[1:]))"
)
