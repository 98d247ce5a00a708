# SPDX-License-Identifier: GPL-2.0-or-later
"""Values: frozen dataclasses that are quickly made.

``dataclasses`` compiles six functions for each class, one by one up to Python 3.12, and a command that a person waits for has
some sixty classes: that was a third of all of ``nm-mptcp check``. Here three depend on the fields, which are compiled
together when the first value is made - of half of the classes none ever is -, and the others are the same for all.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from typing import Any, NoReturn, TypeVar, dataclass_transform

_T = TypeVar("_T")

#: Classes of which no value was made yet.
_unfinished: set[type] = set()


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[_T]) -> type[_T]:
    """As ``@dataclass(frozen=True, slots=True)``, but for copying and pickling, which nobody does to what cannot change, and
    for its signature, which is not known before the first value is made.
    """
    made = dataclass(init=False, repr=False, eq=False, slots=True)(cls)

    def finish_and_init(self: Any, *arguments: Any, **named: Any) -> None:
        _finish(made)
        self.__init__(*arguments, **named)

    for name, function in {"__init__": finish_and_init, **_COMMON}.items():
        setattr(made, name, function)
    _unfinished.add(made)
    return made


def finish() -> None:
    """Compile what is not compiled yet, for who has time now and will not have it when the first value is made."""
    for each in tuple(_unfinished):
        _finish(each)


def _finish(made: type) -> None:
    told = fields(made)
    names: dict[str, Any] = {"_set": object.__setattr__, "_MISSING": MISSING}
    for each in told:
        names[f"_default_{each.name}"] = each.default if each.default is not MISSING else each.default_factory
    exec(_functions(told), names)
    for name in ("__init__", "__eq__", "__hash__"):
        names[name].__qualname__ = f"{made.__qualname__}.{name}"  # as an error names it
        setattr(made, name, names[name])
    _unfinished.discard(made)


def _functions(told: tuple[Field[Any], ...]) -> str:
    """The source of what depends on the fields; their defaults are there as ``_default_NAME``."""
    arguments, lines = ["self"], []
    for each in told:
        name, default = each.name, f"_default_{each.name}"
        given = name
        if each.default is not MISSING:
            arguments.append(f"{name}={default}")
        elif each.default_factory is not MISSING:
            arguments.append(f"{name}=_MISSING")
            given = f"{default}() if {name} is _MISSING else {name}"
        else:
            arguments.append(name)
        lines.append(f"    _set(self, {name!r}, {given})")
    compared = [each.name for each in told if each.compare]
    ours, theirs = ("".join(f"{who}.{name}, " for name in compared) for who in ("self", "other"))
    return "\n".join(
        (
            f"def __init__({', '.join(arguments)}):",
            *lines,
            "def __eq__(self, other):",
            f"    return ({ours}) == ({theirs}) if other.__class__ is self.__class__ else NotImplemented",
            "def __hash__(self):",
            f"    return hash(({ours}))",
        )
    )


def _repr(self: Any) -> str:
    told = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr)
    return f"{self.__class__.__qualname__}({told})"


def _refuse_to_set(_self: object, name: str, _value: object) -> NoReturn:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(_self: object, name: str) -> NoReturn:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


_COMMON = {"__repr__": _repr, "__setattr__": _refuse_to_set, "__delattr__": _refuse_to_delete}
