"""`verify` against mlx-lm: what agrees, where a planted difference begins, and which faults are known."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

from axon_compose import load
from axon_compose.checkpoints.upstream import FAULTS, faults_of, older_fields
from axon_compose.cli import main
from axon_compose.cli._arguments import PEERS as _PEERS
from axon_compose.proof.verify import PEERS, PeerReport, Verification, trace, verify
from axon_compose.proof.verify import _verify as module
from axon_compose.proof.verify._mlx_lm import run_mlx_lm
from axon_compose.proof.verify._transformers import _not_computed
from axon_compose.report import PLAIN
from axon_compose.report._verify import verify_text
from tests.families.models import FIXTURES, SETTINGS, difference, expected, model

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
UNEVEN = [f"{'full' if at % 2 else 'sliding'}_attention" for at in range(7)]
BOTH = sorted(folder.parent.name for folder in FIXTURES.glob("*/config.published.json"))


def copied(name: str, place: Path, *, published: bool = True, **changes: Any) -> Path:
    """A fixture of its own, with the configuration that mlx-lm reads."""
    source, folder = FIXTURES / name, place / name
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(source / "model.safetensors")
    config = json.loads((source / ("config.published.json" if published else "config.json")).read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def with_mlx_lm(folder: Path, **options: Any) -> PeerReport:
    return verify(folder, against=["mlx-lm"], **{"tokens": 24, **options}).peers[0]


@pytest.mark.parametrize("name", ["llama", "qwen2", "mixtral", "cohere2", "olmo2", "olmo_hybrid"])
def test_agrees(name: str, tmp_path: Path) -> None:
    peer = with_mlx_lm(copied(name, tmp_path, published=name in BOTH))
    assert peer.status == "ok"
    assert peer.forward is not None
    assert peer.cached is not None
    assert 0 < peer.forward < 1e-5
    assert 0 < peer.cached < 1e-5
    assert peer.same == 1.0


@pytest.mark.parametrize(
    ("name", "changes", "options", "faults"),
    [
        ("gemma2", {}, {}, ["window-ignored"]),
        ("gemma3_text", {}, {}, ["rounded-scale"]),
        ("deepseek_v3", {}, {"seed": 1, "tokens": 40}, ["groups-at-zero"]),
        ("deepseek_v32", {}, {"seed": 1, "tokens": 64}, ["indexer-norm-eps"]),
        ("mixtral", {"rope_scaling": {"type": "linear", "factor": 2.0}}, {}, ["rope-scaling-ignored"]),
        ("mistral", {"sliding_window": 8}, {}, ["window-ignored"]),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}, {}, ["window-ignored"]),
        ("cohere2", {"layer_types": UNEVEN}, {}, ["layer-types-ignored"]),
        ("cohere2", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, {}, ["rope-scaling-ignored"]),
        ("llama", {"rope_scaling": YARN | {"truncate": False}}, {}, ["truncate-ignored"]),
        ("qwen3", {"rope_scaling": YARN | {"attention_factor": 0.7}}, {}, ["attention-factor-ignored"]),
        ("qwen3_next", {"rope_scaling": YARN | {"attention_factor": 0.7}}, {}, ["attention-factor-ignored"]),
        ("lfm2", {"rope_scaling": YARN}, {}, ["rope-scaling-ignored"]),
        ("lfm2", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, {}, ["rope-scaling-ignored"]),
        ("gpt_oss_mxfp4", {}, {}, ["truncate-ignored", "fixed-limit"]),
        ("gpt_neox_sequential", {}, {}, ["gelu-by-tanh"]),
        ("falcon_h1_plain", {}, {}, ["multipliers-missing"]),
        ("granitemoehybrid", {}, {}, ["norm-groups-ignored"]),
        ("mamba", {}, {}, ["fixed-eps"]),
        ("gemma", {}, {"tolerance": 1e-5}, ["exact-gelu"]),
        ("starcoder2", {}, {"tolerance": 1e-5}, ["window-ignored", "exact-gelu"]),
        ("glm", {}, {}, ["whole-head-rotated"]),
        ("plamo3", {"published": False}, {}, ["cache-too-short"]),
        (
            "plamo2",
            {"published": False, "attention_window_size": 12, "full_attention_idx": None, "rope_local_theta": 700.0},
            {},
            ["window-ignored", "fixed-theta"],
        ),
        (
            "internlm2",
            {"published": False, "rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 64},
            {},
            ["one-theta"],
        ),
        ("rwkv7", {"published": False}, {}, ["fixed-eps"]),
        *((name, {"hidden_act": "relu"}, {}, ["activation-ignored"]) for name in ("llama", "qwen3_moe", "olmo2")),
        ("cohere2", {"published": False}, {}, ["newer-fields"]),
        ("qwen2", {"published": False}, {}, ["newer-fields"]),
        ("qwen3_moe", {"published": False}, {}, ["newer-fields"]),
        ("gemma2", {"published": False}, {}, ["newer-fields", "window-ignored"]),
    ],
)
def test_a_known_fault_explains(
    name: str, changes: dict[str, Any], options: dict[str, Any], faults: list[str], tmp_path: Path
) -> None:
    peer = with_mlx_lm(copied(name, tmp_path, **changes), **options)
    assert peer.status == "known fault"
    assert [fault.name for fault in peer.faults] == faults
    assert peer.left is not None
    assert peer.left < 1e-5


def test_a_fault_that_does_not_matter_is_not_told(tmp_path: Path) -> None:
    assert with_mlx_lm(copied("gemma2", tmp_path), tokens=8).status == "ok"  # no longer than the window


@pytest.mark.parametrize(
    ("name", "fault"),
    [("qwen2_moe", "experts-everywhere"), ("gpt_oss", "packed-experts-only"), ("phi", "norms-unknown")],
)
def test_what_cannot_be_loaded_is_not_verified(name: str, fault: str, tmp_path: Path) -> None:
    found = verify(copied(name, tmp_path), tokens=8, against=["mlx-lm"])
    assert found.peers[0].status == "known fault"
    assert [fault.name for fault in found.peers[0].faults] == [fault]
    assert "parameters not in model" in found.peers[0].error
    assert not found.passed
    assert verify_text(found, PLAIN).endswith("nothing could be compared\n")


def test_an_unknown_error_is_told(tmp_path: Path) -> None:
    peer = with_mlx_lm(copied("llama", tmp_path, model_type="new"), family="llama")
    assert (peer.status, peer.faults) == ("error", ())
    assert peer.error == "ValueError: Model type new not supported."


def other_weights(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str) -> None:
    """mlx-lm alone gets a checkpoint with one weight changed."""
    changed = folder.parent / "changed"
    shutil.copytree(folder, changed)
    weights = mx.load(str(folder / "model.safetensors"))
    mx.save_safetensors(str(changed / "model.safetensors"), weights | {name: weights[name] * 1.5}, {"format": "pt"})
    monkeypatch.setattr(module, "run_mlx_lm", lambda _, *values, **named: run_mlx_lm(changed, *values, **named))


@pytest.mark.parametrize(
    ("weight", "first"),
    [("model.layers.2.mlp.down_proj.weight", 2), ("model.embed_tokens.weight", -1), ("model.norm.weight", None)],
)
def test_a_planted_difference_is_found_where_it_is(
    weight: str, first: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied("llama", tmp_path)
    (folder / "model.safetensors").unlink()
    shutil.copy(FIXTURES / "llama/model.safetensors", folder)
    other_weights(monkeypatch, folder, weight)
    found = verify(folder, tokens=16, against=["mlx-lm"])
    peer = found.peers[0]
    assert peer.status == "FAIL"
    assert not found.passed
    assert peer.layers is not None
    assert peer.layers.first(1e-4) == first
    places = {2: "in layer 2 (attn, mlp)", -1: "before the first layer", None: "after the last layer"}
    assert f"first differs from mlx-lm {places[first]}" in verify_text(found, PLAIN)


def test_a_known_fault_does_not_hide_another_difference(tmp_path: Path) -> None:
    folder = copied("llama", tmp_path, published=False)
    peer = with_mlx_lm(folder, settings=["overrides=[{layers: 2, set: {attn.rope.theta: 500}}]"])
    assert peer.status == "FAIL"
    assert [fault.name for fault in peer.faults] == ["newer-fields"]
    assert peer.layers is not None
    assert peer.layers.first(1e-4) == 2  # not 0, where the fields of config.json matter


def test_transformers_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = verify(FIXTURES / "qwen3", tokens=8)
    assert [peer.status for peer in found.peers] == ["ok", "not installed"]
    assert found.passed
    assert not verify(FIXTURES / "qwen3", tokens=8, against=["transformers"]).passed


def test_integers_that_a_class_computes_may_be_missing() -> None:
    def buffer(floating: bool) -> SimpleNamespace:
        return SimpleNamespace(is_floating_point=lambda: floating)

    buffers = {"ple.sizes": buffer(False), "gate.bias": buffer(True)}
    model = SimpleNamespace(named_buffers=buffers.items)
    assert _not_computed(model, ["up.weight", "ple.sizes", "gate.bias"]) == ["gate.bias", "up.weight"]
    assert _not_computed(model, {"ple.sizes"}) == []


def test_transformers_clamps_the_steps_of_nemotron_h(tmp_path: Path) -> None:
    """At the published `time_step_min`; mlx-lm, NVIDIA's code and ours do not."""
    config = json.loads((FIXTURES / "nemotron_h_published" / "config.json").read_text())
    assert config["time_step_min"] == 0.001
    (fault,) = faults_of("transformers", config, 8)
    assert fault.name == "step-clamped"
    assert faults_of("transformers", config | {"time_step_limit": [0.001, None]}, 8) == []
    assert with_mlx_lm(FIXTURES / "nemotron_h_published").status == "ok"
    tokens, reference = expected("nemotron_h_published")
    plain = load(checkpoint=FIXTURES / "nemotron_h_published").build(weights=FIXTURES / "nemotron_h_published")
    clamped = model("nemotron_h_published")  # with the setting of the fault, as `models.SETTINGS` has it
    assert fault.settings is not None
    assert fault.settings(config) == SETTINGS["nemotron_h_published"]
    assert difference(plain(tokens), reference) > 2e-4
    assert difference(clamped(tokens), reference) < 1e-5


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["verify", str(FIXTURES / "qwen3"), "--against", "mlx-lm", "--tokens", "8"]
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert "ok  mlx-lm" in text
    assert text.endswith("the same as mlx-lm\n")
    assert main([*argv, "--tolerance", "0", "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert (data["command"], data["ok"], data["result"]["passed"]) == ("verify", False, False)
    assert data["result"]["peers"][0]["status"] == "FAIL"
    assert len(data["result"]["peers"][0]["layers"]) == len(data["result"]["layers"]) == 4
    assert main(["verify", str(tmp_path)]) == 1
    assert "AX601" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [["--tokens", "1"], ["--tolerance", "-1"], ["--tolerance", "nan"], ["--against", "x"]]
)
def test_wrong_usage(wrong: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["verify", "DIR", *wrong])


def test_a_long_table_is_cut() -> None:
    gaps = module.LayerGaps(0.0, (1e-7,) * 20 + (0.5,) * 30)
    long = PeerReport("mlx-lm", "0", "FAIL", 0.5, 0.5, 0.1, gaps)
    found = Verification("DIR", "qwen3", 8, 0, 1e-4, ("attn, mlp",) * 50, (long,))
    lines = verify_text(found, PLAIN).splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("  after"))
    assert [line.split()[:2] for line in lines[start + 1 : start + 5]] == [
        ["embedding", "0"],
        ["layers", "0..19"],
        ["layer", "20"],
        ["layer", "21"],
    ]
    assert [line.split()[0] for line in lines[start + 10 : start + 14]] == ["layer", "…", "layer", "head"]


def test_tracing_leaves_the_model_as_it_was() -> None:
    from mlx_lm.utils import load_model

    model, _ = load_model(FIXTURES / "qwen3", strict=True)
    before = list(model.layers)
    found = trace(model, mx.array([[1, 2, 3]]), 1)
    assert len(found.hidden) == len(before) + 1
    assert all(one is other for one, other in zip(model.layers, before, strict=True))


@pytest.mark.parametrize("kind", ["gptj", "llama"])
def test_layers_that_are_called_by_keyword_are_traced(kind: str) -> None:
    """gptj calls its blocks as `block(inputs=…, mask=…, cache=…)`."""
    peer = importlib.import_module(f"mlx_lm.models.{kind}")
    sizes = {"n_embd": 16, "n_head": 2, "n_layer": 3, "n_inner": 32, "rotary_dim": 4} if kind == "gptj" else {
        "hidden_size": 16, "num_hidden_layers": 3, "intermediate_size": 32, "num_attention_heads": 2,
        "rms_norm_eps": 1e-5,
    }  # fmt: skip
    model = peer.Model(peer.ModelArgs.from_dict({"model_type": kind, "vocab_size": 32, **sizes}))
    tokens = mx.array([[1, 2, 3, 4]])
    found = trace(model, tokens, 2)
    table = next(value for name, value in model.named_modules() if isinstance(value, nn.Embedding))
    assert len(found.hidden) == 4
    assert mx.array_equal(found.hidden[0], table(tokens))
    assert mx.array_equal(found.logits, model(tokens))


@pytest.mark.parametrize("name", BOTH)
def test_newer_fields_say_the_same_as_older_ones(name: str) -> None:
    newer, older = (json.loads((FIXTURES / name / f"config{kind}.json").read_text()) for kind in ("", ".published"))
    for field, value in older_fields(newer).items():
        if field in older and field != "rope_scaling":
            assert value == older[field], field
        elif older.get(field):
            told = {key: value[key] for key in older[field] if key not in ("type", "rope_type")}
            assert told == {key: older[field][key] for key in told}
    if "rope_parameters" not in older:
        assert older_fields(older | {"layer_types": None}) == {}


@pytest.mark.parametrize("name", ["cohere2", "gemma3_text"])
def test_an_interval_that_is_given_is_kept(name: str) -> None:
    """mlx-lm reads it in place of `layer_types`, which `layer-types-ignored` is about."""
    older = json.loads((FIXTURES / name / "config.published.json").read_text())
    kinds = (UNEVEN * 2)[: older["num_hidden_layers"]]
    assert older["sliding_window_pattern"] == 3
    assert "sliding_window_pattern" not in older_fields(older | {"layer_types": kinds})
    missing = older | {"layer_types": kinds, "sliding_window_pattern": None}
    assert older_fields(missing)["sliding_window_pattern"] == 2


def test_letters_for_the_layers_are_written_in_place_of_an_interval() -> None:
    newer = json.loads((FIXTURES / "exaone4" / "config.json").read_text())
    letters = "".join("L" if kind == "sliding_attention" else "G" for kind in newer["layer_types"])
    for given in (None, 3, "LLLG"):
        assert older_fields(newer | {"sliding_window_pattern": given})["sliding_window_pattern"] == letters


#: A family of one's own, whose norms have an eps that mlx-lm's llama does not know.
OWN = """\
version: 1
name: own
extends: llama
norm: {eps: "=0.5 if hidden_size < 4096 else rms_norm_eps"}
huggingface:
  faults:
    - name: eps-of-norms
      what: the eps of small models is not 0.5
      right: it is
      when: =hidden_size < 4096 and tokens > 1
      settings: {norm.eps: =rms_norm_eps}
    - {name: never, what: nothing, right: nothing, when: =tokens > 4096, settings: {norm.eps: 1.0}}
"""


def test_a_family_file_carries_faults(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN)
    folder = copied("llama", tmp_path)
    peer = with_mlx_lm(folder, family=tmp_path / "own.yaml")
    assert peer.status == "known fault"
    assert [(fault.name, fault.owner or fault.peer) for fault in peer.faults] == [("eps-of-norms", "mlx-lm")]
    assert peer.left is not None
    assert peer.left < 1e-5
    (tmp_path / "own.yaml").write_text(OWN.replace("hidden_size < 4096 and", "hidden_size > 4096 and"))
    assert with_mlx_lm(folder, family=tmp_path / "own.yaml").status == "FAIL"
    fields = "fields: {rms_norm_eps: 0.5}"
    (tmp_path / "own.yaml").write_text(OWN.replace("settings: {norm.eps: =rms_norm_eps}", fields))
    assert with_mlx_lm(folder, family=tmp_path / "own.yaml").status == "known fault"


def test_a_family_file_explains_what_mlx_lm_does_not_load(tmp_path: Path) -> None:
    text = OWN.replace("settings: {norm.eps: =rms_norm_eps}", "error: Model type new not supported")
    (tmp_path / "own.yaml").write_text(text)
    peer = with_mlx_lm(copied("llama", tmp_path, model_type="new"), family=tmp_path / "own.yaml")
    assert (peer.status, [fault.name for fault in peer.faults]) == ("known fault", ["eps-of-norms"])


def test_the_table_of_faults() -> None:
    assert _PEERS == PEERS
    named = [(fault.name, fault.peer, family) for fault in FAULTS for family in fault.model_types or ("",)]
    assert len(set(named)) == len(named)
    for fault in FAULTS:
        assert fault.peer in PEERS
        assert any((fault.fields, fault.settings, fault.repair, fault.error)), f"{fault.name} explains without a proof"
