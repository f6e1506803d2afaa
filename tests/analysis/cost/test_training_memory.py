"""What components say that they leave for the backward pass is what the graph of the gradients holds.

After the loss is evaluated and before any gradient is, the graph of the gradients keeps alive exactly what it was made
of: those bytes are the independent truth, without anything that comes and goes during the step. What does come and go
is measured by `benchmarks/training_memory.py`, and here in two peaks.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import pytest
from cost_subjects import ARCHITECTURES, COMPONENTS, component, small

from axon_compose import Architecture, load
from axon_compose.model import build
from axon_compose.plan import Plan
from axon_compose.registry import Array, Registry
from axon_compose.report import PLAIN
from axon_compose.report._cost import cost_text
from axon_core.cpu import reference_implementations
from tests.helpers import described

#: Numbers of a few bytes per token are left out of what is declared; with sizes as small as these they are up to this.
SMALL = 0.025
#: Where more is left out, each with the reason.
WIDER = {
    # Rotations are counted for each of two sequences, which share them: seen with heads as wide as all of the model.
    "attention-37": 0.035,
    "gemma3n_text": 0.03,
    # The last six queries of 70 are a block of their own. In each of two layers they may be scaled within the buffer
    # of all 70, whenever that is free of other readers by then: MLX reuses one that is up to 16 KB too large.
    "mpt": 0.05,
    # The embedding is kept only where a layer adds it, which is not the usual connection.
    "embedding_skip": 0.04,
    # How many blocks a mixture reads, the stack decides: unless `mean_blocks` says it, they are left out.
    "kimi_k3": 0.32,
    # Its experts are all within norms, see below.
    "muse_spark": 0.06,
    # A mean needs nothing of the streams, and so the last connection keeps less than the others.
    "hyper_connections-2": 0.06,
    # Choosing experts among groups, or with norms, keeps more numbers for each of the few experts that are narrow here.
    "moe": 0.04,
    # The second embedding is declared as an array of its own; in float32 the norm keeps it.
    "per_layer_input": 0.11,
    "token_embedding-6": 0.03,
}


@pytest.fixture(autouse=True)
def no_cache() -> Iterator[None]:
    """A buffer out of MLX's cache may be larger than what is asked for."""
    before = mx.set_cache_limit(0)
    yield
    mx.set_cache_limit(before)


def loss(model: Any, ids: mx.array) -> mx.array:
    return nn.losses.cross_entropy(model(ids[:, :-1]), ids[:, 1:], reduction="mean")


def held(plan: Plan, batch: int, tokens: int, dtype: str) -> int:
    """Bytes that the graph of the gradients holds once the loss is known."""
    model = build(plan, dtype=dtype)
    model.train()
    ids = mx.zeros((batch, tokens + 1), mx.int32)
    mx.eval(model.parameters(), ids)
    gc.collect()
    before = mx.get_active_memory()
    value, gradients = nn.value_and_grad(model, loss)(model, ids)
    mx.eval(value)
    mx.synchronize()
    found = int(mx.get_active_memory()) - before
    del gradients
    return found


def check(architecture: Architecture, name: str, batch: int, tokens: int, dtype: str) -> None:
    with reference_implementations():
        found = held(architecture.plan(), batch, tokens, dtype)
    sheet = architecture.cost(context=tokens, batch=batch, dtype=dtype, training=True)
    assert not sheet.estimated
    (cost,) = sheet.contexts
    assert cost.training
    tolerance = next((limit for start, limit in WIDER.items() if name.startswith(start)), SMALL)
    assert cost.training.activations == pytest.approx(found, rel=tolerance)
    # Forms for the CPU keep other arrays: experts a few more columns, gates one number less, and by these no more.
    if dtype == "float32":
        assert held(architecture.plan(), batch, tokens, dtype) <= 1.2 * found


@pytest.mark.parametrize(("name", "options"), COMPONENTS)
def test_components(name: str, options: dict[str, Any], request: pytest.FixtureRequest) -> None:
    label = request.node.callspec.id
    # On the CPU, experts of less than float32 keep float32 copies of all their matrices, which is not counted.
    check(component(name, options), label, 2, 128, "float32" if "moe" in name else "bfloat16")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures(name: str) -> None:
    """Of 70 tokens, which fill neither blocks of attention nor chunks of scans."""
    check(small(name), name, 1, 70, "float32")


def peak(architecture: Architecture, batch: int, tokens: int) -> int:
    """Most bytes that are active in the second step of training."""
    model = build(architecture.plan())
    model.train()
    optimizer = optim.Adam(1e-4)
    optimizer.init(model.trainable_parameters())
    ids = mx.zeros((batch, tokens + 1), mx.int32)
    mx.eval(model.parameters(), optimizer.state, ids)
    gc.collect()
    outside = int(mx.get_active_memory()) - architecture.cost(context=1).parameters * 3 * 4
    for _ in range(2):
        mx.reset_peak_memory()
        value, gradients = nn.value_and_grad(model, loss)(model, ids)
        optimizer.update(model, gradients)
        del gradients
        mx.eval(model.parameters(), optimizer.state, value)
    return int(mx.get_peak_memory()) - outside


@pytest.mark.parametrize(
    ("tokens", "vocabulary", "layers"),
    [
        pytest.param(128, 512, 6, id="activations"),
        pytest.param(8, 2048, 6, id="weights"),
        pytest.param(8, 16384, 6, id="table"),
        pytest.param(4, 97, 2, id="layers"),
    ],
)
def test_the_peak_of_a_step(tokens: int, vocabulary: int, layers: int) -> None:
    """Within 15 %: how far MLX runs ahead of what it has freed depends on the load of the machine."""
    architecture = load(
        {
            "version": 1,
            "dims": {"hidden_size": 64, "vocab_size": vocabulary},
            "components": {
                "attn": {"type": "attention", "num_heads": 4},
                "mlp": {"type": "mlp", "intermediate_size": 256},
            },
            "blocks": {"layer": ["attn", "mlp"]},
            "stack": f"layer*{layers}",
        }
    )
    (cost,) = architecture.cost(context=tokens, batch=2, dtype="float32", training=True).contexts
    assert cost.needed_bytes == pytest.approx(peak(architecture, 2, tokens), rel=0.15)


MLP = Registry.installed().component("mlp")


def boom(*arguments: Any) -> Any:
    raise RuntimeError("no")


@pytest.mark.parametrize(
    ("saved", "reason"),
    [
        (None, "declares no `saved`"),
        (lambda *_: None, "cannot compute"),
        (lambda *_: 3, "raises TypeError"),
        (lambda *_: [3], "returns no arrays"),
        (lambda *_: [Array("x", (1,), "int64")], "returns no arrays"),
        (lambda *_: [Array("x", (-1,))], "returns no arrays"),
        (boom, "raises RuntimeError"),
    ],
)
def test_an_estimate_is_told_as_one(saved: Any, reason: str) -> None:
    registry = Registry.with_plugins({"acme": [replace(MLP, default=False, saved=saved)]})
    data = described()
    data["components"]["mlp"]["type"] = "acme/mlp"
    sheet = load(data, registry=registry).cost(context=64, training=True)
    assert reason in sheet.estimated["acme/mlp"]
    text = cost_text(sheet, PLAIN)
    assert "estimated: `acme/mlp`" in text
    assert "at least" not in text
    (cost,) = sheet.contexts
    (exact,) = load(described()).cost(context=64, training=True).contexts
    assert cost.training
    assert exact.training
    # Right within a factor of two for a layer of matrices.
    assert exact.training.activations / 2 < cost.training.activations < 2 * exact.training.activations


def test_nothing_is_asked_unless_it_is_wanted() -> None:
    registry = Registry.with_plugins({"acme": [replace(MLP, default=False, saved=boom)]})
    data = described()
    data["components"]["mlp"]["type"] = "acme/mlp"
    assert not load(data, registry=registry).cost(context=64).estimated


def test_windows_of_any_length_are_counted_at_once() -> None:
    """The longest context that fits is looked for among numbers of tokens that nobody could count through."""
    sheet = load("gemma3_text").cost(context=2**40, training=True, memory=10**12)
    assert sheet.fit
    assert sheet.fit.longest
    assert sheet.fit.longest < 10**6
