"""A tokenizer that begins and ends every text with a special token, as that of Gemma begins them."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, processors

from axon_compose.checkpoints.files._byte_tokenizer import byte_tokenizer

__all__ = ["BEGIN", "beginning_tokenizer"]

BEGIN = 257


def beginning_tokenizer(folder: Path) -> Path:
    """One of bytes, written into a new folder."""
    folder.mkdir()
    for name, content in byte_tokenizer().items():
        (folder / name).write_bytes(content)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    first, last = (tokenizer.id_to_token(token) for token in (BEGIN, BEGIN + 1))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(first, BEGIN), (last, BEGIN + 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
