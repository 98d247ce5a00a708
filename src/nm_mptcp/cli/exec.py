# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp exec -- CMD``: run a program with MPTCP sockets that asks for TCP."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import shutil
import signal
import sys
from pathlib import Path

from ..launch import programs
from ..launch.plan import LaunchContext, LaunchPlan, plan_launch
from ..text import printable
from . import fail


def options(parser: argparse.ArgumentParser) -> None:
    """``--quiet``, ``--dry-run``, ``--json``, and the command."""
    parser.usage = "nm-mptcp exec [--quiet] [--dry-run] [--json] -- COMMAND [ARGUMENT...]"
    parser.add_argument("-q", "--quiet", action="store_true", help="do not report what cannot work")
    parser.add_argument("--dry-run", action="store_true", help="show what would be executed, and execute nothing")
    parser.add_argument("--json", action="store_true", help="as --dry-run, but print one JSON document")
    parser.add_argument("words", metavar="COMMAND", nargs=argparse.REMAINDER, help="the program and its arguments")
    parser.epilog = (
        "Exit status: the program's own; of --dry-run 1 where it would stay on plain TCP. See nm-mptcp-exec(8)."
    )


def main(arguments: argparse.Namespace) -> int:
    """Replace this process; return only with ``--dry-run`` or ``--json``, or when the command cannot be run (127 or 126)."""
    words = arguments.words[1:] if arguments.words[:1] == ["--"] else arguments.words
    if not words:
        return fail("exec needs a program: nm-mptcp exec -- COMMAND [ARGUMENT...]", 2)
    environment = inherited()
    try:
        program = programs.examine(words[0], environment, uid=os.getuid(), gid=os.getgid())
    except programs.ProgramError as error:
        fail(printable(str(error), longest=None))
        return error.status
    mptcpize = shutil.which("mptcpize", path=environment.get("PATH"))
    context = LaunchContext(
        program=program,
        wrappers=programs.wrappers(mptcpize),
        mptcpize=mptcpize,
        error=programs.mptcp_error(),
        environment=environment,
    )
    plan = plan_launch(context, words)
    if not (arguments.quiet or arguments.json):
        for obstacle in plan.obstacles:
            fail(printable(obstacle.text, longest=None))
    if arguments.json:
        print(json.dumps(document(context, plan, words), indent=2))
    elif arguments.dry_run:
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(plan.shell()) + b"\n")
    if arguments.json or arguments.dry_run:
        return 0 if plan.works else 1
    return _execute(plan, environment)


def document(context: LaunchContext, plan: LaunchPlan, words: list[str]) -> dict[str, object]:
    """What ``--json`` prints; documented in nm-mptcp-json(5)."""
    program, elf = context.program, context.program.elf
    return {
        "command": words,
        "works": plan.works,
        "findings": [{"obstacle": obstacle.kind.value, "text": obstacle.text} for obstacle in plan.obstacles],
        "program": {
            "path": program.path,
            "form": program.form.value,
            "script": list(program.script),
            "bits": elf.bits if elf else None,
            "machine": elf.machine if elf else None,
            "interpreter": elf.interpreter if elf else None,
            "go": elf.go if elf else None,
            "privileges": list(program.privileges),
        },
        "mptcp": {
            "available": not context.error,
            "error": errno.errorcode.get(context.error) if context.error else None,
        },
        "mptcpize": context.mptcpize,
        "wrapper": plan.wrapper,
        "execute": {
            "file": plan.file,
            "arguments": list(plan.arguments),
            "environment": dict(plan.variables),
        },
    }


def inherited() -> dict[str, str]:
    """The environment that this process was started with.

    Without the LC_CTYPE that Python sets in the C locale (PEP 538).
    """
    environment = dict(os.environ)
    try:
        given = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return environment
    if not any(word.startswith(b"LC_CTYPE=") for word in given):
        environment.pop("LC_CTYPE", None)
    return environment


def _execute(plan: LaunchPlan, environment: dict[str, str]) -> int:
    # Python ignores these signals; a shell gives a program the default.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    sys.stdout.flush()
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    try:
        os.execve(plan.file, plan.arguments, {**environment, **plan.variables})
    except OSError as error:
        fail(printable(f"{plan.file}: {error.strerror}", longest=None))
        return 127 if error.errno == errno.ENOENT else 126
