"""From any description to a plan or to faults: no other exception, within seconds, in little memory."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hostile_descriptions import DESCRIPTIONS
from hypothesis import event, given, settings
from test_hostile_source import IN_LITTLE_MEMORY

from axon_compose import Architecture, ArchitectureError, load
from axon_compose.diagnostics import Span
from axon_compose.diagnostics.codes import CODES
from axon_compose.plan import Plan, cache_nbytes, capabilities, plan_to_dict, total_parameters
from axon_compose.registry import KV, Array, ComponentSpec, Composite, Options, Registry, State
from axon_compose.report import FORMS, Style, render, show_text
from axon_compose.report._excerpt import split_lines
from tests.helpers import BASE, described
from tests.strategies.documents import SOUND, descriptions

HERE = Path(__file__).parent
#: Of processor time, which neighbours on the same core can double: it tells bounded work (some tenths here, at most
#: one second) from work that does not end. How long things take is measured in `benchmarks/`.
SECONDS = 5.0
Result = tuple[list[str], float, int]


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    """What became of every text, each in a process of its own with 256 MiB."""
    begin = [*IN_LITTLE_MEMORY, sys.executable, str(HERE / "hostile_descriptions.py")]
    done = subprocess.run(begin, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return {name: tuple(rest) for name, *rest in map(json.loads, done.stdout.splitlines())}


@pytest.mark.xdist_group("hostile-descriptions")  # one worker makes the results
@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_generated(name: str, results: dict[str, Result]) -> None:
    codes, seconds, size = results[name]
    expected = DESCRIPTIONS[name][1]
    assert expected in codes if expected else not codes
    assert seconds < SECONDS
    assert size < 200_000


@pytest.mark.parametrize("data", SOUND)
def test_what_is_changed_was_sound(data: dict[str, Any]) -> None:
    assert_holds_together(load(data))


@settings(max_examples=500)
@given(descriptions())
def test_any_description(data: dict[str, Any]) -> None:
    """Faults with places inside the text that every form can show, or a plan that holds together."""
    begin = time.process_time()
    try:
        architecture = load(data)
    except ArchitectureError as error:
        event("faulty")
        assert_told_well(error)
    else:
        event("sound")
        assert_holds_together(architecture)
    assert time.process_time() - begin < SECONDS


def assert_told_well(error: ArchitectureError) -> None:
    assert error.diagnostics
    assert any(d.severity == "error" for d in error.diagnostics)
    for fault in error.diagnostics:
        assert fault.code in CODES
        assert fault.message
        for span in [fault.span, *(label.span for label in fault.labels)]:
            if span:
                assert_inside(span, error.sources)
    for form in FORMS:
        assert render(error.diagnostics, error.sources, form, dropped=error.dropped)


def assert_inside(span: Span, sources: dict[str, str]) -> None:
    lines = split_lines(sources[span.file]) if span.file in sources else [""]
    assert span.start <= span.end
    for place in (span.start, span.end):
        assert 1 <= place.line <= len(lines)
        assert 1 <= place.column <= len(lines[place.line - 1]) + 1 or place == span.end


def assert_holds_together(architecture: Architecture) -> None:
    plan = architecture.plan()
    parameters = list(plan.parameters())
    assert len({name for name, _ in parameters}) == len(parameters)
    assert total_parameters(plan) == sum(math.prod(shape) for _, shape in parameters)
    assert [layer.index for layer in plan.layers] == list(range(len(plan.layers)))
    assert_slots(plan)
    published = {f"embedding.{value}" for value in plan.embedding.writes}
    for layer in plan.layers:
        for use in layer.uses():
            assert {key for value, key in use.reads.items() if value not in ("offset", "tokens")} <= published
            assert all(0 <= mask < len(plan.masks) for mask in use.masks)
            published |= {f"{layer.index}.{use.key}.{value}" for value in use.writes}
    data = plan_to_dict(plan)
    written = json.dumps(data)
    assert json.dumps(plan_to_dict(load(architecture.data).plan())) == written
    assert show_text(plan, Style())
    capabilities(plan)
    assert cache_nbytes(plan, 100) >= 0


def assert_slots(plan: Plan) -> None:
    """Each cache, and each child of a list of caches, belongs to one component."""
    found = [use.slot for layer in plan.layers for use in layer.uses() if use.cache is not None]
    expected = []
    for layer in plan.layers:
        own = [use for use in layer.uses() if use.cache is not None]
        if own:
            assert layer.slot is not None
            expected += [(layer.slot,)] if len(own) == 1 else [(layer.slot, child) for child in range(len(own))]
    assert found == expected
    assert [layer.slot for layer in plan.layers if layer.slot is not None] == list(range(len(plan.slots)))


# What the code of a plugin may answer.


class OddOptions(Options):
    """Options of a layer whose callbacks misbehave."""

    size: int = 1
    source: str | None = None


def endless() -> Iterator[tuple[str, tuple[int, ...]]]:
    return (("w", (n,)) for n in itertools.count())


def leave(*_: object) -> NoReturn:
    sys.exit("gone")


def recurse(*arguments: object) -> NoReturn:
    recurse(*arguments)


def fail(*_: object) -> NoReturn:
    raise KeyError


PARAMS = {
    "none": None,
    "a number": 3,
    "a list": [("w", (1,))],
    "without end": endless(),
    "shape without end": {"w": itertools.count()},
    "a float": {"w": (2.0,)},
    "text": {"w": ("2",)},
    "a text for a shape": {"w": "12"},
    "truth": {"w": (True,)},
    "no name": {3: (2,)},
    "negative": {"w": (-1, 2)},
    "nothing": {"w": (0,)},
    "too long": {"w": (2**31,)},
    "huge": {"w": (10**5000,)},
    "nested": {"w": ((1, 2), 3)},
}
CACHES = {
    "text": "KV",
    "a class": KV,
    "negative": KV(-1, 2),
    "a float": KV(1, 2.5),
    "no window": KV(1, 2, window=0),
    "huge": KV(10**5000, 2),
    "arrays without end": State(itertools.count()),
    "a shape of text": State((Array("s", ("1",)),)),
    "no array": State((3,)),
    "odd dtype": State((Array("s", (1,), "int7"),)),
    "no children": Composite(()),
    "nested": Composite((Composite((KV(1, 1),)),)),
    "child without cache": Composite((None,)),
}
ANSWERS = {
    **{f"params: {name}": {"params": lambda o, d, value=value: value} for name, value in PARAMS.items()},
    **{f"cache: {name}": {"cache": lambda o, d, value=value: value} for name, value in CACHES.items()},
    **{f"active: {value!r:.9}": {"active": lambda o, d, value=value: value} for value in (-1, 2.5, "3", None)},
    **{f"window: {value!r}": {"window": lambda o, d, value=value: value} for value in (-1, 0, 2.5, "3", True)},
    **{
        f"{callback} {how.__name__}s": {callback: how}
        for callback in ("params", "cache", "active", "window")
        for how in (leave, recurse, fail)
    },
}


def with_plugin(**callbacks: Any) -> tuple[Registry, dict[str, Any]]:
    defaults = {"params": lambda o, d: {"w": (2, 3)}}
    spec = ComponentSpec("odd", "layer", OddOptions, "nowhere:Odd", "a layer", **(defaults | callbacks))
    parts = {**BASE["components"], "odd": {"type": "acme/odd"}}
    return Registry.with_plugins({"acme": [spec]}), described(
        components=parts, blocks={"a": ["odd", "attn"]}, stack="a*2"
    )


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_makes_no_sense(name: str) -> None:
    registry, data = with_plugin(**ANSWERS[name])
    with pytest.raises(ArchitectureError) as caught:
        load(data, registry=registry)
    assert {d.code for d in caught.value.diagnostics} <= {"AX145", "AX146"}
    assert "`odd" in str(caught.value)
    assert_told_well(caught.value)


@pytest.mark.parametrize("how", [leave, recurse, fail])
def test_a_reader_that_fails_to_judge_its_source(how: Any) -> None:
    cached = {"cache": lambda o, d: KV(1, 2), "reads": {"kv": "source"}, "writes": ("kv",)}
    registry, data = with_plugin(accepts=how, **cached)
    data["components"]["reader"] = {"type": "acme/odd", "source": "odd"}
    data["blocks"]["r"] = ["reader"]
    data["stack"] = "a r"
    with pytest.raises(ArchitectureError) as caught:
        load(data, registry=registry)
    assert {d.code for d in caught.value.diagnostics} == {"AX142"}


def test_a_plugin_that_behaves() -> None:
    registry, data = with_plugin(cache=lambda o, d: State((Array("s", (2, 3)),)), active=lambda o, d: 0)
    plan = load(data, registry=registry).plan()
    assert [slot.children[0] for slot in plan.slots] == [State((Array("s", (2, 3)),))] * 2
