"""The names in built folders: those that mlx-lm's recipes look for, with the same numbers behind them."""

from __future__ import annotations

import copy
import gc
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any
from weakref import ref

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from mlx_lm.convert import mixed_quant_predicate_builder
from mlx_lm.models.switch_layers import SwitchLinear
from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters
from mlx_lm.utils import load_model, quantize_model

import axon_compose
from axon_compose.checkpoints.folder import write_model
from axon_compose.model import LanguageModel, build, with_folder_names
from axon_compose.model._ring import ring_of
from axon_compose.model.names import CONFIG_KEY, FolderNames, module_names
from axon_compose.plan import Compiled
from axon_compose.registry import Shard
from tests.families.models import FIXTURES, NAMES, architecture
from tests.model.models import close, description, tokens

#: Everything that the embedding and the head can hold beside their matrices.
ENDS = {
    "embedding": {"size": 16, "norm": True, "positions": 64, "per_layer": {"size": 8, "layers": 2}},
    "head": {"tied": True, "bias": True},
    "dims": {"hidden_size": 32, "vocab_size": 259, "embedding_size": 16},
}


def compiled(**more: Any) -> Compiled:
    """State space, windows, experts, and a layer with two attentions."""
    blocks = {"a": ["ssm"], "b": ["swa", "moe"], "c": [{"parallel": ["ssm", "attn"]}, "mlp"], "d": ["attn", "attn"]}
    dims = {"dims": {"hidden_size": 32, "vocab_size": 259}}
    return axon_compose.load(description("a b c d", **blocks) | dims | more)


def folder(described: Compiled, target: Path, **options: Any) -> Path:
    write_model(described, target, **options)
    return target


def loaded(path: Path) -> Any:
    return load_model(path, trust_remote_code=True)[0]


def same(one: Any, other: Any, length: int = 40) -> bool:
    """Whether two models give the same logits, in one pass and token by token."""
    prompt = tokens(2, length)
    caches = one.make_cache(), other.make_cache()
    stepped = [
        mx.concatenate([model(prompt[:, at : at + 1], cache) for at in range(8)], axis=1)
        for model, cache in zip((one, other), caches, strict=True)
    ]
    return close(one(prompt), other(prompt)) and close(*stepped)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_the_form_that_recipes_expect(name: str) -> None:
    plan = architecture(name).plan()
    names = FolderNames(plan)
    mine = [parameter for parameter, _ in plan.parameters()]
    found = [names.in_folder(parameter) for parameter in mine]
    assert len(set(found)) == len(mine)
    assert [names.in_plan(parameter) for parameter in found] == mine
    for parameter in found:
        in_layer = re.match(r"model\.layers\.\d+\.\w", parameter)
        assert in_layer or len(parameter.split(".")) <= 3, parameter  # two parts and `weight`
    counts = [sum(use.spec.module_name == "self_attn" for use in layer.uses()) for layer in plan.layers]
    assert (1 in counts) == any(".self_attn." in parameter for parameter in found)


def test_names_that_everybody_has(tmp_path: Path) -> None:
    plan = architecture("llama").plan()
    found = {FolderNames(plan).in_folder(name) for name, _ in plan.parameters()}
    from mlx_lm.models.llama import Model, ModelArgs

    config = json.loads((FIXTURES / "llama" / "config.published.json").read_text())
    stock = {name for name, _ in tree_flatten(Model(ModelArgs.from_dict(config)).parameters())}
    assert {name for name in found - stock if "norm" not in name} == set()


def test_two_of_a_kind_keep_the_names_of_the_file() -> None:
    *_, parallel, twice = compiled().plan().layers
    assert module_names(parallel) == {"attn": "self_attn", "mlp": "mlp"}
    assert module_names(twice) == {}
    data = description("b", b=["self_attn", "swa"])
    data["components"] |= {"self_attn": {"type": "axon_ssm"}, "swa": {"type": "attention", "num_heads": 4}}
    assert module_names(axon_compose.load(data).plan().layers[0]) == {}  # taken by the state space layer


@pytest.mark.parametrize("more", [{}, ENDS, {"head": {"tied": False, "bias": True}}], ids=["plain", "ends", "head"])
def test_a_folder_computes_what_was_built(tmp_path: Path, more: dict[str, Any]) -> None:
    described = compiled(**more)
    model = loaded(folder(described, tmp_path / "m"))
    assert same(model, build(described.plan()))
    assert {len(path.split(".")) for path in paths(model) if ".layers." not in path} <= {1, 2}
    copied = copy.deepcopy(model)
    assert same(copied, model)
    model.train()
    assert model.embedding.training
    assert close(model(tokens(1, 9)), copied(tokens(1, 9)))


def test_a_model_that_nobody_needs_is_gone_at_once(tmp_path: Path) -> None:
    """Weights may be most of the memory, so they do not wait for the garbage collector. A copy is divided by itself."""
    model = loaded(folder(compiled(), tmp_path / "m"))
    mx.eval(model(tokens(1, 9), model.make_cache()))
    copied, gone = copy.deepcopy(model), ref(model)
    gc.disable()
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()
    layers = len(copied.layers)
    copied.model.pipeline(ring_of(2)[0])
    assert len(copied.layers) < layers
    stack = copied.model
    del copied
    with pytest.raises(ValueError, match="the model of these layers is gone"):
        stack.pipeline(ring_of(2)[0])


def test_keys_of_initial_values_do_not_stay(tmp_path: Path) -> None:
    """Weights are lazy and replaced; MLX's state would be made of every key that they were to be drawn with."""
    path = folder(compiled(), tmp_path / "m")
    model = loaded(path)
    assert not waiting(mx.random.state[0])
    model.keep_part(Shard(0, 2, lambda array: array, lambda array: array))
    assert not waiting(mx.random.state[0])
    nn.Linear(2, 2)
    assert waiting(mx.random.state[0])


def waiting(array: mx.array) -> bool:
    """Whether an array is still to be computed."""
    graph = io.StringIO()
    mx.export_to_dot(graph, array)
    return "label" in graph.getvalue()


def paths(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that recipes may change."""
    return {path: module for path, module in model.named_modules() if hasattr(module, "to_quantized")}


def test_what_replaces_a_part_of_the_ends_is_used(tmp_path: Path) -> None:
    """Not only linear layers: arrays by `update`, modules by `update_modules`."""
    model = loaded(folder(compiled(**ENDS), tmp_path / "m"))
    for path in ("model.embed_tokens", "model.embed_tokens_in_proj", "lm_head_out_proj"):
        before = model(tokens(1, 5))
        holder, _, key = path.rpartition(".")
        inner = model[holder] if holder else model
        inner[key] = copy.deepcopy(inner[key])
        inner[key].weight = inner[key].weight * 2
        assert not close(model(tokens(1, 5)), before), path
    before = model(tokens(1, 5))
    model.update({"lm_head_bias": model["lm_head_bias"] + mx.arange(259)})
    assert close(model(tokens(1, 5)), before + mx.arange(259))


@pytest.mark.parametrize("recipe", ["mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6"])
@pytest.mark.parametrize("more", [{}, ENDS], ids=["plain", "ends"])
def test_the_recipes_for_mixed_bits(tmp_path: Path, recipe: str, more: dict[str, Any]) -> None:
    model = loaded(folder(compiled(**more), tmp_path / "m"))
    predicate = mixed_quant_predicate_builder(recipe, model, 32)
    model, config = quantize_model(model, {}, 32, 4, quant_predicate=predicate)
    bits = {path: how["bits"] for path, how in config["quantization"].items() if isinstance(how, dict)}
    low, high = (int(digit) for digit in recipe.split("_")[1:])
    assert bits["model.layers.1.self_attn.q_proj"] == low
    assert {bits["model.layers.0.ssm.in_proj"], bits["model.layers.3.attn.v_proj"]} == {low, high}
    assert mx.isfinite(model(tokens(1, 9))).all().item()


def test_keys_for_lora_find_their_layers(tmp_path: Path) -> None:
    model = loaded(folder(compiled(), tmp_path / "m"))
    keys = ["self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj", "mlp.switch_mlp.down_proj"]
    linear_to_lora_layers(model, 4, {"rank": 4, "scale": 2.0, "dropout": 0.0, "keys": keys})
    found = {path.removesuffix(".lora_a") for path, _ in tree_flatten(model.parameters()) if path.endswith("lora_a")}
    assert found == {
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.self_attn.v_proj",
        "model.layers.1.mlp.switch_mlp.down_proj",
        "model.layers.2.self_attn.q_proj",
        "model.layers.2.self_attn.v_proj",
        "model.layers.2.mlp.down_proj",
    }


def test_a_model_in_memory_has_the_names_too() -> None:
    model = build(compiled(**ENDS).plan())
    view = with_folder_names(model)
    assert same(view, model)
    view.model.layers[1].self_attn.q_proj.weight *= 0
    assert not mx.any(model.layers[1].swa.q_proj.weight).item()
    names = FolderNames(model.plan)
    mine = {names.in_folder(name): value.shape for name, value in tree_flatten(model.parameters())}
    assert mine == {name: value.shape for name, value in tree_flatten(view.parameters())}


def as_version_0_1(path: Path, plan: Any) -> None:
    """What version 0.1 wrote: the plan's names and no note of them."""
    names = FolderNames(plan)
    file = path / "model.safetensors"
    weights = {names.in_plan(name): value for name, value in mx.load(str(file)).items()}
    mx.eval(weights)
    mx.save_safetensors(str(file), weights, metadata={"format": "mlx"})
    config = json.loads((path / "config.json").read_text())
    config[CONFIG_KEY].pop("names")
    kept = ("group_size", "bits", "mode")
    if how := config.get("quantization"):
        config["quantization"] = {key if key in kept else names.in_plan(key): value for key, value in how.items()}
    (path / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("options", [{}, {"quantize_bits": 4}], ids=["plain", "quantised"])
def test_folders_of_version_0_1(tmp_path: Path, options: dict[str, Any]) -> None:
    described = compiled(dims={"hidden_size": 64, "vocab_size": 259})
    new = folder(described, tmp_path / "new", **options)
    old = Path(shutil.copytree(new, tmp_path / "old"))
    as_version_0_1(old, described.plan())
    model = loaded(old)
    assert {"embedding", "layers", "norm", "head"} >= set(model.keys())
    assert same(model, loaded(new))


def test_adapters_of_version_0_1(tmp_path: Path) -> None:
    described = compiled()
    old = folder(described, tmp_path / "old")
    as_version_0_1(old, described.plan())
    settings = {"num_layers": 4, "lora_parameters": {"rank": 4, "scale": 2.0, "dropout": 0.0, "keys": ["swa.q_proj"]}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    adapter = {"lora_a": mx.ones((32, 4)), "lora_b": mx.ones((4, 32))}
    named = {f"layers.1.swa.q_proj.{name}": value for name, value in adapter.items()}
    mx.save_safetensors(str(tmp_path / "adapters.safetensors"), named)
    model = loaded(old)
    before = model(tokens(1, 9))
    assert not close(load_adapters(model, str(tmp_path))(tokens(1, 9)), before)


def test_layers_equal_those_that_gptq_looks_for(tmp_path: Path) -> None:
    model: LanguageModel = loaded(folder(compiled(), tmp_path / "m"))
    kinds = {path: type(module) in {nn.Linear, SwitchLinear} for path, module in model.named_modules()}
    assert kinds["model.layers.1.self_attn.q_proj"]
    assert kinds["model.layers.1.mlp.switch_mlp.up_proj"]
    assert not kinds["model.layers.0.ssm.dt_proj"]  # 2 wide: no group of quantised numbers divides that
    assert "model.layers.0.ssm.dt_proj" not in paths(model)
