"""What `benchmarks/everything.py` measures: both sides of a recurrence compute the same, and pages show all of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from axon_compose.checkpoints.huggingface import families
from axon_compose.proof.bench import Workload
from axon_compose.registry import Registry

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "docs")]

import bench_layers  # noqa: E402
import bench_models  # noqa: E402
import bench_sides  # noqa: E402
import everything  # noqa: E402
import gradients  # noqa: E402
import kept  # noqa: E402
import performance_page  # noqa: E402
from performance_results import REGIMES, load_results, part_of  # noqa: E402

#: Layers have random weights of their own.
WEIGHTED = ("axon_ssm layer", "mamba layer with norms", "experts, 2 of 8 of 1024", "experts in bfloat16")


def test_every_item_has_two_sides() -> None:
    measured = [*(item.name for item in bench_layers.ITEMS), *gradients.ITEMS]
    assert set(measured) == set(bench_sides.SIDES)


@pytest.mark.parametrize("name", bench_sides.SIDES)
def test_both_sides_compute_the_same(name: str) -> None:
    mx.random.seed(0)
    inputs, ours, theirs = bench_sides.SIDES[name]()
    arrays = inputs(300 if "attention" in name else 40)
    if name == "experts in bfloat16" and mx.default_device() == mx.cpu:
        assert ours(*arrays).dtype == mx.bfloat16
        return  # mlx-lm's do not run there
    found, expected = (y if isinstance(y, mx.array) else y[0] for y in (ours(*arrays), theirs(*arrays)))
    assert found.shape == expected.shape
    if name not in WEIGHTED:
        scale = np.abs(np.asarray(expected)).max()
        np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=1e-5 * scale)


def test_an_item_runs_and_trains() -> None:
    runner = bench_sides.make({"item": "RWKV-7, 6 x 64", "side": "theirs"})
    runner.begin(Workload(4, 0, training=True))
    runner.prefill()
    runner.train()
    assert runner.peak_bytes() > 0


def test_every_family_that_is_measured_is_on_the_page() -> None:
    measured = list(bench_models.FAMILIES)
    assert set(measured) <= {family.name for family in families(Registry.installed())}
    results = load_results()
    for regime in REGIMES:
        assert list(part_of(results, regime, "families")) == measured
    texts = " ".join((ROOT / "README.md").read_text("utf-8").split())
    assert f"has the figures of {len(measured)} families and every recurrence" in texts
    assert f"[Performance](docs/performance.md): {len(measured)} families and every recurrence" in texts


@pytest.mark.parametrize("name", bench_models.FAMILIES)
def test_sizes_fit_a_family(name: str) -> None:
    plan = bench_models.family(name).plan()
    assert 5e6 < sum(use.size for use in plan.uses()) < 4e7


def test_the_hybrid_has_the_size_that_is_told() -> None:
    size = sum(use.size for use in bench_models.bit_axon().plan().uses())
    assert size == pytest.approx(100e6, rel=0.02)


def test_results_have_a_line_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "RESULTS", tmp_path / "results.json")
    for part, name in (("plain", "layers/a"), ("machines", "plain"), ("plain", "layers/b"), ("plain", "layers/a")):
        kept.keep(part, name, {"x": [1, 2]})
    text = kept.RESULTS.read_text()
    assert {part: list(entries) for part, entries in json.loads(text).items()} == {
        "plain": ["layers/a", "layers/b"],
        "machines": ["plain"],
    }
    assert json.loads(text)["plain"]["layers/a"]["x"] == [1, 2]
    assert len(text.splitlines()) == 9


def test_the_page_is_what_the_results_say() -> None:
    assert performance_page.PAGE.read_text("utf-8") == performance_page.page()


def test_the_page_has_what_is_measured() -> None:
    results = performance_page.load_results()
    for regime in everything.REGIMES:
        known = [name for name, _ in everything.jobs(regime)]
        assert set(results[regime]) <= set(known), "a result of something that is no longer measured"
        assert {name for name in known if name.startswith("families/")} <= set(results[regime])
