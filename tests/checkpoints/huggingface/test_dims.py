"""Fields of config.json become dims, and every field is accounted for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from axon_compose import ArchitectureError, load

FAMILY: dict[str, Any] = {
    "version": 1,
    "dims": {
        "hidden_size": 64,
        "vocab_size": 97,
        "num_heads": 4,
        "head_dim": "=hidden_size // num_heads",
        "width": 96,
        "window": 8,
        "limits": [0.0, 1.0],
        "has_head": False,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "partial_rotary_factor": None,
        "rope_parameters": "={'full': {'theta': rope_theta}}",
    },
    "components": {"mlp": {"type": "mlp", "intermediate_size": "=width"}},
    "stack": {"layers": 2, "block": ["mlp"]},
    "huggingface": {
        "model_types": ["tiny"],
        "fields": {"width": ["ffn_dim", "sizes.inner"], "num_heads": "n_head"},
        "tensors": {"has_head": "lm_head.weight"},
        "only": {"hidden_act": ["silu", "swish"], "gated": True},
        "ignore": ["nothing"],
    },
}


def dims(tmp_path: Path, config: dict[str, Any]) -> dict[str, Any]:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "tiny", **config}))
    return dict(load(FAMILY, checkpoint=tmp_path).document.dims)


def faults(tmp_path: Path, config: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(ArchitectureError) as caught:
        dims(tmp_path, config)
    for diagnostic in caught.value.diagnostics:
        assert diagnostic.span is not None
        assert diagnostic.span.file == str(tmp_path / "config.json")
    return [(d.code, d.message) for d in caught.value.diagnostics]


def test_a_field_of_the_same_name_and_one_that_is_missing(tmp_path: Path) -> None:
    found = dims(tmp_path, {"hidden_size": 128})
    assert (found["hidden_size"], found["vocab_size"], found["head_dim"]) == (128, 97, 32)


def test_other_names_the_first_that_is_there_holds(tmp_path: Path) -> None:
    assert dims(tmp_path, {"n_head": 8, "ffn_dim": 5, "sizes": {"inner": 7}})["width"] == 5
    assert dims(tmp_path, {"sizes": {"inner": 7}})["width"] == 7


def test_null_leaves_a_formula_and_replaces_a_value(tmp_path: Path) -> None:
    found = dims(tmp_path, {"head_dim": None, "window": None})
    assert found["head_dim"] == 16
    assert found["window"] is None


def test_the_part_about_the_text_comes_first(tmp_path: Path) -> None:
    inner = {"hidden_size": 32, "model_type": "tiny_text", "window": None}
    found = dims(tmp_path, {"hidden_size": 128, "window": 4, "vision": {"layers": 3}, "text_config": inner})
    assert (found["hidden_size"], found["window"]) == (32, 4)


def test_any_key_if_all_say_the_same(tmp_path: Path) -> None:
    family = {**FAMILY, "huggingface": {**FAMILY["huggingface"], "fields": {"width": "layers.*.width"}}}
    layers: dict[str, Any] = {"first": {"width": 40}, "second": {"width": 40}, "third": {}}

    def write() -> None:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "tiny", "layers": layers}))

    write()
    assert load(family, checkpoint=tmp_path).document.dims["width"] == 40
    layers["second"]["width"] = 48
    write()
    with pytest.raises(ArchitectureError) as caught:
        load(family, checkpoint=tmp_path)
    assert [(d.code, d.message.partition(" ")[0]) for d in caught.value.diagnostics] == [
        ("AX602", "`layers.first.width`"),
        ("AX602", "`layers.second.width`"),
    ]


@pytest.mark.parametrize("infinity", [float("inf"), {"__float__": "Infinity"}])
def test_infinity_is_no_limit(tmp_path: Path, infinity: Any) -> None:
    assert dims(tmp_path, {"limits": [0.0, infinity]})["limits"] == [0.0, None]


def test_whether_a_tensor_is_there(tmp_path: Path) -> None:
    header = json.dumps({"lm_head.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert dims(tmp_path, {})["has_head"] is True
    (tmp_path / "model.safetensors").unlink()
    assert dims(tmp_path, {})["has_head"] is False


def test_a_field_that_nothing_reads_is_named(tmp_path: Path) -> None:
    assert faults(tmp_path, {"attention_gate": True, "sizes": {"inner": 7, "outer": 8}}) == [
        ("AX602", "`attention_gate` in config.json is not handled by this family file"),
        ("AX602", "`sizes.outer` in config.json is not handled by this family file"),
    ]


def test_harmless_null_and_ignored_fields_are_let_pass(tmp_path: Path) -> None:
    assert dims(tmp_path, {"torch_dtype": "bfloat16", "attention_gate": None, "nothing": 3, "eos_token_id": [1, 2]})


def test_a_value_that_the_file_does_not_handle(tmp_path: Path) -> None:
    assert dims(tmp_path, {"hidden_act": "swish", "gated": True})
    assert faults(tmp_path, {"hidden_act": "gelu", "gated": False}) == [
        ("AX603", "`hidden_act` is `gelu`; this family file supports only `silu` or `swish`"),
        ("AX603", "`gated` is `false`; this family file supports only `true`"),
    ]


@pytest.mark.parametrize("value", [[False], "false", 0, {}, 1.0])
def test_a_truth_takes_only_truths(value: Any, tmp_path: Path) -> None:
    """A formula would take each of them for true or false, whatever is meant."""
    family = {**FAMILY, "huggingface": {**FAMILY["huggingface"], "fields": {"has_head": "with_head"}, "tensors": {}}}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "tiny", "with_head": value}))
    with pytest.raises(ArchitectureError) as caught:
        load(family, checkpoint=tmp_path)
    (fault,) = caught.value.diagnostics
    assert fault.code == "AX603"
    assert "`with_head`" in fault.message
    assert fault.message.endswith("this family file supports only `true` or `false`")


def only(tmp_path: Path, allowed: Any, value: Any) -> list[str]:
    """What is said of a field of this value, where the family allows others."""
    family = {**FAMILY, "huggingface": {**FAMILY["huggingface"], "only": {"extra": allowed}}}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "tiny", "window": 6, "extra": value}))
    try:
        load(family, checkpoint=tmp_path)
    except ArchitectureError as error:
        return [fault.message for fault in error.diagnostics]
    return []


@pytest.mark.parametrize(
    ("allowed", "neutral", "other", "supported"),
    [
        (False, False, True, "`false`"),
        (0, 0, 4, "`0`"),
        (1.0, 1, 0.5, "`1.0`"),
        ([], [], [1], "`[]`"),
        ({}, {}, {"a": 1}, "`{}`"),
        ("=null", None, 1, "`null`"),
        ("=window", 6, 8, "`6`"),
        (["=window // 2", "=2 * window"], 12, 6, "`3` or `12`"),
        (["a", "=head_dim"], 16, "b", "`a` or `16`"),
        ([[1, 2], [3]], [3], [4], "`[1, 2]` or `[3]`"),
    ],
)
def test_a_field_without_effect_at_some_values(
    allowed: Any, neutral: Any, other: Any, supported: str, tmp_path: Path
) -> None:
    assert only(tmp_path, allowed, neutral) == []
    assert only(tmp_path, allowed, None) == []
    (message,) = only(tmp_path, allowed, other)
    assert message.endswith(f"; this family file supports only {supported}")


def test_a_formula_that_knows_no_such_dim() -> None:
    section = {**FAMILY["huggingface"], "only": {"extra": ["a", "=windw"]}}
    with pytest.raises(ArchitectureError) as caught:
        load({**FAMILY, "huggingface": section})
    (fault,) = caught.value.diagnostics
    assert (fault.code, fault.message, fault.help) == ("AX120", "unknown name `windw`", "did you mean `window`?")


def test_what_a_model_type_means_by_a_missing_field(tmp_path: Path) -> None:
    per_type = {"tiny": {"defaults": {"window": 3, "head_dim": "=width // 2"}}, "other": {"defaults": {"window": 5}}}
    family = {
        **FAMILY,
        "huggingface": {**FAMILY["huggingface"], "model_types": ["tiny", "other"], "per_type": per_type},
    }

    def read(config: dict[str, Any]) -> tuple[Any, Any]:
        (tmp_path / "config.json").write_text(json.dumps(config))
        found = load(family, checkpoint=tmp_path).document.dims
        return found["window"], found["head_dim"]

    assert read({"model_type": "tiny"}) == (3, 48)
    assert read({"model_type": "tiny", "window": 7, "head_dim": None}) == (7, 16)
    assert read({"model_type": "tiny", "window": None}) == (None, 48)
    assert read({"model_type": "other"}) == (5, 16)
    assert load(family).document.dims["window"] == 8


def test_defaults_of_a_dim_that_does_not_exist() -> None:
    section = {"model_types": ["tiny"], "per_type": {"tiny": {"defaults": {"windo": 3}}}}
    with pytest.raises(ArchitectureError) as caught:
        load({**FAMILY, "huggingface": section})
    (fault,) = caught.value.diagnostics
    assert (fault.code, fault.help) == ("AX607", "did you mean `window`?")


def test_a_field_cannot_be_a_formula(tmp_path: Path) -> None:
    assert faults(tmp_path, {"window": "=2 ** 64"}) == [("AX601", "a field of config.json cannot be a formula")]


def test_settings_come_above_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "tiny", "hidden_size": 128}')
    assert load(FAMILY, checkpoint=tmp_path, settings=["dims.hidden_size=32"]).document.dims["hidden_size"] == 32


@pytest.mark.parametrize(
    ("text", "code"),
    [(None, "AX601"), ("[1]", "AX601"), ("{", "AX001"), ('{"dtype": 1, "dtype": 2}', "AX007"), ("", "AX006")],
)
def test_no_configuration(tmp_path: Path, text: str | None, code: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ArchitectureError) as caught:
        load(FAMILY, checkpoint=tmp_path)
    assert [d.code for d in caught.value.diagnostics] == [code]


def test_a_file_without_the_section_reads_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ArchitectureError, match="AX605"):
        load({key: value for key, value in FAMILY.items() if key != "huggingface"}, checkpoint=tmp_path)


def test_a_file_for_one_model_keeps_its_sizes(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"hidden_size": 128, "anything": 1}')
    one = {**FAMILY, "huggingface": {"weights": {}}}
    assert load(one, checkpoint=tmp_path).document.dims["hidden_size"] == 64


def test_a_dim_that_does_not_exist_is_named() -> None:
    section = {"model_types": ["tiny"], "fields": {"hiden_size": "d_model"}}
    with pytest.raises(ArchitectureError) as caught:
        load({**FAMILY, "huggingface": section})
    (fault,) = caught.value.diagnostics
    assert (fault.code, fault.help) == ("AX607", "did you mean `hidden_size`?")


def test_a_condition_on_gguf_files_with_a_name_that_does_not_exist() -> None:
    section = {"architectures": ["tiny"], "when": "='window' in key"}
    with pytest.raises(ArchitectureError) as caught:
        load({**FAMILY, "gguf": section})
    (fault,) = caught.value.diagnostics
    assert (fault.code, fault.message, fault.help) == ("AX120", "unknown name `key`", "did you mean `keys`?")


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LENGTH = {"original_max_position_embeddings": 32}


@pytest.mark.parametrize(
    ("config", "theta", "scaling"),
    [
        ({}, 10000.0, None),
        ({"rope_theta": 5e5, "rope_scaling": None}, 5e5, None),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, 10000.0, {"type": "linear", "factor": 2}),
        ({"rope_scaling": {**LLAMA3, **LENGTH}}, 10000.0, {**LLAMA3, **LENGTH, "type": "llama3"}),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}, 7.0, None),
        ({"rope_parameters": {**LLAMA3, **LENGTH, "rope_theta": 7.0}}, 7.0, {**LLAMA3, **LENGTH, "type": "llama3"}),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [1, 2]}}, 10000.0, None),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4.0, "attention_factor": None}, "max_position_embeddings": 64},
            10000.0,
            {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        ),
        (
            {
                "rope_scaling": {"type": "su", "short_factor": [1.0], "long_factor": [2.0]},
                "max_position_embeddings": 128,
                "original_max_position_embeddings": None,
                "nothing": None,
            },
            10000.0,
            {
                "type": "longrope",
                "short_factor": [1.0],
                "long_factor": [2.0],
                "factor": 1.0,
                "original_max_position_embeddings": 128,
                "max_position_embeddings": 128,
            },
        ),
    ],
)
def test_every_way_to_write_positions_gives_one(
    tmp_path: Path, config: dict[str, Any], theta: float, scaling: dict[str, Any] | None
) -> None:
    found = dims(tmp_path, config)
    expected = {key: value for key, value in scaling.items() if key != "rope_type"} if scaling else None
    assert (found["rope_theta"], found["rope_scaling"]) == (theta, expected)


def test_positions_by_kind_of_layer(tmp_path: Path) -> None:
    full = {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25}
    kinds = {"full": full, "local": {"rope_type": "default", "rope_theta": 1e4}}
    assert dims(tmp_path, {"rope_parameters": kinds})["rope_parameters"] == {
        "full": {"theta": 1e6, "fraction": 0.25, "scaling": {"type": "proportional", "factor": 1.0}},
        "local": {"theta": 1e4},
    }


def test_a_rotation_of_whole_heads_counts_where_the_family_rotates_a_part(tmp_path: Path) -> None:
    positions = {"rope_type": "default", "partial_rotary_factor": 1.0}
    family = {**FAMILY, "dims": {**FAMILY["dims"], "partial_rotary_factor": 0.25}}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "tiny", "rope_parameters": positions}))
    assert load(family, checkpoint=tmp_path).document.dims["partial_rotary_factor"] == 1.0


def test_unknown_positions(tmp_path: Path) -> None:
    assert faults(tmp_path, {"rope_scaling": {"type": "spiral", "factor": 2.0}}) == [
        ("AX604", "`rope_scaling` has the type `spiral`, which is not known")
    ]
    assert faults(tmp_path, {"rope_scaling": {"type": "linear", "factor": 2.0, "twist": 3}}) == [
        ("AX602", "`rope_scaling.twist` is not handled by `linear` scaling")
    ]
