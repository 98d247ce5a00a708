# SPDX-License-Identifier: GPL-2.0-or-later
"""What the documentation names exists: files, modules and functions in backticks, and the targets of relative links."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "nm_mptcp"

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]

_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+(?:\(\))?")
_FILE = re.compile(r"(?:src|tests|tools|packaging|docs|dispatcher\.d|\.ci)/[\w./-]+")

#: Suffixes that a dotted name may have without being one of Python's.
_SUFFIXES = {"py", "md", "toml", "conf", "in", "json", "svg", "sh", "service", "scd", "d", "policy"}


def text(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCED.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual renderers make them."""
    titles = re.findall(r"^#+ (.*)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in _LINK.findall(text(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        place = (page.parent / file).resolve() if file else page
        if not place.exists() or (anchor and anchor not in anchors(place)):
            broken.append(target)
    assert broken == []


@functools.cache
def defined(module: Path) -> dict[str, set[str]]:
    """The names on a module's top level, each with those that a class has of its own."""
    found: dict[str, set[str]] = {}
    for node in ast.parse(module.read_text()).body:
        for name in _names(node):
            inner = {each for part in node.body for each in _names(part)} if isinstance(node, ast.ClassDef) else set()
            if isinstance(node, ast.ClassDef):
                inner |= {
                    part.attr
                    for part in ast.walk(node)
                    if isinstance(part, ast.Attribute)
                    and isinstance(part.ctx, ast.Store)
                    and isinstance(part.value, ast.Name)
                    and part.value.id == "self"
                }
            found[name] = inner
    return found


def _names(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Assign(targets=targets):
            yield from (target.id for target in targets if isinstance(target, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            yield from (each.asname or each.name for each in names)


def exists(name: str) -> bool:
    """Whether a dotted name is a module of the package, or something in one: ``engine.loop.Engine.wake``."""
    place, parts = PACKAGE, name.removesuffix("()").split(".")
    while parts and (place / parts[0]).is_dir():
        place /= parts.pop(0)
    if not parts:
        return True
    module = place / f"{parts[0]}.py"
    if module.exists():
        parts.pop(0)
    else:
        module = place / "__init__.py"
    known = defined(module)
    if not parts:
        return True
    if parts[0] not in known:
        return False
    return len(parts) == 1 or (len(parts) == 2 and parts[1] in known[parts[0]])


def named(page: Path) -> Iterator[str]:
    """The dotted names in backticks that begin with a package or module of the source."""
    tops = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()} - {
        "__init__",
        "__pycache__",
    }
    for code in _CODE.findall(text(page)):
        name = code.removeprefix("nm_mptcp.")
        if (
            _NAME.fullmatch(name)
            and name.split(".")[0] in tops
            and name.removesuffix("()").rpartition(".")[2] not in _SUFFIXES
        ):
            yield name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_of_the_source_exist(page: Path) -> None:
    assert [name for name in named(page) if not exists(name)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_of_the_source_exist(page: Path) -> None:
    files = [code for code in _CODE.findall(text(page)) if _FILE.fullmatch(code)]
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_the_look_up_finds_what_is_there_and_nothing_else() -> None:
    assert exists("policy.decide")
    assert exists("engine.loop.Engine.wake")
    assert not exists("engine.loop.Engine.nothing")
    assert not exists("policy.nothing")
    assert not exists("engine.nothing.Engine")
