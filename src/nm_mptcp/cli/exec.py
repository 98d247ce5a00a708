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

from ..launch import control_groups, identity, programs, registration, switch
from ..launch.identity import User, UserError
from ..launch.plan import LaunchContext, LaunchPlan, Method, plan_launch, plan_switched, refusal, root_could
from ..launch.strace import Tracer
from ..launch.switch import SwitchError
from ..text import printable
from . import exec_check, fail
from .exec_check import REFUSED


def options(parser: argparse.ArgumentParser) -> None:
    """``--method``, ``--user``, ``--quiet``, ``--dry-run``, ``--json``, and the command."""
    parser.usage = "nm-mptcp exec [OPTION...] -- COMMAND [ARGUMENT...]"
    method_option(parser)
    parser.add_argument("--user", metavar="USER", help="run it as this user (only root may)")
    parser.add_argument("--check", action="store_true", help="run it under strace, and report what MPTCP refused")
    parser.add_argument("-q", "--quiet", action="store_true", help="do not report what cannot work")
    parser.add_argument("--dry-run", action="store_true", help="show what would be executed, and execute nothing")
    parser.add_argument("--json", action="store_true", help="as --dry-run, but print one JSON document")
    parser.add_argument("words", metavar="COMMAND", nargs=argparse.REMAINDER, help="the program and its arguments")
    parser.epilog = (
        "Exit status: the program's own; of --dry-run 1 where it would stay on plain TCP. See nm-mptcp-exec(8)."
    )


def method_option(parser: argparse.ArgumentParser) -> None:
    """``--method``, which ``unit`` has as well."""
    names = [method.value for method in Method]
    parser.add_argument(
        "--method", metavar="METHOD", choices=names, default=Method.AUTO, help=f"{', '.join(names[1:])} or {names[0]}"
    )


def main(arguments: argparse.Namespace) -> int:
    """Replace this process; return only with ``--dry-run`` or ``--json``, or when the command cannot be run (125 to 127)."""
    words = arguments.words[1:] if arguments.words[:1] == ["--"] else arguments.words
    if not words:
        return fail("exec needs a program: nm-mptcp exec -- COMMAND [ARGUMENT...]", 2)
    if not arguments.check:
        return _run(arguments, words, *method_here(Method(arguments.method)))
    if arguments.json or arguments.dry_run:
        return fail("--check runs the program, --dry-run and --json do not: use one of them", 2)
    if (strace := shutil.which("strace")) is None:
        return fail("not run: --check needs strace (package strace)", REFUSED)
    method, trouble = method_here(Method(arguments.method))
    return exec_check.supervised(strace, method, lambda tracer: _run(arguments, words, method, trouble, tracer))


def _run(
    arguments: argparse.Namespace, words: list[str], method: Method, trouble: str | None, tracer: Tracer | None = None
) -> int:
    environment = inherited()
    try:
        user = _user(arguments.user)
        environment |= user.variables if user else {}
        context, plan = _planned(words, environment, method, trouble, user)
        shown = arguments.json or arguments.dry_run
        if method is Method.EBPF and not shown and (trouble := trouble or _switched()):
            if arguments.method == Method.EBPF or tracer:
                return fail(printable(f"not run: {trouble}", longest=None), REFUSED)
            context, plan = _planned(words, environment, Method.PRELOAD, None, user)
    except UserError as error:
        return fail(printable(str(error), longest=None), REFUSED)
    except programs.ProgramError as error:
        fail(printable(str(error), longest=None))
        return error.status
    if not (arguments.quiet or arguments.json):
        _report(plan, words, trouble)
    if arguments.json:
        print(json.dumps(document(context, plan, words), indent=2))
    elif arguments.dry_run:
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(plan.shell()) + b"\n")
    if shown:
        return 0 if plan.works else 1
    return _execute(plan, environment, user, tracer)


def method_here(asked: Method) -> tuple[Method, str | None]:
    """The method to use where this one was asked for, and why the switch cannot be used, as far as it was considered."""
    if asked is Method.PRELOAD or (asked is Method.AUTO and os.geteuid() != 0):
        return Method.PRELOAD, None
    error = programs.mptcp_error()
    # Every TCP socket of a registered group would fail: it is never registered then.
    trouble = refusal(error) if error else switch.obstacle()
    if asked is Method.AUTO and trouble:
        return Method.PRELOAD, None if error else trouble
    return Method.EBPF, trouble


def _user(word: str | None) -> User | None:
    if word is None:
        return None
    if os.geteuid() != 0:
        raise UserError("only root may run it as another user")
    return identity.user(word)


def _switched() -> str | None:
    """Bring this process onto MPTCP, in a control group of its own; returns why not."""
    try:
        registration.load()
        group = registration.enter_own()
        registration.register(group)
        if control_groups.switched():
            return None
        registration.forget(group)
    except SwitchError as error:
        return str(error)
    return switch.NOT_ASKED


def _planned(
    words: list[str], environment: dict[str, str], method: Method, trouble: str | None, user: User | None
) -> tuple[LaunchContext, LaunchPlan]:
    uid, gid = (user.uid, user.gid) if user else (os.getuid(), os.getgid())
    try:
        program = programs.examine(words[0], environment, uid=uid, gid=gid)
    except ImportError:
        if method is not Method.EBPF:
            raise
        program = programs.resolve(words[0], environment)
    error = programs.mptcp_error()
    if method is Method.EBPF:
        context = LaunchContext(program=program, error=error, environment=environment)
        return context, plan_switched(program, words, trouble)
    mptcpize = shutil.which("mptcpize", path=environment.get("PATH"))
    context = LaunchContext(
        program=program,
        wrappers=programs.wrappers(mptcpize),
        mptcpize=mptcpize,
        error=error,
        environment=environment,
    )
    return context, plan_launch(context, words)


def _report(plan: LaunchPlan, words: list[str], trouble: str | None) -> None:
    """What cannot work, and what else could be done."""
    told = [obstacle.text for obstacle in plan.obstacles]
    if plan.method is Method.PRELOAD and told:
        if trouble is not None:
            told.append(f"it cannot be done by eBPF either: {trouble}")
        elif os.geteuid() != 0 and (could := root_could(plan, words, _own_name())) and not switch.unsupported():
            told.append(could)
    for text in told:
        fail(printable(text, longest=None))


def _own_name() -> str:
    with contextlib.suppress(UserError):
        return identity.user(str(os.getuid())).name
    return str(os.getuid())


def document(context: LaunchContext, plan: LaunchPlan, words: list[str]) -> dict[str, object]:
    """What ``--json`` prints; documented in nm-mptcp-json(5)."""
    program, elf = context.program, context.program.elf
    return {
        "command": words,
        "method": plan.method.value,
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


def _execute(plan: LaunchPlan, environment: dict[str, str], user: User | None, tracer: Tracer | None) -> int:
    # Python ignores these signals; a shell gives a program the default.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    sys.stdout.flush()
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    file, words, variables = plan.file, plan.arguments, plan.variables
    if tracer is not None:
        # strace changes the user itself: what it writes is not to be the user's.
        command = tracer.command((file, *words[1:]), variables, user.name if user else None)
        file, words, variables = command[0], tuple(command), {}
    elif user is not None:
        try:
            identity.become(user)
        except OSError as error:
            return fail(f"it cannot be run as {user.name}: {error.strerror}", REFUSED)
    try:
        os.execve(file, words, {**environment, **variables})
    except OSError as error:
        fail(printable(f"{file}: {error.strerror}", longest=None))
        return 127 if error.errno == errno.ENOENT else 126
