"""Gated delta networks whose queries, keys and values have projections and convolutions of their own."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import numpy as np
from helpers import shrunk
from mlx.utils import tree_flatten
from mlx_lm.models import olmo_hybrid
from mlx_lm.models.cache import ArraysCache
from recurrent_checks import (
    check_declared,
    close,
    parameters,
    recurrent_tests,
    sequence,
    stirred,
)
from test_gated_delta_net import reference as joined_reference

from axon_compose.registry import Dims
from axon_core.gated_delta_net import GatedDeltaNet
from axon_core.specs.gated_delta_net import SPECS, GatedDeltaNetOptions

HIDDEN = 12
(SPEC,) = SPECS
SIZES = {"num_k_heads": 2, "num_v_heads": 4, "head_k_dim": 8, "head_v_dim": 6, "norm_eps": 1e-5}
VARIANTS = [SIZES, SIZES | {"d_conv": 2, "neg_eigval": True}, SIZES | {"d_conv": 1, "num_v_heads": 2}]


def build(options):
    mx.random.seed(0)
    return stirred(GatedDeltaNet(HIDDEN, **options, separate=True))


def reference_of(options):
    """The layer in float64: that of joined matrices and filters, whose last inputs are parted again."""
    o = GatedDeltaNetOptions.model_validate(options | {"separate": True})
    key_heads, key_dim, heads, value_dim = o.head_shapes()

    def reference(layer, x):
        p = parameters(layer)
        p["in_proj_qkv.weight"] = np.concatenate([p.pop(f"{name}_proj.weight") for name in "qkv"])
        p["conv1d.weight"] = np.concatenate([p.pop(f"{name}_conv1d.weight") for name in "qkv"])
        shape = SimpleNamespace(
            num_k_heads=key_heads,
            num_v_heads=heads,
            head_k_dim=key_dim,
            head_v_dim=value_dim,
            neg_eigval=o.neg_eigval,
            norm=SimpleNamespace(eps=o.norm_eps, activation="silu"),
        )
        y, conv, state = joined_reference(shape, x, p)
        keys = key_heads * key_dim
        return y, *np.split(conv, [keys, 2 * keys], axis=-1), state

    return reference


TestRecurrence = recurrent_tests(build, reference_of, VARIANTS, 4)


def test_it_is_the_layer_of_mlx_lm():
    layer = build(VARIANTS[1])
    arguments = SimpleNamespace(
        hidden_size=HIDDEN,
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=6,
        linear_conv_kernel_dim=2,
        linear_allow_neg_eigval=True,
        layer_norm_epsilon=1e-5,
    )
    other_layer = olmo_hybrid.GatedDeltaNet(arguments)
    names = {
        "in_proj_a": "a_proj",
        "in_proj_b": "b_proj",
        "in_proj_z": "g_proj",
        "out_proj": "o_proj",
        "norm": "o_norm",
    }
    weights = ((name.partition("."), value) for name, value in tree_flatten(layer.parameters()))
    other_layer.load_weights([(names.get(a, a) + dot + rest, value) for (a, dot, rest), value in weights])
    mine, other = ArraysCache(4), ArraysCache(4)
    for part in mx.split(sequence(length=60), [40, 41, 50], axis=1):
        close(layer(part, None, mine)[0], other_layer(part, None, other), 1e-5)
    for number in range(4):
        close(mine[number], other[number], 1e-5)


def test_the_record_states_what_is_built():
    dims = Dims({"hidden_size": 32, "vocab_size": 8})
    options = GatedDeltaNetOptions.model_validate(SIZES | {"separate": True})
    check_declared(SPEC, GatedDeltaNet.from_options(options, dims), options, dims)
    GatedDeltaNetOptions.model_validate(shrunk(SPEC, SIZES | {"separate": True}))
