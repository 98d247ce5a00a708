# SPDX-License-Identifier: GPL-2.0-or-later
"""A value is what a frozen dataclass with slots is, to whoever uses it."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from nm_mptcp import values
from nm_mptcp.values import frozen


def made(decorator: Callable[[type], type]) -> Any:
    """The same class, by one decorator or the other."""

    @decorator
    class Link:
        """A link."""

        index: int
        name: str = "eth0"
        routes: dict[str, int] = dataclasses.field(default_factory=dict)
        mtu: int = dataclasses.field(default=0, compare=False)
        secret: str = dataclasses.field(default="", repr=False)

        MAIN = 254

        @property
        def shown(self) -> str:
            """As a person reads it."""
            return f"{self.index}: {self.name}"

    return Link


OURS, THEIRS = made(frozen), made(dataclasses.dataclass(frozen=True, slots=True))


def told(act: Callable[[Any], object]) -> list[object]:
    """What comes of it with either class, an exception by its type and words."""
    found: list[object] = []
    for link in (OURS, THEIRS):
        try:
            found.append(act(link))
        except (AttributeError, TypeError) as error:
            found.append((type(error), str(error)))
    return found


@pytest.mark.parametrize(
    "act",
    [
        lambda link: repr(link(1, "wlan0", {"a": 1}, 1500, "x")),
        lambda link: repr(link(index=1)),
        lambda link: link(1, mtu=1) == link(1, mtu=2),
        lambda link: link(1, secret="a") == link(1, secret="b"),
        lambda link: link(1) == (1, "eth0", {}, 0, ""),
        lambda link: hash(link(1, routes=(), mtu=1)),
        lambda link: hash(link(1)),
        lambda link: link(1).routes is link(1).routes,
        lambda link: dataclasses.asdict(dataclasses.replace(link(1), name="wlan0")),
        lambda link: [each.name for each in dataclasses.fields(link)],
        lambda link: (link.__name__, link.__doc__, link.__slots__, link.__match_args__, link.MAIN, link(1).shown),
        lambda link: list(inspect.signature(type(link(1))).parameters),
        lambda link: link(),
        lambda link: link(1, colour="red"),
        lambda link: setattr(link(1), "name", "wlan0"),
        lambda link: delattr(link(1), "name"),
        lambda link: vars(link(1)),
    ],
)
def test_it_does_as_a_dataclass(act: Callable[[Any], object]) -> None:
    ours, theirs = told(act)
    assert ours == theirs


def test_another_class_with_the_same_fields_is_another_value() -> None:
    assert OURS(1) != THEIRS(1)
    assert OURS(1) != made(frozen)(1)


def test_its_functions_are_compiled_when_the_first_is_made_or_when_there_is_time() -> None:
    first, second = made(frozen), made(frozen)
    assert {first, second} <= values._unfinished
    assert first(1) == first(index=1) != first(2)
    assert first not in values._unfinished
    assert second in values._unfinished
    values.finish()
    assert not values._unfinished
    assert second(1) == second(index=1)
