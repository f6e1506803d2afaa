"""Mamba's mixer with heads against a float64 forward pass, and against mlx-lm's module of PLaMo 2."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from helpers import shrunk
from mlx.utils import tree_flatten
from mlx_lm.models import plamo2
from mlx_lm.models.cache import ArraysCache
from pydantic import ValidationError
from recurrent_checks import (
    check_declared,
    check_dirty_padding,
    check_low_precision,
    close,
    convolved,
    parameters,
    recurrent_tests,
    sequence,
    silu,
    softplus,
    stirred,
)

from axon_compose.registry import Dims
from axon_core.multihead_mamba import MultiheadMamba
from axon_core.specs.multihead_mamba import SPECS, MultiheadMambaOptions

HIDDEN = 12
DIMS = Dims({"hidden_size": HIDDEN, "vocab_size": 8})
(SPEC,) = SPECS
BASE = {"num_heads": 3, "head_dim": 4, "d_state": 5, "dt_rank": 6}
VARIANTS = [
    BASE,
    BASE | {"d_conv": 2, "norm_eps": 0.1},
    BASE | {"num_heads": 1, "d_conv": 1, "dt_min": 0.3, "dt_max": 0.9},
]


def build(options):
    mx.random.seed(0)
    return stirred(MultiheadMamba.from_options(MultiheadMambaOptions.model_validate(options), DIMS))


def reference_of(options):
    """The layer of these options in float64, token by token."""
    o = MultiheadMambaOptions.model_validate(options)

    def normed(a, weight):
        return a / np.sqrt((a**2).mean(-1, keepdims=True) + o.norm_eps) * weight

    def reference(layer, x):
        p, shape = parameters(layer), (*x.shape[:2], -1)
        zx = (np.array(x, np.float64) @ p["in_proj.weight"].T).reshape(*x.shape[:2], o.num_heads, 2, o.head_dim)
        z, u = zx[:, :, :, 0].reshape(shape), zx[:, :, :, 1].reshape(shape)
        u, conv = convolved(p, u)
        B, C, r = np.split(u @ p["bcdt_proj.weight"].T, [o.d_state, 2 * o.d_state], axis=-1)
        B, C = normed(B, p["B_norm.weight"]), normed(C, p["C_norm.weight"])
        dt = softplus(normed(r, p["dt_norm.weight"]) @ p["dt_proj.weight"].T + p["dt_bias"])
        dt = np.clip(dt, o.dt_min, o.dt_max)
        decay = np.exp(-np.exp(p["A_log"]) * dt)
        u = u.reshape(*x.shape[:2], o.num_heads, o.head_dim)
        h, y = np.zeros((len(u), o.num_heads, o.head_dim, o.d_state)), np.zeros_like(u)
        for t in range(u.shape[1]):
            h = decay[:, t, :, None, None] * h + (dt[:, t, :, None] * u[:, t])[..., None] * B[:, t, None, None]
            y[:, t] = (h * C[:, t, None, None]).sum(-1) + p["D"][:, None] * u[:, t]
        return (y.reshape(shape) * silu(z)) @ p["out_proj.weight"].T, conv, h

    return reference


TestRecurrence = recurrent_tests(build, reference_of, VARIANTS, 2)
# The kernel's gradient of dt_bias, a sum of much that cancels here, is 4e-6 of it off instead of 2e-7.
pytest.mark.usefixtures("pure")(TestRecurrence.test_gradient_agrees_with_differences_of_the_float64_layer)


def test_it_is_the_layer_of_mlx_lm():
    """Whose rank is 64 for every small width, and whose steps have limits."""
    options = BASE | {"dt_rank": 64, "norm_eps": 1e-3, "dt_min": 1e-3, "dt_max": 100.0}
    layer = build(options)
    layer.dt_bias = mx.array([-9.0, 0.0, 200.0])
    args = plamo2.ModelArgs(
        hidden_size=HIDDEN, rms_norm_eps=1e-3, hidden_size_per_head=4, mamba_d_state=5, mamba_num_heads=3
    )
    theirs = plamo2.Mamba(args)
    renamed = {name.replace("_norm.weight", "_norm_weight"): of for name, of in tree_flatten(layer.parameters())}
    theirs.load_weights(list(renamed.items()))
    mine, other = ArraysCache(2), ArraysCache(2)
    for part in mx.split(sequence(length=60), [40, 41, 50], axis=1):
        close(layer(part, None, mine)[0], theirs(part, None, other), 1e-5)


def test_padding_that_is_not_a_number_does_not_spread():
    check_dirty_padding(build(BASE), reference_of(BASE))


def test_low_precision_keeps_its_type_and_a_float32_state():
    check_low_precision(build(BASE), reference_of(BASE), SPEC, [mx.bfloat16, mx.float32], 0.03)


@pytest.mark.parametrize("example", SPEC.examples, ids=str)
def test_the_record_states_what_is_built(example):
    dims = Dims({"hidden_size": 32, "vocab_size": 8})
    options = MultiheadMambaOptions.model_validate(example)
    check_declared(SPEC, MultiheadMamba.from_options(options, dims), options, dims)
    MultiheadMambaOptions.model_validate(shrunk(SPEC, example))


def test_steps_of_a_wide_model_are_projected_from_a_sixteenth_of_it():
    shapes = SPEC.params(
        MultiheadMambaOptions(num_heads=64, head_dim=128), Dims({"hidden_size": 4096, "vocab_size": 8})
    )
    assert shapes["dt_proj.weight"] == (64, 256)
    assert shapes["bcdt_proj.weight"] == (2 * 64 + 256, 8192)


def test_options_of_mamba_2_are_refused():
    with pytest.raises(ValidationError, match="Extra inputs"):
        MultiheadMambaOptions.model_validate(BASE | {"n_groups": 1})
