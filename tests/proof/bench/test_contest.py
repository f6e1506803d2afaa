"""A contest: processes that are kept, workloads that fail alone, ratios, and peers with the same weights."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from bench_subjects import stand_in

from axon_compose import load
from axon_compose.cli import main
from axon_compose.diagnostics import Refusal
from axon_compose.proof.bench import Contest, Measurement, Spread, Workload, contest, same_weights, workloads
from axon_compose.proof.bench._folders import make
from axon_compose.report._contest import contest_text

SHORT = Workload(prompt=8, steps=4, rounds=2)
LLAMA = [
    f"dims.{name}={value}"
    for name, value in {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "vocab_size": 300,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }.items()
]
SET = [word for setting in LLAMA for word in ("--set", setting)]


def test_processes_are_kept_and_rounds_interleaved(tmp_path: Path) -> None:
    log, told = tmp_path / "log", []
    work = [SHORT, replace(SHORT, prompt=9, rounds=1)]
    contest([stand_in(name, log=str(log)) for name in "ab"], work, progress=lambda *event: told.append(event))
    names, processes = zip(*(line.split() for line in log.read_text().splitlines()), strict=True)
    assert names == ("a", "b"), "each is made once"
    assert len({*processes, str(os.getpid())}) == 3
    assert told == [*((name, number, 3) for number in (1, 2, 3) for name in "ab"), ("", 3, 3)]


@pytest.mark.usefixtures("forked_subjects")
@pytest.mark.parametrize("how", ["dies_of", "refuses"])
def test_a_workload_that_fails_leaves_the_others_alone(how: str) -> None:
    work = [replace(SHORT, prompt=prompt) for prompt in (8, 9, 10)]
    found = contest([stand_in("a", **{how: 9}), stand_in("b")], work)
    assert [[bool(one.fault) for one in measured] for measured in found] == [[False] * 2, [True, False], [False] * 2]
    assert (
        found[1][0].fault
        == {"dies_of": "the process ended with 3: this is not the answer", "refuses": "RuntimeError: not this one"}[how]
    )


@pytest.mark.usefixtures("forked_subjects")
def test_training_and_prefill_alone() -> None:
    """A sleep is a lower bound, so these speeds cannot be exceeded."""
    work = [Workload(30, 0, 2, 1), Workload(30, 0, 2, 1, training=True)]
    (prefill,), (training,) = contest([stand_in("a", prefill=0.1, train=0.2)], work)
    assert prefill.prefill
    assert prefill.decode is prefill.training is None
    assert 0 < prefill.prefill.median <= 600
    assert training.training
    assert training.prefill is training.decode is None
    assert 0 < training.training.median <= 300


def figures() -> Contest:
    work = [Workload(8, 0, 1, 1), Workload(8, 4, 2, 1), Workload(8, 0, 1, 1, training=True)]
    one = Spread((100.0,))
    found = [
        [
            Measurement("axon-compose", one, peak_bytes=10, device="cpu"),
            Measurement("x", Spread((50.0,)), peak_bytes=5),
        ],
        [Measurement("axon-compose", decode=one), Measurement("x", decode=Spread((200.0,)))],
        [Measurement("axon-compose", training=one, peak_bytes=10), Measurement("x", fault="too\x1b large")],
    ]
    return Contest.of("m", {"dtype": "float32", "device": "cpu", "blas": "reference"}, work, found)


def test_ratios() -> None:
    found = figures()
    assert [(line.kind, line.ratio(1)) for line in found.lines] == [
        ("prefill", 2.0),
        ("memory", 0.5),
        ("decode", 0.5),
        ("training", None),
        ("memory", None),
    ]
    assert found.geometric_mean(1) == 1.0
    assert found.geometric_mean(1, ["prefill"]) == 2.0
    assert found.geometric_mean(1, ["training"]) is None
    data = json.loads(json.dumps(found.to_dict()))
    assert [line["ratios"] for line in data["lines"]] == [[2.0], [0.5], [0.5], [None], [None]]


def test_text() -> None:
    assert contest_text(figures()) == (
        "m in float32 on the CPU\n\n"
        "                                axon-compose        x  ratio\n"
        "  prefill   8 tokens                 100 ±0%   50 ±0%  2.00x\n"
        "  memory    prefill, 8 tokens           10 B      5 B  0.50x\n"
        "  decode    2 sequences              100 ±0%  200 ±0%  0.50x\n"
        "  training  8 tokens                 100 ±0%        -\n"
        "  memory    training, 8 tokens          10 B        -\n"
        "\n"
        "  the same random weights; one run, tokens a second; peak of arrays, weights included\n"
        "  ratios: above 1, axon-compose is faster or takes less\n"
        "  not measured: x: too\\x1b large\n"
        "  this BLAS is slow, whoever uses it: `axon-compose doctor` says what to install\n"
    )


def test_usual_work() -> None:
    work = workloads([128, 512], [1, 8], 16, 3, training=True)
    assert work == [
        Workload(128, 0, 1, 3),
        Workload(512, 0, 1, 3),
        Workload(16, 16, 1, 3),
        Workload(16, 16, 8, 3),
        Workload(128, 0, 1, 3, training=True),
        Workload(512, 0, 1, 3, training=True),
    ]


@pytest.mark.usefixtures("forked_subjects")
def test_peers_have_the_same_weights() -> None:
    """The logits of all that is loaded agree, so they were given the same weights."""
    architecture = load("llama", settings=LLAMA)
    with same_weights(architecture, ["mlx-lm"], SHORT) as subjects:
        assert [one.name for one in subjects] == ["axon-compose", "mlx-lm"]
        ours, theirs = (make(one.arguments).model for one in subjects)  # type: ignore[attr-defined]
        folders = [Path(one.arguments["folder"]) for one in subjects]
    assert type(ours).__module__.startswith("axon_compose.")
    assert type(theirs).__module__ == "mlx_lm.models.llama"
    tokens = mx.array([[1, 2, 3]])
    assert mx.abs(ours(tokens) - theirs(tokens)).max() < 1e-5
    assert not any(folder.exists() for folder in folders)


@pytest.mark.usefixtures("forked_subjects")
def test_no_peer_without_rules() -> None:
    with pytest.raises(Refusal) as caught, same_weights(load("hybrid-demo"), ["mlx-lm"], SHORT):
        pass
    assert caught.value.code == "AX557"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["bench", *arguments])
    return code, *capsys.readouterr()


@pytest.mark.usefixtures("forked_subjects")
def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    work = ["--prompt", "8,16", "--batch", "1,2", "--steps", "2", "--rounds", "1", "--training"]
    code, out, _ = run(capsys, "llama", *SET, "--against", "mlx-lm", *work)
    assert code == 0
    kinds = re.findall(r"^  (\w+)  +(.+?)  .*\d.*x$", out, re.MULTILINE)
    assert kinds == [
        ("prefill", "8 tokens"),
        ("memory", "prefill, 8 tokens"),
        ("prefill", "16 tokens"),
        ("memory", "prefill, 16 tokens"),
        ("decode", "1 sequence"),
        ("decode", "2 sequences"),
        ("training", "8 tokens"),
        ("memory", "training, 8 tokens"),
        ("training", "16 tokens"),
        ("memory", "training, 16 tokens"),
    ]


@pytest.mark.usefixtures("forked_subjects")
def test_transformers(capsys: pytest.CaptureFixture[str]) -> None:
    """Without torch, it is told that it lacks, and the others are measured."""
    work = ["--prompt", "8", "--batch", "1", "--steps", "2", "--rounds", "1", "--training"]
    code, out, _ = run(capsys, "llama", *SET, "--against", "transformers", *work)
    assert code == 0
    if find_spec("torch"):
        assert len(re.findall(r"^  \w+  .*\d.*x$", out, re.MULTILINE)) == 5
    else:
        assert "not measured: transformers: ModuleNotFoundError: No module named 'torch'" in out


@pytest.mark.skipif(not find_spec("torch"), reason="needs torch")
def test_weights_count_with_transformers_too_though_it_maps_them() -> None:
    work = Workload(prompt=8, steps=0, rounds=1)
    architecture = load("llama", settings=[*LLAMA, "dims.vocab_size=100000", "dims.hidden_size=64"])
    with same_weights(architecture, ["mlx-lm", "transformers"], work) as subjects:
        (ours, stock, theirs) = (found.peak_bytes for found in contest(subjects, [work])[0])
    weights = 2 * 4 * 64 * 100_000
    for found in (ours, stock, theirs):
        assert found is not None
        assert weights < found < 1.3 * weights


@pytest.mark.usefixtures("forked_subjects")
def test_command_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(
        capsys, "hybrid-demo", "--prompt", "8", "--batch", "1", "--steps", "1", "--rounds", "1", "--json"
    )
    data: dict[str, Any] = json.loads(out)
    assert code == 0
    assert data["result"]["subjects"] == ["axon-compose"]
    assert [line["kind"] for line in data["result"]["lines"]] == ["prefill", "memory", "decode"]


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(capsys, "llama", "--against", "transformers", "--quantize", "4")
    assert caught.value.code == 2
    assert "transformers reads no such weights" in capsys.readouterr().err


def test_what_does_not_fit_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    work = ["--prompt", "8", "--rounds", "1", "--set", "dims.vocab_size=2000000000"]
    code, out, _ = run(capsys, "llama", *work)
    assert code == 1
    assert "not measured: axon-compose: `axon-compose` needs " in out
    code, _, err = run(capsys, "llama", "--against", "mlx-lm", *work)
    assert code == 2
    assert "AX401" in err


def test_neither_package_loads_mlx_by_itself() -> None:
    import subprocess

    check = "import axon_compose.proof.doctor, axon_compose.cli._bench, sys; print('mlx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
