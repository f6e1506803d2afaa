#!/bin/sh
# mlx-lm 0.32.2: with `max_kv_size` a text depends on `prefill_step_size`, which is a matter of speed and memory without it.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check mlx-lm==0.32.2 'mlx[cpu]==0.32.4' transformers==5.24.0 \
    numpy==2.4.6 >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 1; }

"$work/venv/bin/python" - 2>"$work/log" <<'PY' || { cat "$work/log" >&2; exit 1; }
import mlx.core as mx
import numpy as np
from mlx.utils import tree_map
from mlx_lm.generate import generate_step
from mlx_lm.models import qwen3
from mlx_lm.models.cache import RotatingKVCache

mx.set_default_device(mx.cpu)
mx.random.seed(0)
model = qwen3.Model(
    qwen3.ModelArgs(
        model_type="qwen3", hidden_size=64, num_hidden_layers=2, intermediate_size=96, num_attention_heads=2,
        rms_norm_eps=1e-5, vocab_size=50, num_key_value_heads=2, tie_word_embeddings=False, head_dim=32,
        max_position_embeddings=4096, rope_theta=10000.0,
    )
)  # fmt: skip
model.update(tree_map(lambda p: p * 3 if p.ndim == 2 else p, model.parameters()))
prompt = mx.array(np.random.RandomState(9).randint(0, 50, 300))
STEPS = (2048, 64, 16, 4, 1)


def first(step, **how):
    """Logarithms of the probabilities of the first new token."""
    return np.array(next(iter(generate_step(prompt, model, max_tokens=1, prefill_step_size=step, **how)))[1])


def apart(**how):
    whole = first(2048, **how)
    return [float(np.abs(first(step, **how) - whole).max()) for step in STEPS]


def window(step, keep):
    """The same after the prompt, in caches of 32 places that keep the first tokens or do not."""
    caches = [RotatingKVCache(max_size=32, keep=keep) for _ in model.layers]
    for start in range(0, prompt.size, step):
        logits = model(prompt[None, start : start + step], cache=caches)
    return np.array(logits[0, -1] - mx.logsumexp(logits[0, -1]))


free, kept = apart(), apart(max_kv_size=32)
print("mlx-lm 0.32.2, mlx 0.32.4, a random Qwen3, a prompt of 300 tokens; how far the logarithms of the probabilities of")
print(f"the next token are from those of the prompt in one piece, in pieces of {', '.join(map(str, STEPS))} tokens")
print("  without max_kv_size   ", " ".join(f"{value:.4f}" for value in free))
print("  with max_kv_size=32   ", " ".join(f"{value:.4f}" for value in kept))
plain = float(np.abs(window(1, 0) - window(300, 0)).max())
print(f"  a rotating cache of 32 with keep=0, one by one: {plain:.4f}; with keep=4, which max_kv_size takes: "
      f"{float(np.abs(window(1, 4) - window(300, 4)).max()):.4f}")
print("The cache keeps the first four tokens for ever. A new token alone sees them; of a piece of the prompt only the first")
print("tokens do, since the mask of a piece knows no kept tokens. So the prompt is read by another rule than the answer.")
raise SystemExit(0 if max(free) < 1e-3 and plain < 1e-3 and kept[-1] > 0.3 and kept[2] > 0.05 else 1)
PY
