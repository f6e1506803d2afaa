"""Records are frozen dataclasses with slots in all that shows: compared with what `dataclass` itself makes."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, field
from functools import cached_property
from typing import Any

import pytest

from axon_compose.record import record


def classes(decorator: Callable[[type], type]) -> tuple[Any, Any]:
    """A record and one that extends it, made by a decorator."""

    class Base:
        """What is first."""

        first: int
        unseen: str = field(default="u", repr=False, compare=False)

    base: Any = decorator(Base)

    class Wide(base):  # type: ignore[misc]
        many: list[int] = field(default_factory=list, hash=False)
        later: Any = None

        def __post_init__(self) -> None:
            if self.later == "wrong":
                raise ValueError("wrong")

    return base, decorator(Wide)


OURS = classes(record)
THEIRS = classes(dataclass(frozen=True, slots=True))


@record
class Stored:
    """At the top of a module, so that pickle finds it."""

    name: str
    values: tuple[int, ...] = ()


@record
class Cached:
    width: int

    @cached_property
    def square(self) -> int:
        return self.width**2


@record
class Single:
    value: Any


@record
class Empty:
    """No field at all."""


def calls(wide: Any) -> list[Any]:
    return [wide(1), wide(1, "v"), wide(first=2, many=[3]), wide(1, "u", [], None), wide(1, later=float("inf"))]


def test_instances_look_and_compare_as_those_of_a_dataclass() -> None:
    ours, theirs = calls(OURS[1]), calls(THEIRS[1])
    assert [repr(each) for each in ours] == [repr(each) for each in theirs]
    assert [[a == b for b in ours] for a in ours] == [[a == b for b in theirs] for a in theirs]
    assert [[hash(a) == hash(b) for b in ours] for a in ours] == [[hash(a) == hash(b) for b in theirs] for a in theirs]
    assert [dataclasses.asdict(each) for each in ours] == [dataclasses.asdict(each) for each in theirs]
    assert OURS[0](1) != OURS[1](1)
    assert OURS[0](1) != THEIRS[0](1)
    assert ours[0].many is not ours[1].many


def test_the_class_says_the_same_of_itself() -> None:
    for ours, theirs in zip(OURS, THEIRS, strict=True):
        assert ours.__slots__ == theirs.__slots__
        assert ours.__match_args__ == theirs.__match_args__
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
        assert ours.__init__.__annotations__ == theirs.__init__.__annotations__
        assert ours.__init__.__qualname__ == theirs.__init__.__qualname__
        assert [each.name for each in dataclasses.fields(ours)] == [each.name for each in dataclasses.fields(theirs)]


@pytest.mark.parametrize("wide", [OURS[1], THEIRS[1]], ids=["record", "dataclass"])
def test_nothing_can_be_set(wide: Any) -> None:
    made = wide(1)
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'first'"):
        made.first = 2
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'first'"):
        del made.first
    assert dataclasses.replace(made, first=2) == wide(2)


@pytest.mark.parametrize("wide", [OURS[1], THEIRS[1]], ids=["record", "dataclass"])
def test_wrong_arguments(wide: Any) -> None:
    with pytest.raises(TypeError, match=r"__init__\(\) missing 1 required positional argument: 'first'"):
        wide()
    with pytest.raises(TypeError, match=r"__init__\(\) got an unexpected keyword argument 'width'"):
        wide(1, width=2)
    with pytest.raises(ValueError, match="wrong"):
        wide(1, later="wrong")


def test_a_copy_is_equal() -> None:
    made = Stored("a", (1, 2))
    assert pickle.loads(pickle.dumps(made)) == copy.deepcopy(made) == copy.copy(made) == made


def test_what_is_cached_is_computed_once_and_no_part_of_the_value() -> None:
    made = Cached(3)
    assert made.square == vars(made)["square"] == 9
    assert made == Cached(3)
    assert hash(made) == hash(Cached(3))
    assert copy.copy(made) == made


def test_classes_of_one_form_have_their_own_names() -> None:
    @record
    class Other:
        field1: int
        field0: str = "b"

    @record
    class Made:
        first: int
        rest: list[int] = field(default_factory=lambda: [1])

        def __post_init__(self) -> None:
            self.rest.append(self.first)

    assert (Other(1).field1, Other(1).field0, Other(field0="c", field1=2)) == (1, "b", Other(2, "c"))
    assert (Stored("s").values, Made(2).rest, Made(2, [5]).rest) == ((), [1, 2], [5, 2])
    assert Other.__init__.__code__.co_varnames == ("self", "field1", "field0")


def test_one_field_and_none() -> None:
    assert Single((1,)) == Single((1,)) != Single(1)
    assert hash(Single(1)) == hash(Single(1))
    nan = float("nan")
    assert Single(nan) == Single(nan)  # as tuples compare, which look for the same object first
    assert Empty() == Empty()
    assert repr(Empty()) == "Empty()"


def test_a_record_inside_itself_has_an_end() -> None:
    inside: list[Any] = []
    made = Single(inside)
    inside.append(made)
    assert repr(made) == "Single(value=[...])"


def test_methods_of_its_own_stay() -> None:
    @record
    class Loose:
        value: str

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Loose) and other.value.lower() == self.value.lower()

        def __hash__(self) -> int:
            return hash(self.value.lower())

        def __repr__(self) -> str:
            return f"<{self.value}>"

    assert Loose("A") == Loose("a")
    assert len({Loose("A"), Loose("a")}) == 1
    assert repr(Loose("A")) == "<A>"


@pytest.mark.parametrize("how", [{"kw_only": True}, {"init": False, "default": 0}])
def test_fields_that_are_not_given_by_position_are_refused(how: dict[str, Any]) -> None:
    class Odd:
        first: int
        other: int = field(**how)

    with pytest.raises(TypeError, match="given by position, not other"):
        record(Odd)
