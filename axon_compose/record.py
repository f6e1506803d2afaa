"""Frozen records: dataclasses with methods that are shared, instead of six that are compiled for every class.

The rooms through which every command goes define their records so: compiling was a sixth of the time of `validate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from functools import cache, cached_property
from operator import attrgetter
from reprlib import recursive_repr
from types import CodeType, FunctionType
from typing import Any, Final, NoReturn, TypeVar, dataclass_transform

__all__ = ["record"]

Class = TypeVar("Class")
_set: Final = object.__setattr__


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[Class]) -> type[Class]:
    """What `@dataclass(frozen=True, slots=True)` makes of a class, in a fourth of its time.

    Fields are written as there, with `field` too, but for `kw_only`, `init=False` and `InitVar`. Everything of
    `dataclasses` takes such records. Those with a `cached_property` have no slots.

    Raises:
        TypeError: A field is for keywords alone, or not set by the initializer.
    """
    slots = not any(isinstance(value, cached_property) for value in vars(cls).values())  # it has no place in them
    made: Any = dataclass(init=False, repr=False, eq=False, slots=slots)(cls)
    own = fields(made)
    if wrong := [each.name for each in own if each.kw_only or not each.init]:
        raise TypeError(f"fields of records are given by position, not {', '.join(wrong)}")
    made.__init__ = _initializer(made, own)
    made.__setattr__ = made.__delattr__ = _refuse
    made.__getstate__, made.__setstate__ = _state, _restore
    made.__compared__ = staticmethod(_values([each.name for each in own if each.compare]))
    made.__hashed__ = staticmethod(
        _values([each.name for each in own if (each.compare if each.hash is None else each.hash)])
    )
    for name, method in (("__eq__", _equal), ("__hash__", _hash), ("__repr__", _repr)):
        if name not in cls.__dict__ or (name == "__hash__" and cls.__dict__[name] is None):
            setattr(made, name, method)
    return made  # type: ignore[no-any-return]


def _initializer(cls: type, own: Sequence[Field[Any]]) -> Callable[..., None]:
    """The one method that is compiled, since others are called less often."""
    factories = {each.name: each.default_factory for each in own if each.default_factory is not MISSING}
    defaults = [MISSING if each.name in factories else each.default for each in own if not _required(each)]
    code = _renamed(_form(len(own), bool(factories), hasattr(cls, "__post_init__")), [each.name for each in own])
    scope = {"_set": _set, "_fill": _fill, "_factories": factories}
    made = FunctionType(code, scope, "__init__", tuple(defaults))
    made.__module__, made.__qualname__ = cls.__module__, f"{cls.__qualname__}.__init__"
    made.__annotations__ = {each.name: each.type for each in own} | {"return": None}
    return made


@cache
def _form(count: int, filled: bool, completed: bool) -> CodeType:
    """The code of an initializer with `count` fields; compiling it takes longer than all else of most records."""
    names = [f"field{number}" for number in range(count)]
    body = [f"_set(self, {name!r}, {name})" for name in names]
    body += ["_fill(self, _factories)"] * filled + ["self.__post_init__()"] * completed
    scope: dict[str, Any] = {}
    exec(f"def __init__({', '.join(['self', *names])}):\n  " + "\n  ".join(body or ["pass"]), scope)  # noqa: S102
    code: CodeType = scope["__init__"].__code__
    return code


def _renamed(code: CodeType, names: Sequence[str]) -> CodeType:
    """The same with these names of fields."""
    new = dict(zip(code.co_varnames[1:], names, strict=True))
    constants = tuple(new.get(each, each) for each in code.co_consts)
    return code.replace(co_varnames=("self", *names), co_consts=constants)


def _fill(self: Any, factories: Mapping[str, Callable[[], Any]]) -> None:
    """Make the values that were not given."""
    for name, make in factories.items():
        if getattr(self, name) is MISSING:
            _set(self, name, make())


def _required(each: Field[Any]) -> bool:
    return each.default is MISSING and each.default_factory is MISSING


def _values(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """What gives the values of these fields."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda each: tuple(getattr(each, name) for name in names)  # the getter of one name gives no tuple


def _refuse(self: Any, name: str, *value: Any) -> NoReturn:
    raise FrozenInstanceError(f"cannot {'assign to' if value else 'delete'} field {name!r}")


def _equal(self: Any, other: Any) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    return self.__compared__(self) == other.__compared__(other)


def _hash(self: Any) -> int:
    return hash(self.__hashed__(self))


@recursive_repr()
def _repr(self: Any) -> str:
    shown = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr)
    return f"{type(self).__qualname__}({shown})"


def _state(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in fields(self)]


def _restore(self: Any, state: Sequence[Any]) -> None:
    for each, value in zip(fields(self), state, strict=True):
        _set(self, each.name, value)
