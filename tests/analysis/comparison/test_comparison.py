"""The table: every figure is that of the cost sheet, in the order that was asked for, and told in words and JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from axon_compose import ArchitectureError, compare, load
from axon_compose.analysis.comparison import Comparison, UnknownColumn
from axon_compose.proof.bench import Measurement, Spread, Workload
from axon_compose.registry import Registry
from axon_compose.report._comparison import comparison_text
from tests.helpers import described

SHIPPED = ("bit-axon", "llama", "qwen3_next", "falcon_mamba")
MLP = Registry.installed().component("mlp")


@pytest.fixture(scope="module")
def shipped() -> Comparison:
    return compare(SHIPPED, context=[4096, 65536, 1024], quantize=4, batch=2, memory=16 * 10**9, bandwidth=1e11)


def figures(comparison: Comparison, column: str) -> list[Any]:
    return [comparison.column(column).value(row) for row in comparison.rows]


def test_every_figure_is_that_of_the_sheet(shipped: Comparison) -> None:
    assert [row.name for row in shipped.rows] == list(SHIPPED)
    for at, name in enumerate(SHIPPED):
        sheet = load(name).cost(context=[4096, 65536, 1024], quantize=4, batch=2, memory=16 * 10**9, bandwidth=1e11)
        assert shipped.rows[at].sheet == sheet
        first, longest, last = sheet.contexts
        assert sheet.fit
        expected = {
            "parameters": sheet.parameters,
            "active": sheet.active_parameters,
            "weights": sheet.weight_bytes,
            "cache-4096": first.cache_bytes,
            "cache-65536": longest.cache_bytes,
            "cache": longest.cache_bytes,
            "cache-1024": last.cache_bytes,
            "memory": longest.memory_bytes,
            "decode-flops": longest.decode_flops,
            "prefill-flops": round(longest.prefill_flops / (2 * 65536)),
            "fits": sheet.fit.fits[1],
            "longest": float("inf") if sheet.fit.longest is None else sheet.fit.longest,
            "tokens-per-second": longest.tokens_per_second,
        }
        assert {column: figures(shipped, column)[at] for column in expected} == expected


def test_only_what_was_asked_for_has_a_column(shipped: Comparison) -> None:
    plain = compare(["llama"], context=128)
    names = ["name", "parameters", "active", "weights", "cache-128", "memory", "decode-flops", "prefill-flops"]
    assert [column.name for column in plain.columns] == names
    assert {column.name for column in shipped.columns} >= {"fits", "longest", "tokens-per-second"}


@pytest.mark.parametrize(
    ("column", "reverse", "order"),
    [
        ("parameters", False, ["bit-axon", "llama", "falcon_mamba", "qwen3_next"]),
        ("parameters", True, ["qwen3_next", "falcon_mamba", "llama", "bit-axon"]),
        ("cache", False, ["falcon_mamba", "bit-axon", "qwen3_next", "llama"]),
        ("longest", False, ["bit-axon", "falcon_mamba", "llama", "qwen3_next"]),
        ("longest", True, ["qwen3_next", "llama", "bit-axon", "falcon_mamba"]),
        ("fits", False, ["bit-axon", "falcon_mamba", "llama", "qwen3_next"]),
        ("name", False, ["bit-axon", "falcon_mamba", "llama", "qwen3_next"]),
    ],
)
def test_sorting(shipped: Comparison, column: str, reverse: bool, order: list[str]) -> None:
    assert [row.name for row in shipped.sort(column, reverse=reverse).rows] == order
    assert [row.name for row in shipped.rows] == list(SHIPPED), "sorting changes nothing in place"


@pytest.mark.parametrize(
    ("column", "hint"),
    [("paramters", "did you mean `parameters`?"), ("cahce", "did you mean `cache`?"), ("x", "columns are name, ")],
)
def test_a_typo_is_told_with_the_nearest_name(shipped: Comparison, column: str, hint: str) -> None:
    with pytest.raises(UnknownColumn) as caught:
        shipped.sort(column)
    assert str(caught.value).startswith(f"there is no column `{column}`; {hint}")
    assert isinstance(caught.value, ValueError)


def test_a_typo_is_told_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("axon_compose.architecture._compare.run", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(UnknownColumn):
        compare(["hybrid-demo"], sort="dcode-speed", measure=True)


def test_unknown_work_is_at_least_and_never_zero() -> None:
    registry = Registry.with_plugins({"acme": [replace(MLP, default=False, flops=None)]})
    data = described()
    data["components"]["mlp"]["type"] = "acme/mlp"
    found = compare([data, described(name="known")], registry=registry, context=64)
    text = comparison_text(found)
    first, second = found.rows
    known = found.column("decode-flops").value(first)
    assert known == first.sheet.contexts[0].decode_flops > 0
    assert found.column("decode-flops").text(first).startswith("at least ")
    assert not found.column("decode-flops").text(second).startswith("at least ")
    assert "unknown: `acme/mlp` declares no `flops`" in text
    nothing = replace(first.sheet, contexts=(replace(first.sheet.contexts[0], decode_flops=0, prefill_flops=0),))
    assert found.column("decode-flops").text(replace(first, sheet=nothing)) == "unknown"
    assert replace(found, rows=(replace(first, sheet=nothing), second)).sort("decode-flops").rows[-1].name == first.name


def test_faults_of_all_files_are_told_together(tmp_path: Path) -> None:
    for name, text in (("a", "version: 1\nnaem: a"), ("b", "version: 2")):
        (tmp_path / f"{name}.yaml").write_text(text)
    with pytest.raises(ArchitectureError) as caught:
        compare([tmp_path / "a.yaml", "llama", tmp_path / "b.yaml", tmp_path / "none.yaml"])
    files = {Path(d.span.file).name for d in caught.value.diagnostics if d.span}
    assert files == {"a.yaml", "b.yaml"}
    assert "none.yaml" in caught.value.diagnostics[-1].message
    assert len(caught.value.sources) == 2
    with pytest.raises(FileNotFoundError):
        compare(["llama", tmp_path / "none.yaml"])


def test_the_same_name_is_told_apart() -> None:
    model = load("hybrid-demo")
    assert [row.name for row in compare([model, model, "llama"]).rows] == ["hybrid-demo", "hybrid-demo (2)", "llama"]
    assert [row.name for row in compare([model, model], names=["a", "b"]).rows] == ["a", "b"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"models": []},
        {"context": 0},
        {"batch": 0},
        {"quantize": 7},
        {"names": ["one", "two"]},
        {"measure": Workload(batch=2)},
    ],
)
def test_wrong_arguments(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"nothing to compare|`"):
        compare(**{"models": ["hybrid-demo"]} | wrong)


def measured(comparison: Comparison) -> Comparison:
    """As if it had been measured: the last model was too large."""
    found = [
        Measurement("", Spread((100.0, 110.0, 90.0)), Spread((10.0, 10.5, 11.0)), 10**9, 2 * 10**9, "cpu"),
        Measurement("", Spread((1234.0,)), Spread((5.0,)), 10**8, 10**9, "cpu"),
        Measurement("", fault="it needs 1 TB"),
    ]
    rows = (replace(row, measured=one) for row, one in zip(comparison.rows, found, strict=True))
    return replace(comparison, workload=Workload(prompt=64, steps=4), rows=tuple(rows))


def test_measured_figures() -> None:
    found = measured(compare(["hybrid-demo", "llama-small", "llama"], context=64))
    assert figures(found, "decode-speed") == [10.5, 5.0, None]
    assert [row.name for row in found.sort("decode-speed").rows] == ["hybrid-demo", "llama-small", "llama"]
    assert [row.name for row in found.sort("decode-speed", reverse=True).rows][-1] == "llama"
    text = comparison_text(found)
    assert "100 ±10%" in text
    assert "10.5 ±5%" in text
    assert "1,230 ±0%" in text
    assert "measured on the CPU, random weights: prompts of 64 tokens, 4 decoded; median of 3 rounds" in text
    assert "not measured: llama: it needs 1 TB" in text
    data = json.loads(json.dumps(found.to_dict()))
    assert data["workload"] == {"prompt": 64, "steps": 4, "batch": 1, "rounds": 3, "training": False}
    assert data["rows"][0]["measured"]["decode_tokens_per_second"] == {
        "median": 10.5, "least": 10.0, "most": 11.0, "rounds": [10.0, 10.5, 11.0],
    }  # fmt: skip
    assert data["rows"][2]["measured"]["fault"] == "it needs 1 TB"


def test_names_reach_no_terminal_unescaped() -> None:
    text = comparison_text(compare(["hybrid-demo"], names=["\x1b[31mred"]))
    assert "\x1b" not in text
    assert "\\x1b[31mred" in text


def test_to_dict_is_json_with_every_figure(shipped: Comparison) -> None:
    data = json.loads(json.dumps(shipped.to_dict()))
    assert data["contexts"] == [4096, 65536, 1024]
    assert [row["name"] for row in data["rows"]] == list(SHIPPED)
    for row, model in zip(data["rows"], shipped.rows, strict=True):
        assert row["parameters"] == model.sheet.parameters
        assert row["contexts"][1]["cache_bytes"] == model.sheet.contexts[1].cache_bytes
        assert row["fit"]["fits"] == [cost.memory_bytes <= 16 * 10**9 for cost in model.sheet.contexts]


def test_exported() -> None:
    import axon_compose.architecture

    assert axon_compose.compare is axon_compose.architecture.compare
