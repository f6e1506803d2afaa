"""Layers that sum inside, in real processes: there sums are lazy, and all devices have to ask for the same ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.ranks import ended, ring

RANKS = 2
LOW = {"decay_low_rank_dim": 4, "a_low_rank_dim": 4, "v_low_rank_dim": 4, "gate_low_rank_dim": 4}
MOE = {"type": "moe", "num_experts": 4, "intermediate_size": 16}
COMPONENTS: dict[str, dict[str, Any]] = {
    "ngram": {"type": "ngram_embedding", "rows": 50, "longest": 3, "tables": 2},
    "ssm": {"type": "axon_ssm", "d_state": 4},
    "mamba": {"type": "mamba", "d_state": 4, "norm": "learned"},
    "mamba2": {"type": "mamba2", "head_dim": 8, "d_state": 4, "bias": True},
    "mamba3": {"type": "mamba3", "head_dim": 8, "d_state": 4},
    "heads": {"type": "multihead_mamba", "num_heads": 4, "head_dim": 8, "d_state": 4, "dt_rank": 4},
    "delta": {"type": "gated_delta_net", "num_k_heads": 2, "num_v_heads": 4, "head_k_dim": 8},
    "kda": {"type": "kimi_delta_attention", "num_heads": 2, "head_dim": 8},
    "first": {"type": "rwkv7_time_mix", "head_dim": 8} | LOW,
    "mixed": {"type": "rwkv7_time_mix", "head_dim": 8, "value_from": "first"} | LOW,
    "channel": {"type": "rwkv7_channel_mix", "intermediate_size": 32},
    "lightning": {"type": "lightning_attention", "num_heads": 2, "qk_norm": {"over": "all"}},
    "lru": {"type": "rg_lru", "num_heads": 2},
    "short": {"type": "short_conv", "bias": True},
    "local": {"type": "kv_conv", "num_heads": 4, "num_kv_heads": 1, "head_dim": 8},
    "side": {"type": "side_transformer", "num_heads": 2, "head_dim": 8, "intermediate_size": 32, "adapter_rank": 4},
    "block": {"type": "axon_ssm_block", "ssm_d_state": 4},
    "sparse": {"type": "mlp", "intermediate_size": 32, "sparsity": 0.5},
    "experts": MOE | {"latent_size": 16, "latent_norm": {"sum": True}},
    "shared": MOE | {"identity_experts": 2, "num_shared_experts": 1},
}
MODEL = {
    "version": 1,
    "name": "mixers",
    "dims": {"hidden_size": 32, "vocab_size": 64},
    "components": COMPONENTS,
    "blocks": {f"a_{name}": [name] for name in COMPONENTS},
    "stack": " ".join(f"a_{name}" for name in COMPONENTS),
}
RANK = """
import json, sys
import mlx.core as mx
from axon_compose import load
from axon_compose.model import random_weights, with_folder_names

whole = random_weights(load(json.loads(sys.argv[1])).plan(), seed=1)
whole.eval()
tokens = mx.random.randint(0, 64, (2, 12), key=mx.random.key(3))

def passes(model):
    cache, found = model.make_cache(), [model(tokens)]
    for first, end in ((0, 5), (5, 10), (10, 11), (11, 12)):
        found.append(model(tokens[:, first:end], cache))
        mx.eval(found[-1])
    return found

wanted = passes(whole)
part = with_folder_names(whole)
part.shard(mx.distributed.init())
far = [mx.abs(one - other).max() / mx.abs(other).max() for one, other in zip(passes(part), wanted)]
print(max(each.item() for each in far))
"""


def test_logits_are_those_of_one_process(tmp_path: Path) -> None:
    with ring(tmp_path, [["-c", RANK, json.dumps(MODEL)]] * RANKS) as processes:
        for code, out, told in ended(processes):
            assert (code, told) == (0, "")
            assert 0 < float(out) < 2e-5
