"""`insert`, `drop` and `repeat`: more layers, or fewer."""

from __future__ import annotations

from dataclasses import replace

from axon_compose.plan import Use
from axon_compose.registry import Piece
from axon_compose.surgery._component import Faulty, valued
from axon_compose.surgery._draft import DraftBranch, DraftLayer
from axon_compose.surgery._editing import Editing
from axon_compose.surgery._init import Beginning, Init
from axon_compose.surgery._making import COPIED, Made, Making
from axon_compose.surgery.document import Drop, Insert

__all__ = ["drop_layers", "insert_layers", "repeat_layers"]


def insert_layers(editing: Editing) -> None:
    """Put new layers after a layer.

    Raises:
        Faulty: It cannot be done; reported.
    """
    insert = editing.edit.insert
    assert insert is not None
    start = insert.after == "start"
    after = -1 if start else editing.one(insert.after, "insert", "after")
    count = valued(insert.count, editing.known(), editing.place("insert", "count"), editing.problems)
    model = _model_layer(editing, insert, after)
    init = editing.init()
    init = init if init.name else Init("zero_out", None, init.noise, init.seed, init.settings, init.span)
    beginning = Beginning(init, editing.problems, editing.seed, editing.draft.additions)
    neighbour = editing.draft.layers[max(after, 0)]
    for number in range(count):
        layer = model.copy()
        layer.origin = neighbour.origin if init.name in ("copy", "keep") else None
        layer.share = None
        _begin_layer(editing, layer, neighbour, after + 1 + number, beginning)
        editing.draft.layers.insert(after + 1 + number, layer)


def _model_layer(editing: Editing, insert: Insert, after: int) -> DraftLayer:
    """The layer that new ones are built like."""
    if insert.block is None:
        return editing.draft.layers[max(after, 0)]
    blocks = editing.draft.blocks()
    if insert.block in blocks:
        return blocks[insert.block]
    near = editing.problems.nearest(insert.block, blocks)
    hint = f"did you mean `{near}`?" if near else f"blocks are {', '.join(blocks)}"
    at = editing.place("insert", "block")
    editing.problems.error("AX923", f"the model has no block `{insert.block}`", at, help=hint)
    raise Faulty


def _begin_layer(editing: Editing, layer: DraftLayer, neighbour: DraftLayer, index: int, beginning: Beginning) -> None:
    """How the components of a new layer begin: norms as those of the layer before it where it is built alike."""
    alike = layer.written() == neighbour.written()
    for branch, beside in zip(layer.branches, neighbour.branches if alike else layer.branches, strict=True):
        slots_of = dict(branch.members())
        if beginning.init.name == "zero_out":
            _check_stream(editing, layer, branch, beginning)
        for slot, making in beside.made.items():
            branch.made[slot] = making
            if slot in slots_of:
                if making.use.spec.kind != "layer":
                    _not_silent(editing, f"`{making.use.name}` replaces what it reads", beginning)
                new = _at(making.use, f"layers.{index}.{slots_of[slot]}")
                branch.made[slot] = beginning.of(new, making.use if alike else None, making if alike else None)
            elif beginning.init.name == "zero_out" and slot.endswith("post"):
                branch.made[slot] = _without_shift(making)
            elif beginning.init.name == "random":
                branch.made[slot] = Made(making.use, "random", seed=editing.seed, additions=editing.draft.additions)


def _without_shift(making: Making) -> Making:
    """A norm of an output without what it adds to zero."""
    shifts = frozenset(name for name in making.use.params if name.rpartition(".")[2] == "bias")
    pieces = {name: Piece((name,), COPIED) for name in making.use.params}
    return Made(making.use, "zero_out", making, pieces, zeroed=shifts) if shifts else making


def _check_stream(editing: Editing, layer: DraftLayer, branch: DraftBranch, beginning: Beginning) -> None:
    """Refuse a branch that changes the stream whatever its components add."""
    if "connection" in branch.made:
        _not_silent(editing, f"a connection mixes the streams of `{layer.block}`", beginning)
    if branch.written.get("skip", 1) != 1:
        _not_silent(editing, f"`skip` scales the stream in `{layer.block}`", beginning)


def _not_silent(editing: Editing, why: str, beginning: Beginning) -> None:
    """Refuse to let a layer that cannot do so begin by changing nothing."""
    if beginning.init.name == "zero_out":
        message = f"{why}, so it cannot begin by adding nothing"
        editing.problems.error("AX926", message, beginning.init.span, help="write `init: copy` or `init: random`")
        raise Faulty


def drop_layers(editing: Editing) -> None:
    """Take layers away.

    Raises:
        Faulty: It cannot be done; reported.
    """
    written = editing.edit.drop
    gone = _least(editing, written) if isinstance(written, Drop) else editing.selected(written, "drop")
    if len(gone) == editing.draft.count:
        message = "this drops every layer"
        editing.problems.error("AX930", message, editing.place("drop"), help="leave at least one")
        raise Faulty
    editing.draft.layers = [layer for index, layer in enumerate(editing.draft.layers) if index not in set(gone)]


def _least(editing: Editing, written: Drop) -> list[int]:
    """The layers that turn the hidden state least, measured on the source; new ones are none of them."""
    number = valued(written.least, editing.known(), editing.place("drop", "least"), editing.problems)
    chosen = editing.selected(written.among, "drop", "among")
    known = [index for index in chosen if editing.draft.layers[index].origin is not None]
    at = editing.place("drop", "least")
    most = min(len(known), len(editing.draft.layers) - 1)  # one is left: seen before anything is measured
    if number > most:
        message = f"{number} layers cannot be dropped out of {len(known)}"
        editing.problems.error("AX930", message, at, help=f"`least` is {most} at most here")
        raise Faulty
    if editing.influence is None:
        message = "which layers matter least is measured, and there are no weights"
        editing.problems.error("AX931", message, at, help="give their folder with `--weights DIR`")
        raise Faulty
    found = editing.influence()
    return sorted(known, key=lambda index: found[editing.draft.layers[index].origin or 0])[:number]


def repeat_layers(editing: Editing) -> None:
    """Put layers there again, with their weights.

    Raises:
        Faulty: It cannot be done; reported.
    """
    repeat = editing.edit.repeat
    assert repeat is not None
    chosen = editing.selected(repeat.layers, "repeat", "layers")
    after = chosen[-1] if repeat.after is None else editing.one(repeat.after, "repeat", "after")
    times = valued(repeat.times, editing.known(), editing.place("repeat", "times"), editing.problems)
    originals = [editing.draft.layers[index] for index in chosen]
    at = after + 1
    for _ in range(times):
        for original in originals:
            layer = original.copy()
            layer.share = None
            if editing.edit.init is not None:
                _begin_layer(editing, layer, original, at, editing.beginning())
            editing.draft.layers.insert(at, layer)
            at += 1


def _at(use: Use, path: str) -> Use:
    """A component at another place."""
    return replace(use, path=path, slot=None, masks=(), reads={}, writes=())
