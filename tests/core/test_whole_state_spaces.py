"""Selective state spaces in one operation, and norms that no operation knows: what steps give, or left to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.models.cache import (
    ArraysCache,
    KVCache,
)
from mlx_lm.tuner.lora import LoRALinear
from stored_layers import drawn
from whole_layers import INNER, TOKENS, WIDTH, agree, attention, doubled, ssm, types, varied

from axon_core.cpu import reference_implementations
from axon_core.mamba import Mamba
from axon_core.mlp import MLP
from axon_core.moe import MoE
from axon_core.norms import LayerNorm, RMSNorm
from axon_core.ssm import AxonSSM, SSMConfig

pytestmark = [pytest.mark.xdist_group("native"), pytest.mark.usefixtures("native")]


SPACES: dict[str, Callable[[], AxonSSM]] = {
    "none": ssm,
    "without a bias": lambda: ssm(ssm_conv_bias=False, ssm_bias=True, ssm_dt_rank="auto", ssm_d_state=5),
    "clipped": lambda: ssm(ssm_dt_min=0.5, ssm_dt_max=0.6),
    "short": lambda: ssm(ssm_d_conv=1, ssm_d_state=3),
    **{
        f"mamba with {norm} norms": lambda norm=norm: varied(Mamba(SSMConfig(WIDTH, INNER, ssm_dt_rank=4), norm, 1e-3))
        for norm in ("none", "weightless", "learned")
    },
}


@types
@pytest.mark.parametrize("name", SPACES)
def test_state_spaces(name: str, dtype: mx.Dtype, whole: list[str]) -> None:
    layer = SPACES[name]()
    layer.set_dtype(dtype)
    assert agree(layer, lambda: ArraysCache(2), dtype)
    assert whole == ["native_selective"] * 2 * (TOKENS - 1), "the first token has no state"


def padded() -> ArraysCache:
    cache = ArraysCache(2)
    cache.prepare(lengths=[5, 12], right_padding=[7, 0])
    return cache


class OwnArrays(ArraysCache):
    """A class that may do anything."""


@pytest.mark.parametrize("cache", [lambda: None, lambda: [None, None], padded, lambda: OwnArrays(2)])
def test_state_spaces_with_other_caches(cache: Callable[[], Any], whole: list[str]) -> None:
    assert agree(ssm(), cache)
    assert whole == []


def test_state_spaces_with_a_mask(whole: list[str]) -> None:
    assert agree(ssm(), lambda: ArraysCache(2), mask=mx.array([[True], [False]]))
    assert whole == []


@pytest.mark.parametrize(("base", "name"), [(AxonSSM, "_project"), (AxonSSM, "__call__"), (Mamba, "_project")])
def test_state_spaces_with_steps_of_their_own(base: type, name: str, whole: list[str]) -> None:
    assert agree(varied(doubled(base, name)(SSMConfig(WIDTH, INNER))), lambda: ArraysCache(2))
    assert whole == []


@pytest.mark.parametrize("name", ["in_proj", "x_proj", "dt_proj", "out_proj", "conv1d"])
def test_state_spaces_with_other_layers(name: str, whole: list[str]) -> None:
    layer = ssm()
    if name == "conv1d":
        layer.conv1d = type("Own", (nn.Conv1d,), {})(INNER, INNER, 4, groups=INNER)
    else:
        layer[name] = LoRALinear.from_base(layer[name])
        layer[name].lora_b = drawn(*layer[name].lora_b.shape)
        layer.eval()
    assert agree(layer, lambda: ArraysCache(2))
    assert whole == []


# -- Whatever the layer -----------------------------------------------------------------------------------------------

NORMS: dict[str, Callable[[], nn.Module]] = {
    "of groups": lambda: RMSNorm(WIDTH, num_groups=4),
    "centred": lambda: RMSNorm(WIDTH, center=True),
    "scaled first": lambda: RMSNorm(WIDTH, scale_first=True),
    "a layer norm": lambda: LayerNorm(WIDTH),
    "MLX's": lambda: nn.RMSNorm(WIDTH),
    "a class of its own": lambda: doubled(RMSNorm, "__call__")(WIDTH),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_that_are_left_to_steps(name: str, whole: list[str]) -> None:
    parts = [
        (attention(), KVCache),
        (varied(MLP(WIDTH, INNER)), lambda: None),
        (varied(MoE(WIDTH, INNER, 4, 2)), lambda: None),
        (ssm(), lambda: ArraysCache(2)),
    ]
    for part, cache in parts:
        arguments = {} if cache() is None else {"cache": filled(cache())}
        assert part.residual(NORMS[name](), drawn(1, 1, WIDTH), **arguments) is None
        whole.clear()
        assert agree(part, cache, norm=NORMS[name]())


def filled(cache: Any) -> Any:
    if isinstance(cache, ArraysCache):
        cache[0], cache[1] = mx.zeros((1, 3, INNER)), mx.zeros((1, 16, INNER))
    return cache


def test_more_rows_than_are_worth_it(whole: list[str]) -> None:
    """Five sequences; and none of the layers looks at more than one token at once."""
    parts = [(attention(), KVCache), (ssm(), lambda: ArraysCache(2)), (varied(MLP(WIDTH, INNER)), lambda: None)]
    for layer, cache in parts:
        assert agree(layer, cache, batch=5)
    assert whole == []
    layer, cache = attention(), KVCache()
    x = drawn(1, 2, WIDTH)
    y = layer(x, cache=cache)[0]
    with reference_implementations():
        assert mx.allclose(layer(x, cache=KVCache())[0], y, atol=1e-5)
    assert whole == []
