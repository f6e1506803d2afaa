"""A process of several that load folders as mlx-lm's server does, and say what they generate; run by a test."""

from __future__ import annotations

import gc
import json
import sys

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.generate import generate_step
from mlx_lm.utils import load, sharded_load


def main(prompt: str, *folders: str) -> None:
    """Print a line of JSON for each folder."""
    group = mx.distributed.init()
    for folder in folders:
        gc.collect()  # the model before
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        if group.size() > 1:
            model, _ = sharded_load(folder, tensor_group=group, trust_remote_code=True)
        else:
            model, _ = load(folder, trust_remote_code=True)
        weights = dict(tree_flatten(model.parameters()))
        mx.eval(weights)
        said = {
            "rank": group.rank(),
            "peak": mx.get_peak_memory() - before,
            "share": sum(value.nbytes for value in weights.values()),
            "dtypes": {name: str(value.dtype) for name, value in weights.items()},
        }
        mx.random.seed(0)
        steps = generate_step(mx.array(json.loads(prompt)), model, max_tokens=12, prefill_step_size=4)
        sys.stdout.write(json.dumps({**said, "tokens": [int(token) for token, _ in steps]}) + "\n")
        sys.stdout.flush()
        del model, weights


if __name__ == "__main__":
    main(*sys.argv[1:])
