#!/bin/sh
# In mlx-lm 0.32.2 a draft model hides the prompt from logits processors, such as a repetition penalty.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'mlx[cpu]==0.32.4' mlx-lm==0.32.2 transformers==5.24.0 \
    >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 1; }

cd "$work"
venv/bin/python - 2>"$work/log" <<'PY' || { cat "$work/log" >&2; exit 1; }
import mlx.core as mx
from mlx_lm.generate import generate_step, speculative_generate_step
from mlx_lm.models import llama
from mlx_lm.sample_utils import make_logits_processors

mx.random.seed(0)
model = llama.Model(
    llama.ModelArgs(
        model_type="llama", hidden_size=32, num_hidden_layers=1, intermediate_size=64, num_attention_heads=2,
        rms_norm_eps=1e-5, vocab_size=50, num_key_value_heads=2, tie_word_embeddings=False,
    )
)  # fmt: skip
prompt = mx.array([5, 6, 7, 8, 9])


def first_seen(step, **draft):
    """The tokens that a logits processor is given at its first call."""
    seen = []

    def look(tokens, logits):
        seen.append(tokens.tolist())
        return logits

    next(iter(step(prompt, model, max_tokens=2, logits_processors=[look], **draft)))
    return seen[0]


def text(step, tokens, **draft):
    """Four greedy tokens under a strong repetition penalty."""
    penalty = make_logits_processors(repetition_penalty=5.0)
    return [int(token[0]) for token in step(tokens, model, max_tokens=4, logits_processors=penalty, **draft)]


plain, drafted = first_seen(generate_step), first_seen(speculative_generate_step, draft_model=model)
print("mlx-lm 0.32.2, mlx 0.32.4, a random Llama that is its own draft model; the prompt is", prompt.tolist())
print("Speculative decoding is meant to give what the model alone gives. A logits processor first gets these tokens:")
print("  without a draft model:", plain)
print("  with a draft model:   ", drafted)

differ = 0
for number in range(50):
    tokens = mx.array([number, (number + 7) % 50, (3 * number + 1) % 50, (number * number) % 50, (number + 20) % 50] * 3)
    differ += text(generate_step, tokens) != text(speculative_generate_step, tokens, draft_model=model)
print(f"So a repetition penalty does not know the prompt: of 50 greedy continuations {differ} change with a draft model.")
raise SystemExit(0 if plain == [5, 6, 7, 8, 9] and drafted == [9] and differ else 1)
PY
