"""Feed-forward layers and experts with norm and sum in one operation: what their steps give, or left to them."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.tuner.lora import LoRALinear, LoRASwitchLinear
from stored_layers import drawn
from whole_layers import INNER, TOKENS, WIDTH, agree, decoded, doubled, types, varied

from axon_core.mlp import MLP
from axon_core.moe import MoE, SharedExpertMoE
from axon_core.norms import RMSNorm
from axon_core.specs._moe_options import ExpertNormOptions, LatentNormOptions, LatentNormPartOptions, RouterNormOptions

pytestmark = [pytest.mark.xdist_group("native"), pytest.mark.usefixtures("native")]


@types
@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("options", [{}, {"bias": True}, {"activation": "gelu_tanh"}], ids=str)
def test_mlp(options: dict[str, Any], bits: int | None, dtype: mx.Dtype, whole: list[str]) -> None:
    layer = varied(MLP(WIDTH, INNER, **options), dtype)
    if bits is not None:
        nn.quantize(layer, 32, bits)
    assert agree(layer, lambda: None, dtype)
    assert whole == ["native_mlp"] * 2 * TOKENS


@pytest.mark.parametrize(
    "options",
    [{"gain": True}, {"limit": 1.0}, {"gate_scale": 2.0}, {"sparsity": 0.5}, {"activation": "gelu"}, {"gated": False}],
    ids=str,
)
def test_mlp_that_does_more(options: dict[str, Any], whole: list[str]) -> None:
    layer = varied(MLP(WIDTH, INNER, **options))
    assert agree(layer, lambda: None)
    assert layer.residual(RMSNorm(WIDTH), drawn(1, 1, WIDTH)) is None
    assert whole == []


ROUTED: dict[str, dict[str, Any]] = {
    "none": {},
    "of the chosen": {"score": "topk_softmax"},
    "weights as they are": {"norm_topk": False, "routed_scaling_factor": 2.5},
    "a sum with more": {"norm_eps": 0.5},
    "biases": {"router_bias": True, "bias": True},
    "a shared expert": {"shared_intermediate_dim": 32},
    "a shared expert with a gate": {"shared_intermediate_dim": 64, "shared_gate": True, "shared_bias": True},
    "groups of which all are chosen": {"num_groups": 2, "top_k_groups": 2},
    "another activation": {"activation": "gelu_tanh", "shared_intermediate_dim": 32},
    "every expert": {"top_k": 4},
}
STEPPED: dict[str, dict[str, Any]] = {
    "sigmoid": {"score": "sigmoid"},
    "roots": {"score": "sqrt_softplus"},
    "sparsemixer": {"score": "sparsemixer"},
    "input_scaled": {"input_scaled": True},
    "router_norm": {"router_norm": RouterNormOptions()},
    "expert_norm": {"expert_norm": ExpertNormOptions()},
    "identity_experts": {"identity_experts": 2},
    "per_expert_scale": {"per_expert_scale": True},
    "router_softcap": {"router_softcap": 0.5},
    "correction_bias": {"correction_bias": True},
    "hashed_tokens": {"hashed_tokens": 10},
    "groups": {"num_groups": 2, "top_k_groups": 1, "group_score": "max"},
    "limit": {"limit": 0.1},
    "no gate": {"gated": False},
    "latent_dim": {"latent_dim": 32},
    "latent_norm": {"latent_dim": 32, "latent_norm": LatentNormOptions(read=LatentNormPartOptions())},
    "a softmax of shares": {"shared_intermediate_dim": 32, "shared_gate": "softmax"},
    "scored_shared": {"scored_shared": 1, "shared_intermediate_dim": 32},
    "gain": {"gain": True},
    "some of the experts": {"held": 2},
    "another activation": {"activation": "relu"},
}


@types
@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("name", ROUTED)
def test_experts(name: str, bits: int | None, dtype: mx.Dtype, whole: list[str]) -> None:
    options = {"top_k": 2, **ROUTED[name]}
    layer = varied(MoE(WIDTH, INNER, 4, **options))
    layer.set_dtype(dtype)
    if bits is not None:
        nn.quantize(layer, 32, bits, class_predicate=lambda _, m: hasattr(m, "to_quantized") and m.weight.shape[-2] > 1)
    norm = varied(RMSNorm(WIDTH, 1e-5, offset=1.0), dtype)
    assert decoded(layer, norm, None, dtype).shape == (2, TOKENS, WIDTH)
    assert whole == ["native_routed"] * TOKENS
    if dtype == mx.float32:  # in 16 bits a rounding may send a token to another expert
        assert agree(layer, lambda: None)


@pytest.mark.parametrize("name", STEPPED)
def test_experts_that_do_more(name: str, whole: list[str]) -> None:
    layer = varied(MoE(WIDTH, INNER, 4, 2, **STEPPED[name]))
    more = {"tokens": mx.array([[3], [4]])} if name == "hashed_tokens" else {}
    assert agree(layer, lambda: None, **more)
    assert "native_routed" not in whole
    assert layer.residual(RMSNorm(WIDTH), drawn(2, 1, WIDTH), **more) is None


def test_every_option_of_experts_is_asked_about() -> None:
    from inspect import signature

    tested = {name for each in (*ROUTED.values(), *STEPPED.values()) for name in each}
    more = {"self", "dim", "intermediate_dim", "num_experts", "shared_once", "shard", "band", "corrected"}
    assert set(signature(MoE.__init__).parameters) - more <= tested


def test_experts_of_qwen2() -> None:
    assert agree(varied(SharedExpertMoE(WIDTH, INNER, 4, 2)), lambda: None)


def test_experts_whose_routing_is_asked_for(whole: list[str]) -> None:
    layer, found = varied(MoE(WIDTH, INNER, 4, 2)), {}
    y = layer(drawn(1, 1, WIDTH), publish=found.__setitem__)
    assert set(found) == {"routing"}
    assert layer.residual(None, drawn(1, 1, WIDTH), publish=found.__setitem__) is None
    assert whole == []
    assert mx.allclose(layer(drawn(1, 1, WIDTH)), y, atol=1e-6)


@pytest.mark.parametrize("name", ["__call__", "_routed", "_summed", "_with_shared", "_scores", "_chosen", "_best"])
def test_experts_with_steps_of_their_own(name: str, whole: list[str]) -> None:
    layer = varied(doubled(MoE, name)(WIDTH, INNER, 4, 2, shared_intermediate_dim=32))
    assert agree(layer, lambda: None)
    assert "native_routed" not in whole


class Other(nn.Module):
    """What somebody puts into the place of a part."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def __call__(self, *arguments: Any) -> mx.array:
        return 2 * self.base(*arguments)


@pytest.mark.parametrize("name", ["gate", "switch_mlp", "shared_expert", "shared_expert_gate"])
def test_experts_with_other_modules_in_the_place_of_parts(name: str, whole: list[str]) -> None:
    layer = varied(MoE(WIDTH, INNER, 4, 2, shared_intermediate_dim=32, shared_gate=True))
    layer[name] = Other(layer[name])
    assert agree(layer, lambda: None)
    assert "native_routed" not in whole


def test_experts_with_adapters(whole: list[str]) -> None:
    for name in ("gate", "switch_mlp.up_proj", "shared_expert.down_proj", "shared_expert_gate"):
        layer = varied(MoE(WIDTH, INNER, 4, 2, shared_intermediate_dim=32, shared_gate=True))
        *owner, last = name.split(".")
        place = layer[owner[0]] if owner else layer
        adapter = (LoRASwitchLinear if "switch" in name else LoRALinear).from_base(place[last])
        adapter.lora_b = drawn(*adapter.lora_b.shape)
        place[last] = adapter
        assert agree(layer.eval(), lambda: None)
    assert "native_routed" not in whole


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top_k", 3),
        ("score", "sigmoid"),
        ("norm_topk", False),
        ("routed_scaling_factor", 0.5),
        ("router_softcap", 0.1),
        ("input_scaled", True),
        ("gain", mx.array([2.0])),
        ("correction_bias", mx.array([9.0, 0.0, 0.0, 3.0])),
    ],
)
def test_experts_that_were_changed(name: str, value: Any) -> None:
    layer = varied(MoE(WIDTH, INNER, 4, 2))
    before = decoded(layer, None, None, mx.float32)
    setattr(layer, name, value)
    assert agree(layer, lambda: None)
    assert not mx.allclose(decoded(layer, None, None, mx.float32), before, atol=1e-4)
