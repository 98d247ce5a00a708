# SPDX-License-Identifier: GPL-2.0-or-later
"""stranger.py bus|files PLACE...: tries to change all that it finds, as whoever runs it, and says in JSON what came of it.

``bus`` walks the objects of a name on the system bus, calls each method and sets each property; ``files`` tries to write each
of the files, and into each of the folders.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import xml.etree.ElementTree as xml

#: A value for each type that our methods take, in busctl's way of writing.
VALUES = {"s": "x", "o": "/", "b": "false", "u": "0", "t": "0", "i": "0", "as": ("1", "x"), "v": ("s", "x")}


def values(signature: str) -> list[str]:
    """Words for one argument."""
    found = VALUES[signature]
    return [found] if isinstance(found, str) else list(found)


async def busctl(*words: str) -> tuple[bool, str]:
    """Whether it was done, and what was said."""
    child = await asyncio.create_subprocess_exec(
        *("busctl", "--system", "--auto-start=no", "--timeout=5", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await child.communicate()
    return child.returncode == 0, told.decode().strip()


async def walk(name: str, path: str = "/") -> dict[str, str]:
    """Each member of this object and those below -> "done", or the words of the refusal."""
    done, told = await busctl("--xml-interface", "introspect", name, path)
    assert done, told
    tree = xml.fromstring(told)
    result = {}
    for interface in tree.iter("interface"):
        of = interface.get("name", "")
        for method in interface.iter("method"):
            member = method.get("name", "")
            types = [a.get("type", "") for a in method.iter("arg") if a.get("direction", "in") == "in"]
            words = [word for kind in types for word in values(kind)]
            signature = ["".join(types)] if types else []
            done, told = await busctl("call", name, path, of, member, *signature, *words)
            result[f"{path} {of}.{member}"] = "done" if done else told
        for known in interface.iter("property"):
            member, kind = known.get("name", ""), known.get("type", "")
            done, told = await busctl("set-property", name, path, of, member, kind, *values(kind))
            result[f"{path} {of}.{member}="] = "done" if done else told
    for node in tree.findall("node"):
        result |= await walk(name, f"{path.rstrip('/')}/{node.get('name')}")
    return result


def write(place: str) -> str:
    """ "done", or why not."""
    try:
        if os.path.isdir(place):
            os.close(os.open(os.path.join(place, "stranger"), os.O_WRONLY | os.O_CREAT))
        else:
            os.close(os.open(place, os.O_WRONLY | os.O_APPEND))
    except OSError as error:
        return error.strerror or str(error)
    return "done"


if sys.argv[1] == "bus":
    print(json.dumps(asyncio.run(walk(sys.argv[2]))))
else:
    print(json.dumps({place: write(place) for place in sys.argv[2:]}))
