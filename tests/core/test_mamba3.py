"""Mamba-3's mixer against its recurrence in float64, token by token, cut, padded and continued."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from helpers import shrunk
from mlx_lm.models.cache import ArraysCache
from recurrent_checks import (
    check_declared,
    check_dirty_padding,
    check_gradient,
    check_ragged,
    close,
    parameters,
    pieces,
    sequence,
    silu,
    softplus,
    stirred,
)

from axon_compose.registry import Dims
from axon_core.mamba3 import Mamba3
from axon_core.specs.mamba3 import SPECS, Mamba3Options

HIDDEN = 12
DIMS = Dims({"hidden_size": HIDDEN, "vocab_size": 8})
(SPEC,) = SPECS
VARIANTS = [
    {"head_dim": 6, "d_state": 8},
    {"head_dim": 4, "d_state": 6, "n_groups": 3, "rope_fraction": 1.0, "norm": True},
    {"head_dim": 3, "expand": 1, "d_state": 10, "a_floor": 0.7},
    {"head_dim": 6, "d_state": 8, "mimo_rank": 2},
    {"head_dim": 4, "d_state": 10, "n_groups": 2, "rope_fraction": 1.0, "norm": True, "mimo_rank": 3},
]


def build(options):
    mx.random.seed(0)
    return stirred(Mamba3.from_options(Mamba3Options.model_validate(options), DIMS))


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def unit(v):
    return v / np.sqrt((v**2).mean(-1, keepdims=True) + 1e-5)


def turned(v, angle, halves):
    """Pairs of (..., N) turned by (..., pairs), neighbours or one of either half; what is beyond the pairs stays."""
    out, pairs, middle = v.copy(), angle.shape[-1], v.shape[-1] // 2
    one = slice(pairs) if halves else slice(0, 2 * pairs, 2)
    other = slice(middle, middle + pairs) if halves else slice(1, 2 * pairs, 2)
    out[..., one] = v[..., one] * np.cos(angle) - v[..., other] * np.sin(angle)
    out[..., other] = v[..., one] * np.sin(angle) + v[..., other] * np.cos(angle)
    return out


def reference_of(options):
    """The layer of these options in float64: the recurrence of the paper's code, one token after the other."""
    o = Mamba3Options.model_validate(options)
    heads = o.heads(HIDDEN)

    def reference(layer, x):
        p = parameters(layer)
        x = np.array(x, np.float64)
        batch, length, _ = x.shape
        cuts = np.cumsum(o.sections(HIDDEN))[:-1]
        z, v, k, q, dt, a, share, angle = np.split(x @ p["in_proj.weight"].T, cuts, axis=-1)
        z, v = (w.reshape(batch, length, heads, -1) for w in (z, v))
        k, q = (w.reshape(batch, length, o.rank, o.n_groups, -1) for w in (k, q))
        k, q = unit(k) * p["B_norm.weight"], unit(q) * p["C_norm.weight"]
        k, q = (np.repeat(w, heads // o.n_groups, axis=3).swapaxes(2, 3) for w in (k, q))
        k, q = k + p["B_bias"], q + p["C_bias"]
        one = np.ones((heads, 1, o.head_dim))
        step, share = softplus(dt + p["dt_bias"]), sigmoid(share)
        rate = np.maximum(np.where(a >= 0, 1 + a, 1 / (1 - np.minimum(a, 0))), o.a_floor)
        theta = np.zeros((batch, heads, o.pairs))
        state = np.zeros((batch, heads, o.head_dim, o.d_state))
        last_k, last_v, y = np.zeros_like(k[:, 0]), np.zeros_like(v[:, 0]), np.zeros_like(v)
        for t in range(length):
            theta = theta + step[:, t, :, None] * np.pi * np.tanh(angle[:, t, None])
            key, query = (turned(w[:, t], theta[:, :, None], bool(o.mimo_rank)) for w in (k, q))
            alpha = np.exp(-rate[:, t] * step[:, t])
            before, own = (1 - share[:, t]) * step[:, t] * alpha, share[:, t] * step[:, t]
            earlier, now = (w[:, :, None] * p.get("mimo_x", one) for w in (last_v, v[:, t]))
            state = alpha[..., None, None] * state
            state += before[..., None, None] * np.einsum("bhrp,bhrn->bhpn", earlier, last_k)
            state += own[..., None, None] * np.einsum("bhrp,bhrn->bhpn", now, key)
            out = np.einsum("bhpn,bhrn->bhrp", state, query) + p["D"][:, None, None] * now
            out = unit(out) * p["norm.weight"].reshape(heads, 1, -1) if o.norm else out
            y[:, t] = (out * silu(z[:, t, :, None] * p.get("mimo_z", one)) * p.get("mimo_o", one)).sum(2)
            last_k, last_v = key, v[:, t]
        return (
            y.reshape(batch, length, -1) @ p["out_proj.weight"].T,
            np.mod(theta + np.pi, 2 * np.pi) - np.pi,
            state,
            last_k.swapaxes(1, 2),
            last_v,
        )

    return reference


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("sizes", [[1], [40], [1] * 40, [2, 1, 30, 7], [33, 40]], ids=lambda s: f"{len(s)},{sum(s)}")
@pytest.mark.parametrize("make", [lambda: None, lambda: ArraysCache(4)], ids=["None", "mlx"])
def test_a_sequence_cut_anywhere_equals_the_recurrence(options, sizes, make):
    layer, x = build(options), sequence(length=sum(sizes))
    expected, angle, *states = reference_of(options)(layer, x)
    y, cache = pieces(layer, x, sizes, make())
    close(y, expected, 1e-5)
    np.testing.assert_allclose(np.exp(1j * np.array(cache[0])), np.exp(1j * angle), atol=2e-5)
    for number, state in enumerate(states, start=1):
        close(cache[number], state, 2e-5)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("sizes", [[40], [1] * 40, [7, 13, 20]], ids=len)
@pytest.mark.parametrize("side", ["left", "right"])
def test_every_row_of_a_ragged_batch_equals_its_single_run(options, sizes, side):
    check_ragged(build(options), reference_of(options), sizes, side, 3e-5)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_gradient_agrees_with_differences_of_the_recurrence(options):
    check_gradient(build(options), reference_of(options), 20)


def test_padding_that_is_not_a_number_does_not_spread():
    check_dirty_padding(build(VARIANTS[0]), reference_of(VARIANTS[0]), 1e-5)


@pytest.mark.parametrize("example", SPEC.examples, ids=str)
def test_the_record_states_what_is_built(example):
    dims = Dims({"hidden_size": 32, "vocab_size": 8})
    options = Mamba3Options.model_validate(example)
    check_declared(SPEC, Mamba3.from_options(options, dims), options, dims)
    Mamba3Options.model_validate(shrunk(SPEC, example))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"head_dim": 7}, "head_dim"),
        ({"head_dim": 8, "n_groups": 2}, "n_groups"),
        ({"head_dim": 8, "d_state": 2}, "no pair"),
    ],
    ids=str,
)
def test_sizes_that_do_not_fit_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        SPEC.params(Mamba3Options.model_validate(options), DIMS)
