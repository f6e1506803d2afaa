"""The plan of an edit: what every tensor of the new model is made from, counted, before anything is read or written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from axon_compose.checkpoints.built import is_adapter
from axon_compose.checkpoints.files import Unchanged
from axon_compose.checkpoints.hub_cache import snapshot_of
from axon_compose.checkpoints.places import compile_place, is_model_folder
from axon_compose.checkpoints.weights import LoadPlan, checkpoint_plan
from axon_compose.diagnostics import CheckpointError, Problems
from axon_compose.notebook import Shown
from axon_compose.plan import DTYPES, Compiled, Plan, Text, compile_node
from axon_compose.registry import Registry
from axon_compose.surgery._apply import apply_edits
from axon_compose.surgery._config import edited_config
from axon_compose.surgery._draft import Draft, slots
from axon_compose.surgery._making import Making, bases
from axon_compose.surgery._steps import USUAL, Share, Step, dtypes_of, steps_of, usual_dtype
from axon_compose.surgery.document import EditText, read_edits

if TYPE_CHECKING:
    from axon_compose.surgery._tokens import NewTokens

__all__ = ["TEXTS", "Share", "Step", "SurgeryPlan", "makings_of", "plan_edit"]

#: What is measured on unless something else is asked for: the texts that Python carries.
TEXTS: Final = ("python-docs",)


@dataclass(frozen=True)
class SurgeryPlan(Shown):
    """What an edit makes of a model.

    Attributes:
        source: The model as it is.
        edited: The model as it will be, without any formula of sizes.
        steps: Every tensor of the new model, in the order of its parameters.
        origins: For each layer of the new model the one of the source that it comes from, None for new ones.
        makings: Component of the new model, by its path, to how it comes about.
        text: The edit file.
        weights: What the weights are read from; None if none were given.
        load_plan: Where the source's parameters are in there, quantised ones unpacked.
        dtypes: Parameter of the source to the type that it is read in.
        dtype: The type of what is new, and of most of the rest.
        unpacked: How many quantised tensors become plain numbers.
        unchanged: That the weights are the ones whose headers were read.
        texts: What is measured on, where a transfer needs that.
        tokens: Other tokens, if the vocabulary changes.
    """

    source: Compiled
    edited: Compiled
    steps: tuple[Step, ...]
    origins: tuple[int | None, ...]
    makings: Mapping[str, Making] = field(repr=False)
    text: EditText = field(repr=False)
    weights: Path | None = None
    load_plan: LoadPlan | None = field(default=None, repr=False)
    dtypes: Mapping[str, str] = field(default_factory=dict, repr=False)
    dtype: str = USUAL
    unpacked: int = 0
    unchanged: Unchanged | None = field(default=None, repr=False)
    texts: tuple[str, ...] = TEXTS
    tokens: NewTokens | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        sums = self.totals()
        counts = ", ".join(f"{sums[kind].tensors} {kind}" for kind in ("kept", "converted", "new"))
        return f"<SurgeryPlan {self.edited.name}: {counts}>"

    def totals(self) -> dict[str, Share]:
        """Sums by kind, and of the source's parameters that go nowhere under `dropped`."""
        found = {
            kind: Share.of(step for step in self.steps if step.kind == kind) for kind in ("kept", "converted", "new")
        }
        return found | {"dropped": self.dropped}

    @cached_property
    def dropped(self) -> Share:
        """The parameters of the source that nothing is made from."""
        used = {source for step in self.steps for source in step.sources}
        lost = [(name, prod(shape)) for name, shape in self.source.plan().parameters() if name not in used]
        nbytes = sum(size * DTYPES[self.dtypes[name]] for name, size in lost)
        return Share(len(lost), sum(size for _, size in lost), nbytes)

    @property
    def changed(self) -> list[str]:
        """Paths of the components of the new model that do not compute what one of the source does.

        Their parameters are not all kept, or their options differ, as with a window.
        """
        kinds: dict[str, set[str]] = {}
        for step in self.steps:
            kinds.setdefault(self.owners[step.name], set()).add(step.kind)
        found = []
        for use in self.edited.plan().uses():
            was = self.makings[use.path].use
            if kinds.get(use.path, {"kept"}) != {"kept"} or (was.type, was.options) != (use.type, use.options):
                found.append(use.path)
        return found

    @cached_property
    def owners(self) -> dict[str, str]:
        """Every tensor to the path of its component."""
        return {f"{use.path}.{name}": use.path for use in self.edited.plan().uses() for name in use.params}

    def needs(self) -> dict[str, str]:
        """Components of the source of which something has to be measured, by their paths, and what."""
        chains = (made for making in self.makings.values() for made in bases(making))
        return {
            made.base.use.path: made.transfer.needs
            for made in chains
            if made.transfer is not None and made.transfer.needs and made.base is not None
        }

    def to_dict(self) -> dict[str, Any]:
        """As plain data; what `edit --plan --json` prints."""
        from axon_compose.analysis.cost import cost

        return {
            "source": self.source.name,
            "layers": {"before": len(self.source.plan().layers), "after": len(self.edited.plan().layers)},
            "origins": list(self.origins),
            "steps": [step.to_dict() for step in self.steps],
            "totals": {name: share.to_dict() for name, share in self.totals().items()},
            "cost": {
                "before": cost(self.source.plan()).to_dict(),
                "after": cost(self.edited.plan()).to_dict(),
            },
            "architecture": self.edited.data,
        }


def plan_edit(
    edit: str | Path | Mapping[str, Any] | Text,
    weights: str | Path | None = None,
    *,
    dtype: str | None = None,
    seed: int = 0,
    texts: Sequence[str] = TEXTS,
    allow_large: bool = False,
    registry: Registry | None = None,
) -> SurgeryPlan:
    """Decide what an edit makes of a model; reads headers alone and imports no mlx.

    Only where the layers of least influence are dropped, the source runs on a text first.

    Args:
        edit: The edit file: its path, its content, or its text.
        weights: Folder or GGUF file that the source's weights come from; the source itself where that is one.
        dtype: What weights are cast to, where they may be; as they come unless given.
        seed: Of what is random in it, where the file has none.
        texts: Files, folders or `python-docs`: what is measured on.
        allow_large: Where the source has to run, do not compare its size with the memory that is free.
        registry: The plugins to use; the installed ones unless given.

    Raises:
        ArchitectureError: With every fault of the edit file or of the model.
        CheckpointError: If the weights are not those of the source.
        OSError: If a file cannot be read.
    """
    registry, problems = registry or Registry.installed(), Problems()
    text = read_edits(edit, problems)
    problems.raise_if_any()
    assert text is not None
    source, place = _source(text, weights, registry)
    load_plan, unchanged, packed = None, None, 0
    if place is not None:
        unchanged = Unchanged(place)
        load_plan = checkpoint_plan(source.plan(), source.document, place)
        packed, load_plan = len(load_plan.quantized) + load_plan.unpacked, load_plan.unpacked_all()
    draft = Draft(source, registry)
    draft.data["name"] = text.file.name or source.name
    influence = None
    if place is not None and load_plan is not None:
        influence = cache(partial(_influence, source, place, load_plan, tuple(texts), allow_large))
    apply_edits(draft, text, registry, problems, seed=seed, influence=influence, home=place)
    problems.raise_if_any()
    origins = tuple(layer.origin for layer in draft.layers)
    config = edited_config(source, origins)
    edited = compile_node(draft.node(problems), text.directory, config=config, registry=registry, problems=problems)
    makings = dict(makings_of(draft, edited.plan()))
    dtypes = dtypes_of(source.plan(), load_plan, dtype)
    usual = dtype or usual_dtype(source.plan(), dtypes)
    steps = tuple(steps_of(edited.plan(), makings, dtypes, usual))
    return SurgeryPlan(
        source,
        edited,
        steps,
        origins,
        makings,
        text,
        place,
        load_plan,
        dtypes,
        usual,
        packed,
        unchanged,
        tuple(texts),
        draft.tokens,
    )


def _influence(
    source: Compiled, weights: Path, load_plan: LoadPlan, texts: Sequence[str], allow_large: bool
) -> list[float]:
    from axon_compose.surgery._figures import Figures  # which runs the model

    return Figures(source, weights, load_plan, texts, allow_large=allow_large).influence()


def _source(text: EditText, weights: str | Path | None, registry: Registry) -> tuple[Compiled, Path | None]:
    """The model that is edited, and where its weights are.

    Raises:
        CheckpointError: AX929 it is a folder of adapters.
    """
    found = text.beside(text.file.source)
    named = snapshot_of(found) if isinstance(found, Path) else found
    place = Path(weights) if weights is not None else Path(named) if is_model_folder(named, registry) else None
    if place is not None and is_adapter(place):
        hint = f"`mlx_lm.fuse --model MODEL --trust-remote-code --adapter-path {place} --save-path DIR` joins them"
        raise CheckpointError("AX929", f"`{place}` holds adapters, which cannot be edited", hint)
    return compile_place(named, place, registry=registry), place


def makings_of(draft: Draft, plan: Plan) -> Iterator[tuple[str, Making]]:
    """Every component with weights of its own, by its path, and how it comes about."""
    yield from draft.ends.items()
    for drafted, layer in zip(draft.layers, plan.layers, strict=True):
        if layer.owner is None:
            for branch, planned in zip(drafted.branches, layer.branches, strict=True):
                for slot, use in slots(planned):
                    yield use.path, branch.made[slot]
