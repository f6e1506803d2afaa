"""`check` as a whole: its report, what it says about faults, and models of every shipped kind."""

from __future__ import annotations

import json
from typing import Any

import mlx.core as mx
import pytest
from mutations import MODELS

import axon_compose
from axon_compose.proof.check import TRUTHS, CheckReport, Truth, check, check_plan, shrink
from axon_compose.proof.check._subject import Subject
from axon_compose.registry import ComponentSpec, Registry
from axon_compose.report._check import check_text, failures
from axon_compose.report._style import PLAIN, Style


@pytest.mark.parametrize("name", ["bit-axon", "parallel-hybrid", "shared-kv"])
def test_shipped(name: str) -> None:
    report = check(axon_compose.load(name))
    assert report.passed, check_text(report, PLAIN)
    assert [truth.name for truth in report.truths] == list(TRUTHS)
    # Not vacuous: every layer counts, and every component sees what it should.
    seen = {truth.name: truth for truth in report.truths}
    assert seen["every-layer"].figure > 0.05
    assert seen["reach"].figure > 1e-3


@pytest.mark.parametrize("seed", [1, 2])
def test_other_seeds(seed: int) -> None:
    report = check(
        axon_compose.load("hybrid-demo"), seed=seed, truths=["chunks", "steps", "large", "right-padded", "gradients"]
    )
    assert report.passed, check_text(report, PLAIN)


def test_model_without_any_cache() -> None:
    description = {**MODELS["full"], "blocks": {"layer": ["mlp"]}}
    report = check(axon_compose.load(description))
    assert report.passed, check_text(report, PLAIN)


def test_same_seed_same_report() -> None:
    plan = axon_compose.load(MODELS["full"]).plan()
    truths = ["chunks", "reach", "every-layer", "large"]
    assert check_plan(plan, truths=truths) == check_plan(plan, truths=truths)
    assert check_plan(plan, truths=truths, seed=1) != check_plan(plan, truths=truths)


def test_unknown_truth() -> None:
    with pytest.raises(ValueError, match="there is no check `chunk`"):
        check_plan(axon_compose.load(MODELS["full"]).plan(), truths=["chunk"])


def test_a_state_that_changes_with_every_few_tokens_is_up_to_date() -> None:
    """Compressed keys are written when the tokens of one are complete: eight, in small sizes."""
    small = shrink(axon_compose.load("deepseek_v4").plan())
    assert check_plan(axon_compose.load(small).plan(), truths=["caches"]).passed


def test_a_state_of_one_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by a random stack: a state is written anew with what it held if the same token comes twice."""
    monkeypatch.setattr(Subject, "tokens", lambda self, batch, length, salt=0: mx.full((batch, length), 5))
    description = {**MODELS["full"], "components": {"conv": {"type": "short_conv", "d_conv": 2}}, "stack": "layer"}
    plan = axon_compose.load({**description, "blocks": {"layer": ["conv"]}}).plan()
    report = check_plan(plan, truths=["caches"])
    assert report.passed, check_text(report, PLAIN)


def test_place_of_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first layer that differs is named, with what stands in it and the position."""
    from axon_core.mlp import MLP

    original = MLP.__call__
    calls = iter(range(10**6))

    def call(self: Any, x: Any) -> Any:
        y = original(self, x)
        return y * 1.01 if x.shape[1] == 1 and next(calls) % 2 else y  # of two layers, always the second

    monkeypatch.setattr(MLP, "__call__", call)
    (truth,) = check_plan(axon_compose.load(MODELS["full"]).plan(), truths=["steps"]).truths
    assert not truth.passed
    assert truth.detail.endswith("first at position 0 of 83; it begins in layer 1 (attn, mlp)")


def test_component_that_raises() -> None:
    spec = ComponentSpec("bad", "layer", {"type": "object"}, "mlx.nn:Linear", "Not made from options and dims.")
    registry = Registry.with_plugins({"acme": [spec]})
    description = {**MODELS["full"], "components": {"bad": "acme/bad"}, "blocks": {"layer": ["bad"]}}
    report = check_plan(axon_compose.load(description, registry=registry).plan())
    (truth,) = report.truths
    assert (truth.name, truth.passed, report.passed) == ("parameters", False, False)
    assert "TypeError" in truth.detail


#: What says nothing of the outputs' values, and so holds for any.
OF_ANY_VALUE = {"parameters", "caches", "cache-bytes", "ties"}


def _never(self: Any, x: mx.array) -> mx.array:
    return x * float("nan")


def _endless(self: Any, x: mx.array) -> mx.array:
    return x + float("inf")


@pytest.mark.parametrize("fault", [None, _never, _endless], ids=["scale", "nan", "inf"])
def test_a_model_without_finite_outputs(monkeypatch: pytest.MonkeyPatch, fault: Any) -> None:
    """Nothing is compared with NaN and found equal, or different enough."""
    from axon_core.mlp import MLP

    description = dict(MODELS["full"])
    if fault:
        monkeypatch.setattr(MLP, "__call__", fault)
    else:
        description["head"] = {"scale": 1e39}
    report = check(axon_compose.load(description))
    assert {truth.name for truth in report.truths if truth.passed} <= OF_ANY_VALUE
    text = check_text(report, PLAIN)
    assert "finite" in text
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert {truth["figure"] for truth in data["truths"]} & {"inf", "nan"}


def test_failures_that_are_alike_are_shown_once() -> None:
    alike = [
        Truth(name, "runs", False, detail="no") for name in ("chunks", "steps", "causal", "joined", "saved", "tied")
    ]
    odd = Truth("reach", "sees", False, 1e-9, 5e-7, ">=", detail="blind")
    report = CheckReport("m", 0, 1, 1, (alike[0], odd, *alike[1:]))
    assert check_text(report, PLAIN).splitlines()[-3:] == [
        "  chunks, steps, causal, joined and 2 more: no",
        "  reach: blind",
        "7 of 7 checks failed",
    ]
    assert list(failures(report, figures=True)) == [
        ("chunks, steps, causal, joined and 2 more", "no"),
        ("reach", "measured 1.0e-09, limit ≥ 5.0e-07; blind"),
    ]


REPORT = CheckReport(
    "m",
    3,
    2,
    24,
    (
        Truth("chunks", "in chunks = in one piece", True, 3e-7, 2e-5),
        Truth("steps", "token by token = in one piece", False, float("inf"), 2e-5, detail="first at position 9 of 20"),
        Truth("reach", "sees", True, 0.5, 5e-5, ">="),
        Truth("caches", "runs without an error", False, detail="ValueError: no"),
    ),
)


def test_report_as_data() -> None:
    data = json.loads(json.dumps(REPORT.to_dict(), allow_nan=False))
    assert data["passed"] is False
    assert data["truths"][1]["figure"] == "inf"
    assert [truth.name for truth in REPORT.failed] == ["steps", "caches"]


def test_report_as_text() -> None:
    assert check_text(REPORT, PLAIN) == (
        "m: 2 of 24 layers in small sizes, seed 3\n"
        "\n"
        "        check   measured  limit      claim\n"
        "  ok    chunks   3.0e-07  ≤ 2.0e-05  in chunks = in one piece\n"
        "  FAIL  steps        inf  ≤ 2.0e-05  token by token = in one piece\n"
        "  ok    reach    5.0e-01  ≥ 5.0e-05  sees\n"
        "  FAIL  caches         -             runs without an error\n"
        "\n"
        "  steps: first at position 9 of 20\n"
        "  caches: ValueError: no\n"
        "2 of 4 checks failed\n"
    )
    assert "\x1b[1;31mFAIL\x1b[0m" in check_text(REPORT, Style(colour=True))


def test_layers_that_mix_twice() -> None:
    """What a reader sees is measured with everything else switched off, also inside the layer that it reads from."""
    head = {"num_heads": 2, "head_dim": 16}
    description = {
        **MODELS["full"],
        "components": {
            "near": {"type": "attention", **head, "window_size": 3},
            "swa": {"type": "attention", **head, "window_size": 8},
            "reader": {"type": "attention", **head, "window_size": 6, "kv_from": "swa"},
        },
        "blocks": {
            "first": {"branches": ["near", "swa"], "share": "one"},
            "second": {"branches": [{"use": "reader", "norm": "sandwich"}], "share": "two"},
        },
        "stack": "first*2 second*2",
    }
    report = check_plan(axon_compose.load(description).plan())
    assert report.passed, check_text(report, PLAIN)
    (reach,) = (truth for truth in report.truths if truth.name == "reach")
    assert reach.detail == "near 2 back; swa 7 back; reader 5 back"
