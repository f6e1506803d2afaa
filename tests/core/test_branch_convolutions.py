"""Convolved branches against float64 NumPy, cut anywhere, and as a plan wires them with a cache of their own."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.cache import ArraysCache

from axon_compose import load
from axon_compose.proof.check import check_plan
from axon_compose.registry import Dims, State, cache_leaves
from axon_core.branch_convolutions import BranchConvolutions, Convolved, Plain
from axon_core.specs.branch_convolutions import BranchConvolutionsOptions

DIMS = Dims({"hidden_size": 8, "vocab_size": 11})
OPTIONS = BranchConvolutionsOptions(d_conv=3)
WINDOW = {
    "version": 1,
    "dims": {"hidden_size": 32, "vocab_size": 97},
    "components": {
        "attn": {"type": "attention", "num_heads": 2, "window_size": 8},
        "mlp": {"type": "mlp", "intermediate_size": 48},
    },
    "blocks": {"layer": ["attn", "mlp"]},
    "stack": "layer*2",
    "residual": {"type": "branch_convolutions", "d_conv": 4},
}
PLAIN = {"blocks": {"layer": ["attn", {"use": "mlp", "residual": "plain"}]}}


def drawn(number, length=20, batch=2):
    return mx.random.normal((batch, length, 8), key=mx.random.key(number))


def built():
    mx.random.seed(0)
    return Convolved.from_options(OPTIONS, DIMS)


def reference(connection, x, y):
    taps, x, y = (np.array(a, np.float64) for a in (connection.conv.weight[..., 0], x, y))
    out = x + y
    for back in range(3):
        out[:, back:] += taps[:, 2 - back] * y[:, : y.shape[1] - back]
    return out


@pytest.mark.parametrize("sizes", [[20], [1] * 20, [2, 1, 14, 3]], ids=len)
def test_a_sequence_cut_anywhere_equals_float64(sizes):
    ends, connection, cache = BranchConvolutions.from_options(OPTIONS, DIMS), built(), ArraysCache(1)
    h, y, parts = drawn(1), drawn(2), []
    cuts = np.cumsum(sizes)[:-1].tolist()
    for piece, given in zip(mx.split(h, cuts, axis=1), mx.split(y, cuts, axis=1), strict=True):
        x, held = connection.read(ends.expand(piece))
        assert mx.array_equal(x, piece)
        parts.append(ends.collapse(connection.write(held, given, None, cache)))
    for found in (mx.concatenate(parts, axis=1), connection.write(h, y)):
        np.testing.assert_allclose(np.array(found), reference(connection, h, y), atol=2e-6)


def test_padding_is_not_convolved():
    connection, h, y = built(), drawn(1), drawn(2)
    dirty = mx.concatenate([mx.full((2, 3, 8), 5.0), y], axis=1)
    real = mx.broadcast_to(mx.arange(23) >= 3, (2, 23))
    found = connection.write(mx.pad(h, [(0, 0), (3, 0), (0, 0)]), dirty, real)[:, 3:]
    np.testing.assert_allclose(np.array(found), reference(connection, h, y), atol=2e-6)


def test_other_branches_are_added_as_they_are():
    plain, h, y = Plain.from_options(OPTIONS, DIMS), drawn(1), drawn(2)
    x, held = plain.read(h)
    assert mx.array_equal(x, h)
    assert mx.array_equal(plain.write(held, y), h + y)


def test_sums_are_made_in_float32():
    """A branch that its convolution all but takes away: rounded before, the rest would be lost."""
    connection = built()
    connection.conv.weight = mx.zeros((8, 3, 1)) + mx.array([0, 0, -1 + 2**-12])[None, :, None]
    y = (1 + mx.arange(8) / 256).astype(mx.bfloat16).reshape(1, 1, 8)
    found = connection.write(mx.zeros((1, 1, 8), mx.bfloat16), y)
    assert found.dtype == mx.bfloat16
    np.testing.assert_allclose(np.array(found.astype(mx.float32)), 2**-12 * np.array(y.astype(mx.float32)), rtol=4e-3)


def test_each_connection_has_a_cache_beside_those_of_the_branches():
    plan = load(WINDOW).plan()
    leaves = [type(leaf).__name__ for leaf in cache_leaves(plan.slots[0])]
    assert leaves == ["State", "KV", "State"]
    attn, mlp = plan.layers[0].branches
    assert (attn.connection.slot, attn.members[0].use.slot, mlp.connection.slot) == ((0, 0), (0, 1), (0, 2))
    assert plan.masks[attn.connection.masks[0]].kind == "state"
    assert attn.connection.path == "layers.0.attn_residual"
    plain = load(WINDOW | PLAIN).plan()
    assert [isinstance(leaf, State) for leaf in cache_leaves(plain.slots[0])] == [True, False]


@pytest.mark.parametrize("changes", [{}, PLAIN], ids=["all", "some"])
def test_every_check_holds_for_a_stack(changes):
    """Of windows too: `reach` names how far each component sees, with convolutions of all branches out of the way."""
    report = check_plan(load(WINDOW | changes).plan())
    assert report.passed, [truth for truth in report.truths if not truth.passed]
    assert "attn_residual" not in str(next(truth for truth in report.truths if truth.name == "reach").detail)
