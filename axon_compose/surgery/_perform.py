"""A plan to a folder: component by component, whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from axon_compose.checkpoints.built import model_folder
from axon_compose.checkpoints.edited import EDIT_KEY, Edited, read_edited
from axon_compose.checkpoints.files import MAX_SHARD_BYTES, CheckpointError, TensorSpec, check_target, write_folder
from axon_compose.checkpoints.files._generation import generation_of
from axon_compose.checkpoints.files._tokenizer import is_tokenizer_of, tokenizer_folder
from axon_compose.checkpoints.folder import folder_record, tensors_origin, usual_tokenizer
from axon_compose.checkpoints.folder_config import described_config
from axon_compose.checkpoints.weights import by_rows
from axon_compose.machine.memory import require
from axon_compose.model.names import CONFIG_KEY, FolderNames
from axon_compose.surgery._make import Maker
from axon_compose.surgery._making import Kept, Made, bases, root
from axon_compose.surgery._plan import SurgeryPlan

__all__ = ["edit_record", "perform"]

#: Arrays of a converted component that are there at once, each in float32: what it reads, what it gives, and both
#: again while they are computed.
_AT_ONCE: Final = 4 * 4


def perform(
    plan: SurgeryPlan,
    target: str | Path,
    *,
    tokenizer: str | Path | None = None,
    force: bool = False,
    allow_large: bool = False,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Do what a plan says, and write the new model as a folder; memory for the largest component is enough.

    Args:
        plan: What `plan_edit` gave, with weights.
        target: The new folder.
        tokenizer: `bytes`, `bytes-chat`, `none`, or a folder with the files of a tokenizer; that of the weights unless
            given.
        force: Replace an earlier build.
        allow_large: Do not compare the size with the memory that is free.
        max_shard_bytes: Largest weight file.
        progress: Called with bytes written and bytes in all.

    Returns:
        The folder.

    Raises:
        CheckpointError: AX929 the plan has no weights; AX401 a component does not fit into memory; AX501 to AX504 the
            folder cannot be written; AX513 the weights change meanwhile.
        PluginFault: The code of a component or of a transfer fails.
    """
    target = Path(target)
    if plan.weights is None or plan.load_plan is None or plan.unchanged is None:
        message = f"the weights of `{plan.source.name}` are needed to edit it"
        raise CheckpointError("AX929", message, "give their folder with `--weights DIR`, or name it under `source`")
    check_target(target, force)
    if not allow_large:
        require(_peak(plan), f"the largest component of `{plan.edited.name}`", [])
    maker = Maker(plan, _measured(plan, allow_large))
    with _tokenizer(plan, tokenizer) as chosen:
        _write(plan, target, chosen, maker, force=force, max_shard_bytes=max_shard_bytes, progress=progress)
    return target


@contextmanager
def _tokenizer(plan: SurgeryPlan, chosen: str | Path | None) -> Iterator[str | Path]:
    """The tokenizer of the new folder; where it is made here, its files are in a folder of their own meanwhile."""
    assert plan.weights is not None
    if chosen is not None or plan.tokens is None:
        yield chosen or usual_tokenizer(model_folder(plan.weights))
        return
    with tempfile.TemporaryDirectory(prefix="axon-tokenizer-") as place:
        for name, content in plan.tokens.files.items():
            (Path(place) / name).write_bytes(content)
        yield place


def _write(
    plan: SurgeryPlan,
    target: Path,
    tokenizer: str | Path,
    maker: Maker,
    *,
    force: bool,
    max_shard_bytes: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    assert plan.weights is not None
    assert plan.load_plan is not None
    assert plan.unchanged is not None
    home, names = model_folder(plan.weights), FolderNames(plan.edited.plan())
    specs = [TensorSpec(names.in_folder(step.name), step.shape, step.dtype) for step in plan.steps]
    config = described_config(plan.edited, plan.dtype, ids=is_tokenizer_of(home, tokenizer))
    config[CONFIG_KEY] |= {EDIT_KEY: edit_record(plan, home)}
    if origin := tensors_origin(plan.load_plan, plan.weights):
        config[CONFIG_KEY]["tensors"] = origin
    notes = [_unpacked(plan)] if plan.unpacked else []
    with plan.unchanged:
        write_folder(
            target,
            config=config,
            tensors=_tensors(plan, maker, names),
            specs=specs,
            tokenizer=tokenizer,
            generation=generation_of(home, tokenizer_folder(tokenizer)),
            build_record=folder_record(plan.edited.plan(), plan.dtype, None, None) | {"notes": notes},
            force=force,
            progress=progress,
            max_shard_bytes=max_shard_bytes,
        )


def _unpacked(plan: SurgeryPlan) -> str:
    """That quantised tensors have become plain numbers, and whether that rounds them."""
    note = f"{plan.unpacked} quantised tensors are unpacked, into {plan.dtype}"
    return note if plan.dtype == "float32" else f"{note}, which rounds them; `--dtype float32` does not"


def _tensors(plan: SurgeryPlan, maker: Maker, names: FolderNames) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every tensor by its name in the folder, made when it is asked for."""
    for use in plan.edited.plan().uses():
        for name in use.params:
            yield names.in_folder(f"{use.path}.{name}"), partial(maker.take, use.path, name)


def edit_record(plan: SurgeryPlan, home: Path) -> dict[str, Any]:
    """What config.json says of an edit: the edits, which layer each one comes from, and what has changed.

    Of a folder that was edited before, the two edits together.

    Args:
        plan: The edit.
        home: Folder of the weights.
    """
    edits = [edit.model_dump(by_alias=True, exclude_none=True, exclude_unset=True) for edit in plan.text.file.edits]
    origins, changed = plan.origins, set(plan.changed)
    if before := read_edited(home, plan.source.plan()):
        edits = [*before.edits, *edits]
        origins = tuple(None if origin is None else before.origins[origin] for origin in origins)
        changed |= {path for path, making in plan.makings.items() if root(making) in before.changed}
    paths = (use.path for use in plan.edited.plan().uses())
    vocabulary = plan.tokens.same if plan.tokens else before.vocabulary if before else None
    if plan.tokens and before and before.vocabulary is not None:
        vocabulary = tuple(before.vocabulary[token] if token >= 0 else -1 for token in plan.tokens.same)
    return Edited(origins, tuple(path for path in paths if path in changed), vocabulary, tuple(edits)).to_dict()


def _measured(plan: SurgeryPlan, allow_large: bool) -> dict[str, dict[str, Any]]:
    """What the transfers of a plan need, if they need something: the source runs for it."""
    wanted = plan.needs()
    if not wanted:
        return {}
    from axon_compose.surgery._figures import Figures

    assert plan.weights is not None
    assert plan.load_plan is not None
    return Figures(plan.source, plan.weights, plan.load_plan, plan.texts, allow_large=allow_large).of(wanted)


def _peak(plan: SurgeryPlan) -> int:
    """Bytes while the largest component that is converted is made, and of the largest tensor that is not in pieces."""
    assert plan.load_plan is not None
    read = plan.load_plan.parameters
    kept = {path for path, making in plan.makings.items() if isinstance(making, Kept)}
    large = {s.name for s in plan.steps if plan.owners[s.name] in kept and by_rows(read[s.sources[0]])}
    largest = max((step.nbytes for step in plan.steps if step.name not in large), default=0)
    for making in plan.makings.values():
        if isinstance(making, Made):
            largest = max(largest, *(_AT_ONCE * made.use.size for made in bases(making)))
    return largest
