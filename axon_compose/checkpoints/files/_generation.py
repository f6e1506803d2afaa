"""How text is generated: generation_config.json of a checkpoint, taken over as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from axon_compose.checkpoints.files._copied_tokenizer import read_data_file
from axon_compose.checkpoints.files._trust import without_code

__all__ = ["GENERATION_FILE", "generation_of", "read_generation"]

GENERATION_FILE: Final = "generation_config.json"
#: Fields that mean the same with any tokenizer.
_SAMPLING: Final = (
    "do_sample", "max_new_tokens", "min_p", "repetition_penalty", "temperature", "top_k", "top_p", "typical_p",
)  # fmt: skip
_TOKEN_IDS: Final = ("bos_token_id", "eos_token_id", "pad_token_id")


def generation_of(weights: Path | None, tokenizer: Path | None) -> dict[str, Any]:
    """The generation_config.json of a model with these weights and this tokenizer.

    With the tokenizer of the checkpoint that is the file there; else its settings of sampling, and the token ids of
    the folder that the tokenizer comes from.

    Raises:
        CheckpointError: AX542 a file cannot be read.
    """
    of_weights = read_generation(weights) if weights else {}
    if weights and tokenizer and weights.resolve() == tokenizer.resolve():
        return of_weights
    of_tokenizer = read_generation(tokenizer) if tokenizer else {}
    sampling = {name: of_weights[name] for name in _SAMPLING if name in of_weights}
    return sampling | {name: of_tokenizer[name] for name in _TOKEN_IDS if name in of_tokenizer}


def read_generation(folder: Path) -> dict[str, Any]:
    """The generation_config.json of a checkpoint without what names code; empty if there is none.

    One that is not JSON counts as none, as it does for mlx_lm and transformers.

    Raises:
        CheckpointError: AX542 it is a link out of the folder, or cannot be read.
    """
    content = read_data_file(folder, GENERATION_FILE)
    try:
        value = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return {}
    return dict(without_code(value)[0]) if isinstance(value, dict) else {}
