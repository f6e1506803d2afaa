"""The head of a tied model in the files: a matrix of its own beside the embedding, or in the embedding's place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from axon_compose.checkpoints.files import CheckpointError
from axon_compose.checkpoints.files._safetensors import data_start
from axon_compose.checkpoints.weights._headers import TensorHeader, read_checkpoint
from axon_compose.checkpoints.weights._rules import RuleBook
from axon_compose.checkpoints.weights._storage import Source, gather
from axon_compose.checkpoints.weights._wrappers import prefixes_of
from axon_compose.plan import Compiled, Plan

__all__ = ["OwnHead", "head_as_table", "own_head"]

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
    plan, section = compiled.plan(), compiled.document.huggingface
    shared = _shared(plan)
    if section is None or not shared:
        return None
    try:
        prefixes = prefixes_of(section, wrapped=compiled.config is not None and compiled.config.wrapped)
        sources = gather(read_checkpoint(folder).tensors, prefixes)
        heads, tables = _matrices(shared, RuleBook(section, compiled.document.dims, None), sources)
        if len(heads) != 1 or len(tables) != 1 or not _differ(*heads, *tables):
            return None
    except CheckpointError:
        return None
    return OwnHead(heads[0].tensors[0].name, tables[0].tensors[0].name)


def head_as_table(plan: Plan, book: RuleBook, sources: Mapping[str, Source]) -> Mapping[str, Source]:
    """The tensors of a tied model, the head under the name of the embedding where only the head is stored.

    transformers 5.24 ties the two that way round too (`PreTrainedModel.tie_weights`).

    Args:
        plan: The model.
        book: Its rules.
        sources: Tensors by their names.
    """
    shared = _shared(plan)
    if len(shared) != 1:
        return sources
    heads, tables = _matrices(shared, book, sources)
    origin = next(book.origins(*shared), None)
    if len(heads) != 1 or tables or origin is None:
        return sources
    return {origin.source() if source is heads[0] else name: source for name, source in sources.items()}


def _shared(plan: Plan) -> frozenset[str]:
    """The parameters of others that the head multiplies by; none unless it is tied."""
    head = plan.head
    return frozenset(head.spec.touched(head.options, head.dims, 1) if head.spec.touched else ())


def _matrices(
    shared: frozenset[str], book: RuleBook, sources: Mapping[str, Source]
) -> tuple[list[Source], list[Source]]:
    """The tensors that a head of its own would be, and those of the parameters that it shares."""
    targets = [(source, target) for name, source in sources.items() for target in _targets(book, name)]
    heads = [source for source, target in targets if target.startswith("head.") and target.endswith(".weight")]
    return heads, [source for source, target in targets if target in shared]


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
