"""Learned factors of branches and of the stream against float64 NumPy, and as a plan wires them."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from axon_compose import load
from axon_compose.proof.check import check_plan
from axon_compose.registry import Dims
from axon_core.residual_gains import EmbeddingSkip, Gain, ResidualGate, ResidualGates, SkipGain
from axon_core.specs.residual_gains import EmbeddingSkipOptions, ResidualGatesOptions

DIMS = Dims({"hidden_size": 8, "vocab_size": 11})
TINY = {
    "version": 1,
    "dims": {"hidden_size": 32, "vocab_size": 97},
    "components": {"attn": {"type": "attention", "num_heads": 2}, "mlp": {"type": "mlp", "intermediate_size": 48}},
    "blocks": {"layer": ["attn", "mlp"]},
    "stack": "layer*3",
}
SKIP = {"blocks": {"layer": ["attn", {"use": "mlp", "residual": "skip"}]}, "residual": {"type": "embedding_skip"}}


def drawn(number):
    return mx.random.normal((2, 4, 8), key=mx.random.key(number))


def test_the_embedding_is_added_after_every_layer():
    ends, options = EmbeddingSkip.from_options(EmbeddingSkipOptions(), DIMS), EmbeddingSkipOptions()
    first, last = Gain.from_options(options, DIMS), SkipGain.from_options(options, DIMS)
    assert (first.gain.item(), last.gain.item(), last.skip.item()) == (1, 1, 0)
    first.gain, last.gain, last.skip = (mx.array([value]) for value in (0.5, -2.0, 0.25))
    h, y, z = drawn(1), drawn(2), drawn(3)
    x, held = first.read(ends.expand(h))
    assert mx.array_equal(x, h)
    state = first.write(held, y)
    x, held = last.read(state)
    np.testing.assert_allclose(np.array(x), np.array(h + 0.5 * y), atol=1e-6)
    np.testing.assert_allclose(
        np.array(ends.collapse(last.write(held, z))), np.array(h + 0.5 * y - 2 * z + 0.25 * h), atol=1e-6
    )


def test_a_gate_keeps_what_complements_the_branch():
    options = ResidualGatesOptions(temperature=0.7, eps=0.3)
    ends, gate = ResidualGates.from_options(options, DIMS), ResidualGate.from_options(options, DIMS)
    gate.gate = 3 * drawn(5)[0, 0]
    h, y = drawn(1), drawn(2)
    x, held = gate.read(ends.expand(h))
    assert mx.array_equal(x, h)
    w = np.array(gate.gate, np.float64) / 0.7
    share = 1 / (1 + np.exp(-w))
    kept = np.sqrt(np.maximum((1 - share) * (1 + share), 0.3))
    assert ((1 - share**2) < 0.3).any()
    want = kept * np.array(h, np.float64) + share * np.array(y, np.float64)
    np.testing.assert_allclose(np.array(ends.collapse(gate.write(held, y))), want, rtol=1e-5, atol=1e-6)


def test_the_stream_of_gates_is_wider_than_the_branches():
    options = ResidualGatesOptions()
    ends, gate = ResidualGates.from_options(options, DIMS), ResidualGate.from_options(options, DIMS)
    h = drawn(1).astype(mx.bfloat16)
    x, held = gate.read(ends.expand(h))
    assert x.dtype == mx.bfloat16
    state = gate.write(held, drawn(2).astype(mx.bfloat16))
    assert state[0].dtype == mx.float32
    assert ends.collapse(state).dtype == mx.bfloat16


@pytest.mark.parametrize("scheme", [SKIP, {"residual": {"type": "residual_gates"}}], ids=["skip", "gates"])
def test_every_check_holds_for_a_stack(scheme):
    report = check_plan(load(TINY | scheme).plan())
    assert report.passed, [truth for truth in report.truths if not truth.passed]
