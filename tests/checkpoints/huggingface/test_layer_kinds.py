"""Kinds of layers that a family does not know, and lists of another length, are refused where they are written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from axon_compose import ArchitectureError, Diagnostic, load
from axon_compose.checkpoints.huggingface import fields_used
from tests.families.models import FIXTURES

#: Every family whose configuration names the kinds of its layers, and the field.
KINDS: Final = {
    "cohere2": "layer_types",
    "gemma2": "layer_types",
    "gemma3_text": "layer_types",
    "gemma4_text": "layer_types",
    "gpt_oss": "layer_types",
    "granitemoehybrid": "layer_types",
    "lfm2": "layer_types",
    "mistral": "layer_types",
    "nemotron_h": "layers_block_type",
    "qwen2": "layer_types",
    "qwen2_moe": "layer_types",
    "qwen3": "layer_types",
    "qwen3_next": "layer_types",
}


def config_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURES / name / "config.json").read_text())
    if name == "mistral":
        found["layer_types"] = ["full_attention"] * found["num_hidden_layers"]
    return found


def faults(folder: Path, config: dict[str, Any], **options: Any) -> list[Diagnostic]:
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    with pytest.raises(ArchitectureError) as caught:
        load(checkpoint=folder, **options)
    return list(caught.value.diagnostics)


def written_at(fault: Diagnostic) -> str:
    """What the configuration has where a fault points to."""
    assert fault.span is not None
    start, end = fault.span.start, fault.span.end
    line = Path(fault.span.file).read_text().splitlines()[start.line - 1]
    return line[start.column - 1 : end.column - 1]


@pytest.mark.parametrize("unknown", ["chunked_attention", "", None])
@pytest.mark.parametrize("name", KINDS)
def test_an_unknown_kind(name: str, unknown: Any, tmp_path: Path) -> None:
    config, field = config_of(name), KINDS[name]
    config[field][1] = config[field][-1] = unknown
    found = faults(tmp_path, config)
    assert {fault.code for fault in found} == {"AX123"}
    shown = "null" if unknown is None else unknown
    message = "`{}[{}]` is `{}`, which no case of the formula is for"
    last = len(config[field]) - 1
    assert {fault.message for fault in found} == {message.format(field, index, shown) for index in (1, last)}
    for fault in found:
        assert written_at(fault) == json.dumps(unknown)
        assert fault.help is not None
        assert "_attention" in fault.help
        assert fault.labels[0].span.file != fault.span.file  # type: ignore[union-attr]


@pytest.mark.parametrize("name", KINDS)
def test_a_list_that_is_too_short(name: str, tmp_path: Path) -> None:
    if name == "nemotron_h":
        pytest.skip("its list says how many layers there are")
    config, field = config_of(name), KINDS[name]
    config[field].pop()
    (fault,) = faults(tmp_path, config)
    assert (fault.code, written_at(fault)) == ("AX123", f'"{field}"')
    assert fault.message == f"`{field}` has too few items: {len(config[field])}"


@pytest.mark.parametrize("name", [name for name in KINDS if name != "nemotron_h"])
def test_a_list_that_is_too_long(name: str, tmp_path: Path) -> None:
    """transformers refuses it too."""
    config = config_of(name)
    config["layer_types"].append(config["layer_types"][0])
    (fault,) = faults(tmp_path, config)
    count = config["num_hidden_layers"]
    assert (fault.code, written_at(fault)) == ("AX603", '"layer_types"')
    assert fault.message == f"`layer_types` has {count + 1} items for {count} layers"


def lists_of_kinds() -> Iterator[tuple[str, str]]:
    """Every fixture whose configuration names kinds, of attention or of what follows it, and the field."""
    for folder in sorted(FIXTURES.iterdir()):
        if (folder / "config.json").exists():
            written = json.loads((folder / "config.json").read_text())
            yield from ((folder.name, field) for field in ("layer_types", "mlp_layer_types") if written.get(field))


@pytest.mark.parametrize(("name", "field"), list(lists_of_kinds()))
def test_no_family_takes_a_kind_that_it_does_not_know(name: str, field: str, tmp_path: Path) -> None:
    """Nor does one compute the list by itself where an empty one is written, which transformers refuses."""
    config = config_of(name)
    count = config["num_hidden_layers"]
    unknown = [*config[field][: count - 1], "round_attention", *config[field][count:]]
    for kinds in ([], unknown):
        found = faults(tmp_path, {**config, field: kinds})
        assert {fault.code for fault in found} <= {"AX123", "AX603"}
        assert len({(fault.code, fault.span) for fault in found}) == 1
        assert all(fault.span is not None and fault.span.file.endswith("config.json") for fault in found)


def test_a_letter_of_a_pattern(tmp_path: Path) -> None:
    config = config_of("nemotron_h")
    del config["layers_block_type"]
    config["hybrid_override_pattern"] = "ME*-X"
    (fault,) = faults(tmp_path, config)
    assert (fault.code, written_at(fault)) == ("AX123", "X")


def test_a_list_that_a_setting_gives(tmp_path: Path) -> None:
    config = config_of("gemma2")
    kinds = ["round_attention", *config["layer_types"][1:]]
    setting = f"dims.layer_types={json.dumps(kinds)}"
    (fault,) = faults(tmp_path, config, settings=[setting])
    assert fault.span is not None
    assert (fault.code, fault.span.file) == ("AX123", f"--set {setting}")


def test_fewer_layers_may_be_asked_for(tmp_path: Path) -> None:
    config = config_of("gemma2")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert len(load(checkpoint=tmp_path, settings=["dims.num_hidden_layers=2"]).plan().layers) == 2


@pytest.mark.parametrize("name", ["llama", "mixtral", "olmo2", "phi3", "qwen3_moe"])
def test_what_transformers_does_not_read_is_noted(name: str, tmp_path: Path) -> None:
    config = config_of(name)
    config["layer_types"] = ["sliding_attention"] * config["num_hidden_layers"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    found, plain = load(checkpoint=tmp_path), load(checkpoint=FIXTURES / name)
    assert [warning.code for warning in found.warnings] == ["AX613"]
    assert [use.options for use in found.plan().uses()] == [use.options for use in plain.plan().uses()]


def test_a_llama_has_no_windows(tmp_path: Path) -> None:
    """A field that `transformers.LlamaConfig` does not have; the same file as a mistral has them."""
    config = {**config_of("llama"), "sliding_window": 8}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = load(checkpoint=tmp_path)
    assert [warning.code for warning in found.warnings] == ["AX613"]
    assert {use.window for use in found.plan().uses() if use.name == "attn"} == {None}
    assert found.config is not None
    assert "sliding_window" not in fields_used(found.document, found.config)
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "mistral"}))
    assert {use.window for use in load(checkpoint=tmp_path).plan().uses() if use.name == "attn"} == {8}


def test_the_last_layer_of_gemma_4_is_global(tmp_path: Path) -> None:
    config = config_of("gemma4_text")
    config["layer_types"][-1] = "sliding_attention"
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load(checkpoint=tmp_path).plan().layers[-1].branches[0].members[0].use.name == "full"


@pytest.mark.parametrize(
    ("formula", "kinds", "blamed"),
    [
        ("=[{'wide': 2, 'narrow': 1}[kind] for kind in kinds]", ["wide", "round"], '"round"'),
        ("=[at(kinds, x) for x in range(3)]", [2, 1], '"kinds"'),
        ("=[at(x, 2) for x in kinds]", [[2, 1, 1], [1, 1]], "["),  # a list of several lines
    ],
)
def test_a_list_made_of_another_one(formula: str, kinds: Any, blamed: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**config_of("llama"), "kinds": kinds}, indent=1))
    path = tmp_path / "own.yaml"
    text = f'version: 1\nextends: llama\ndims: {{kinds: "=[1]", ratios: "{formula}"}}\n'
    path.write_text(text + 'components: {attn: {key_scale: "=ratios[0]"}}\nhuggingface: {fields: {ratios: []}}\n')
    with pytest.raises(ArchitectureError) as caught:
        load(path, checkpoint=tmp_path)
    fault = caught.value.diagnostics[0]
    assert (fault.code, written_at(fault)) == ("AX123", blamed)
