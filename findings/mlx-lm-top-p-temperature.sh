#!/bin/sh
# mlx-lm 0.32.2 takes the nucleus before the temperature, transformers after it: one setting, two sets of tokens.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check mlx-lm==0.32.2 'mlx[cpu]==0.32.4' numpy==2.4.6 \
    >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 1; }

"$work/venv/bin/python" - <<'PY'
import mlx.core as mx
import numpy as np
from mlx_lm.sample_utils import make_sampler

mx.set_default_device(mx.cpu)
TEMPERATURE, TOP_P = 2.0, 0.9
logits = np.array([4.0, 3.0, 2.0, 1.0, 0.0, -1.0])


def nucleus(values):
    """The fewest tokens, likeliest first, whose probabilities add up to TOP_P: Holtzman et al. 2019."""
    p = np.exp(values - values.max())
    p /= p.sum()
    order = np.argsort(-p)
    count = int(np.searchsorted(np.cumsum(p[order]), TOP_P)) + 1
    return sorted(int(i) for i in order[:count])


logprobs = mx.array(logits - np.log(np.exp(logits).sum()), dtype=mx.float32)[None]
sampler = make_sampler(temp=TEMPERATURE, top_p=TOP_P)
mx.random.seed(0)
seen = sorted({int(sampler(logprobs).item()) for _ in range(4000)})
after, before = nucleus(logits / TEMPERATURE), nucleus(logits)
print(f"mlx-lm 0.32.2: logits {logits.tolist()}, temperature {TEMPERATURE}, top_p {TOP_P}")
print("  transformers divides by the temperature first (generation/utils.py, the order of the warpers):", after)
print("  nucleus of the logits as they are:", before)
print("  tokens that mlx-lm's sampler draws:", seen)
print("So temperature and top_p of a generation_config.json mean less variety in mlx-lm above 1, and more below.")
raise SystemExit(0 if seen == before != after else 1)
PY
