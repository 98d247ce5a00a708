# SPDX-License-Identifier: GPL-2.0-or-later
"""nm-mptcp-json(5) has each name of the documents, and no other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from nm_mptcp.checks.finding import Result, bad, commands
from nm_mptcp.cli.check import document as check_document
from nm_mptcp.config.settings import DEFAULTS
from nm_mptcp.model.record import Contents
from nm_mptcp.model.state import Mode, RouteResult
from nm_mptcp.policy.decide import decide
from nm_mptcp.report.explain import Known, explain_destination, explain_paths, followers, subject
from nm_mptcp.report.status import document as status_document

from ..support import shown
from .test_readme import phone

PARTS = shown.sections("nm-mptcp-json(5)")


def status() -> dict[str, Any]:
    snapshot = phone().snapshot()
    return status_document(
        snapshot, decide(snapshot), Contents(), mode=Mode.AUTO, service=True, standing=(("10.1.0.50",),)
    )


def names_of(document: Mapping[str, Any]) -> set[str]:
    """All names in a document, also in those inside of it; not the words that are values."""
    found = set(document)
    for value in document.values():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, Mapping):
                found |= names_of(each)
    return found


def in_bold(text: str) -> set[str]:
    return set(re.findall(r"\*([a-z_]+)\*", text))


def test_the_status_document_is_documented() -> None:
    whole, links, paths = re.split(r"^## .*$", PARTS["STATUS"], flags=re.MULTILINE)
    document = status()
    assert sorted(shown.heads(whole)) == sorted(document)
    assert sorted(shown.heads(links)) == sorted(document["links"][0])
    assert sorted(shown.heads(paths)) == sorted(document["paths"][0])
    for name in ("networkmanager", "kernel", "limits", "guard", "connections"):
        assert set(document[name]) <= in_bold(whole), name


def test_the_explanations_are_documented() -> None:
    snapshot = phone().snapshot()
    known = Known(snapshot, decide(snapshot), DEFAULTS)
    first = RouteResult(2, "10.1.0.1", 42000, source="10.1.0.50")
    ways = {
        path: RouteResult(3, "10.2.0.1", 42001, source="10.2.0.50") for path in followers("192.0.2.1", first, known)
    }
    to_a_host = explain_destination("192.0.2.1", "192.0.2.1", first, ways, known)
    of_a_link = explain_paths("wlan0", *subject("wlan0", known), known)
    of_nothing = explain_paths("eth0", "interface", (), known)
    documented = in_bold(PARTS["EXPLAIN"])
    assert names_of(to_a_host) | names_of(of_a_link) | names_of(of_nothing) | {"destinations", "error"} == documented


def test_the_findings_are_documented() -> None:
    document = check_document([bad("route", "none", remedy=commands("true"))])
    names = names_of(document) - {result.value for result in Result}
    assert names == in_bold(PARTS["CHECK"])
    assert all(f"_{result.value}_" in PARTS["CHECK"] for result in Result)


@pytest.mark.parametrize("part", ["CONFIG", "MODE"])
def test_what_the_commands_print_is_documented(part: str) -> None:
    source = (shown.ROOT / f"src/nm_mptcp/cli/{part.lower()}.py").read_text()
    printed = set(re.findall(r'"(\w+)":', source))
    assert printed
    assert printed == in_bold(PARTS[part])
