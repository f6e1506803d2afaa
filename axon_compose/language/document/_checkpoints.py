"""Files that read checkpoints: the sections `huggingface` and `gguf`, imported where a file has one of them."""

from pydantic import Field

from axon_compose.diagnostics import Problems
from axon_compose.language.document._document import Document
from axon_compose.language.document._fields import check_fields
from axon_compose.language.document._gguf import Gguf
from axon_compose.language.document._huggingface import HuggingFace
from axon_compose.language.document._sections import Envelope
from axon_compose.language.document._weights import check_faults, check_weights

__all__ = ["CheckpointEnvelope", "check_checkpoints"]


class CheckpointEnvelope(Envelope):
    """An architecture file, version 1, that reads checkpoints."""

    huggingface: HuggingFace | None = Field(default=None, description="Checkpoints that the file reads, and how.")
    gguf: Gguf | None = Field(default=None, description="GGUF files that the file reads, and how.")


def check_checkpoints(document: Document, problems: Problems) -> None:
    """Report what the two sections name and the file does not have, and the faults of their rules."""
    check_fields(document, problems)
    check_weights(document, problems)
    check_faults(document, problems)
