# SPDX-License-Identifier: GPL-2.0-or-later
"""D-Bus calls from inside a bed, as any user; a program of its own: ``python caller.py``, a JSON list of calls as argument.

A call is ``[path, interface, member, signature, *arguments]``, to ``org.nm_mptcp1``. What comes back is a JSON list, for each
call ``{"reply": [...]}`` or ``{"error": name, "text": ...}``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bed import Bed

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def calls(bed: Bed, *asked: list[Any], nobody: bool = False) -> list[dict[str, Any]]:
    """Make these calls on the machine, as root or as ``nobody``."""
    user = NOBODY if nobody else ()
    return json.loads(bed.machine.run(*user, sys.executable, __file__, json.dumps(asked)))


def replies(bed: Bed, *asked: list[Any], nobody: bool = False) -> list[list[Any]]:
    """The bodies of the replies; an error is one."""
    answers = calls(bed, *asked, nobody=nobody)
    assert all("reply" in answer for answer in answers), answers
    return [answer["reply"] for answer in answers]


async def _main(asked: list[list[Any]]) -> list[dict[str, Any]]:
    from nm_mptcp.dbus.connection import BusError, Variant, connected, unpack

    bus = await connected()
    answers: list[dict[str, Any]] = []
    for path, interface, member, signature, *arguments in asked:
        body = [Variant("s", each) if kind == "v" else each for kind, each in zip(signature, arguments, strict=True)]
        try:
            reply = await bus.call("org.nm_mptcp1", path, interface, member, signature, *body)
            answers.append({"reply": unpack(reply)})
        except BusError as error:
            answers.append({"error": error.name, "text": str(error)})
    bus.close()
    return answers


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_main(json.loads(sys.argv[1])))))
