# SPDX-License-Identifier: GPL-2.0-or-later
"""Values: what a frozen dataclass with slots is, quickly made.

``dataclasses`` takes 0.4 ms for such a class, of which there are some hundred, and as long again for the functions that it
compiles: a sixth of all the work until the service is ready, for which a boot waits, and more of a short command's, which has
to load ``inspect`` as well. Here nothing is compiled before the first value is made - of half of the classes none ever is -,
and then only ``__init__``.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, dataclass_transform, overload

if TYPE_CHECKING:
    from dataclasses import replace as replace

_T = TypeVar("_T")

_MISSING: Any = object()


class _Field:
    """What is said of a field."""

    __slots__ = ("compare", "default", "factory", "repr")

    def __init__(self, default: Any, factory: Any, compare: bool, repr: bool) -> None:
        self.default, self.factory, self.compare, self.repr = default, factory, compare, repr


def field(*, default: Any = _MISSING, default_factory: Any = _MISSING, compare: bool = True, repr: bool = True) -> Any:
    """As ``dataclasses.field``."""
    return _Field(default, default_factory, compare, repr)


#: The fields of each class, by their names, in their order.
_fields: dict[type, dict[str, _Field]] = {}

#: Classes of which no value was made yet.
_unfinished: set[type] = set()

#: Classes whose comparison is not compiled yet -> the fields that it compares.
_compared: dict[type, list[str]] = {}


@overload
def frozen(cls: type[_T], /) -> type[_T]: ...
@overload
def frozen(*, eq: bool) -> Callable[[type[_T]], type[_T]]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[_T] | None = None, /, *, eq: bool = True) -> type[_T] | Callable[[type[_T]], type[_T]]:
    """As ``@dataclass(frozen=True, slots=True)``, but for copying and pickling, which nobody does to what cannot change, for
    its signature, which is not known before the first value is made, and for the functions of ``dataclasses``: :func:`replace`
    is here.
    """

    def decorated(cls: type[_T]) -> type[_T]:
        told = _told(cls)
        if not eq:
            return _made(cls, told, _FROZEN)
        names = [name for name, each in told.items() if each.compare]
        made = _made(cls, told, {**_generic_comparison(names), **_FROZEN})
        _compared[made] = names
        return made

    return decorated if cls is None else decorated(cls)


@dataclass_transform(eq_default=False, field_specifiers=(field,))
def mutable(cls: type[_T]) -> type[_T]:
    """As ``@dataclass(slots=True, eq=False)``, with the same exceptions."""
    return _made(cls, _told(cls), {})


if not TYPE_CHECKING:

    def replace(value: _T, /, **changes: Any) -> _T:
        """As ``dataclasses.replace``."""
        cls = value.__class__
        return cls(**{name: getattr(value, name) for name in _fields[cls]} | changes)


def finish() -> None:
    """Compile what is not compiled yet, for who has time now and will not have it later: a comparison takes half the time."""
    for each in tuple(_unfinished):
        _finish(each)
    while _compared:
        each, names = _compared.popitem()
        _compile(each, _comparison(names), {})


def _told(cls: type) -> dict[str, _Field]:
    told: dict[str, _Field] = {}
    for base in reversed(cls.__mro__[1:]):
        told |= _fields.get(base, {})
    for name in cls.__annotations__:
        default = cls.__dict__.get(name, _MISSING)
        told[name] = default if isinstance(default, _Field) else _Field(default, _MISSING, True, True)
    return told


def _made(cls: type[_T], told: dict[str, _Field], functions: dict[str, Any]) -> type[_T]:
    """The class once more, with slots: only a class that is new can have them."""

    def finish_and_init(self: Any, *arguments: Any, **named: Any) -> None:
        _finish(made)
        self.__init__(*arguments, **named)

    inherited = {name for base in cls.__mro__[1:] for name in _fields.get(base, ())}
    names = {
        name: what
        for name, what in cls.__dict__.items()
        if name not in told and name not in ("__dict__", "__weakref__")
    }
    names |= functions
    names |= {
        "__qualname__": cls.__qualname__,
        "__init__": finish_and_init,
        "__repr__": _repr,
        "__slots__": tuple(name for name in told if name not in inherited),
        "__match_args__": tuple(told),
    }
    metaclass: Any = type(cls)
    made: type[_T] = metaclass(cls.__name__, cls.__bases__, names)
    _fields[made] = told
    _unfinished.add(made)
    return made


def _finish(made: type) -> None:
    told = _fields[made]
    names: dict[str, Any] = {"_set": object.__setattr__, "_MISSING": _MISSING}
    for name, each in told.items():
        names[f"_default_{name}"] = each.default if each.factory is _MISSING else each.factory
    _compile(made, _init(told), names)
    _unfinished.discard(made)


def _compile(made: type, source: str, names: dict[str, Any]) -> None:
    known = set(names)
    exec(source, names)
    for name in names.keys() - known - {"__builtins__"}:
        names[name].__qualname__ = f"{made.__qualname__}.{name}"  # as an error names it
        setattr(made, name, names[name])


def _init(told: dict[str, _Field]) -> str:
    """The source of ``__init__``; the defaults are there as ``_default_NAME``."""
    arguments, lines = ["self"], []
    for name, each in told.items():
        given = name
        if each.factory is not _MISSING:
            arguments.append(f"{name}=_MISSING")
            given = f"_default_{name}() if {name} is _MISSING else {name}"
        else:
            arguments.append(name if each.default is _MISSING else f"{name}=_default_{name}")
        lines.append(f"    _set(self, {name!r}, {given})")
    return "\n".join((f"def __init__({', '.join(arguments)}):", *(lines or ["    pass"])))


def _comparison(compared: list[str]) -> str:
    """The source of ``__eq__`` and ``__hash__`` by these fields."""
    ours, theirs = ("".join(f"{who}.{name}, " for name in compared) for who in ("self", "other"))
    return f"""\
def __eq__(self, other):
    return ({ours}) == ({theirs}) if other.__class__ is self.__class__ else NotImplemented
def __hash__(self):
    return hash(({ours}))
"""


def _generic_comparison(compared: list[str]) -> dict[str, Any]:
    """The same, without anything compiled; with the same hash, since a value may be in a set when that is."""
    get = attrgetter(*compared) if compared else lambda _: ()
    key: Callable[[Any], Any] = get if len(compared) != 1 else lambda value: (get(value),)

    def equal(self: Any, other: Any) -> Any:
        return key(self) == key(other) if other.__class__ is self.__class__ else NotImplemented

    def hash_(self: Any) -> int:
        return hash(key(self))

    return {"__eq__": equal, "__hash__": hash_}


def _repr(self: Any) -> str:
    told = ", ".join(f"{name}={getattr(self, name)!r}" for name, each in _fields[self.__class__].items() if each.repr)
    return f"{self.__class__.__qualname__}({told})"


def _refuse_to_set(_self: object, name: str, _value: object) -> NoReturn:
    raise AttributeError(f"cannot assign to field {name!r}")


def _refuse_to_delete(_self: object, name: str) -> NoReturn:
    raise AttributeError(f"cannot delete field {name!r}")


_FROZEN = {"__setattr__": _refuse_to_set, "__delattr__": _refuse_to_delete}
