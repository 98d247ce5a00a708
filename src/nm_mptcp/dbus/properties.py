# SPDX-License-Identifier: GPL-2.0-or-later
"""A D-Bus interface from tables: its properties are read from a mapping, and ``PropertiesChanged`` follows their changes; its
methods are described here, and answered by :meth:`~nm_mptcp.dbus.connection.Bus.answer`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from .connection import PropertyAccess, ServiceInterface, Signatures, dbus_property, method

#: The properties of an interface: name -> D-Bus signature, description.
Table = Mapping[str, tuple[str, str]]

#: The methods of an interface: name -> arguments (name -> signature), signature of the reply, description.
Methods = Mapping[str, tuple[Mapping[str, str], str, str]]

Values = Mapping[str, Any]


class Properties(ServiceInterface):
    """An interface with read-only properties, which :func:`with_properties` adds."""

    def __init__(self, name: str, values: Values) -> None:
        super().__init__(name)
        self.values = values

    def update(self, values: Values) -> None:
        """Take these values, and announce those that changed in one signal."""
        changed = {name: value for name, value in values.items() if value != self.values.get(name)}
        self.values = values
        if changed:
            self.emit_properties_changed(changed)


_Class = TypeVar("_Class", bound=type[Properties])


def with_properties(table: Table, methods: Methods | None = None) -> Callable[[_Class], _Class]:
    """A class decorator: add these properties, and describe these methods."""

    def add(interface: _Class) -> _Class:
        for name, (signature, words) in table.items():
            setattr(interface, name, _read_only(name, signature, words))
        for name, description in (methods or {}).items():
            setattr(interface, name, _described(name, *description))
        return interface

    return add


def _read_only(name: str, signature: str, words: str) -> Any:
    def get(self: Properties) -> Any:
        return self.values[name]

    get.__name__, get.__doc__ = name, words
    # The libraries read the signature from the annotation, in the form that "from __future__ import annotations" gives it.
    get.__annotations__ = {"return": repr(signature)}
    return dbus_property(access=PropertyAccess.READ)(get)


def signatures(methods: Methods) -> Signatures:
    """The signatures of each method's arguments and reply."""
    return {name: ("".join(takes.values()), gives) for name, (takes, gives, _) in methods.items()}


def _described(name: str, takes: Mapping[str, str], gives: str, words: str) -> Any:
    """For introspection, and for the libraries, which reject calls with another signature."""

    def unanswered(_self: Properties, *_: object) -> None:
        raise AssertionError(f"{name} is answered by Bus.answer")

    parameter = inspect.Parameter
    parameters = [parameter("self", parameter.POSITIONAL_OR_KEYWORD)]
    parameters += [
        parameter(each, parameter.POSITIONAL_OR_KEYWORD, annotation=repr(signature))
        for each, signature in takes.items()
    ]
    returns = repr(gives) if gives else inspect.Signature.empty
    unanswered.__name__, unanswered.__doc__ = name, words
    unanswered.__signature__ = inspect.Signature(parameters, return_annotation=returns)  # type: ignore[attr-defined]
    return method()(unanswered)
