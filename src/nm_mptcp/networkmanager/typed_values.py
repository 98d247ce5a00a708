# SPDX-License-Identifier: GPL-2.0-or-later
"""Typed values out of D-Bus dictionaries: NetworkManager's types are documented, and still not trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from ..text import printable

_Value = TypeVar("_Value", str, int, bool)

#: Characters of a value that is quoted in an error.
_LONGEST = 200


class Malformed(Exception):
    """A reply is not of the form that NetworkManager documents; one line."""

    def __init__(self, words: str) -> None:
        super().__init__(printable(words, _LONGEST))


def get(properties: Mapping[str, Any], key: str, kind: type[_Value], default: _Value) -> _Value:
    """A property, or the default where it is missing or of another type."""
    value = properties.get(key, default)
    return value if _is(value, kind) else default


def optional(properties: Mapping[str, Any], key: str, kind: type[_Value], default: _Value) -> _Value:
    """A property, or the default where it is missing; raises :class:`Malformed` where it is of another type."""
    return required(properties, key, kind) if key in properties else default


def required(properties: Mapping[str, Any], key: str, kind: type[_Value]) -> _Value:
    """A property; raises :class:`Malformed` where it is missing or of another type."""
    if key not in properties:
        raise Malformed(f"'{key}' is missing")
    value = properties[key]
    if not _is(value, kind):
        raise Malformed(f"'{key}' is {value!r}, not of type {kind.__name__}")
    return value  # type: ignore[no-any-return]  # just checked


def _is(value: Any, kind: type[_Value]) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
