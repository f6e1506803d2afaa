"""What gives attention the order of tokens, and where it is shown."""

from __future__ import annotations

import re
from typing import Any

import mlx.core as mx
import pytest

from axon_compose import load
from axon_compose.plan import Plan, position_words
from axon_compose.report import PLAIN, show_text
from axon_compose.report.draw import characters, picture
from tests.helpers import described, planned

WINDOW = {"type": "sliding_window_attention", "num_heads": 2, "window_size": 8}
LATENT = {"type": "latent_attention", "num_heads": 2, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8}


def alone(component: dict[str, Any], **sections: Any) -> Plan:
    return planned(components={"a": component}, blocks={"l": ["a"]}, stack="l", **sections)


def words(plan: Plan) -> str:
    return position_words(plan.layers[0].branches[0].members[0].use, plan)


@pytest.mark.parametrize(
    ("component", "expected"),
    [
        ({"type": "attention", "num_heads": 2}, "RoPE"),
        ({"type": "attention", "num_heads": 2, "rope": False}, "NoPE"),
        ({"type": "attention", "num_heads": 2, "rope": False, "temperature": {"scale": 0.5, "length": 4}}, "NoPE"),
        ({"type": "attention", "num_heads": 2, "rope": False, "alibi": True}, "ALiBi"),
        ({**WINDOW, "relative": {"rank": 2, "extent": 8}}, "relative scores"),
        (WINDOW, "NoPE"),
        ({**WINDOW, "rope": True}, "RoPE"),
        (LATENT, "RoPE"),
        ({**LATENT, "rope": False}, "NoPE"),
        ({"type": "axon_ssm", "d_state": 4}, ""),
        ({"type": "mlp", "intermediate_size": 8}, ""),
        ({"type": "axon_swa_moe_block", "num_heads": 2, "swa_window_size": 8, "moe_intermediate_dim": 8}, "NoPE"),
    ],
)
def test_words(component: dict[str, Any], expected: str) -> None:
    assert words(alone(component)) == expected


def test_positions_of_the_embedding() -> None:
    assert words(alone(WINDOW, embedding={"positions": 16})) == "learned positions"


def test_values_of_another_layer_are_no_attention() -> None:
    """RWKV-7 reads values of its first layer into its state."""
    plan = load("rwkv7").plan()
    assert {position_words(use, plan) for layer in plan.layers for use in layer.uses()} == {""}


def test_keys_of_another_layer() -> None:
    reader = {"type": "attention", "num_heads": 2, "kv_from": "a"}
    plan = planned(
        components={"a": {"type": "attention", "num_heads": 2}, "b": reader},
        blocks={"l": ["a"], "m": ["b"]},
        stack="l m",
    )
    (use,) = (member.use for member in plan.layers[1].branches[0].members)
    assert use.cache is None
    assert position_words(use, plan) == "RoPE"
    assert re.search(r"│ \+ b +RoPE ", "\n".join(characters(plan, PLAIN, 80)))


@pytest.mark.parametrize("component", [WINDOW, {**WINDOW, "rope": True}, {"type": "attention", "num_heads": 2}])
def test_what_is_called_nope_does_not_see_the_order(component: dict[str, Any]) -> None:
    """With one layer of attention and no positions, the last logits are those of any order of the tokens before."""
    data = described(components={"a": component}, blocks={"l": ["a"]}, stack="l")
    model = load(data).build(seed=3)
    one, other = (model(mx.array([tokens]))[0, -1] for tokens in ([5, 9, 2, 7], [2, 5, 9, 7]))
    same = mx.abs(one - other).max().item() < 1e-6 * mx.abs(one).max().item() + 1e-6
    plan = load(data).plan()
    assert same == (words(plan) == "NoPE")


def test_layers_that_differ_in_positions_alone_are_shown_apart() -> None:
    """As in SmolLM3, where every n-th layer has no rotation."""
    data = described(stack="a*4", overrides=[{"layers": 3, "set": {"attn.rope": False}}])
    plan = load(data).plan()
    text = "\n".join(characters(plan, PLAIN, 100))
    assert "layers 0..2" in text
    assert "whole context, RoPE" in text
    assert "whole context, NoPE" in text
    table = show_text(plan, PLAIN)
    assert "KVCache, RoPE" in table
    assert "KVCache, NoPE" in table
    drawn = picture(plan)
    assert "whole context, RoPE" in drawn
    assert "whole context, NoPE" in drawn
