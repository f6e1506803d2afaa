"""Folders of ours back to what stock loaders read: the same bytes under the same names, the same logits in mlx-lm."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import make_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from mlx_lm.models.base import BaseModelArgs
from mlx_lm.utils import load_model, save_config, save_model
from transformers import AutoTokenizer

from axon_compose import load
from axon_compose.checkpoints.export import KINDS, Kind, export
from axon_compose.checkpoints.files import BUILD_FILE, CheckpointError, read_safetensors, verify
from axon_compose.checkpoints.folder import write_model
from axon_compose.checkpoints.huggingface import families, whole_config
from axon_compose.checkpoints.upstream._stock import stock_fields, stock_type
from axon_compose.cli import main
from axon_compose.cli._building_flags import KINDS as TOLD
from axon_compose.model.names import CONFIG_KEY
from axon_compose.registry import Registry
from tests.families.models import FIXTURES, NAMES, copied, difference, expected
from tests.plan.concrete.test_unroll import everything

#: Tensors of published checkpoints that no model uses.
IDLE = {
    "mimo": ("mtp_layers.0.input_layernorm.weight",),
    "longcat_flash": tuple(f"experts.{e}.{name}_proj.weight" for e in (6, 7, 8) for name in ("gate", "up")),
    "gpt_neox": (".bias", ".masked_bias", ".inv_freq"),
    "gpt_neox_sequential": (".bias", ".masked_bias", ".inv_freq"),
    "gemma3n_text": ("k_proj.weight", "k_norm.weight", "v_proj.weight"),
    "gemma4_text": ("k_proj.weight", "k_norm.weight", "v_proj.weight"),
    "step3p5": ("layers.5.enorm.weight", "layers.5.self_attn.o_proj.weight"),
}
#: Text models that a checkpoint has inside of another one: exported by themselves, they have other names.
INSIDE = {"muse_spark"}
#: Where mlx-lm computes what the reference does.
RIGHT = [
    "cohere2", "gemma4_text", "granitemoehybrid_dense", "lfm2", "llama", "mixtral", "nemotron_h_latent", "olmo2",
    "qwen3_moe", "qwen3_next",
]  # fmt: skip
SMALL = {
    "hidden_size": 64, "vocab_size": 320, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "intermediate_size": 128, "moe_intermediate_size": 64, "num_experts": 4, "num_local_experts": 4,
    "n_routed_experts": 8, "num_experts_per_tok": 2, "shared_expert_intermediate_size": 64, "q_lora_rank": 24,
    "kv_lora_rank": 64, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "n_group": 1, "topk_group": 1,
    "mamba_num_heads": 8, "mamba_n_heads": 8, "mamba_head_dim": 16, "mamba_d_state": 8, "ssm_state_size": 8,
    "n_groups": 1, "moe_shared_expert_intermediate_size": 64, "hybrid_override_pattern": "M-M*-ME",
    "shared_intermediate_size": 64, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "block_multiple_of": 16, "mamba_d_head": 16, "num_heads": 8, "state_size": 8,
}  # fmt: skip
SETTINGS = {
    "lfm2": ["dims.layer_types=[conv, full_attention, conv, full_attention]"],
    "granitemoehybrid": ["dims.layer_types=[mamba, attention, mamba, attention]"],
    "mamba2": ["dims.head_dim=16"],
    "gemma3_text": ["dims.sliding_window_pattern=2"],
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer for the few tokens that the fixtures have."""
    folder = tmp_path_factory.mktemp("tokenizer")
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    return folder


def arrays(folder: Path) -> dict[str, mx.array]:
    found: dict[str, mx.array] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        found.update(mx.load(str(path)))
    return found


def same(found: mx.array, wanted: mx.array) -> bool:
    alike = (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    return alike and bool(mx.array_equal(found.reshape(-1).view(mx.uint8), wanted.reshape(-1).view(mx.uint8)))


def told(folder: Path) -> Any:
    return json.loads((folder / "config.json").read_text())


def built(name: str, place: Path, tokenizer: Path, config: str = "config.json", **options: Any) -> Path:
    """A fixture, built into a folder of ours."""
    source = copied(name, place / "source", config)
    write_model(load(checkpoint=source), place / "ours", weights=source, tokenizer=tokenizer, **options)
    return place / "ours"


def random_model(name: str, folder: Path, *settings: str, **options: Any) -> tuple[mx.array, np.ndarray]:
    """A folder with random weights of a small model, tokens, and the logits that it gives for them."""
    dims = load(name).document.dims
    small = [f"dims.{key}={value}" for key, value in SMALL.items() if key in dims]
    write_model(load(name, settings=[*small, *SETTINGS.get(name, []), *settings]), folder, **options)
    tokens = mx.array(np.random.default_rng(1).integers(0, 320, (2, 20)))
    return tokens, np.array(load_model(folder, trust_remote_code=True)[0](tokens))


#: Text models that are exported as a type that loaders know.
RENAMED = {"qwen2_vl": "qwen2", "qwen3_vl": "qwen3", "qwen3_vl_moe": "qwen3_moe", "gemma4_unified": "gemma4_text"}


@pytest.mark.parametrize("name", RENAMED)
def test_a_text_model_is_exported_alone(name: str, tmp_path: Path, tokenizer: Path) -> None:
    ours = built(name, tmp_path, tokenizer)
    tokens, reference = expected(name)
    for kind in KINDS:
        export(ours, tmp_path / kind, kind)
        assert told(tmp_path / kind)["model_type"] == RENAMED[name]
        again = load(checkpoint=tmp_path / kind)
        assert again.name == RENAMED[name]
        assert difference(again.build(weights=tmp_path / kind)(tokens), reference) < 2e-5
    assert any(".experts.0." in key for key in arrays(tmp_path / "huggingface")) == ("moe" in name)
    if name != "qwen2_vl":  # whose windows mlx-lm ignores
        assert difference(load_model(tmp_path / "mlx-lm", strict=True)[0](tokens), reference) < 2e-5


class Exported(NamedTuple):
    """A fixture, and the folders that were made of it, which no test changes."""

    name: str
    source: Path
    ours: Path
    huggingface: Path


@pytest.fixture(scope="module", params=[pytest.param(n, marks=pytest.mark.xdist_group(f"family-{n}")) for n in NAMES])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tokenizer: Path
) -> Iterator[Exported]:
    """Each fixture by its config.json, built and exported once for the tests of what came out."""
    name = str(request.param)
    place = tmp_path_factory.mktemp(name)
    ours = built(name, place, tokenizer)
    export(ours, place / "huggingface", "huggingface")
    yield Exported(name, place / "source", ours, place / "huggingface")
    shutil.rmtree(place)


def test_there_and_back(exported: Exported) -> None:
    name, ours, target = exported.name, exported.ours, exported.huggingface
    if name in RENAMED or name in INSIDE:
        pytest.skip(f"{name} is a part of its checkpoint")
    wanted, found = arrays(FIXTURES / name), arrays(target)
    config, rules = told(FIXTURES / name), told(ours)[CONFIG_KEY]["architecture"]["huggingface"]["weights"]
    if name == "gpt_oss_mxfp4":  # decoded: Hugging Face's name for it is that of the plain weights
        wanted = {key: value for key, value in wanted.items() if not key.endswith(("_blocks", "_scales"))}
        decoded = {key for key in found if key.endswith(("experts.gate_up_proj", "experts.down_proj"))}
        assert len(decoded) == 2 * config["num_hidden_layers"]
        found = {key: value for key, value in found.items() if key not in decoded}
        del config["quantization_config"]
        config["dtype"] = "bfloat16"
    lost = wanted.keys() - found.keys()
    assert found.keys() <= wanted.keys()
    assert all(key.endswith(IDLE.get(name, ())) for key in lost)
    assert bool(lost) == (name in IDLE)
    for key in found:
        if isinstance(rules.get(key), dict) and rules[key].get("unit_rows"):  # as the published code makes them
            unit = wanted[key] / mx.linalg.norm(wanted[key], axis=-1, keepdims=True)
            assert mx.allclose(found[key], unit, rtol=1e-5, atol=0)
            found[key] = wanted[key]
    assert [key for key in found if not same(found[key], wanted[key])] == []
    assert told(target) == config
    assert {read_safetensors(path).metadata["format"] for path in target.glob("*.safetensors")} == {"pt"}


#: Why mlx-lm does not load the export of a fixture.
REFUSED = {
    "hy_v4": "there is no such model",
    "laguna": "the output gate has one number for each head",
    "arcee": "arcee not supported",
    "glm_moe_dsa": "every layer has an indexer",
    "gemma3n_text": "Gemma 3n is read as gemma3n alone",
    "deepseek_v2": "mlp_bias is ignored",
    "deepseek_v2_lite": "without rope_scaling is refused",
    "dots1": "have no bias",
    "gpt2": "n_inner is ignored",
    "minimax": "the type minimax is that of MiniMax-M2",
    "gptj": "n_inner is ignored",
    "gpt_neox": "intermediate_size is ignored",
    "jamba": "expert_layer_offset",
    "minimax_m3": "Model type minimax_m3_vl_text not supported",
    "mimo_v2_flash": "ModelArgs.__init__() missing",
    "llama4_text": "have no experts",
    "mellum": "mlp_layer_types is ignored",
    "olmo": "AI2's first format",
    "phi": "qk_layernorm is ignored",
    "qwen2_moe": "mlp_only_layers is ignored",
    "stablelm_parallel": "tie_word_embeddings is ignored",
}


def test_every_export_is_imported_again(exported: Exported, tmp_path: Path) -> None:
    imported_again(exported, tmp_path)


@pytest.mark.parametrize("name", [name for name in NAMES if (FIXTURES / name / "config.published.json").exists()])
def test_every_export_of_an_older_configuration_is_imported_again(name: str, tmp_path: Path, tokenizer: Path) -> None:
    ours = built(name, tmp_path, tokenizer, "config.published.json")
    export(ours, tmp_path / "huggingface", "huggingface")
    imported_again(Exported(name, tmp_path / "source", ours, tmp_path / "huggingface"), tmp_path)


def imported_again(exported: Exported, tmp_path: Path) -> None:
    """Both exports are the model that was built, and stock mlx-lm loads its own or it is said why not."""
    name, ours = exported.name, exported.ours
    plan = load(checkpoint=exported.source).plan()
    whole = told(FIXTURES / name)
    unknown = not stock_fields(stock_type(whole.get("text_config", whole)))
    for kind in KINDS:
        if kind == "mlx-lm" and unknown and name not in {*RENAMED, *REFUSED}:
            error = refusal(ours, tmp_path, kind)
            assert error.code == "AX620"
            assert "not supported" in error.message
            continue
        if kind == "mlx-lm" and name in REFUSED:
            error = refusal(ours, tmp_path, kind)
            assert error.code == "AX620"
            assert error.help is not None
            assert REFUSED[name] in f"{error.message} {error.help}"
            continue
        folder = exported.huggingface
        if kind == "mlx-lm":
            folder = tmp_path / kind
            export(ours, folder, kind)
            load_model(folder, strict=True)
        again = load(checkpoint=folder)
        assert everything(again.plan()) == everything(plan)
        weights = dict(tree_flatten(again.build(weights=folder).parameters()))
        assert weights.keys() == dict(plan.parameters()).keys()


def odd_llama() -> ModuleType:
    """A Llama of mlx-lm that wants an argument which no config.json has."""
    odd = ModuleType("mlx_lm.models.odd")
    odd.Model = llama.Model  # type: ignore[attr-defined]
    odd.ModelArgs = make_dataclass(  # type: ignore[attr-defined]
        "ModelArgs", [("model_type", str), ("oddness", float)], bases=(BaseModelArgs,)
    )
    return odd


def test_an_export_that_mlx_lm_refuses_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three kinds: tensors under names that it does not know, arguments that it lacks, a model that it lacks."""
    random_model("llama", tmp_path / "split")
    rules = json.loads((tmp_path / "split" / "config.json").read_text())
    section = rules["axon_compose"]["architecture"]["huggingface"]
    section["weights"] |= {"model.layers.<l>.self_attn.query": section["weights"].pop("model.layers.<l>.self_attn")}
    (tmp_path / "split" / "config.json").write_text(json.dumps(rules))
    error = refusal(tmp_path / "split", tmp_path, "mlx-lm")
    assert error.code == "AX620"
    assert "self_attn.query" in error.message
    monkeypatch.setitem(sys.modules, "mlx_lm.models.odd", odd_llama())
    for model_type, reason in (("odd", "missing"), ("odder", "not supported")):
        name = f"of-{model_type}"
        random_model("llama", tmp_path / name, f"huggingface.model_types=[{model_type}]", "huggingface.write={}")
        error = refusal(tmp_path / name, tmp_path, "mlx-lm")
        assert error.code == "AX620"
        assert reason in error.message
        export(tmp_path / name, tmp_path / f"{name}-hf", "huggingface")


def test_infinity_is_written_as_it_stood(tmp_path: Path, tokenizer: Path) -> None:
    ours = built("falcon_h1", tmp_path, tokenizer, "config.published.json")
    export(ours, tmp_path / "back", "huggingface")
    assert told(tmp_path / "back") == told(tmp_path / "source")
    assert told(tmp_path / "back")["time_step_limit"][1] == float("inf")


@pytest.mark.parametrize("name", RIGHT)
def test_mlx_lm_computes_the_same(name: str, tmp_path: Path, tokenizer: Path) -> None:
    tokens, reference = expected(name)
    published = built(name, tmp_path, tokenizer, "config.published.json")
    export(published, tmp_path / "huggingface", "huggingface")
    assert difference(load_model(tmp_path / "huggingface")[0](tokens), reference) < 2e-5
    newer = tmp_path / "newer"
    newer.mkdir()
    export(built(name, newer, tokenizer), newer / "mlx", "mlx-lm")  # its fields are put into those that mlx-lm reads
    assert difference(load_model(newer / "mlx")[0](tokens), reference) < 2e-5
    assert read_safetensors(newer / "mlx" / "model.safetensors").metadata["format"] == "mlx"


@pytest.mark.parametrize("name", ["llama", "qwen3_moe", "qwen3_next", "deepseek_v3", "nemotron_h", "phi3", "gpt_oss"])
def test_quantised_weights_stay_as_they_are(name: str, tmp_path: Path) -> None:
    tokens, logits = random_model(name, tmp_path / "ours", quantize_bits=4)
    export(tmp_path / "ours", tmp_path / "mlx", "mlx-lm")
    config = told(tmp_path / "mlx")
    assert config["quantization"]["bits"] == 4
    model = load_model(tmp_path / "mlx")[0]
    assert difference(model(tokens), logits) < 1e-5
    ours = sum(value.dtype == mx.uint32 for value in arrays(tmp_path / "ours").values())
    theirs = sum(hasattr(module, "bits") for _, module in model.named_modules())
    assert theirs > ours / 2  # a split that was joined again is one of theirs


def test_bits_that_differ_are_told_by_their_names(tmp_path: Path) -> None:
    random_model("qwen3_moe", tmp_path / "ours")
    model, config = load_model(tmp_path / "ours", trust_remote_code=True)

    def bits(path: str, module: nn.Module) -> Any:
        if not hasattr(module, "to_quantized"):
            return False
        return {"group_size": 32, "bits": 8} if path.endswith("down_proj") else {"group_size": 64, "bits": 4}

    nn.quantize(model, class_predicate=bits)
    tokens = mx.array([[5, 9, 2, 7]])
    logits = np.array(model(tokens))
    mixed = copied_folder(tmp_path / "ours", tmp_path / "mixed")
    save_model(mixed, model)
    save_config(config, mixed / "config.json")
    export(mixed, tmp_path / "mlx", "mlx-lm")
    written = told(tmp_path / "mlx")["quantization"]
    assert (written["bits"], written["group_size"]) == (4, 64)
    assert written["model.layers.0.mlp.switch_mlp.down_proj"] == {"group_size": 32, "bits": 8, "mode": "affine"}
    assert difference(load_model(tmp_path / "mlx")[0](tokens), logits) < 1e-5


def copied_folder(source: Path, target: Path) -> Path:
    """A folder without its weights."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors*"))
    return target


def test_what_mlx_lm_fused_is_exported(tmp_path: Path, tokenizer: Path) -> None:
    """As `mlx_lm.fuse` writes it: other weights, the configuration written again, no record of a build."""
    ours = built("qwen3_next", tmp_path, tokenizer, "config.published.json")
    model, config = load_model(ours, trust_remote_code=True)
    moved = [
        (key, value + 0.01) if "q_proj" in key else (key, value) for key, value in tree_flatten(model.parameters())
    ]
    model.load_weights(moved)
    fused = copied_folder(ours, tmp_path / "fused")
    (fused / BUILD_FILE).unlink()
    save_model(fused, model)
    save_config(config, fused / "config.json")
    export(fused, tmp_path / "back", "huggingface")
    tokens, reference = expected("qwen3_next")
    logits = load_model(tmp_path / "back")[0](tokens)
    assert difference(logits, np.array(model(tokens))) < 2e-5
    assert difference(logits, reference) > 1e-3
    assert told(tmp_path / "back") == told(tmp_path / "source")


def test_another_type_of_weights_is_told(tmp_path: Path, tokenizer: Path) -> None:
    export(built("llama", tmp_path, tokenizer, dtype="bfloat16"), tmp_path / "back", "huggingface")
    assert told(tmp_path / "back") == told(FIXTURES / "llama") | {"dtype": "bfloat16"}


def test_sizes_that_were_set_are_written_where_they_are_read(tmp_path: Path, tokenizer: Path) -> None:
    settings = ["dims.rms_norm_eps=0.002", "dims.rope_theta=777.0", "dims.rope_scaling={type: linear, factor: 3.0}"]
    for config in ("config.json", "config.published.json"):
        place = tmp_path / config
        place.mkdir()
        source = copied("llama", place / "source", config)
        write_model(load(checkpoint=source, settings=settings), place / "ours", weights=source, tokenizer=tokenizer)
        export(place / "ours", place / "back", "huggingface")
        again = load(checkpoint=place / "back").document.dims
        assert again["rms_norm_eps"] == 0.002
        assert again["rope_theta"] == 777.0
        assert again["rope_scaling"] == {"type": "linear", "factor": 3.0}


def test_a_text_model_inside_another_becomes_one_of_its_own(tmp_path: Path, tokenizer: Path) -> None:
    source = copied("gemma3_text", tmp_path / "source")
    inner = told(source)
    top = {"eos_token_id": inner.pop("eos_token_id"), "image_token_index": 7, "vision_config": {"hidden_size": 8}}
    (source / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": inner, **top}))
    write_model(load(checkpoint=source), tmp_path / "ours", weights=source, tokenizer=tokenizer)
    export(tmp_path / "ours", tmp_path / "back", "huggingface")
    assert told(tmp_path / "back") == told(FIXTURES / "gemma3_text")


#: All families in which mlx-lm does what it should with such sizes.
@pytest.mark.parametrize(
    "name",
    ["cohere2", "deepseek_v3", "falcon_h1", "gemma3_text", "gpt_oss", "granitemoehybrid", "lfm2", "llama", "mamba2",
     "mixtral", "nemotron_h", "phi3", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next"],
)  # fmt: skip
def test_random_weights_get_a_configuration(name: str, tmp_path: Path) -> None:
    tokens, logits = random_model(name, tmp_path / "ours")
    for kind in KINDS if name != "gpt_oss" else ("mlx-lm",):
        if (name, kind) in {("lfm2", "huggingface")}:
            continue  # wants fields that only older configurations have
        export(tmp_path / "ours", tmp_path / kind, kind)
        limit = 5e-3 if name == "gemma3_text" else 2e-5  # mlx-lm rounds its embedding factor to bfloat16
        assert difference(load_model(tmp_path / kind)[0](tokens), logits) < limit
        assert told(tmp_path / kind)["eos_token_id"] == told(tmp_path / "ours")["eos_token_id"]


def test_every_family_gets_a_configuration_that_reads_back(tmp_path: Path) -> None:
    """`export` refuses what does not; here with the default sizes of every family, without weights."""
    for family in families(Registry.installed()):
        ours = load(family.name)
        section, dims = ours.document.huggingface, ours.document.dims
        assert section is not None
        (tmp_path / "config.json").write_text(json.dumps(whole_config(section, dims, dims)))
        again = load(checkpoint=tmp_path)
        exported = {of_type.export_as for of_type in section.per_type.values()}
        assert again.name == family.name or told(tmp_path)["model_type"] in exported
        assert everything(again.plan()) == everything(ours.plan())


def test_llama_with_a_window_is_a_mistral(tmp_path: Path) -> None:
    random_model("llama", tmp_path / "ours", "dims.sliding_window=8")
    record = export(tmp_path / "ours", tmp_path / "mlx", "mlx-lm")
    assert told(tmp_path / "mlx")["model_type"] == "mistral"
    assert [fault["name"] for fault in record["upstream_faults"]] == ["window-ignored"]


def test_an_export_names_the_faults_that_its_file_carries(tmp_path: Path) -> None:
    fault = (
        "{name: odd, peer: PEER, what: sums are odd, right: even, when: =tokens > 8, settings: {dims.rope_theta: 1.0}}"
    )
    peers: dict[Kind, str] = {"mlx-lm": "mlx-lm", "huggingface": "transformers"}
    for kind, peer in peers.items():
        random_model("llama", tmp_path / peer, f"huggingface.faults=[{fault.replace('PEER', peer)}]")
        assert export(tmp_path / peer, tmp_path / f"{peer}-out", kind)["upstream_faults"] == [
            {"name": "odd", "owner": peer, "what": "sums are odd", "right": "even"}
        ]


@pytest.mark.parametrize(("family", "forced"), [("qwen2", True), ("qwen3", False), ("phi3", False), ("olmo2", False)])
def test_an_export_says_where_transformers_takes_another_tokenizer(family: str, forced: bool, tmp_path: Path) -> None:
    """Beside some model types it splits text by a class of its own, whatever tokenizer.json says."""
    random_model(family, tmp_path / "ours")
    record = export(tmp_path / "ours", tmp_path / "out", "huggingface")
    assert [fault["name"] for fault in record["upstream_faults"]].count("tokenizer-class") == forced
    ours, theirs = (AutoTokenizer.from_pretrained(tmp_path / folder) for folder in ("ours", "out"))
    assert (ours.encode("e\u0301") != theirs.encode("e\u0301")) is forced  # that class composes letters


def run(*arguments: object) -> int:
    return main(["export", *map(str, arguments)])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random_model("qwen3", tmp_path / "ours")
    assert run(tmp_path / "ours", "--to", "mlx-lm") == 0
    target = tmp_path / "ours-mlx-lm"
    said = capsys.readouterr()
    assert said.out.startswith(f"wrote {target}: qwen3 as a stock `qwen3`, ")
    assert "mlx_lm.generate --model" in said.err
    files = {path.name for path in target.iterdir()}
    assert {"config.json", "generation_config.json", "tokenizer.json", "model.safetensors", BUILD_FILE} <= files
    assert not any(name.endswith(".py") for name in files)
    assert not {"axon_compose", "model_file"} & told(target).keys()
    verify(target)
    assert run(tmp_path / "ours", "--to", "mlx-lm") == 2
    assert "AX501" in capsys.readouterr().err
    assert run(tmp_path / "ours", "--to", "mlx-lm", "--force", "--json") == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert (result["out"], result["model_type"], result["exported"]) == (str(target), "qwen3", "mlx-lm")


def test_kinds_of_the_command() -> None:
    assert tuple(KINDS) == TOLD


def refusal(folder: Path, place: Path, kind: Any = "huggingface") -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        export(folder, place / "out", kind)
    assert not (place / "out").exists()
    return caught.value


def test_quantised_weights_have_no_layout_of_hugging_face(tmp_path: Path) -> None:
    random_model("llama", tmp_path / "ours", quantize_bits=4)
    error = refusal(tmp_path / "ours", tmp_path)
    assert error.code == "AX559"
    assert error.help is not None
    assert "--to mlx-lm" in error.help
    assert run(tmp_path / "ours", "--to", "huggingface") == 2


def test_other_folders_are_refused(tmp_path: Path) -> None:
    assert refusal(FIXTURES / "llama", tmp_path).code == "AX560"
    assert refusal(tmp_path / "nowhere", tmp_path).code == "AX560"


def test_files_without_rules_or_model_type_are_refused(tmp_path: Path) -> None:
    write_model(load("hybrid-demo", settings=["dims.hidden_size=64", "dims.vocab_size=320"]), tmp_path / "plain")
    assert refusal(tmp_path / "plain", tmp_path).code == "AX557"
    random_model("llama", tmp_path / "ours", "huggingface.model_types=[]")
    assert refusal(tmp_path / "ours", tmp_path).code == "AX609"


def test_a_model_that_no_configuration_says_is_refused(tmp_path: Path) -> None:
    random_model("qwen3", tmp_path / "ours", "components.attn.qk_norm=null")
    error = refusal(tmp_path / "ours", tmp_path)
    assert error.code == "AX610"
    assert error.message == "a stock `qwen3` would be a different model"
    assert any("attn.qk_norm none → " in line for line in error.details)
    assert not re.search(r"\[['\"]", str(error)), "no list of Python"
    assert "no field of config.json says this" in str(error.help)


def edited(name: str, place: Path, tokenizer: Path, *settings: str) -> Path:
    """A fixture imported as a file of sizes, changed there, and built into a folder of ours."""
    source = copied(name, place / "source")
    assert main(["import", str(source), "-o", str(place / "file.yaml")]) == 0
    changed = load(place / "file.yaml", checkpoint=source, settings=settings)
    write_model(changed, place / "ours", weights=source, tokenizer=tokenizer)
    return place / "ours"


@pytest.mark.parametrize(
    ("name", "settings", "fields"),
    [
        ("gemma2", ["components.local.window_size=3"], {"sliding_window": 3}),
        ("gpt_oss", ["components.local.window_size=3"], {"sliding_window": 3}),
        ("mixtral", ["components.moe.top_k=1"], {"num_experts_per_tok": 1}),
        ("mixtral", ["components.attn.window_size=5"], {"sliding_window": 5}),  # which a formula hands on
        ("llama", ["components.attn.rope.theta=5000.0", "norm.eps=0.001"], {"rms_norm_eps": 0.001}),
        ("gemma2", ["head.softcap=7.0"], {"final_logit_softcapping": 7.0}),
    ],
)
def test_a_changed_option_goes_to_the_field_that_says_it(
    name: str, settings: list[str], fields: dict[str, Any], tmp_path: Path, tokenizer: Path
) -> None:
    """The file of an import has numbers, not dims: what is changed there is found again in config.json."""
    folder = edited(name, tmp_path, tokenizer, *settings)
    export(folder, tmp_path / "back", "huggingface")
    config = told(tmp_path / "back")
    assert {field: config[field] for field in fields} == fields
    again, ours = load(checkpoint=tmp_path / "back"), load(tmp_path / "file.yaml", settings=settings)
    assert not ours.diff(again)


@pytest.mark.parametrize(
    ("name", "settings", "line", "help_"),
    [
        (
            "gemma2",
            ["components.local.scale=0.5"],
            "layers 0, 2, 4: local.scale 0.5 → 0.204124145232 (made of `query_pre_attn_scalar`)",
            "change `query_pre_attn_scalar` instead",
        ),
        (
            "mixtral",
            ["overrides=[{layers: 0, set: {attn.rope.theta: 5.0}}]"],
            "layer 0: attn.rope.theta 5 → ",
            "change `rope_theta` instead",
        ),
        ("olmo2", ["norm.eps=0.001"], "eps 0.001 → 3e-05 (made of `rms_norm_eps`)", "change `rms_norm_eps` instead"),
        ("llama", ["components.attn.softcap=3.0"], "attn.softcap 3 → none", "no field of config.json says this"),
    ],
)
def test_what_a_field_cannot_say_names_it(
    name: str, settings: list[str], line: str, help_: str, tmp_path: Path, tokenizer: Path
) -> None:
    error = refusal(edited(name, tmp_path, tokenizer, *settings), tmp_path)
    assert error.code == "AX610"
    assert any(line in told for told in error.details)
    assert help_ in str(error.help)


def test_a_folder_is_not_replaced_by_its_export(tmp_path: Path) -> None:
    random_model("qwen3", tmp_path / "ours")
    with pytest.raises(CheckpointError, match="AX502"):
        export(tmp_path / "ours", tmp_path / "ours", "mlx-lm", force=True)
    assert "axon_compose" in told(tmp_path / "ours")
