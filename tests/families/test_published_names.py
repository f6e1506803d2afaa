"""Inkling under the names of its published files, inside the model of text, images and sound that they are of."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from axon_compose import load
from tests.families.models import FIXTURES, difference, expected

#: What transformers 5.24 makes of the published names (`conversion_mapping.py`, `inkling_mm_model`), the other way.
NAMES = [
    (r"^lm_head\.", "model.unembed."),
    (r"^model\.embed_tokens\.embed_norm\.", "model.embed_norm."),
    (r"^model\.embed_tokens\.", "model.embed."),
    (r"^model\.", "model.llm."),
    (r"\.input_layernorm", ".attn_norm"),
    (r"\.post_attention_layernorm", ".mlp_norm"),
    (r"\.self_attn\.([qkv])_proj", lambda found: f".attn.w{found[1]}_{'du' if found[1] == 'q' else 'dv'}"),
    (r"\.self_attn\.r_proj", ".attn.wr_du"),
    (r"\.self_attn\.o_proj", ".attn.wo_ud"),
    (r"\.self_attn\.", ".attn."),
    (r"sconv\.conv1d\.", "sconv."),
    (r"\.e_score_correction_bias", ".bias"),
    (r"\.mlp\.experts\.gate_up_proj", ".mlp.experts.w13_weight"),
    (r"\.mlp\.experts\.down_proj", ".mlp.experts.w2_weight"),
    (r"\.shared_experts\.down_proj", ".shared_experts.shared_w2_weight"),
    (r"\.mlp\.down_proj\.", ".mlp.w2_md."),
]


def alternating(first: mx.array, second: mx.array, axis: int) -> mx.array:
    return mx.stack([first, second], axis=axis + 1).flatten(axis, axis + 1)


def published(target: Path) -> Path:
    """The fixture as its authors store it."""
    weights: Any = mx.load(str(FIXTURES / "inkling" / "model.safetensors"))
    for name in list(weights):
        if name.endswith("experts.gate_up_proj"):
            weights[name] = alternating(*mx.split(weights[name], 2, axis=1), axis=1)
        elif name.endswith("shared_experts.gate_proj"):
            both = weights.pop(name), weights.pop(name.replace("gate_proj", "up_proj"))
            weights[name.replace("gate_proj", "shared_w13_weight")] = alternating(*both, axis=1)
        elif name.endswith("mlp.gate_proj.weight"):
            both = weights.pop(name), weights.pop(name.replace("gate_proj", "up_proj"))
            weights[name.replace("gate_proj", "w13_dn")] = alternating(*both, axis=0)
    renamed = {"model.visual.layers.linear_0.weight": mx.zeros((2, 2)), "model.mtp.0.weight": mx.zeros((2, 2))}
    for name, value in weights.items():
        for pattern, new in NAMES:
            name = re.sub(pattern, new, name)
        renamed[name] = value
    text = json.loads((FIXTURES / "inkling" / "config.json").read_text())
    config = {"model_type": "inkling_mm_model", "text_config": text, "vision_config": {}, "audio_config": {}}
    target.mkdir()
    (target / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(target / "model.safetensors"), renamed, {"format": "pt"})
    return target


def test_published_files_are_the_same_model(tmp_path: Path) -> None:
    folder = published(tmp_path / "published")
    tokens, logits = expected("inkling")
    found = load(checkpoint=folder)
    assert found.name == "inkling"
    plan = found.load_plan(folder)
    assert set(plan.dropped) == {"model.visual.layers.linear_0.weight", "model.mtp.0.weight"}
    built = found.build(weights=folder)
    same = load(checkpoint=FIXTURES / "inkling").build(weights=FIXTURES / "inkling")
    np.testing.assert_array_equal(np.array(built(tokens)), np.array(same(tokens)))
    assert difference(built(tokens), logits) < 2e-5
