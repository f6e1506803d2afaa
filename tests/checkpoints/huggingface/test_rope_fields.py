"""Rotary positions that a configuration writes twice, or with keys that nobody reads: as transformers takes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from axon_compose import Architecture, ArchitectureError, load
from axon_compose.checkpoints.huggingface import fields_used
from axon_compose.cli import main
from tests.families.models import FIXTURES
from tests.families.reference_configs import explicit

QWEN3: dict[str, Any] = {
    "model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 16,
    "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 97, "max_position_embeddings": 256,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0}
ORIGINAL = {"original_max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LINEAR = {"rope_type": "linear", "factor": 2.0}
PLAIN = {"rope_type": "default", "rope_theta": 5e5}


def read(folder: Path, config: dict[str, Any], base: dict[str, Any] = QWEN3, **options: Any) -> Architecture:
    (folder / "config.json").write_text(json.dumps({**base, **config}, indent=1))
    return load(checkpoint=folder, **options)


def positions(found: Architecture) -> dict[str, Any]:
    """Our reading in the words of transformers."""
    dims = found.document.dims
    scaling = dict(dims["rope_scaling"] or {})
    return {"rope_theta": dims["rope_theta"], "rope_type": scaling.pop("type", "default"), **scaling}


@pytest.mark.parametrize(
    "config",
    [
        {"rope_parameters": PLAIN, "rope_scaling": {**YARN, **ORIGINAL, "rope_theta": 5e5}},
        {"rope_parameters": PLAIN, "rope_scaling": {**YARN, **ORIGINAL, "rope_theta": 7e5}},
        {"rope_parameters": PLAIN, "rope_scaling": {**YARN, **ORIGINAL}, "rope_theta": 6e5},
        {"rope_parameters": {**LINEAR, "rope_theta": 5e5}, "rope_scaling": {**YARN, **ORIGINAL, "rope_theta": 5e5}},
        {"rope_parameters": {**YARN, **ORIGINAL, "rope_theta": 5e5}, "rope_scaling": {}},
        {"rope_parameters": {**YARN, **ORIGINAL, "rope_theta": 5e5}, "rope_scaling": None},
        {"rope_parameters": {**YARN, **ORIGINAL, "rope_theta": 5e5}, "rope_theta": 6e5},
        {"rope_parameters": {**LINEAR, "rope_theta": 5e5}, "rope_scaling": PLAIN},
        # The length beside the mapping comes before the one inside.
        {"rope_scaling": {**YARN, **ORIGINAL}, "original_max_position_embeddings": 128},
        {"rope_scaling": {**LLAMA3, **ORIGINAL}, "original_max_position_embeddings": 128, "rope_theta": 1e4},
        {"rope_scaling": YARN},
        # Two words for the type.
        {"rope_scaling": {**LINEAR, "type": "yarn"}},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
    ],
)
def test_contradictions_are_resolved_as_in_transformers(config: dict[str, Any], tmp_path: Path) -> None:
    expected = explicit({**QWEN3, **config})["rope_parameters"]
    if "original_max_position_embeddings" in config:  # the class takes it when the rotation is made
        expected |= {"original_max_position_embeddings": config["original_max_position_embeddings"]}
    expected.pop("type", None)
    assert positions(read(tmp_path, config)) == expected


def test_a_length_of_its_own_does_not_change_dynamic_scaling(tmp_path: Path) -> None:
    """transformers starts from `max_position_embeddings`, and knows no other length for it."""
    found = read(tmp_path, {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0, **ORIGINAL}})
    assert positions(found)["original_max_position_embeddings"] == 256


@pytest.mark.parametrize(
    ("newer", "lost"),
    [
        (PLAIN, "`rope_theta`"),
        ({**PLAIN, "partial_rotary_factor": 0.5}, "`rope_theta` and `partial_rotary_factor`"),
        ({"full_attention": PLAIN, "sliding_attention": PLAIN}, "the rotations of the kinds of layers"),
    ],
)
def test_what_would_get_lost_is_refused_at_its_place(newer: dict[str, Any], lost: str, tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError) as caught:
        read(tmp_path, {"rope_parameters": newer, "rope_scaling": {**YARN, **ORIGINAL}})
    fault = next(d for d in caught.value.diagnostics if d.code == "AX612")
    assert lost in fault.message
    assert fault.span is not None
    line = (tmp_path / "config.json").read_text().splitlines()[fault.span.start.line - 1]
    assert line.lstrip().startswith('"rope_scaling"')


@pytest.mark.parametrize("settings", [[], ["--set", "dims.rope_theta=3e5"]])
@pytest.mark.parametrize("kind", ["huggingface", "mlx-lm"])
def test_an_export_has_them_once(kind: str, settings: list[str], tmp_path: Path) -> None:
    first, folder, built, out = (str(tmp_path / name) for name in ("first", "checkpoint", "built", "exported"))
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "vocab_size": 320}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    small = [word for name, size in sizes.items() for word in ("--set", f"dims.{name}={size}")]
    assert main(["build", "qwen3", "--out", first, *small]) == 0
    assert main(["export", first, "-o", folder, "--to", "huggingface"]) == 0
    twice = {"rope_parameters": PLAIN, "rope_scaling": {"type": "linear", "factor": 2.0, "rope_theta": 7e5}}
    path = Path(folder) / "config.json"
    config = {key: value for key, value in json.loads(path.read_text()).items() if key != "rope_theta"}
    path.write_text(json.dumps(config | twice))
    assert main(["build", "qwen3", "--weights", folder, "--out", built, *settings]) == 0
    assert main(["export", built, "-o", out, "--to", kind]) == 0
    expected = {"rope_theta": 3e5 if settings else 7e5, "rope_type": "linear", "factor": 2.0}
    assert positions(load(checkpoint=out)) == expected
    written = json.loads((Path(out) / "config.json").read_text())
    says = [written, *(written[name] for name in ("rope_parameters", "rope_scaling") if written.get(name))]
    assert {part["rope_theta"] for part in says if "rope_theta" in part} == {expected["rope_theta"]}
    assert kind == "mlx-lm" or "rope_scaling" not in written


def test_kinds_of_layers_and_the_scaling_of_one_of_them_once_more(tmp_path: Path) -> None:
    """What an export for mlx-lm has, whose Gemma 3 reads the fields of transformers 4."""
    kinds = {"full_attention": {**LINEAR, "rope_theta": 5e5}, "sliding_attention": {**PLAIN, "rope_theta": 1e4}}
    config = json.loads((FIXTURES / "gemma3_text" / "config.json").read_text()) | {"rope_parameters": kinds}
    once = read(tmp_path, {}, config).document.dims
    twice = read(tmp_path, {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 5e5}, config)
    assert (twice.document.dims["rope_parameters"], twice.warnings) == (once["rope_parameters"], ())
    with pytest.raises(ArchitectureError, match="AX612"):
        read(tmp_path, {"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_theta": 5e5}, config)


def test_the_scaling_that_is_left_out_is_named(tmp_path: Path) -> None:
    config = {
        "rope_parameters": {**LINEAR, "rope_theta": 5e5},
        "rope_scaling": {**YARN, **ORIGINAL, "rope_theta": 5e5},
    }
    found = read(tmp_path, config)
    assert [warning.code for warning in found.warnings] == ["AX612"]
    assert found.config is not None
    used = fields_used(found.document, found.config)
    assert ("rope_scaling" in used, "rope_parameters" in used) == (True, False)


def test_the_text_model_of_a_wrapper_says_it(tmp_path: Path) -> None:
    inner = {**QWEN3, "rope_parameters": PLAIN}
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "seeing", "text_config": inner, "rope_scaling": {**YARN, **ORIGINAL}})
    )
    assert positions(load(checkpoint=tmp_path)) == {"rope_type": "default", "rope_theta": 5e5}


def test_a_key_that_transformers_does_not_read_is_noted(tmp_path: Path) -> None:
    scaling = {**YARN, "attn_factor": 0.8782488562869419, **ORIGINAL}
    found = read(tmp_path, {"rope_scaling": scaling})
    assert positions(found) == {"rope_theta": 10000.0, **YARN, **ORIGINAL}
    (note,) = found.warnings
    assert (note.code, "vLLM" in note.message) == ("AX613", True)
    assert note.span is not None
    line = (tmp_path / "config.json").read_text().splitlines()[note.span.start.line - 1]
    assert line.lstrip().startswith('"attn_factor"')


def test_a_factor_of_one_needs_no_note(tmp_path: Path) -> None:
    assert read(tmp_path, {"rope_scaling": {**YARN, **ORIGINAL, "attn_factor": 1, "extrapolation_factor": 1.0}})


@pytest.mark.parametrize(
    ("scaling", "key"),
    [
        ({**YARN, **ORIGINAL, "llama_4_scaling_beta": 0.1}, "llama_4_scaling_beta"),
        ({"type": "dynamic", "alpha": 1000.0, "factor": 1.0}, "alpha"),
        ({**LINEAR, "attn_factor": 0.5}, "attn_factor"),
    ],
)
def test_any_other_key_is_refused_at_its_place(scaling: dict[str, Any], key: str, tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError) as caught:
        read(tmp_path, {"rope_scaling": scaling})
    (fault,) = caught.value.diagnostics
    assert (fault.code, f"`rope_scaling.{key}`" in fault.message) == ("AX602", True)
    assert fault.span is not None
    line = (tmp_path / "config.json").read_text().splitlines()[fault.span.start.line - 1]
    assert line.lstrip().startswith(f'"{key}"')
