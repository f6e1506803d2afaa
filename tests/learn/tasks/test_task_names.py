"""Tasks by name: of the command line, of plugins, and what is said where one is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from axon_compose.cli import main
from axon_compose.diagnostics import Refusal
from axon_compose.learn.material import TaskMaterial
from axon_compose.learn.tasks import parse_task, read_task
from axon_compose.registry import PluginFault, Registry, TaskSpec, hookimpl
from tests.learn.tasks import counting_plugin


def acme(*specs: Any) -> Registry:
    """A registry with a plugin of tasks."""
    return Registry.with_plugins({"acme": list(specs)})


def counting(**changes: Any) -> TaskSpec:
    """The task of the example, with changes."""
    (spec,) = counting_plugin.axon_tasks()
    return replace(spec, **changes)


@pytest.mark.parametrize(
    ("text", "name", "given"),
    [
        ("mqar", "mqar", {}),
        ("mqar:pairs=32,vocab=64", "mqar", {"pairs": 32, "vocab": 64}),
        (" acme/x : a = 1.5 , b = true, c=null,d=word", "acme/x", {"a": 1.5, "b": True, "c": None, "d": "word"}),
        ("x:a=[1]", "x", {"a": "[1]"}),
    ],
)
def test_texts_are_read(text: str, name: str, given: dict[str, Any]) -> None:
    assert parse_task(text) == (name, given)


@pytest.mark.parametrize("text", ["mqar", "mqar:pairs=4,vocab=16", "extrapolation:skill=parity,length=8"])
def test_a_task_says_how_it_is_written(text: str) -> None:
    assert str(read_task(text)) == text
    assert read_task(str(read_task(text))) == read_task(text)


@pytest.mark.parametrize(
    ("text", "code", "said", "help_"),
    [
        ("mqr", "AX901", "unknown task `mqr`", "did you mean `mqar`?"),
        ("foo/mqar", "AX201", "unknown plugin `foo`", "installed plugins"),
        ("mqar:pair=3", "AX902", "unknown option `pair`", "did you mean `pairs`?"),
        ("mqar:pairs=x", "AX902", "`pairs` must be an integer", "axon-compose describe mqar"),
        ("mqar:pairs=99", "AX902", "more than the 32 keys", "axon-compose describe mqar"),
        ("needle:facts=20", "AX902", "more than the 16 keys", "axon-compose describe needle"),
        ("mqar:pairs", "AX903", "`pairs` in `mqar:pairs`", "mqar:pairs=32,vocab=64"),
        ("mqar:", "AX903", "not an option and its value", "mqar:pairs=32,vocab=64"),
        ("mqar:pairs=1,pairs=2", "AX903", "given twice", "give it once"),
        ("", "AX903", "names no task", "mqar:pairs=32,vocab=64"),
    ],
)
def test_what_is_wrong_is_said(text: str, code: str, said: str, help_: str) -> None:
    with pytest.raises(Refusal) as caught:
        read_task(text)
    assert caught.value.code == code
    assert said in caught.value.diagnostic.message
    assert help_ in (caught.value.help or "")


def test_a_plugin_brings_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    registry = Registry.with_plugins({"acme": counting_plugin})
    assert "acme/counting" in registry.tasks()
    task = read_task("acme/counting:length=5", registry)
    assert (str(task), task.vocab_size, task.length, task.chance) == ("acme/counting:length=5", 6, 5, 1 / 6)
    tokens, targets = task.draw(3, seed=0, step=0)
    assert (targets == np.cumsum(tokens, axis=1)).all()
    with pytest.raises(Refusal, match="did you mean `acme/counting`"):
        read_task("acme/countin", registry)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"options": 7}, "neither a pydantic model nor a JSON Schema"),
        ({"module": "no module"}, "not of the form"),
        ({"head": "nor this"}, "not of the form"),
        ({"chance": 0.5}, "`chance` must be a function"),
        ({"examples": ({"lengt": 4},)}, "an example has `lengt`"),
        ({"name": "Counting"}, "not a task name"),
    ],
)
def test_faulty_records_are_named(changes: dict[str, Any], said: str) -> None:
    registry = acme(counting(**changes))
    with pytest.raises(Refusal) as caught:
        registry.task("acme/counting")
    assert caught.value.code == "AX203"
    assert said in caught.value.diagnostic.message
    assert set(registry.tasks()) == set(Registry.installed().tasks())


def test_a_plugin_with_faulty_tasks_keeps_its_components() -> None:
    """What nobody asks for cannot stand in anybody's way."""

    class Plugin:
        @hookimpl
        def axon_components(self) -> list[Any]:
            return [Registry.installed().component("linear")]

        @hookimpl
        def axon_tasks(self) -> list[Any]:
            raise RuntimeError("not today")

    registry = Registry.with_plugins({"acme": Plugin()})
    assert registry.component("acme/linear").name == "linear"
    with pytest.raises(Refusal, match="not today"):
        registry.task("acme/linear")


def _broken(tokens: Any, targets: Any) -> Any:
    def make(options: Any, draw: Any) -> Any:
        return tokens, targets

    return make


@pytest.mark.parametrize(
    ("tokens", "targets", "said"),
    [
        (np.zeros((2, 3), int), np.zeros((2, 4), int), "both must be (2, L)"),
        (np.zeros((3, 3), int), np.zeros((3, 3), int), "both must be (2, L)"),
        (np.zeros((2, 8)), np.zeros((2, 8)), "must be integers"),
        (np.full((2, 8), 9), np.zeros((2, 8), int), "not from 0 to 8"),
        (np.zeros((2, 8), int), np.full((2, 8), 9), "not from 0 to 8"),
        (np.zeros((2, 8), int), np.full((2, 8), -1), "below 0 and not -100"),
        (np.zeros((2, 8), int), np.full((2, 8), -100), "no position is scored"),
        (np.zeros((2, 9), int), np.zeros((2, 9), int), "have 9 tokens, where its record says 8"),
        (None, None, "cannot be drawn"),
    ],
)
def test_wrong_arrays_are_refused(tokens: Any, targets: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _broken(tokens, targets) if tokens is not None else lambda options, draw: 1 / 0
    monkeypatch.setattr(counting_plugin, "counting", made)
    task = read_task("acme/counting", acme(counting()))
    with pytest.raises(PluginFault) as caught:
        task.draw(2, seed=0, step=0)
    assert caught.value.code == "AX904"
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field in ("vocabulary", "length") for value in (0, -1, 2.5, "x", None, float("nan"))]
    + [("chance", value) for value in (-0.1, 7, float("nan"), "x", None)],
)
def test_a_record_cannot_say_everything(field: str, value: Any) -> None:
    task = read_task("parity:length=4")
    task = replace(task, spec=replace(task.spec, **{field: lambda options: value}))
    with pytest.raises(PluginFault) as caught:
        TaskMaterial(task)
    assert caught.value.code == "AX904"
    assert f"`{field}` of the task `parity` cannot be {value!r}" in caught.value.message


@pytest.mark.parametrize("raised", [SystemExit(3), RuntimeError("not today")])
def test_a_head_that_raises_is_a_fault_of_the_task(raised: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def head(model: Any) -> Any:
        raise raised

    monkeypatch.setattr(counting_plugin, "counting", head)
    task = read_task("parity:length=4")
    task = replace(task, spec=replace(task.spec, head="tests.learn.tasks.counting_plugin:counting"))
    with pytest.raises(PluginFault) as caught:
        TaskMaterial(task).wrapped(None, 0)  # type: ignore[arg-type]
    assert caught.value.code == "AX904"
    assert type(raised).__name__ in caught.value.message


def test_tasks_are_listed_and_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "tasks"]) == 0
    listed = capsys.readouterr().out
    assert {line.split()[0] for line in listed.splitlines()[1:]} == {
        name.removeprefix("core/") for name in Registry.installed().tasks()
    }
    for name, spec in Registry.installed().tasks().items():
        assert main(["describe", name]) == 0
        out = capsys.readouterr().out
        assert spec.source.split(",")[0] in out
        assert max(map(len, out.splitlines())) <= 100
