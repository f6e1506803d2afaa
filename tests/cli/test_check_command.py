"""`check`: which arguments belong together, single truths, and one component with options that are made up."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from axon_compose.cli import main
from axon_compose.proof.check import CheckReport, Truth
from axon_compose.testing import Case, examples
from axon_compose.testing._report import cases_verdict

QUICK = ["--truth", "chunks,causal"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["check", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either FILE or --layer TYPE"),
        (["llama", "--layer", "mlp"], "give either FILE or --layer TYPE"),
        (["llama", "--cases", "3"], "--cases belongs to --layer TYPE"),
        (["llama", "--options", "{}"], "--options belongs to --layer TYPE"),
        (["--layer", "mlp", "--set", "a=1"], "--set belongs to FILE"),
        (["--layer", "mlp", "--as-is"], "--as-is belongs to FILE"),
        (["--layer", "mlp", "--cases", "0"], "'0' is not a number from 1 to 10000"),
        (["--layer", "mlp", "--options", "{"], "--options is not JSON: "),
        (["--layer", "mlp", "--options", "[" * 100_000], "--options is not JSON: "),
        (["--layer", "mlp", "--options", "[]"], "--options is a JSON object such as "),
        (["--layer", "mlp", "--options", '{"type": "moe"}'], "--options takes the options of the type"),
        (["llama", "--truth", "chunk"], "there is no check `chunk`; did you mean `chunks`?"),
        (["llama", "--truth", "beauty"], "there is no check `beauty`; one of parameters, one-shot, "),
        (["llama", "--truth", ""], "there is no check ``"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["check", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nope"], 1, "error[AX202]: unknown component `nope`"),
        (["acme/hyena"], 1, "error[AX201]: unknown plugin `acme`"),
        ([""], 1, "error[AX210]: `` is not the name of a type"),
        (["\0"], 1, "error[AX210]"),
        (["mlp", "--options", '{"a":' * 900 + "1" + "}" * 900], 1, "error[AX008]"),
        (["mlp", "--options", '{"intermediate_size": "\\ud800"}'], 1, "error[AX004]"),
        (["mlp", "--options", '{"intermediate_size": NaN}'], 1, "expected an integer, found the number nan"),
        (["mlp", "--options", '{"intermediate_size": 2000000000}'], 2, "error[AX401]"),
        (["Not a type"], 1, "error[AX210]: `Not a type` is not the name of a type"),
        (["mlp", "--options", '{"intermediate_size": 8, "gatd": true}'], 1, "help: did you mean `gated`?"),
        (["mlp", "--options", "{}"], 1, "missing option `intermediate_size`"),
        (["attention", "--options", '{"num_heads": 5}'], 1, "is not a multiple of `num_heads` (5)"),
    ],
)
def test_faults_of_a_component(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    found, out, err = run(capsys, "--layer", *arguments)
    assert (found, out) == (code, "")
    assert message in err


def test_single_truths_of_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "llama-small", "--truth", "causal,steps", "--json")
    result = json.loads(out)["result"]
    assert code == 0
    assert [truth["name"] for truth in result["truths"]] == ["causal", "steps"]
    assert run(capsys, "llama-small", "--truth", "causal")[1].endswith("\n1 check passed\n")


def test_a_model_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Small copies have fewer layers; what is checked as it is has all."""
    code, out, _ = run(capsys, "hybrid-demo", "--as-is", *QUICK, "--json")
    result = json.loads(out)["result"]
    assert (code, result["layers"], result["layers_described"], result["shrunk"]) == (0, 5, 5, False)
    assert run(capsys, "hybrid-demo", "--as-is", *QUICK)[1].startswith("hybrid-demo: 5 layers, seed 0\n")
    assert run(capsys, "hybrid-demo", *QUICK)[1].startswith("hybrid-demo: 4 of 5 layers in small sizes, seed 0\n")
    code, _, err = run(capsys, "bit-axon", "--as-is", "--set", "dims.hidden_size=2560000")
    assert code == 2
    assert "error[AX401]" in err


def test_cases_of_a_component(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--layer", "mlp", "--cases", "3", "--seed", "7", *QUICK)
    *cases, verdict = out.splitlines()
    assert code == 0
    assert verdict == "mlp: 2 checks passed in 3 of 3 cases"
    assert [case.split("  {")[0] for case in cases] == [f"  ok    seed {seed}" for seed in (7, 8, 9)]
    assert all("intermediate_size: " in case for case in cases)
    # One case can be repeated by its seed, and its options are those of the JSON.
    code, out, _ = run(capsys, "--layer", "core/mlp", "--cases", "1", "--seed", "8", *QUICK, "--json")
    (case,) = json.loads(out)["result"]["cases"]
    assert (case["seed"], case["file"], case["report"]["seed"]) == (8, None, 8)
    assert f"intermediate_size: {case['options']['intermediate_size']}" in cases[1]


def test_given_options(capsys: pytest.CaptureFixture[str]) -> None:
    options = '{"num_heads": 2, "window_size": 3}'
    code, out, _ = run(capsys, "--layer", "attention", "--options", options, "--truth", "reach")
    assert (code, out) == (
        0,
        "  ok    seed 0  {num_heads: 2, window_size: 3}\nattention: 1 check passed in 1 of 1 cases\n",
    )


def test_the_largest_seed(capsys: pytest.CaptureFixture[str]) -> None:
    largest = str(2**64 - 1)
    assert run(capsys, "--layer", "mlp", "--cases", "2", "--truth", "steps,tied", "--seed", largest)[0] == 0
    assert run(capsys, "llama-small", "--truth", "steps,tied,slopes", "--seed", largest)[0] == 0


def test_a_failure_shows_the_least_file_that_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from axon_core.mlp import MLP

    original = MLP.__call__

    def leaking(self: Any, x: mx.array) -> mx.array:
        y = original(self, x)
        return y + y.mean(axis=1, keepdims=True) if "bias" in self.up_proj else y

    monkeypatch.setattr(MLP, "__call__", leaking)
    options = {"intermediate_size": 24, "activation": "relu2", "gated": False, "bias": True}
    code, out, _ = run(capsys, "--layer", "mlp", "--options", json.dumps(options), "--truth", "causal,parameters")
    assert code == 1
    assert out.startswith("  FAIL  seed 0  {intermediate_size: 24, activation: relu2, gated: false, bias: true}\n")
    measured, limit = re.search(r"^        causal: measured (\S+), limit ≤ (\S+); an edit at ", out, re.M).groups()  # type: ignore[union-attr]
    assert float(measured) > 100 * float(limit) > 0
    assert "; an edit at position 1 changes the output at 0\n" in out
    assert out.endswith("mlp: 1 of 1 cases failed: causal\n")
    assert "`axon-compose check under-test.yaml --as-is --seed 0`" in out

    file = tmp_path / "under-test.yaml"
    file.write_text(out[out.index("version: 1") : out.index("mlp: 1 of 1 cases")])
    # Biases are what it takes, and the layer needs a width.
    assert "{type: mlp, intermediate_size: 24, bias: true}" in file.read_text()
    assert run(capsys, str(file), "--as-is", "--truth", "causal")[0] == 1
    monkeypatch.undo()
    assert run(capsys, str(file), "--as-is", "--truth", "causal")[0] == 0


def test_the_verdict_counts_what_failed() -> None:
    def case(*wrong: str) -> Case:
        truths = tuple(Truth(name, "claim", name not in wrong) for name in ("chunks", "causal", "tied"))
        return Case(0, {}, CheckReport("m", 0, 1, 1, truths))

    assert cases_verdict("a/b", [case(), case()]) == "a/b: 3 checks passed in 2 of 2 cases\n"
    assert cases_verdict("a/b", [case("causal")]) == "a/b: 1 of 1 cases failed: causal\n"
    several = [case("causal", "tied"), case(), case("tied")]
    assert cases_verdict("a/b", several) == "a/b: 2 of 3 cases failed: causal in 1, tied in 2\n"


def test_a_component_that_reads_from_the_embedding(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--layer", "per_layer_input", "--cases", "2", *QUICK)
    assert (code, out.splitlines()[-1]) == (0, "per_layer_input: 2 checks passed in 2 of 2 cases")


def test_examples_leave_out_readers() -> None:
    found = examples("core")
    assert ("core/mlp", {"intermediate_size": 48}) in found
    assert "core/per_layer_input" not in dict(found)
