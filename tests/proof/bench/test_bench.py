"""Measuring: interleaved, each in a fresh process, and a subject that fails leaves the others alone."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from bench_subjects import stand_in

from axon_compose import load
from axon_compose.machine.memory import peak
from axon_compose.proof.bench import Measurement, Spread, Subject, Workload, measure, subject
from tests.helpers import described

SHORT = Workload(prompt=8, steps=4, rounds=2)


def test_rounds_are_interleaved_in_processes_of_their_own(tmp_path: Path) -> None:
    log, told = tmp_path / "log", []
    subjects = [stand_in(name, log=str(log)) for name in "abc"]
    measure(subjects, SHORT, progress=lambda *event: told.append(event))
    names, processes = zip(*(line.split() for line in log.read_text().splitlines()), strict=True)
    assert names == ("a", "b", "c", "a", "b", "c")
    assert len({*processes, str(os.getpid())}) == 7
    assert told == [*((name, number, 2) for number in (1, 2) for name in "abc"), ("", 2, 2)]


@pytest.mark.usefixtures("forked_subjects")
def test_figures_are_tokens_over_seconds() -> None:
    """A step sleeps 20 ms and a prompt 100 ms, never less: a sleep is a lower bound whatever else the machine does."""
    (found,) = measure([stand_in("a", prefill=0.1, step=0.02)], Workload(prompt=30, steps=5, batch=3, rounds=2))
    assert found.prefill
    assert found.decode
    assert len(found.prefill.values) == len(found.decode.values) == 2
    assert 0 < max(found.prefill.values) <= 3 * 30 / 0.1
    assert 0 < max(found.decode.values) <= 3 / 0.02
    assert found.peak_bytes == 1005, "warming up does not count"
    assert (found.device, found.fault) == ("pillow", "")


@pytest.mark.parametrize(
    ("end", "fault"),
    [
        ("raise", "RuntimeError: no such kernel"),
        ("kill", "the process was ended by SIGKILL, most likely for want of memory"),
        ("leave", "the process ended with 3: this is not the answer"),
    ],
)
def test_a_subject_that_fails_is_not_tried_again(end: str, fault: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    bad, good = measure([stand_in("bad", end=end, log=str(log)), stand_in("good")], SHORT)
    assert bad == Measurement("bad", fault=fault)
    assert good.decode
    assert len(log.read_text().splitlines()) == 1


def test_what_does_not_fit_is_refused_before_a_process_starts(tmp_path: Path) -> None:
    log = tmp_path / "log"
    large = stand_in("large", log=str(log))
    (found,) = measure([Subject(large.name, large.make, large.arguments, needs=10**18)], SHORT)
    assert found.fault.startswith("`large` needs 1000 PB of memory, ") or found.fault.startswith(
        "`large` needs 1.00 EB"
    )
    assert not log.exists()


def test_the_peak_of_a_process_is_its_own() -> None:
    """What the parent held does not show, what the process held and gave back does."""
    mine = bytearray(300_000_000)
    small, large = measure([stand_in("small"), stand_in("large", hold=200_000_000)], Workload(rounds=1))
    assert small.process_bytes
    assert large.process_bytes
    assert peak() > len(mine)
    assert small.process_bytes < 150_000_000 < large.process_bytes


@pytest.mark.usefixtures("forked_subjects")
def test_a_model() -> None:
    architecture = load(described())
    work = Workload(prompt=4, steps=3, batch=2, rounds=1)
    one, quantised = measure(
        [subject(architecture, work, dtype="float32"), subject(load("hybrid-demo"), work, name="q", quantize=4)], work
    )
    assert (one.name, quantised.name) == (architecture.name, "q")
    assert one.fault == quantised.fault == ""
    assert one.device == str(mx.default_device().type).removeprefix("DeviceType.")
    sheet = architecture.cost(context=7, dtype="float32", batch=2)
    assert one.peak_bytes
    assert sheet.contexts[0].memory_bytes < one.peak_bytes < 5 * sheet.contexts[0].memory_bytes
    full = load("hybrid-demo").cost(dtype="bfloat16").weight_bytes
    small = load("hybrid-demo").cost(quantize=4).weight_bytes
    assert quantised.peak_bytes
    assert small < quantised.peak_bytes < full, "the weights were quantised, and not there unquantised"


def test_needs_cover_weights_and_caches() -> None:
    architecture = load("llama")
    work = Workload(prompt=4000, steps=96, batch=3)
    sheet = architecture.cost(context=4096, batch=3)
    assert subject(architecture, work).needs > sheet.contexts[0].memory_bytes
    assert subject(architecture, work, quantize=4).needs < subject(architecture, work).needs


def test_spread() -> None:
    spread = Spread((10.0, 12.0, 11.0, 8.0))
    assert spread.median == 10.5
    assert spread.variation == pytest.approx(2.5 / 10.5)
    assert spread.to_dict() == {"median": 10.5, "least": 8.0, "most": 12.0, "rounds": [10.0, 12.0, 11.0, 8.0]}


@pytest.mark.parametrize(("name", "least"), [("prompt", 1), ("steps", 0), ("batch", 1), ("rounds", 1)])
def test_wrong_workload(name: str, least: int) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be {least} or more"):
        Workload(**{name: least - 1})


def test_this_process_needs_no_mlx() -> None:
    import subprocess

    check = "import axon_compose.proof.bench, axon_compose.analysis.comparison, sys; print('mlx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
