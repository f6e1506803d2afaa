"""A plan is what is then done, tensor by tensor; edits one after the other are the same as in one file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

import axon_compose
from axon_compose.checkpoints.trained import load_model
from axon_compose.model import LanguageModel, quantize
from axon_compose.plan.folder_names import FolderNames
from axon_compose.surgery import SurgeryPlan
from tests.surgery.edits import changed, edited, performed, written

TOKENS = mx.array(np.random.default_rng(0).integers(0, 64, (2, 12)))
WINDOW = {"layers": "0..2 step 2", "set": {"attn.window_size": 4}}
SCAN = {"layers": 1, "replace": {"attn": {"type": "axon_ssm", "d_state": 4}}, "init": "random"}
WIDE = {"layers": 3, "replace": {"mlp": {"type": "mlp", "intermediate_size": 96}}, "init": "random"}
NOISE = {
    "layers": 0,
    "replace": {"mlp": {"type": "mlp", "intermediate_size": 64}},
    "init": {"copy": "mlp", "noise": 0.1},
}
MOE = {"replace": {"mlp": {"type": "moe", "num_experts": 4, "top_k": 2, "intermediate_size": "=intermediate_size"}}}
NOISY = {"init": {"copy": "mlp", "noise": 0.05}}
INSERT = {"insert": {"after": 1}}
REPEAT = {"repeat": {"layers": "0..1"}}
DROP = {"drop": 2}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("source") / "small")


def arrays(folder: Path) -> dict[str, np.ndarray]:
    """The tensors of a folder by the names of its plan."""
    config = json.loads((folder / "config.json").read_text())
    names = FolderNames(axon_compose.load(folder).plan(), config)
    loaded: Any = mx.load(str(folder / "model.safetensors"))
    return {names.in_plan(name): np.array(value.astype(mx.float32)) for name, value in loaded.items()}


def logits(folder: Path, tokens: mx.array = TOKENS) -> np.ndarray:
    model: LanguageModel = load_model(folder)
    return np.array(model(tokens).astype(mx.float32))


def assert_done(plan: SurgeryPlan, source: Path, target: Path) -> None:
    """Every tensor is what its step says, as far as the two folders show."""
    before, after = arrays(source), arrays(target)
    assert set(after) == {step.name for step in plan.steps}
    for step in plan.steps:
        value = after[step.name]
        assert value.shape == step.shape
        if step.kind == "kept":
            np.testing.assert_array_equal(value, before[step.sources[0]])
        elif step.rule.startswith("zero"):
            assert not value.any()
        elif step.exactness == "random":
            assert not any(np.array_equal(value, other) for other in before.values() if value.std())


def test_a_plan_is_what_is_done(source: Path, tmp_path: Path) -> None:
    edits = [WINDOW, SCAN, WIDE, NOISE, INSERT, REPEAT, DROP]
    plan = edited(source, *edits)
    assert plan.origins == (0, 1, 1, None, 2, 3, 4, 5)
    performed(source, tmp_path / "out", *edits)
    assert_done(plan, source, tmp_path / "out")
    kinds = {step.name: (step.kind, step.exactness) for step in plan.steps}
    assert kinds["layers.0.mlp.up_proj.weight"] == ("converted", "near")
    assert {"kept", "converted", "new"} == {kind for kind, _ in kinds.values()}
    record = json.loads((tmp_path / "out" / "config.json").read_text())["axon_compose"]["edit"]
    assert record["origins"] == list(plan.origins)
    assert record["changed"] == plan.changed
    assert record["edits"] == edits


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ([SCAN], [WINDOW]),
        ([DROP], [SCAN, WIDE]),
        ([NOISE], [DROP]),
        ([INSERT], [REPEAT]),
        ([REPEAT], [{"layers": 2, "replace": {"mlp": {"type": "mlp", "intermediate_size": 48}}, "init": "random"}]),
    ],
)
def test_one_after_the_other_is_the_same_as_both(
    source: Path, tmp_path: Path, first: list[Any], then: list[Any]
) -> None:
    half = performed(source, tmp_path / "half", *first)
    in_turn = performed(half, tmp_path / "in_turn", *then)
    at_once = performed(source, tmp_path / "at_once", *first, *then)
    assert {name: value.tobytes() for name, value in arrays(in_turn).items()} == {
        name: value.tobytes() for name, value in arrays(at_once).items()
    }
    assert axon_compose.load(in_turn).diff(axon_compose.load(at_once)).equal
    records = [json.loads((place / "config.json").read_text())["axon_compose"] for place in (in_turn, at_once)]
    assert records[0]["edit"] == records[1]["edit"]


@pytest.mark.parametrize(
    "then",
    [
        [{"insert": {"after": 0}}],
        [{"repeat": {"layers": "0..1"}}, {"drop": 1}],
        [{"layers": 2, **MOE, **NOISY}],
        [{"layers": 1, "set": {"moe.num_experts": 2, "moe.top_k": 1}, "init": "transfer"}],
    ],
)
def test_what_was_converted_is_rounded_between_two_edits(tmp_path: Path, then: list[Any]) -> None:
    source = written(tmp_path / "source", dtype="bfloat16")
    first = [{"layers": "0..3", "set": {"attn.num_kv_heads": 1}}, {"layers": "0..1", **MOE, **NOISY}]
    in_turn = performed(performed(source, tmp_path / "half", *first), tmp_path / "in_turn", *then)
    at_once = performed(source, tmp_path / "at_once", *first, *then)
    one, other = arrays(in_turn), arrays(at_once)
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_a_window_is_the_same_up_to_its_length(source: Path, tmp_path: Path) -> None:
    wide = performed(source, tmp_path / "wide", {"set": {"attn.window_size": 12}})
    narrow = performed(source, tmp_path / "narrow", {"set": {"attn.window_size": 5}})
    whole = logits(source)
    np.testing.assert_allclose(logits(wide), whole, atol=2e-6)
    np.testing.assert_allclose(logits(narrow)[:, :5], whole[:, :5], atol=2e-6)
    assert np.abs(logits(narrow) - whole)[:, 6:].max() > 1e-4


@pytest.mark.parametrize("norm", ["pre", "post", "sandwich"])
def test_what_is_inserted_adds_nothing(tmp_path: Path, norm: str) -> None:
    model = changed(blocks={"layer": [{"use": "attn", "norm": norm}, {"use": "mlp", "norm": norm}]}, stack="layer*3")
    model["components"] = {name: model["components"][name] for name in ("attn", "mlp")}
    model["components"]["mlp"]["bias"] = True
    model["norm"] = {"type": "layer_norm"}
    folder = written(tmp_path / "source", model)
    for number, after in enumerate((0, -1, "start")):
        longer = performed(folder, tmp_path / f"{number}", {"insert": {"after": after, "count": 2}})
        np.testing.assert_array_equal(logits(longer), logits(folder))


def test_the_same_layers_again_are_copies(source: Path, tmp_path: Path) -> None:
    target = performed(source, tmp_path / "out", {"repeat": {"layers": "1..2", "after": 3, "times": 2}})
    model = load_model(target)
    found = dict(tree_flatten(model.parameters()))
    assert axon_compose.load(target).plan().layers[4].index == 4
    assert len(model.layers) == 10
    assert mx.array_equal(found["layers.4.attn.q_proj.weight"], found["layers.1.attn.q_proj.weight"])
    assert mx.array_equal(found["layers.7.attn.q_proj.weight"], found["layers.2.attn.q_proj.weight"])


def test_a_head_is_untied_and_tied_again(source: Path, tmp_path: Path) -> None:
    untied = performed(source, tmp_path / "untied", {"set": {"head.tied": False}})
    np.testing.assert_array_equal(logits(untied), logits(source))
    assert arrays(untied).keys() > arrays(source).keys()
    tied = performed(untied, tmp_path / "tied", {"set": {"head.tied": True}})
    assert {name: value.tobytes() for name, value in arrays(tied).items()} == {
        name: value.tobytes() for name, value in arrays(source).items()
    }


def test_narrow_numbers_stay_and_others_are_as_narrow(tmp_path: Path) -> None:
    folder = written(tmp_path / "source", dtype="bfloat16")
    plan = edited(folder, SCAN)
    kinds = {step.name: step.dtype for step in plan.steps}
    assert kinds["layers.0.attn.q_proj.weight"] == "bfloat16"
    assert {"bfloat16", "float32"} == {kind for name, kind in kinds.items() if name.startswith("layers.1.axon_ssm.")}
    target = performed(folder, tmp_path / "out", SCAN)
    stored: Any = mx.load(str(target / "model.safetensors"))
    names = FolderNames(axon_compose.load(target).plan())
    assert {names.in_plan(name): str(value.dtype).rpartition(".")[2] for name, value in stored.items()} == kinds


def test_quantised_weights_are_unpacked(tmp_path: Path) -> None:
    model = changed(dims={"hidden_size": 64, "vocab_size": 64})
    loaded = axon_compose.load(model).build(dtype="bfloat16")
    quantize(loaded, 8)
    axon_compose.save(loaded, tmp_path / "source", tokenizer="none")
    target = performed(tmp_path / "source", tmp_path / "out", {"drop": 1})
    assert "quantization" not in json.loads((target / "config.json").read_text())
    note = json.loads((target / "build.json").read_text())["notes"][0]
    assert note.startswith("41 quantised tensors are unpacked, into bfloat16, which rounds them")
    assert len(load_model(target).layers) == 5


def test_a_plan_imports_no_mlx_and_tells_sums(source: Path) -> None:
    check = (
        "import sys\nfrom axon_compose.cli import main\n"
        f"code = main(['edit', '-', '--weights', {str(source)!r}])\n"
        "assert not code and not {'mlx', 'numpy'} & set(sys.modules)"
    )
    edits = f"version: 1\nsource: {source}\nedits:\n  - drop: 1\n"
    done = subprocess.run([sys.executable, "-c", check], input=edits, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("small: 6 → 5 layers\n")


def test_sums_are_those_of_the_models(source: Path) -> None:
    plan = edited(source, SCAN, INSERT, DROP)
    sums = plan.totals()
    after = sum(use.size for use in plan.edited.plan().uses())
    assert sum(sums[kind].parameters for kind in ("kept", "converted", "new")) == after
    before = dict(plan.source.plan().parameters())
    used = {name for step in plan.steps for name in step.sources}
    assert sums["dropped"].tensors == len(before.keys() - used)
    data = plan.to_dict()
    assert json.loads(json.dumps(data))["steps"][0]["name"] == plan.steps[0].name
    assert data["totals"]["kept"]["parameters"] == sums["kept"].parameters


@pytest.mark.parametrize(
    ("note", "kept"),
    [
        ({"origins": [0, 1, 3, 4, 5]}, True),
        ({"origins": [0, 1, 3, 4, 5], "vocabulary": list(range(64))}, True),
        ({"origins": [0, 1, 3, 4]}, False),
        ({"origins": [0, 1, 3, 4, 5], "vocabulary": [0]}, False),
        ({"origins": 5}, False),
        ({"origins": [0, 1, 3, 4, 5], "vocabulary": 64}, False),
        ([], False),
    ],
)
def test_a_model_that_is_saved_keeps_what_an_edit_has_noted(
    source: Path, tmp_path: Path, note: Any, kept: bool
) -> None:
    """If it is of this model; a damaged one is left out."""
    folder = performed(source, tmp_path / "edited", DROP)
    config = json.loads((folder / "config.json").read_text())
    assert config["axon_compose"]["edit"] == {"edits": [DROP], "origins": [0, 1, 3, 4, 5], "changed": []}
    config["axon_compose"]["edit"] = note
    (folder / "config.json").write_text(json.dumps(config))
    axon_compose.save(load_model(folder), tmp_path / "saved")
    found = json.loads((tmp_path / "saved" / "config.json").read_text())["axon_compose"].get("edit")
    assert found == (note if kept else None)
