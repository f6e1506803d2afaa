"""The weights of a built folder: every tensor is the parameter of its name, as it is stored."""

from __future__ import annotations

from pathlib import Path

from axon_compose.checkpoints.files._safetensors import compare_shapes
from axon_compose.checkpoints.weights._headers import Checkpoint
from axon_compose.checkpoints.weights._plan_load import LoadPlan
from axon_compose.checkpoints.weights._steps import Shape
from axon_compose.checkpoints.weights._storage import Form, Source, check_sources, gather
from axon_compose.checkpoints.weights._transfer import Output, Transfer
from axon_compose.plan import Plan
from axon_compose.plan.folder_names import FolderNames

__all__ = ["plan_own"]

_RULE = "its own name"


def plan_own(plan: Plan, found: Checkpoint, names: FolderNames) -> LoadPlan:
    """Decide where every parameter comes from. Reads no tensor; weights that are quantised stay so.

    Args:
        plan: The model.
        found: The headers of a built folder.
        names: What the folder calls the parameters.

    Raises:
        CheckpointError: AX512 parameters are missing, tensors are unexpected, or shapes differ; AX555 a tensor is
            stored in an unknown way.
    """
    wanted: dict[str, Shape] = dict(plan.parameters())
    sources = {names.in_plan(name): source for name, source in gather(found.tensors).items()}
    forms = {name: _form(source, wanted.get(name)) for name, source in sources.items()}
    files = sorted({tensor.file for tensor in found.tensors.values()})
    hint = f"`axon-compose diff {found.folder} FILE` shows how another description differs from the folder's own"
    compare_shapes(found.folder, files, {name: form.shape for name, form in forms.items()}, wanted, hint)
    check_sources(sources.values())
    transfers = (_as_stored(name, source, forms[name], wanted[name]) for name, source in sources.items())
    return LoadPlan(tuple(sorted(transfers, key=_place)), ())


def _form(source: Source, wanted: Shape | None) -> Form:
    """What a tensor is: packed numbers can be of several lengths, and the parameter says which."""
    forms = source.forms()
    return next((form for form in forms if form.shape == wanted), forms[0])


def _as_stored(name: str, source: Source, form: Form, shape: Shape) -> Transfer:
    output = Output(name, shape, packing=form.packing)
    return Transfer(_RULE, (source,), form, stacked=False, steps=(), split=None, outputs=(output,))


def _place(transfer: Transfer) -> tuple[Path, int]:
    first = transfer.sources[0].tensors[0]
    return first.file, first.start
