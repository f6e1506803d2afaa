"""Small sizes for `check`: whatever may be written has some that fit together."""

from __future__ import annotations

import pytest
from helpers import shrunk

from axon_compose.registry import Dims
from axon_core.specs import attention, compressed_attention, latent_attention, lightning_attention, side_transformer
from axon_core.specs._small import small_heads, small_rope, thinned

DIMS = Dims({"hidden_size": 32, "vocab_size": 8})
BLOCKS = {"head_dim": 16, "block_size": 4, "top_k": 3}


def longrope(pairs):
    lists = {name: [1.0 + i for i in range(pairs)] for name in ("short_factor", "long_factor")}
    return {"type": "longrope", "factor": 4.0, "original_max_position_embeddings": 64, **lists}


CASES = {
    "blocks for every head": (attention, {"num_heads": 4, "indexer": {"num_heads": 4, **BLOCKS}}),
    "blocks for every key head": (
        attention,
        {"num_heads": 8, "num_kv_heads": 4, "indexer": {"num_heads": 4, **BLOCKS}},
    ),
    "factors of attention": (attention, {"num_heads": 4, "head_dim": 64, "rope": {"scaling": longrope(32)}}),
    "factors of latent attention": (
        latent_attention,
        {
            "num_heads": 4,
            "kv_lora_rank": 24,
            "qk_nope_head_dim": 16,
            "qk_rope_head_dim": 64,
            "rope": {"scaling": longrope(32)},
        },
    ),
    "factors of compressed attention": (
        compressed_attention,
        compressed_attention.SPECS[0].examples[0] | {"head_dim": 64, "rope": {"dims": 64, "scaling": longrope(32)}},
    ),
    "a wide rotation to the side": (
        side_transformer,
        side_transformer.SPECS[0].examples[0] | {"head_dim": 64, "rope": {"dims": 48, "scaling": longrope(24)}},
    ),
    "a wide rotation without softmax": (lightning_attention, {"num_heads": 4, "head_dim": 64, "rope": {"dims": 32}}),
}


@pytest.mark.parametrize("case", CASES)
def test_small_sizes_fit_together(case):
    module, written = CASES[case]
    spec = module.SPECS[0]
    spec.params(spec.options.model_validate(written), DIMS)
    spec.params(spec.options.model_validate(shrunk(spec, written)), DIMS)


@pytest.mark.parametrize(
    ("heads", "small"),
    [
        ((32, None), (4, None)),
        ((32, 8), (4, 2)),
        ((32, 1), (4, 1)),
        ((32, 32), (4, 4)),
        ((3, 1), (2, 1)),
        ((1, 1), (1, 1)),
    ],
    ids=str,
)
def test_heads_share_keys_as_before(heads, small):
    found = small_heads(*heads)
    assert (found["num_heads"], found.get("num_kv_heads")) == small


def test_a_rotation_keeps_its_part_of_a_head():
    assert small_rope({"theta": 5.0}, 64, 16) == {"theta": 5.0}
    assert small_rope({"fraction": 0.25}, 64, 16) == {"dims": 4}
    assert small_rope({"dims": 32}, 64, 16) == {"dims": 8}
    assert small_rope({"dims": 32}, None, 16) == {"dims": 8}
    rope = thinned({"scaling": longrope(8)}, 8)
    assert rope["scaling"]["long_factor"] == [1.0, 3.0, 5.0, 7.0]
