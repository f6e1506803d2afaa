"""Peak memory and time of loading a checkpoint: ours beside `mlx_lm.utils.load_model`, in processes of their own.

    python -m benchmarks.load_memory [--rounds 3] [--megabytes 1000]

A Llama of the given size in bfloat16 is written to a temporary folder; with `--experts`, a qwen3_moe whose experts are
stored one by one, so that both loaders have to stack them. Rounds are interleaved: a busy machine slows both.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from axon_compose.machine.memory import peak

HIDDEN, VOCAB, HEADS = 2048, 4096, 16


def config(megabytes: int, experts: bool) -> dict[str, object]:
    inner = 512 if experts else 5632
    shared = {
        "hidden_size": HIDDEN,
        "vocab_size": VOCAB,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": HIDDEN // HEADS,
        "intermediate_size": inner,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    }
    count = 32
    layer = 4 * HIDDEN * HIDDEN + (count if experts else 1) * 3 * HIDDEN * inner
    layers = max(1, round((megabytes * 1e6 / 2 - 2 * HIDDEN * VOCAB) / layer))
    shared["num_hidden_layers"] = layers
    if not experts:
        return {"model_type": "llama", **shared}
    moe = {"num_experts": count, "num_experts_per_tok": 4, "moe_intermediate_size": inner, "decoder_sparse_step": 1}
    return {"model_type": "qwen3_moe", "norm_topk_prob": True, "mlp_only_layers": [], **shared, **moe}


def shapes(fields: dict[str, object]) -> dict[str, tuple[int, ...]]:
    """Tensors as Hugging Face names them."""
    inner = int(str(fields["intermediate_size"]))
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCAB, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (VOCAB, HIDDEN),
    }
    for index in range(int(str(fields["num_hidden_layers"]))):
        layer = f"model.layers.{index}"
        found |= {f"{layer}.{name}_layernorm.weight": (HIDDEN,) for name in ("input", "post_attention")}
        found |= {f"{layer}.self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkvo"}
        mlps = [f"{layer}.mlp"]
        if "num_experts" in fields:
            count = int(str(fields["num_experts"]))
            mlps = [f"{layer}.mlp.experts.{e}" for e in range(count)]
            found[f"{layer}.mlp.gate.weight"] = (count, HIDDEN)
            found |= {f"{layer}.self_attn.{name}_norm.weight": (HIDDEN // HEADS,) for name in "qk"}
        for mlp in mlps:
            found |= {f"{mlp}.{name}_proj.weight": (inner, HIDDEN) for name in ("gate", "up")}
            found[f"{mlp}.down_proj.weight"] = (HIDDEN, inner)
    return found


def write(folder: Path, megabytes: int, experts: bool) -> int:
    import mlx.core as mx

    from axon_compose.checkpoints.files import TensorSpec, write_shards

    fields = config(megabytes, experts)
    (folder / "config.json").write_text(json.dumps(fields))
    specs = [TensorSpec(name, shape, "bfloat16") for name, shape in shapes(fields).items()]
    tensors = ((spec.name, lambda spec=spec: mx.zeros(spec.shape, mx.bfloat16)) for spec in specs)
    write_shards(folder, specs, tensors, max_shard_bytes=400_000_000, mark="pt")
    return sum(spec.nbytes for spec in specs)


def load(folder: Path, loader: str) -> None:
    """Load and print seconds, and the peak of this process in MB above what it had before."""
    import mlx.core as mx
    import mlx_lm.utils

    import axon_compose
    from axon_compose.checkpoints.weights import load_checkpoint, plan_load, read_checkpoint
    from axon_compose.model import build

    architecture = axon_compose.load(json.loads((folder / "config.json").read_text())["model_type"], checkpoint=folder)
    before = peak()
    start = time.perf_counter()
    if loader == "mlx_lm":
        model = mlx_lm.utils.load_model(folder)[0]
    else:
        checkpoint = read_checkpoint(folder)
        section = architecture.document.huggingface
        assert section is not None
        plan = architecture.plan()
        load_plan = plan_load(plan, section, architecture.document.dims, checkpoint.tensors, checkpoint.layout)
        model = build(plan, dtype="bfloat16", allow_large=True)
        load_checkpoint(model, load_plan)
    mx.eval(model.parameters())
    seconds = time.perf_counter() - start
    print(json.dumps([seconds, (peak() - before) / 1e6]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--experts", action="store_true")
    parser.add_argument("--load", nargs=2, metavar=("FOLDER", "LOADER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        load(Path(arguments.load[0]), arguments.load[1])
        return
    with tempfile.TemporaryDirectory() as folder:
        size = write(Path(folder), arguments.megabytes, arguments.experts)
        print(f"{size / 1e6:.0f} MB of tensors")
        for _ in range(arguments.rounds):
            for loader in ("axon_compose", "mlx_lm"):
                command = [sys.executable, "-m", "benchmarks.load_memory", "--load", folder, loader]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                seconds, peak = json.loads(done.stdout.splitlines()[-1])
                print(f"{loader:>12}: {seconds:5.2f} s, peak {peak:5.0f} MB above the start")


if __name__ == "__main__":
    main()
