"""Whatever stands in a folder: config.json, rules and headers give faults or a model, in bounded time and memory."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_descriptions import assert_told_well

from axon_compose import ArchitectureError, load
from axon_compose.checkpoints.huggingface import fields_used
from axon_compose.checkpoints.weights import TensorHeader, plan_load, read_checkpoint
from axon_compose.diagnostics import Problems, Refusal
from axon_compose.language.document import HuggingFace, parse_pattern
from axon_compose.language.layout import to_text
from axon_compose.plan.concrete import unroll
from axon_compose.registry import Registry
from tests.checkpoints.weights.checkpoint_cases import Shapes
from tests.helpers import described
from tests.strategies.checkpoints import RULE_WORDS, rules, values

FIXTURES = Path(__file__).parents[1] / "families" / "fixtures"
CONFIGS = [path for name in ("config.json", "config.published.json") for path in sorted(FIXTURES.glob(f"*/{name}"))]
#: Of processor time, which neighbours can double; the largest values take three seconds.
SECONDS = 15.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoint")


def plans_or_tells(folder: Path) -> None:
    """A checkpoint's configuration gives an architecture that can be imported, or faults that can be shown."""
    begin = time.process_time()
    try:
        found = load(checkpoint=folder)
    except ArchitectureError as error:
        assert_told_well(error)
    else:
        assert found.config is not None
        fields_used(found.document, found.config)
        imported = folder / "imported.yaml"
        imported.write_text(to_text(unroll(found.document, found.plan(), Registry.installed())), encoding="utf-8")
        assert list(load(imported).plan().parameters()) == list(found.plan().parameters())
    assert time.process_time() - begin < SECONDS


@settings(max_examples=100)
@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_as_config(folder: Path, data: bytes) -> None:
    (folder / "config.json").write_bytes(data)
    plans_or_tells(folder)


def places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every collection with each of its keys or indices."""
    for key, value in list(data.items() if isinstance(data, dict) else enumerate(data)):
        yield data, key
        if isinstance(value, dict | list):
            yield from places(value)


@settings(max_examples=150)
@given(st.data())
def test_any_values_in_a_config(folder: Path, data: st.DataObject) -> None:
    """Fields of a real configuration dropped, renamed, null, of other types, huge, or nested."""
    config = json.loads(data.draw(st.sampled_from(CONFIGS)).read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        holder, key = data.draw(st.sampled_from(list(places(config))))
        match data.draw(st.sampled_from(("drop", "rename", "replace", "replace", "replace"))):
            case "drop":
                del holder[key]
            case "rename" if isinstance(holder, dict):
                holder[data.draw(st.sampled_from(RULE_WORDS))] = holder.pop(key)
            case _:
                holder[key] = data.draw(values())
        if not config:
            break
    if data.draw(st.booleans()):
        config = {"text_config": config, "model_type": "gemma3"}
    (folder / "config.json").write_text(json.dumps(config))
    plans_or_tells(folder)


@pytest.mark.parametrize("field", ["v_head_dim", "qk_nope_head_dim", "kv_lora_rank"])
@pytest.mark.parametrize("family", ["deepseek_v3", "kimi_linear", "longcat_flash"])
def test_a_size_that_rules_need_is_null(tmp_path: Path, family: str, field: str) -> None:
    config = json.loads((FIXTURES / family / "config.published.json").read_text()) | {field: None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    plans_or_tells(tmp_path)


LARGE = {
    "a list of 10^5 zeros": [0] * 99_000,
    "a text of half a MiB": "M" * 500_000,
    "10^9": 10**9,
    "10^40": 10**40,
    "deep": "deep",
    "many fields": {f"k{n}": n for n in range(30_000)},
}


@pytest.mark.parametrize("field", ["num_hidden_layers", "layer_types", "rope_parameters", "unknown", "vocab_size"])
@pytest.mark.parametrize("name", LARGE)
def test_a_large_value_in_a_config(tmp_path: Path, name: str, field: str) -> None:
    config = json.loads((FIXTURES / "qwen3" / "config.json").read_text()) | {field: LARGE[name]}
    text = json.dumps(config)
    (tmp_path / "config.json").write_text(text.replace('"deep"', "[" * 5000 + "]" * 5000))
    plans_or_tells(tmp_path)


# Rules.


NAMES = ["a", "a.weight", "a.bias", "a.scales", "a.0", "a.1.weight", "a.00", "a.x", "b.a.0", "a_blocks", "a_scales"]
TYPES = ["F32", "BF16", "F64", "U8", "U32", "F8_E4M3", "I64"]
SHAPES = st.lists(st.sampled_from((0, 1, 2, 4, 16)), max_size=4).map(tuple)


@settings(max_examples=150)
@given(
    rules(),
    st.dictionaries(st.sampled_from(NAMES), st.tuples(SHAPES, st.sampled_from(TYPES)), max_size=5),
    st.dictionaries(st.sampled_from(["w", "w.weight", "w.0", "v"]), SHAPES, max_size=3),
    st.sampled_from(["huggingface", "mlx", None]),
)
def test_any_rules(written: Any, tensors: Any, parameters: Any, layout: Any) -> None:
    """A sound section meets any headers; a faulty one is told."""
    begin = time.process_time()
    data = described(huggingface={"model_types": ["case"], "weights": written})
    try:
        document = load(data).document
    except ArchitectureError as error:
        assert_told_well(error)
        return
    section = document.huggingface
    assert section is not None
    headers = {n: TensorHeader(n, shape, dtype, Path("model.safetensors")) for n, (shape, dtype) in tensors.items()}
    code = None
    try:
        plan_load(Shapes(parameters), section, document.dims, headers, layout)  # type: ignore[arg-type]
    except Refusal as refusal:
        code = refusal.code
    assert code in (None, "AX553", "AX554", "AX555", "AX556")
    assert time.process_time() - begin < SECONDS


#: A name of a tensor and a pattern that would go through it again and again.
RUNAWAY = {
    "wild": "<*>a" * 60 + "b",
    "captures": "x".join(f"<c{n}>" for n in range(40)) + "y",
    "choices": "(a|aa|)" * 60 + "b",
    "two of them": "<*>a<b>a<c>c",
}


@pytest.mark.parametrize("pattern", RUNAWAY.values(), ids=RUNAWAY)
def test_a_pattern_that_would_run_away(pattern: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        load(described(huggingface={"weights": {pattern: None}}))
    assert {d.code for d in caught.value.diagnostics} == {"AX160"}


def test_the_slowest_pattern_that_may_be() -> None:
    begin = time.process_time()
    pattern = parse_pattern("(a|aa|aaa|aaaa)(a|aa|aaa|aaaa)(a|aa|aaa|aaaa)<*>a<x>.<y>b")
    for name in ("a" * 5000, "a" * 490, "a" * 200 + "." + "a" * 200):
        assert pattern.match(name) is None
    assert time.process_time() - begin < SECONDS


def test_a_target_with_too_many_spellings() -> None:
    with pytest.raises(ArchitectureError, match="AX160"):
        load(described(huggingface={"weights": {"a": "(a|b)" * 60}}))


def many(rule: dict[str, Any], count: int = 20_000) -> None:
    """A rule that meets many tensors."""
    section = HuggingFace.model_validate({"weights": {"q.<e>": rule}})
    headers = {f"q.{n}": TensorHeader(f"q.{n}", (2, 2), "F32", Path("m.safetensors")) for n in range(count)}
    shapes = Shapes({f"w.{n}": (2, 2) for n in range(count)})
    plan_load(shapes, section, {"big": [1.0] * 90_000}, headers)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "rule", [{"to": "w.<e>", "when": "=len([0] * 90000) > e"}, {"to": "w.<e>", "scale": "=[1.0] * 90000"},
             {"to": "w.<e>", "scale": "=big if e else big"}]
)  # fmt: skip
def test_formulas_of_rules_do_bounded_work(rule: dict[str, Any]) -> None:
    begin = time.process_time()
    with pytest.raises(Refusal, match="AX55"):
        many(rule)
    assert time.process_time() - begin < SECONDS


def test_numbers_are_written_in_one_way(tmp_path: Path) -> None:
    """`01` beside `1` would take its place unseen."""
    section = HuggingFace.model_validate({"weights": {"q.<e>": {"to": "w", "stack": "e"}}})
    for names in (["q.0", "q.1", "q.01"], ["q.0", "q.١"]):
        headers = {name: TensorHeader(name, (2,), "F32", Path("m.safetensors")) for name in names}
        with pytest.raises(Refusal, match="this is not a number"):
            plan_load(Shapes({"w": (2, 2)}), section, {}, headers)  # type: ignore[arg-type]


# Headers.


@settings(max_examples=200)
@given(st.data())
def test_any_header(folder: Path, data: st.DataObject) -> None:
    """The header of a real file with values replaced: refused, or read and compared."""
    raw = (
        FIXTURES / data.draw(st.sampled_from(["llama", "gpt_oss_mxfp4", "mamba"])) / "model.safetensors"
    ).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    for _ in range(data.draw(st.integers(0, 3))):
        holder, key = data.draw(st.sampled_from(list(places(header))))
        holder[key] = data.draw(values() | st.sampled_from(TYPES))
    text = json.dumps(header).encode()
    body = raw[8 + length :]
    (folder / "model.safetensors").write_bytes(
        struct.pack("<Q", data.draw(st.sampled_from((len(text), 0, length, 2**63)))) + text + body
    )
    told = None
    try:
        read_checkpoint(folder)
    except Refusal as refusal:
        told = refusal
    assert told is None or told.code == "AX511"
    str(told).encode()  # can be printed


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchitectureError, match="AX601"):
        load(checkpoint=tmp_path / "file")
    with pytest.raises(Refusal, match="AX551"):
        read_checkpoint(tmp_path / "file")
    assert not list(Problems())


def test_the_largest_checkpoint_is_planned_from_its_headers(tmp_path: Path) -> None:
    """1.9 s and 110 MB here; nothing of MLX is imported."""
    config = FIXTURES.parent / "configs" / "DeepSeek-V3.json"
    (tmp_path / "config.json").write_bytes(config.read_bytes())
    begin = [sys.executable, "-m", "tests.hostile.large_checkpoint", str(tmp_path)]
    done = subprocess.run(begin, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    tensors, transfers, seconds, megabytes, heavy = json.loads(done.stdout)
    assert (tensors, transfers, heavy) == (90_427, 1025, [])
    assert seconds < SECONDS
    assert megabytes < 256


@pytest.mark.parametrize("length", [[], [64], "64", True, 0, -1, 0.0, 10**400, {}])
@pytest.mark.parametrize("field", ["original_max_position_embeddings", "max_position_embeddings"])
def test_lengths_of_a_rotation_that_are_none(tmp_path: Path, field: str, length: object) -> None:
    """Found by made-up values: the factor between them was computed before anybody had looked at them."""
    config = json.loads((FIXTURES / "phi3" / "config.published.json").read_text())
    config[field] = length
    config["rope_scaling"]["original_max_position_embeddings"] = length if field.startswith("orig") else 64
    (tmp_path / "config.json").write_text(json.dumps(config))
    plans_or_tells(tmp_path)
