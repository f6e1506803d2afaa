"""A `tokenizer.json` out of the files that came before it, made by transformers' own converters.

SentencePiece models, BPE vocabularies with merges, tiktoken and tekken files: transformers 5.24 knows how each model
type splits text, so the conversion runs there, on a copy that holds data files alone and with no code allowed.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import Any, Final

__all__ = ["SOURCES", "converted"]

#: Sets of files, any one of which is a whole tokenizer.
SOURCES: Final = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("spiece.model",),
    ("sentencepiece.bpe.model",),
    ("vocab.json", "merges.txt"),
    ("tiktoken.model",),
    ("tekken.json",),
)
#: Characters of transformers' reason that are shown; some have several lines.
_LONGEST: Final = 240


def converted(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of a tokenizer in the form that transformers saves.

    Args:
        files: Data files of a checkpoint: its vocabulary, `tokenizer_config.json`, `config.json` for the model type.

    Raises:
        ValueError: No known vocabulary is there, or transformers cannot read it; says which.
    """
    source = next((source for source in SOURCES if files.keys() >= set(source)), None)
    if source is None:
        raise ValueError(f"none of {', '.join(' with '.join(f'`{name}`' for name in known) for known in SOURCES)}")
    with TemporaryDirectory(prefix="axon-compose-tokenizer-") as place:
        before, after = Path(place, "before"), Path(place, "after")
        before.mkdir()
        for name, content in files.items():
            (before / name).write_bytes(_model_type_alone(content) if name == "config.json" else content)
        _convert(before, after, " with ".join(f"`{name}`" for name in source))
        return {path.name: path.read_bytes() for path in sorted(after.iterdir()) if path.is_file()}


def _model_type_alone(content: bytes) -> bytes:
    """All that the choice of a tokenizer's class needs of config.json."""
    try:
        config = json.loads(content)
        kept = {name: config[name] for name in ("model_type", "tokenizer_class") if isinstance(config.get(name), str)}
    except (ValueError, AttributeError, RecursionError):
        kept = {}
    return json.dumps(kept).encode()


def _convert(before: Path, after: Path, source: str) -> None:
    """Load with transformers and save again.

    Raises:
        ValueError: With the reason.
    """
    from transformers import AutoTokenizer

    try:
        with contextlib.redirect_stderr(io.StringIO()):
            tokenizer: Any = AutoTokenizer.from_pretrained(before, local_files_only=True, trust_remote_code=False)
            tokenizer.save_pretrained(after)
    except Exception as error:
        text = str(error).replace(str(before), "the folder")
        reason = shorten(text, _LONGEST, placeholder=" …") or type(error).__name__
        raise ValueError(f"transformers cannot convert {source} ({reason})") from error
    if not (after / "tokenizer.json").is_file() or tokenizer.vocab_size <= len(tokenizer.all_special_tokens):
        raise ValueError(f"transformers makes an empty vocabulary of {source}")
