# SPDX-License-Identifier: GPL-2.0-or-later
"""What README.md and the manual pages show: blocks of text, and the commands that they have somebody type."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

#: The manual pages' sources, by name and section as a reader knows them: ``nm-mptcp.conf(5)``.
PAGES = {
    f"{path.stem.rpartition('.')[0]}({path.stem.rpartition('.')[2]})": path.read_text()
    for path in sorted((ROOT / "packaging/man").glob("*.scd"))
}

_BLOCK = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SYNOPSIS = re.compile(r"^# SYNOPSIS\n(.*?)(?=^# )", re.MULTILINE | re.DOTALL)

#: Bold text of more than a word, and what belongs to it: ``*nm-mptcp config --check* [_FILE_]``.
_COMMAND = re.compile(r"\*((?:sudo )?[a-z-]+ [^*]+)\*((?: ?\[?:?_[A-Z]+_\]?| \[?\*--[a-z-]+\*\]?)*)")
#: scdoc's marks of underlined text; within a word an underscore is one.
_UNDERLINED = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def sections(page: str) -> dict[str, str]:
    """The text of a manual page by heading, those of the second level within."""
    return dict(re.findall(r"^# ([^\n]+)\n(.*?)(?=^# |\Z)", PAGES[page], re.MULTILINE | re.DOTALL))


def heads(text: str) -> list[str]:
    """The words that a part of a manual page defines: those in bold on the lines above what is indented."""
    lines = re.findall(r"^(\*[^\n]*\*)\n(?=\t)", text, re.MULTILINE)
    return [name for line in lines for name in re.findall(r"\*([^*]+)\*", line)]


def blocks_of_readme() -> list[str]:
    """What README.md shows indented, without the indentation."""
    found = re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", README, re.MULTILINE)
    return [re.sub("^    ", "", block, flags=re.MULTILINE).rstrip("\n") for block in found]


def blocks_of(page: str) -> list[str]:
    """What a manual page shows as it is."""
    return [block.replace("\\\\", "\\").rstrip("\n") for block in _BLOCK.findall(PAGES[page])]


def lines() -> list[str]:
    """All lines of blocks and synopses, and all commands in the text, each once; ``\\`` at the end of a line joins it."""
    found = [line for block in blocks_of_readme() for line in block.splitlines()]
    found += re.findall(r"`([^`\n]+ [^`\n]+)`", README)
    for page in PAGES:
        for block in blocks_of(page):
            found += block.replace("\\\n", "").splitlines()
        found += _commands(PAGES[page])
    return list(dict.fromkeys(line.strip() for line in found))


def _commands(page: str) -> list[str]:
    typed = [_plain(line) for synopsis in _SYNOPSIS.findall(page) for line in synopsis.splitlines()]
    text = _BLOCK.sub("", _SYNOPSIS.sub("", page))
    for paragraph in re.split(r"\n\s*\n|\n\t|\n(?=- )", text):
        typed += [_plain(bold + rest) for bold, rest in _COMMAND.findall(" ".join(paragraph.split()))]
    return typed


def _plain(text: str) -> str:
    return _UNDERLINED.sub("", text.replace("*", "").removesuffix("++")).strip()
