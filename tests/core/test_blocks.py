"""The three published layers: their parts, their wiring, and the published number of parameters."""

from __future__ import annotations

from copy import deepcopy
from math import prod
from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from helpers import shrunk
from mlx.utils import tree_flatten
from mlx_lm.models.cache import ArraysCache, RotatingKVCache
from pydantic import ValidationError

from axon_compose.registry import KV, Dims
from axon_core.blocks import AxonSSMBlock, AxonSSMMoEBlock, AxonSWAMoEBlock, BlockConfig
from axon_core.moe import SharedExpertMoE
from axon_core.specs.blocks import SPECS

BLOCKS = {"axon_ssm_block": AxonSSMBlock, "axon_swa_moe_block": AxonSWAMoEBlock, "axon_ssm_moe_block": AxonSSMMoEBlock}
HIDDEN = 16
CONFIG = BlockConfig(
    hidden_dim=HIDDEN,
    ssm_intermediate_dim=24,
    ssm_d_state=3,
    num_heads=4,
    swa_window_size=8,
    moe_num_experts=4,
    moe_intermediate_dim=12,
)


def build(name, config=CONFIG):
    mx.random.seed(0)
    block = BLOCKS[name](config)
    for key, value in tree_flatten(block.parameters()):
        if "norm" in key:
            owner, _, last = key.rpartition(".")
            block[owner][last] = value + 0.3 * mx.random.normal(value.shape)
    return block


def cache_for(name):
    return RotatingKVCache(8) if "swa" in name else ArraysCache(2)


def sequence(length=30):
    return mx.array(np.random.default_rng(0).normal(size=(2, length, HIDDEN)).astype(np.float32))


def rms(x, weight, eps):
    return x / mx.sqrt(mx.mean(x * x, axis=-1, keepdims=True) + eps) * weight


@pytest.mark.parametrize("name", BLOCKS)
def test_each_part_reads_its_normed_input_and_is_added(name):
    block, x = (
        build(name, BlockConfig(**{f: getattr(CONFIG, f) for f in CONFIG.__slots__} | {"rms_norm_eps": 0.1})),
        sequence(),
    )
    y, _ = block(x)
    first = block.attention if "swa" in name else block.ssm
    expected = x + first(rms(x, block.input_norm.weight, 0.1))[0]
    if "moe" in name:
        norm = block.post_attention_norm if "swa" in name else block.post_ssm_norm
        expected = expected + block.moe(rms(expected, norm.weight, 0.1))
    np.testing.assert_allclose(np.array(y), np.array(expected), atol=2e-6)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("sizes", [[30], [1] * 30, [7, 1, 22], [8, 8, 8, 6]], ids=lambda s: str(len(s)))
def test_cut_anywhere_and_cached_equals_the_plain_forward_pass(name, sizes):
    block, x = build(name), sequence()
    expected, _ = block(x)
    cache, start, outputs = cache_for(name), 0, []
    for size in sizes:
        part = x[:, start : start + size]
        mask = cache.make_mask(size, window_size=8) if "swa" in name else None
        y, returned = block(part, mask, cache)
        assert returned is cache
        outputs.append(y)
        start += size
    np.testing.assert_allclose(np.array(mx.concatenate(outputs, axis=1)), np.array(expected), atol=5e-6)


@pytest.mark.parametrize("name", BLOCKS)
def test_it_is_causal_and_the_window_ends_where_it_says(name):
    block, x = build(name), sequence()
    y = np.array(block(x)[0])
    moved = np.array(block(mx.concatenate([x[:, :10], x[:, 10:11] + 1, x[:, 11:]], axis=1))[0])
    changed = np.abs(moved - y).max(axis=(0, 2)) > 1e-6
    assert not changed[:10].any()
    assert changed[10:18].all()
    assert changed[18:].any() == ("swa" not in name)


@pytest.mark.parametrize("name", BLOCKS)
def test_gradients_reach_every_parameter(name):
    block, x = build(name), sequence()
    grads = dict(tree_flatten(nn.value_and_grad(block, lambda x: block(x)[0].square().sum())(x)[1]))
    assert set(grads) == {key for key, _ in tree_flatten(block.parameters())}
    assert all(mx.isfinite(value).all() and mx.abs(value).max() > 0 for value in grads.values())


@pytest.mark.parametrize("name", BLOCKS)
def test_in_bfloat16_it_stays_bfloat16(name):
    block = build(name)
    block.set_dtype(mx.bfloat16)
    cache = cache_for(name)
    for length in (9, 1):
        y, cache = block(sequence(length).astype(mx.bfloat16), None, cache)
        assert y.dtype == mx.bfloat16
        assert mx.isfinite(y).all()


@pytest.mark.parametrize("name", BLOCKS)
def test_a_copy_is_a_block_of_its_own(name):
    block, x = build(name), sequence()
    copy = deepcopy(block)
    expected = np.array(block(x)[0])
    block.input_norm.weight = 2 * block.input_norm.weight
    np.testing.assert_array_equal(np.array(copy(x)[0]), expected)


def test_any_object_with_the_attributes_is_a_config():
    config = SimpleNamespace(hidden_dim=8, ssm_intermediate_dim=8, ssm_d_state=2, ssm_d_conv=2, rms_norm_eps=1e-6)
    y, cache = AxonSSMBlock(config)(mx.ones((1, 3, 8)))
    assert y.shape == (1, 3, 8)
    assert len(cache) == 2


def test_the_shared_expert_can_be_left_out():
    block = AxonSSMMoEBlock(
        BlockConfig(**{f: getattr(CONFIG, f) for f in CONFIG.__slots__} | {"moe_shared_expert": False})
    )
    assert not isinstance(block.moe, SharedExpertMoE)
    # What is left of the layer is the same: its weights are the softmax scores.
    assert (block.moe.route(sequence())[1].sum(-1) < 1).all()
    assert not [name for name, _ in tree_flatten(block.parameters()) if "shared" in name]


@pytest.mark.parametrize(
    ("spec", "example"), [(spec, example) for spec in SPECS for example in spec.examples], ids=lambda v: str(v)[:40]
)
def test_the_record_states_what_is_built(spec, example):
    options, dims = spec.options.model_validate(example), Dims({"hidden_size": HIDDEN, "vocab_size": 8})
    block = BLOCKS[spec.name].from_options(options, dims)
    shapes = {name: value.shape for name, value in tree_flatten(block.parameters())}
    assert shapes == spec.params(options, dims)
    modules = {name for name, _ in block.named_modules()}
    assert set(spec.float32) <= set(shapes)
    assert {name for name in spec.unquantized if "shared" not in name} <= modules
    declared = spec.cache(options, dims)
    if isinstance(declared, KV):
        keys = shapes["attention.k_proj.weight"][0]
        assert (declared.heads * declared.head_dim, declared.window) == (keys, options.swa_window_size)
    else:
        cache = ArraysCache(2)
        block(sequence(5), None, cache)
        assert [a.shape[1:] for a in cache.state[0]] == [a.shape for a in declared.arrays]
    spec.options.model_validate(shrunk(spec, example))


def test_the_published_model_has_its_published_number_of_parameters():
    dims = Dims({"hidden_size": 2560, "vocab_size": 32000})
    written = {
        "axon_ssm_block": {},
        "axon_swa_moe_block": {"num_heads": 32, "swa_window_size": 4096, "moe_intermediate_dim": 4096},
        "axon_ssm_moe_block": {"moe_intermediate_dim": 4096},
    }
    total = active = 32000 * 2048 + 2 * 2048 * 2560
    for spec in SPECS:
        options = spec.options.model_validate(written[spec.name])
        size = sum(map(prod, spec.params(options, dims).values()))
        total += 8 * size
        active += 8 * (spec.active(options, dims) if spec.active else size)
    assert total == 5_766_778_880
    assert active == 2_746_880_000


def test_options_that_make_no_block_are_refused():
    _, swa, ssm_moe = SPECS
    with pytest.raises(ValidationError, match="larger than `moe_num_experts`"):
        ssm_moe.options.model_validate({"moe_intermediate_dim": 8, "moe_top_k": 9})
    options = swa.options.model_validate({"num_heads": 3, "swa_window_size": 4, "moe_intermediate_dim": 8})
    with pytest.raises(ValueError, match="not a multiple of `num_heads`"):
        swa.params(options, Dims({"hidden_size": 16}))
