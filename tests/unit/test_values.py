# SPDX-License-Identifier: GPL-2.0-or-later
"""A value is what a frozen dataclass with slots is, to whoever uses it."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from nm_mptcp import values
from nm_mptcp.values import field, frozen, mutable, replace


def made(decorator: Callable[[type], type], field: Any = field) -> Any:
    """The same class, by one decorator or the other."""

    @decorator
    class Link:
        """A link."""

        index: int
        name: str = "eth0"
        routes: dict[str, int] = field(default_factory=dict)
        mtu: int = field(default=0, compare=False)
        secret: str = field(default="", repr=False)

        MAIN = 254

        @property
        def shown(self) -> str:
            """As a person reads it."""
            return f"{self.index}: {self.name}"

    return Link


OURS, THEIRS = made(frozen), made(dataclasses.dataclass(frozen=True, slots=True), dataclasses.field)


def told(act: Callable[[Any], object], finished: bool) -> list[object]:
    """What comes of it with either class, an exception by its type and words."""
    found: list[object] = []
    ours = made(frozen)
    if finished:
        values.finish()
    for link in (ours, THEIRS):
        try:
            found.append(act(link))
        except (AttributeError, TypeError) as error:
            # That of dataclasses is a kind of it.
            found.append((AttributeError if isinstance(error, AttributeError) else type(error), str(error)))
    return found


@pytest.mark.parametrize("finished", [False, True])
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
        lambda link: link.__match_args__,
        lambda link: (link.__name__, link.__doc__, link.__slots__, link.__match_args__, link.MAIN, link(1).shown),
        lambda link: list(inspect.signature(type(link(1))).parameters),
        lambda link: link(),
        lambda link: link(1, colour="red"),
        lambda link: setattr(link(1), "name", "wlan0"),
        lambda link: delattr(link(1), "name"),
        lambda link: vars(link(1)),
    ],
)
def test_it_does_as_a_dataclass(act: Callable[[Any], object], finished: bool) -> None:
    ours, theirs = told(act, finished)
    assert ours == theirs


def test_it_can_be_made_again_with_other_fields() -> None:
    link = OURS(1, routes={"a": 1})
    assert replace(link, name="wlan0", mtu=9) == OURS(1, "wlan0", {"a": 1})
    assert replace(link) is not link
    with pytest.raises(TypeError, match="colour"):
        replace(link, colour="red")


def test_a_class_that_is_made_of_another_has_its_fields_too() -> None:
    @frozen
    class Bridge(OURS):  # type: ignore[misc]
        """A bridge."""

        name: str = "br0"
        ports: tuple[int, ...] = ()

    assert Bridge(1, ports=(2,)).name == "br0"
    assert Bridge.__match_args__ == (*OURS.__match_args__, "ports")
    assert Bridge(1) != OURS(1, "br0")
    assert repr(replace(Bridge(1), mtu=9)).endswith("Bridge(index=1, name='br0', routes={}, mtu=9, ports=())")


def test_without_equality_it_is_itself_only() -> None:
    plain = made(lambda cls: frozen(eq=False)(cls))
    assert plain(1) != plain(1)
    assert len({plain(1), plain(1)}) == 2
    with pytest.raises(AttributeError, match="'name'"):
        plain(1).name = "wlan0"


def test_what_is_mutable_can_be_changed_and_is_itself_only() -> None:
    link = made(mutable)(1)
    link.name = "wlan0"
    assert repr(link).endswith("Link(index=1, name='wlan0', routes={}, mtu=0)")
    assert link != made(mutable)(1, "wlan0")
    with pytest.raises(AttributeError, match="colour"):
        link.colour = "red"


def test_another_class_with_the_same_fields_is_another_value() -> None:
    assert OURS(1) != THEIRS(1)
    assert OURS(1) != made(frozen)(1)


@pytest.mark.parametrize("fields", [{}, {"index": int}, {"index": int, "name": str}])
def test_it_is_found_in_a_set_that_it_was_in_before_its_comparison_was_compiled(fields: dict[str, type]) -> None:
    cls = frozen(type("Link", (), {"__annotations__": fields}))
    known = {cls(*range(len(fields)))}
    values.finish()
    assert cls(*range(len(fields))) in known
    assert known == {cls(*range(len(fields)))}


def test_its_functions_are_compiled_when_the_first_is_made_or_when_there_is_time() -> None:
    first, second = made(frozen), made(frozen)
    assert {first, second} <= values._unfinished
    assert first(1) == first(index=1) != first(2)
    assert first not in values._unfinished
    assert second in values._unfinished
    values.finish()
    assert not values._unfinished
    assert second(1) == second(index=1)
