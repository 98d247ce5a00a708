# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines that fit a terminal, and their styles."""

from __future__ import annotations

import io

import pytest

from nm_mptcp.report.styles import Span, Style, render, rendered, takes_escapes, text_of, wants_colour
from nm_mptcp.text import cells, fit, wrapped


@pytest.mark.parametrize(
    ("text", "size"), [("", 0), ("ab", 2), ("é", 1), ("e\u0301", 1), ("家", 2), ("\u1b44", 1), ("😀", 2)]
)
def test_the_width_of_a_text_is_counted_in_cells(text: str, size: int) -> None:
    assert cells(text) == size


def test_a_text_is_cut_by_cells_and_marked() -> None:
    assert fit("家家家", 4) == "家… "
    assert fit("家家家", 5, "~") == "家家~"
    assert fit("ab", 4) == "ab  "


WORDS = "aa bb 家家 cccccccccccc"


@pytest.mark.parametrize(
    ("words", "width", "broken", "lines"),
    [
        (WORDS, None, False, ["> aa bb 家家 cccccccccccc"]),
        (WORDS, 80, False, ["> aa bb 家家 cccccccccccc"]),
        (WORDS, 12, False, ["> aa bb 家家", ". cccccccccccc"]),
        (WORDS, 11, False, ["> aa bb", ". 家家", ". cccccccccccc"]),
        (WORDS, 10, True, ["> aa bb", ". 家家", ". cccccccc", ". cccc"]),
        ("家" * 7, 9, True, ["> 家家家", ". 家家家", ". 家"]),
        ("a   b   c", 7, False, ["> a   b", ". c"]),
        ("", 7, True, []),
    ],
)
def test_words_are_wrapped_by_cells(words: str, width: int | None, broken: bool, lines: list[str]) -> None:
    assert wrapped(words, "> ", ". ", width, broken=broken) == lines


def test_an_indent_that_leaves_no_room_gets_a_line_of_its_own() -> None:
    assert wrapped("one two", "good     kernel  ", " " * 17, 40) == ["good     kernel", "    one two"]
    assert wrapped("one two", " " * 17, " " * 17, 40) == ["    one two"]
    assert wrapped("word " * 8 + "end", " " * 17, " " * 17, 40)[1] == "      word end"
    assert wrapped("one two", "good     kernel  ", " " * 17, 47) == ["good     kernel  one two"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("term", "takes"), [("xterm", True), ("dumb", False), ("", False), (None, False)])
def test_only_a_capable_terminal_gets_escape_sequences(term: str | None, takes: bool) -> None:
    environment = {} if term is None else {"TERM": term}
    assert takes_escapes(Terminal(), environment) is takes
    assert not takes_escapes(io.StringIO(), {"TERM": "xterm"})


def test_no_color_leaves_out_colours_and_keeps_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    line = (Span("a", Style.BOLD), Span(" b", Style.GOOD), Span("  "))
    assert render(line) == "\x1b[1ma\x1b[0m\x1b[32m b\x1b[0m  "
    assert render(line, colour=False) == "\x1b[1ma\x1b[0m b  "
    assert text_of(line) == "a b"
    assert wants_colour({})
    assert not wants_colour({"NO_COLOR": "1"})
    assert rendered([line, ()], io.StringIO()) == "a b\n\n"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert rendered([line], Terminal()) == render(line) + "\n"
    monkeypatch.setenv("TERM", "dumb")
    assert rendered([line], Terminal()) == "a b\n"
