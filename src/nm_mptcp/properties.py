# SPDX-License-Identifier: GPL-2.0-or-later
"""A D-Bus interface whose properties are read from a table of values; what changes is told of (PropertiesChanged)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from .bus import PropertyAccess, ServiceInterface, dbus_property

#: The properties of an interface: name -> D-Bus signature and what it says.
Table = Mapping[str, tuple[str, str]]

Values = Mapping[str, Any]


class Properties(ServiceInterface):
    """An interface with read-only properties; which ones :func:`having` says."""

    def __init__(self, name: str, values: Values) -> None:
        super().__init__(name)
        self.values = values

    def update(self, values: Values) -> None:
        """Take these values, and tell of those that are new, in one signal."""
        changed = {name: value for name, value in values.items() if value != self.values.get(name)}
        self.values = values
        if changed:
            self.emit_properties_changed(changed)


_Class = TypeVar("_Class", bound=type[Properties])


def having(table: Table) -> Callable[[_Class], _Class]:
    """A class decorator: give the interface these properties."""

    def add(interface: _Class) -> _Class:
        for name, (signature, words) in table.items():
            setattr(interface, name, _read_only(name, signature, words))
        return interface

    return add


def _read_only(name: str, signature: str, words: str) -> Any:
    def get(self: Properties) -> Any:
        return self.values[name]

    get.__name__, get.__doc__ = name, words
    # The libraries take the annotation for the signature, in the form that "from __future__ import annotations" gives it.
    get.__annotations__ = {"return": repr(signature)}
    return dbus_property(access=PropertyAccess.READ)(get)
