"""The sheet: totals, unknown work, traffic, memory, and how it is told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from cost_subjects import ARCHITECTURES, small

from axon_compose import Architecture, load
from axon_compose.analysis.cost import cost as counted
from axon_compose.cli import main
from axon_compose.registry import Registry
from axon_compose.report import PLAIN
from axon_compose.report._cost import cost_text
from tests.helpers import described

MLP = Registry.installed().component("mlp")
BITS = {"float32": 32, "bfloat16": 16}


def with_flops(**fields: Any) -> Architecture:
    """`BASE` with a stranger's `mlp` in its place."""
    registry = Registry.with_plugins({"acme": [replace(MLP, default=False, **fields)]})
    data = described()
    data["components"]["mlp"]["type"] = "acme/mlp"
    return load(data, registry=registry)


def boom(*arguments: Any) -> int:
    raise RuntimeError("no")


@pytest.mark.parametrize(
    ("flops", "reason"),
    [
        (None, "declares no `flops`"),
        (lambda options, dims, tokens, context: None, "cannot compute"),
        (lambda options, dims, tokens, context: 1.5, "returns a `float`"),
        (lambda options, dims, tokens, context: -1, "returns a `int`"),
        (lambda options, dims, tokens, context: True, "returns a `bool`"),
        (lambda options, dims, tokens, context: 1 << 600, "returns a `int`"),
        (boom, "raises RuntimeError"),
    ],
)
def test_unknown_work_is_never_zero(flops: Any, reason: str) -> None:
    sheet = with_flops(flops=flops).cost(context=64)
    assert not sheet.exact_flops
    assert reason in sheet.unknown["acme/mlp"]
    (part,) = (part for part in sheet.parts if part.type == "acme/mlp")
    assert part.decode_flops == part.prefill_flops == (None,)
    assert [layer.decode_flops[0] is None for layer in sheet.layers] == [True, False, True]
    known = sum(part.decode_flops[0] or 0 for part in sheet.parts)
    assert sheet.contexts[0].decode_flops == known > 0
    text = cost_text(sheet, PLAIN, layers=True)
    assert "at least" in text
    assert "unknown: `acme/mlp`" in text
    assert json.loads(json.dumps(sheet.to_dict()))["exact_flops"] is False


@pytest.mark.parametrize("touched", [boom, lambda *_: 3, lambda *_: {1: 2, "up_proj.weight": "all"}])
def test_nonsense_about_rows_reads_everything(touched: Any) -> None:
    assert with_flops(touched=touched).cost().contexts == with_flops(touched=None).cost().contexts


def test_a_record_is_checked() -> None:
    for field in ("flops", "touched", "saved", "recomputed"):
        registry = Registry.with_plugins({"acme": [replace(MLP, default=False, **{field: 7})]})
        (status,) = (status for status in registry.statuses() if status.namespace == "acme")
        assert f"`{field}` must be a function or None" in str(status.cause)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parts_and_layers_add_up(name: str) -> None:
    sheet = small(name).cost(context=[16, 64], batch=3)
    assert sheet.exact_flops
    assert sheet.parameters == sum(part.parameters for part in sheet.parts)
    assert sheet.active_parameters == sum(part.active for part in sheet.parts)
    for number, cost in enumerate(sheet.contexts):
        assert cost.decode_flops == sum(part.decode_flops[number] or 0 for part in sheet.parts)
        assert cost.cache_bytes == sum(layer.cache_bytes[number] for layer in sheet.layers)
        assert cost.memory_bytes == sheet.weight_bytes + cost.cache_bytes


def test_traffic_of_a_decoded_token() -> None:
    """Counted by hand: one row of the table, its whole as the head, two experts of eight, keys and values, a state."""
    data = {
        "version": 1,
        "dims": {"hidden_size": 64, "vocab_size": 100},
        "components": {
            "attn": {"type": "attention", "num_heads": 2, "rope": False},
            "moe": {"type": "moe", "num_experts": 8, "top_k": 2, "intermediate_size": 32, "gated": False},
        },
        "blocks": {"a": ["attn", "moe"]},
        "stack": "a",
        "embedding": {"positions": 50},
    }
    norms, attention, router, expert = 3 * 64, 4 * 64 * 64, 8 * 64, 2 * 64 * 32
    for batch, experts in ((1, 2), (3, 6), (5, 8)):
        (cost,) = load(data).cost(context=10, batch=batch, bandwidth=1e9).contexts
        weights = 2 * batch * 64 + 100 * 64 + norms + attention + router + experts * expert
        keys_values = (10 + 1) * 2 * 64
        assert cost.moved_bytes == 2 * (weights + batch * keys_values)
        assert cost.tokens_per_second == pytest.approx(batch * 1e9 / cost.moved_bytes)


def test_readers_read_keys_once_more() -> None:
    data = described(stack="a r")
    data["components"]["reader"] = {"type": "attention", "num_heads": 2, "kv_from": "attn"}
    data["blocks"]["r"] = ["reader"]
    cost = load(data).cost(context=100)
    weights = cost.weight_bytes + 2 * 32  # the tied table is read whole, and one row of it again
    assert cost.contexts[0].moved_bytes == weights + 2 * (100 + 1 + 100) * 2 * 32


def test_longest_context() -> None:
    """The most tokens that fit, and one more does not."""
    architecture = load(described(stack="a s w"))
    for batch in (1, 3):
        sheet = architecture.cost(context=[10, 10_000], batch=batch, memory=200_000)
        assert sheet.fit
        longest = sheet.fit.longest
        assert longest
        there, beyond = architecture.cost(context=[longest, longest + 1], batch=batch).contexts
        assert there.memory_bytes <= 200_000 < beyond.memory_bytes
        assert sheet.fit.fits == tuple(cost.memory_bytes <= 200_000 for cost in sheet.contexts)
    for memory, expected in ((10, 0), (10**6, None)):
        fit = load(described(stack="s w")).cost(memory=memory).fit
        assert fit
        assert fit.longest == expected


def test_training() -> None:
    architecture = load(described())
    sheet = architecture.cost(context=[8, 16], batch=2, quantize=4, training=True, memory=10**7)
    first, second = (cost.training for cost in sheet.contexts)
    assert first
    assert second
    plain = architecture.cost().weight_bytes
    assert (first.weights, first.optimizer) == (plain, 2 * plain)
    assert second.activations > 2 * first.activations > 0  # scores of attention grow with the square
    assert sheet.fit
    assert sheet.fit.longest
    (at_most,) = architecture.cost(context=sheet.fit.longest, batch=2, training=True).contexts
    assert at_most.needed_bytes <= 10**7


@pytest.mark.parametrize(
    "wrong",
    [
        {"context": 0},
        {"context": []},
        {"dtype": "int8"},
        {"batch": 0},
        {"quantize": 7},
        {"segment": -1, "training": True},
        {"segment": 1},
        {"memory": -1},
        {"bandwidth": 0.0},
    ],
)
def test_wrong_arguments(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
        load(described()).cost(**wrong)


def test_notebook() -> None:
    html = load(described()).cost(memory=10**6)._repr_html_()
    assert html.count("<table>") == html.count("</table>") == 2
    assert "longest context" in html


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--context", "100,2000", "--batch", "2", "--quantize", "4", "--memory", "1MiB", "--bandwidth", "100"]
    assert main(["cost", "hybrid-demo", *arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    sheet = load("hybrid-demo").cost(context=[100, 2000], batch=2, quantize=4, memory=2**20, bandwidth=1e11)
    assert result == json.loads(json.dumps(sheet.to_dict()))
    assert main(["cost", "hybrid-demo", *arguments, "--layers", "--training"]) == 0
    text = capsys.readouterr().out
    for word in ("embedding", "0..2", "tokens/s at most", "training: ", "longest context in 1.05 MB"):
        assert word in text, word


def test_command_with_segments(capsys: pytest.CaptureFixture[str]) -> None:
    """What `train --segment` needs, which the tests of segments measure."""
    asked = ["cost", "hybrid-demo", "--context", "256", "--training"]
    assert main([*asked, "--segment", "2", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["result"]["contexts"]
    architecture = load("hybrid-demo")
    (sheet,) = counted(architecture.plan(), context=256, training=True, segment=2).contexts
    (whole,) = architecture.cost(context=256, training=True).contexts
    assert found["training"]["total"] == sheet.needed_bytes < whole.needed_bytes
    assert main([*asked, "--segment", "0"]) == 0
    assert "computed again" not in capsys.readouterr().out
    assert main([*asked, "--segment", "2"]) == 0
    assert "in flight; computed again by 2 layers" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["cost", "hybrid-demo", "--segment", "2"])
    assert "argument --segment: only with --training" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [["--memory", "much"], ["--memory", "1iB"], ["--context", "0"], ["--context", "1,x"], ["--bandwidth", "0"]]
)
def test_wrong_usage(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["cost", "hybrid-demo", *wrong])
    assert caught.value.code == 2


def test_states_are_read_and_written() -> None:
    data = described(stack="s", head={"tied": False})
    cost = load(data).cost(context=100, dtype="float32")
    (at,) = cost.contexts
    table = 4 * 64 * 32
    assert at.state_bytes == 4 * (3 * 64 + 4 * 64)  # the convolution's last inputs, and 4 states of 64 channels
    assert at.moved_bytes == cost.weight_bytes - table + 4 * 32 + 2 * at.state_bytes
