# SPDX-License-Identifier: GPL-2.0-or-later
"""The command of the very code under test, for tests that start it with an environment of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import nm_mptcp

#: This tree's, or where it is installed.
SOURCE = Path(nm_mptcp.__file__).parents[1]

_START = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); "

#: Isolated, as the installed one is.
COMMAND = (sys.executable, "-I", "-c", f"{_START} from nm_mptcp.cli import main; sys.exit(main())")


def as_user(number: int, *rehearsal: str) -> tuple[str, ...]:
    """The command, run by this user (and group), who may have no right to read this tree or this interpreter.

    All that it imports is there before: it is run once as root with the arguments ``rehearsal``.
    """
    become = f"os.setgroups([]); os.setresgid({number}, {number}, {number}); os.setresuid({number}, {number}, {number})"
    lines = [
        f"{_START} import contextlib, io, os",
        "from nm_mptcp.cli import main",
        f"with contextlib.redirect_stdout(io.StringIO()): main({list(rehearsal)!r})",
        f"{become}; sys.exit(main())",
    ]
    return (sys.executable, "-I", "-c", "\n".join(lines))
