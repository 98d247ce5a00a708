# SPDX-License-Identifier: GPL-2.0-or-later
"""nm-mptcp-json(5) has each name of the documents, and no other."""

from __future__ import annotations

import re

import pytest

from nm_mptcp.checks.finding import Result
from nm_mptcp.report import documents

from ..support import shown

PARTS = shown.sections("nm-mptcp-json(5)")


def names_of(*types: type) -> set[str]:
    return {name for each in types for name in each.__annotations__}


def in_bold(text: str) -> set[str]:
    return set(re.findall(r"\*([a-z_]+)\*", text))


def test_the_status_document_is_documented() -> None:
    whole, links, paths = re.split(r"^## .*$", PARTS["STATUS"], flags=re.MULTILINE)
    assert set(shown.heads(whole)) == names_of(documents.StatusDocument)
    assert set(shown.heads(links)) == names_of(documents.LinkStatus)
    assert set(shown.heads(paths)) == names_of(documents.PathStatus)
    inner = names_of(
        documents.NetworkManagerStatus,
        documents.KernelStatus,
        documents.LimitsStatus,
        documents.ConnectionsStatus,
        documents.GuardStatus,
    )
    assert in_bold(whole) == names_of(documents.StatusDocument) | inner


def test_the_explanations_are_documented() -> None:
    assert in_bold(PARTS["EXPLAIN"]) == names_of(
        documents.PathsExplanation,
        documents.PathExplanation,
        documents.Fact,
        documents.Command,
        documents.DestinationExplanation,
        documents.FirstSubflow,
        documents.NoRoute,
        documents.SubflowExplanation,
        documents.HostExplanation,
    )


def test_the_findings_are_documented() -> None:
    assert in_bold(PARTS["CHECK"]) == names_of(
        documents.CheckDocument, documents.FindingDocument, documents.RemedyDocument
    )
    assert all(f"_{result.value}_" in PARTS["CHECK"] for result in Result)


@pytest.mark.parametrize("part", ["CONFIG", "MODE"])
def test_what_the_commands_print_is_documented(part: str) -> None:
    source = (shown.ROOT / f"src/nm_mptcp/cli/{part.lower()}.py").read_text()
    printed = set(re.findall(r'"(\w+)":', source))
    assert printed
    assert printed == in_bold(PARTS[part])
