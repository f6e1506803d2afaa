"""The figures of transformers that tests of real weights compare with: tests/e2e/real/NAME.safetensors.

    python tests/e2e/make_real_reference.py smollm2 gemma3

Needs `make weights`, torch and accelerate: transformers 5.24 reads the GGUF files with its own decoder, in float32.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[2]
REAL = Path(__file__).parent / "real"
#: Positions and tokens whose logits are kept, one in so many.
POSITIONS, TOKENS = 16, 97


def reference(name: str) -> dict[str, np.ndarray]:
    """Tokens of the text, some of the logits, and the logarithm of the probability of each next token."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(ROOT / "run" / "weights"), "gguf_file": f"{name}.gguf"}
    tokens = AutoTokenizer.from_pretrained(**where)((REAL / "text.txt").read_text(), return_tensors="pt").input_ids
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = model(tokens).logits[0]
    chances = torch.log_softmax(logits[:-1], -1).gather(1, tokens[0, 1:, None])[:, 0]
    return {
        "tokens": tokens.numpy().astype(np.int32),
        "logits": logits[::POSITIONS, ::TOKENS].contiguous().numpy(),
        "largest": logits.abs().max().reshape(1).numpy(),
        "chances": chances.contiguous().numpy(),
    }


if __name__ == "__main__":
    for each in sys.argv[1:]:
        save_file(reference(each), REAL / f"{each}.safetensors")
