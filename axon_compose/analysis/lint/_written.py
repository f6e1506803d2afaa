"""Advice on what is written but has no effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from axon_compose.analysis.lint._rule import Finding
from axon_compose.language.document import BranchItem, Document, is_formula
from axon_compose.language.document._formulas import names_in_formulas
from axon_compose.plan import Plan

__all__ = ["CONTEXT_DIMS", "idle_overrides", "unused_dims", "unused_parts"]

#: Dims that state the context length; no formula has to use them.
CONTEXT_DIMS: Final = ("max_position_embeddings", "context_length", "max_seq_len", "n_positions")
#: Dims that config.json gives to rotary scaling, without a formula.
_READ: Final = ("original_max_position_embeddings",)
#: How places of values from the command line begin.
_SETTING: Final = "--set "


def unused_parts(document: Document, plan: Plan) -> Iterator[Finding]:
    """Components and blocks that no layer has and no formula names: mostly a name that was changed in one place."""
    in_formulas = names_in_formulas(document.node)
    own = _own(document)
    blocks = {layer.block for layer in plan.layers}
    components = {m.use.name for layer in plan.layers for branch in layer.branches for m in branch.members}
    for name, block in document.envelope.blocks.items():
        if name in blocks | in_formulas:
            components |= set(_components(block.branches))
        elif own("blocks", name):
            yield Finding(
                f"no layer uses the block `{name}`",
                ("blocks", name),
                "remove the block, or use it in `stack`",
                key=True,
            )
    for name in document.envelope.components:
        if name not in components | in_formulas and own("components", name):
            yield Finding(
                f"no layer uses the component `{name}`",
                ("components", name),
                "remove it, or use it in a block",
                key=True,
            )


def unused_dims(document: Document, plan: Plan) -> Iterator[Finding]:
    """Dims that no formula uses, but for those that are null: the intended size is written elsewhere."""
    used = {"hidden_size", "vocab_size", *CONTEXT_DIMS, *_READ} | names_in_formulas(document.node)
    own = _own(document)
    for name, value in document.dims.items():
        if value is not None and name not in used and own("dims", name):
            yield Finding(
                f"no formula uses the dim `{name}`",
                ("dims", name),
                f"write `={name}` where its value is used, or remove it",
                key=True,
            )


def idle_overrides(document: Document, plan: Plan) -> Iterator[Finding]:
    """Overrides that set the value already in effect."""
    overrides = document.envelope.overrides
    targets = [target for override in overrides for target in override.set]
    for number, override in enumerate(overrides):
        for target, value in override.set.items():
            name, *path = target.split(".")
            component = document.envelope.components.get(name)
            written = _at(component.options, path) if component else None
            if targets.count(target) > 1 or written is None or is_formula(written) or written != value:
                continue
            yield Finding(
                f"`{target}` is already {value} without this override",
                ("overrides", number, "set", target),
                "remove it, or set another value",
                key=True,
            )


def _own(document: Document) -> Callable[..., bool]:
    """Whether something is written in the file itself: what a base brings along need not be used."""
    file = document.node.span.file
    if file.startswith(_SETTING):
        file = document.place("version", key=True).file

    def own(*path: str) -> bool:
        where = document.place(*path, key=True).file
        return where == file or where.startswith(_SETTING)

    return own


def _at(options: Mapping[str, Any], path: list[str]) -> Any:
    value: Any = options
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _components(branches: list[BranchItem]) -> Iterator[str]:
    for branch in branches:
        if branch.use is not None:
            yield branch.use
        yield from (item.use for item in branch.parallel or ())
