"""What a pass needs besides weights and caches, against the peak that MLX reports while it prefills."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest

from axon_compose import load
from axon_compose.analysis.cost import Storage
from axon_compose.analysis.devices._strategies import Spreads
from tests.helpers import described

MLP = {"type": "mlp", "intermediate_size": 512}
STACKS: dict[str, dict[str, Any]] = {
    "attention": {"first": {"type": "attention", "num_heads": 4}, "then": MLP},
    "experts": {
        "first": {"type": "attention", "num_heads": 4},
        "then": {"type": "moe", "num_experts": 4, "top_k": 2, "intermediate_size": 128},
    },
    "selective scan": {"first": {"type": "axon_ssm", "d_state": 16}, "then": MLP},
    "Mamba-2": {"first": {"type": "mamba2", "d_state": 32, "head_dim": 32}, "then": MLP},
}
TOKENS = 512


@pytest.mark.parametrize("name", STACKS)
def test_near_the_peak_of_a_prompt(name: str) -> None:
    dims = {"hidden_size": 128, "vocab_size": 256}
    described_ = described(dims=dims, components=STACKS[name], blocks={"a": ["first", "then"]}, stack="a*3")
    architecture = load(described_)
    model, tokens = architecture.build(dtype="float32"), mx.zeros((2, TOKENS), mx.int32)
    mx.eval(tokens, model.parameters(), model(tokens[:, :8], model.make_cache()))
    cache = model.make_cache()
    mx.reset_peak_memory()
    out = model(tokens, cache)
    mx.eval([entry.state for entry in cache])  # as mlx_lm does with a part of a prompt
    del out
    taken = mx.get_peak_memory() - mx.get_active_memory()
    pieces = Spreads(architecture.plan(), Storage("float32"), TOKENS).pieces(1)
    said = max(pieces.between(piece, 2) for piece in pieces.layers)
    assert said / 2 <= taken <= 2.5 * said  # the reference implementations of scans on the CPU take most
