"""Peak memory of a training step, measured and as `axon-compose cost --training` predicts it.

A step is the gradient of the cross entropy and an update by Adam, evaluated together; the second one is measured. How
far MLX runs ahead of what it has freed depends a little on the load of the machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

from axon_compose import Architecture, load
from axon_compose.model import build


def measured(architecture: Architecture, batch: int, tokens: int, dtype: str) -> int:
    """Most bytes that are active during a step."""
    model = build(architecture.plan(), dtype=dtype)
    model.train()
    optimizer = optim.Adam(1e-4)
    optimizer.init(model.trainable_parameters())
    ids = mx.random.randint(0, int(architecture.plan().dims.vocab_size), (batch, tokens + 1))
    mx.eval(model.parameters(), optimizer.state, ids)

    def loss(inner: Any, ids: mx.array) -> mx.array:
        return nn.losses.cross_entropy(inner(ids[:, :-1]), ids[:, 1:], reduction="mean")

    gradient = nn.value_and_grad(model, loss)
    mx.set_cache_limit(0)
    for _ in range(2):
        mx.reset_peak_memory()
        value, grads = gradient(model, ids)
        optimizer.update(model, grads)
        del grads
        mx.eval(model.parameters(), optimizer.state, value)
    return int(mx.get_peak_memory())


def predicted(architecture: Architecture, batch: int, tokens: int, dtype: str) -> int:
    """The sheet's bytes."""
    (cost,) = architecture.cost(context=tokens, batch=batch, dtype=dtype, training=True).contexts
    return cost.needed_bytes


def transformer(hidden: int, layers: int, vocabulary: int) -> Architecture:
    """A stack of attention and feed-forward layers."""
    return load(
        {
            "version": 1,
            "name": f"transformer-{hidden}x{layers}",
            "dims": {"hidden_size": hidden, "vocab_size": vocabulary},
            "components": {
                "attn": {"type": "attention", "num_heads": hidden // 32},
                "mlp": {"type": "mlp", "intermediate_size": 4 * hidden},
            },
            "blocks": {"layer": ["attn", "mlp"]},
            "stack": f"layer*{layers}",
        }
    )


def subjects(names: list[str]) -> Iterator[Architecture]:
    if not names:
        yield transformer(128, 6, 512)
        yield transformer(256, 4, 8192)
    yield from map(load, names or ["llama-small", "hybrid-demo", "bit-axon-small", "parallel-hybrid", "shared-kv"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="descriptions (default: a choice)")
    parser.add_argument("--tokens", type=int, nargs="+", default=[128, 512], help="lengths (default: 128 512)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4], help="sequences (default: 1 4)")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"], help="(default: float32 bfloat16)")
    arguments = parser.parse_args()
    print(f"{'':22} {'type':9} batch tokens   measured       predicted   error")
    for architecture in subjects(arguments.files):
        for dtype in arguments.dtype:
            for batch in arguments.batch:
                for tokens in arguments.tokens:
                    found, expected = (f(architecture, batch, tokens, dtype) for f in (measured, predicted))
                    figures = f"{found / 1e6:7.1f} MB {expected / 1e6:7.1f} MB {expected / found - 1:+7.1%}"
                    print(f"{architecture.name:22} {dtype:9} {batch:5} {tokens:6} {figures}", flush=True)


if __name__ == "__main__":
    main()
