"""A head of its own beside a tied embedding: two matrices in the files where the plan has one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from axon_compose.checkpoints.files import CheckpointError
from axon_compose.checkpoints.files._safetensors import data_start
from axon_compose.checkpoints.weights._headers import TensorHeader, read_checkpoint
from axon_compose.checkpoints.weights._rules import RuleBook
from axon_compose.checkpoints.weights._storage import Source, gather
from axon_compose.checkpoints.weights._wrappers import prefixes_of
from axon_compose.plan import Compiled

__all__ = ["OwnHead", "own_head"]

_CHUNK: Final = 1 << 22


class OwnHead(NamedTuple):
    """Names of the two tensors that differ."""

    head: str
    embedding: str


def own_head(compiled: Compiled, folder: Path) -> OwnHead | None:
    """The matrix that a checkpoint has for a tied head, if its numbers are not those of the embedding.

    A checkpoint without weights, or with a damaged file, has none: reading the weights reports that.

    Args:
        compiled: A file with the sizes of the checkpoint.
        folder: The checkpoint.
    """
    head, section = compiled.plan().head, compiled.document.envelope.huggingface
    tables = head.spec.touched(head.options, head.dims, 1) if head.spec.touched else {}
    if section is None or not tables:
        return None
    book = RuleBook(section, compiled.document.dims, None)
    heads: list[Source] = []
    embeddings: list[Source] = []
    try:
        prefixes = prefixes_of(section, wrapped=compiled.config is not None and compiled.config.wrapped)
        for source in gather(read_checkpoint(folder).tensors, prefixes).values():
            for target in _targets(book, source.name):
                if target in tables:
                    embeddings.append(source)
                elif target.startswith("head.") and target.endswith(".weight"):
                    heads.append(source)
        if len(heads) == len(embeddings) == 1 and _differ(heads[0], embeddings[0]):
            return OwnHead(heads[0].tensors[0].name, embeddings[0].tensors[0].name)
    except CheckpointError:
        pass
    return None


def _targets(book: RuleBook, name: str) -> list[str]:
    """The parameters that a tensor would be, whether the model has them or not."""
    found = book.find(name)
    return [found.first_target(index) for index in range(len(found.rule.targets))] if found else []


def _differ(one: Source, other: Source) -> bool:
    """Whether two tensors have different bytes, shapes or types."""
    if len(one.tensors) != len(other.tensors):
        return True
    return any(_parts_differ(*pair) for pair in zip(one.tensors, other.tensors, strict=True))


def _parts_differ(one: TensorHeader, other: TensorHeader) -> bool:
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return True
    return any(a != b for a, b in zip(_chunks(one), _chunks(other), strict=True))


def _chunks(header: TensorHeader) -> Iterator[bytes]:
    """The bytes of a tensor, a few MiB at a time."""
    left = header.nbytes
    with header.file.open("rb") as file:
        file.seek(data_start(header.file) + header.start)
        while left > 0:
            chunk = file.read(min(left, _CHUNK))
            if not chunk:
                return
            left -= len(chunk)
            yield chunk
