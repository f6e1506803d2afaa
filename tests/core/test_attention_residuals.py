"""Attention over depth against float64 NumPy, and as a plan wires it."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from axon_compose import load
from axon_compose.proof.check import check_plan
from axon_compose.registry import Dims
from axon_core.attention_residuals import AttentionResidual, AttentionResiduals, BlockStart, FirstStart
from axon_core.specs.attention_residuals import AttentionResidualsOptions

DIMS = Dims({"hidden_size": 8, "vocab_size": 11})
OPTIONS = AttentionResidualsOptions(norm_eps=0.02)
TINY = {
    "version": 1,
    "dims": {"hidden_size": 32, "vocab_size": 97},
    "components": {"attn": {"type": "attention", "num_heads": 2}, "mlp": {"type": "mlp", "intermediate_size": 48}},
    "stack": {
        "layers": 5,
        "block": [{"use": "attn", "residual": "='inside' if i % 2 else 'start' if i else 'first'"}, "mlp"],
    },
    "residual": {"type": "attention_residuals"},
}


def drawn(number):
    return mx.random.normal((2, 4, 8), key=mx.random.key(number))


def made(kind):
    module = kind.from_options(OPTIONS, DIMS)
    for number, (name, value) in enumerate(tree_flatten(module.parameters())):
        module.load_weights([(name, value + mx.random.normal(value.shape, key=mx.random.key(number)))], strict=False)
    return module


def mixed(module, sources):
    """The mixture in float64; `sources` are in any order, as a softmax is."""
    b = np.stack([np.array(source, np.float64) for source in sources], axis=-2)
    weight, proj = (np.array(w.astype(mx.float32), np.float64) for w in (module.norm.weight, module.proj.weight))
    unit = b / np.sqrt((b**2).mean(-1, keepdims=True) + 0.02) * weight
    scores = unit @ proj[0]
    shares = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    return (shares[..., None] * b).sum(-2)


@pytest.mark.parametrize("kind", [AttentionResidual, BlockStart])
@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_a_branch_reads_the_mixture_of_all_blocks(kind, blocks):
    connection, y = made(kind), drawn(50)
    state = tuple(drawn(number) for number in range(1 + blocks))
    x, held = connection.read(state)
    np.testing.assert_allclose(np.array(x), mixed(connection, state), rtol=1e-5, atol=1e-5)
    after = connection.write(held, y)
    if kind is BlockStart:
        assert len(after) == len(state) + 1
        assert mx.array_equal(after[0], y)
        assert mx.array_equal(after[-1], state[0])
    else:
        assert len(after) == len(state)
        assert mx.array_equal(after[0], state[0] + y)


def test_both_ends_and_the_first_branch():
    ends, first, h, y = made(AttentionResiduals), made(FirstStart), drawn(1), drawn(2)
    x, held = first.read(ends.expand(h))
    assert mx.array_equal(x, h)
    state = first.write(held, y)
    np.testing.assert_allclose(np.array(ends.collapse(state)), mixed(ends, [h, y]), rtol=1e-5, atol=1e-5)
    assert not tree_flatten(first.trainable_parameters())
    first.unfreeze()
    assert not tree_flatten(first.trainable_parameters())


def test_every_check_holds_for_a_stack():
    report = check_plan(load(TINY).plan())
    assert report.passed, [truth for truth in report.truths if not truth.passed]


def test_low_precision_keeps_its_type():
    connection = made(AttentionResidual)
    connection.set_dtype(mx.bfloat16)
    state = tuple(drawn(number).astype(mx.bfloat16) for number in range(3))
    x, _ = connection.read(state)
    assert x.dtype == mx.bfloat16
    wide = [s.astype(mx.float32) for s in state]
    np.testing.assert_allclose(np.array(x.astype(mx.float32)), mixed(connection, wide), atol=0.05)
