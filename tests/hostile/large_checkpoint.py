"""DeepSeek-V3 as it is published, 90 427 tensors, planned from its configuration and headers alone.

Prints as JSON: tensors, transfers, seconds of processor time, megabytes at most, and what was imported needlessly.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from axon_compose import load
from axon_compose.checkpoints.weights import TensorHeader, plan_load
from axon_compose.language.layout import to_text
from axon_compose.machine.memory import peak
from axon_compose.plan.concrete import unroll
from axon_compose.registry import Registry

HIDDEN, HEADS, EXPERTS, LAYERS, DENSE = 7168, 128, 256, 61, 3
WIDE, NARROW = 18_432, 2_048


def headers() -> dict[str, TensorHeader]:
    """Names, shapes and types of the tensors on the hub, without the predictor of further tokens."""
    found: dict[str, TensorHeader] = {}

    def add(name: str, *shape: int, dtype: str = "BF16") -> None:
        found[name] = TensorHeader(name, shape, dtype, Path("model.safetensors"), len(found))

    def fp8(name: str, rows: int, columns: int) -> None:
        add(f"{name}.weight", rows, columns, dtype="F8_E4M3")
        add(f"{name}.weight_scale_inv", -(-rows // 128), -(-columns // 128), dtype="F32")

    def mlp(name: str, width: int) -> None:
        fp8(f"{name}.gate_proj", width, HIDDEN)
        fp8(f"{name}.up_proj", width, HIDDEN)
        fp8(f"{name}.down_proj", HIDDEN, width)

    add("model.embed_tokens.weight", 129_280, HIDDEN)
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        add(f"{name}.input_layernorm.weight", HIDDEN)
        fp8(f"{name}.self_attn.q_a_proj", 1536, HIDDEN)
        add(f"{name}.self_attn.q_a_layernorm.weight", 1536)
        fp8(f"{name}.self_attn.q_b_proj", HEADS * 192, 1536)
        fp8(f"{name}.self_attn.kv_a_proj_with_mqa", 576, HIDDEN)
        add(f"{name}.self_attn.kv_a_layernorm.weight", 512)
        fp8(f"{name}.self_attn.kv_b_proj", HEADS * 256, 512)
        fp8(f"{name}.self_attn.o_proj", HIDDEN, HEADS * 128)
        add(f"{name}.post_attention_layernorm.weight", HIDDEN)
        if layer < DENSE:
            mlp(f"{name}.mlp", WIDE)
            continue
        add(f"{name}.mlp.gate.weight", EXPERTS, HIDDEN)
        add(f"{name}.mlp.gate.e_score_correction_bias", EXPERTS, dtype="F32")
        mlp(f"{name}.mlp.shared_experts", NARROW)
        for expert in range(EXPERTS):
            mlp(f"{name}.mlp.experts.{expert}", NARROW)
    add("model.norm.weight", HIDDEN)
    add("lm_head.weight", 129_280, HIDDEN)
    return found


def main(folder: str) -> None:
    """Plan the checkpoint whose config.json is in a folder."""
    tensors = headers()
    begin = time.process_time()
    found = load(checkpoint=folder)
    section = found.document.huggingface
    assert section is not None
    plan = plan_load(found.plan(), section, found.document.dims, tensors, "huggingface")
    to_text(unroll(found.document, found.plan(), Registry.installed()))
    seconds = time.process_time() - begin
    megabytes = peak() >> 20
    heavy = sorted({"mlx", "mlx_lm", "numpy", "torch", "transformers"} & sys.modules.keys())
    sys.stdout.write(json.dumps([len(tensors), len(plan.transfers), seconds, megabytes, heavy]))


if __name__ == "__main__":
    main(sys.argv[1])
