"""Names that built folders and their readers agree on.

A plan names weights after the file: `layers.3.swa.q_proj.weight`, `embedding.embed_tokens.weight`. The recipes of
mlx-lm look for the names that its own models have: a layer's index is the third part of a path (`model.layers.3.…`),
other matrices have one part or two (`lm_head`, `model.embed_tokens`), and attention is `self_attn`. So these are the
names in a folder; `FolderNames` is the table between the two. What a component is called is in its record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from axon_compose.language.config import CONFIG_KEY
from axon_compose.plan._plan import Layer, Plan, Use

__all__ = ["FolderNames", "ends", "module_names"]

#: Where the names in a folder are noted beside the description; folders of version 0.1 lack it and have the plan's.
_NOTE: Final = "names"
_OURS: Final = "mlx-lm"


def module_names(layer: Layer) -> dict[str, str]:
    """What mlx-lm calls the modules of a layer, by their names in the plan: one of a kind, and the name is free."""
    keys = {use.key: use.spec.module_name for use in layer.uses()}
    wanted = Counter(name for name in keys.values() if name)
    return {key: name for key, name in keys.items() if name and wanted[name] == 1 and name not in keys.keys() - {key}}


class FolderNames:
    """The names of modules and parameters in the plan and in a folder.

    Args:
        plan: The model.
        config: The folder's config.json; that of a new folder unless given.
    """

    #: What config.json says beside the description.
    note: Final = {_NOTE: _OURS}

    def __init__(self, plan: Plan, config: Mapping[str, Any] | None = None) -> None:
        self.like_mlx_lm = config is None or config[CONFIG_KEY].get(_NOTE) == _OURS
        self._in_folder = dict(_pairs(plan)) if self.like_mlx_lm else {}
        self._in_plan = {other: own for own, other in self._in_folder.items()}

    def in_folder(self, name: str) -> str:
        """The name in the folder of what the plan names so: a module, or anything below it."""
        return _renamed(name, self._in_folder)

    def in_plan(self, name: str) -> str:
        """The name in the plan of what the folder names so."""
        return _renamed(name, self._in_plan)


def ends(plan: Plan) -> Iterator[tuple[Use, str, str]]:
    """Parts in a folder of what is around the layers: modules that hold parameters, and arrays beside such modules.

    What is around them is the embedding, the residual scheme and the head.

    Their names have two parts at most, since `mlx_lm.convert --quant-predicate` would take a third for the index of a
    layer.

    Yields:
        The component, the dotted name inside it (empty for itself), the name in the folder.
    """
    schemes = [(plan.residual, "model.")] if plan.residual else []
    for use, place in ((plan.embedding, "model."), *schemes, (plan.head, "")):
        known = use.spec.module_name or use.key
        taken: set[str] = set()
        for part in _parts(use):
            flat = part.replace(".", "_") or known
            alike = flat.partition("_")[0] == known.partition("_")[0]
            name = flat if alike else f"{known}_{flat}"
            while name in taken:
                name += "_"
            taken.add(name)
            yield use, part, place + name


def _parts(use: Use) -> list[str]:
    """Modules of a component that hold parameters and no such module, and arrays beside modules."""
    holders = {name.rpartition(".")[0] for name in use.params}
    around = {
        one for one in holders if any(other != one and f"{other}.".startswith(one and f"{one}.") for other in holders)
    }
    split = ((name, name.rpartition(".")[0]) for name in use.params)
    return list(dict.fromkeys(name if holder in around else holder for name, holder in split))


def _pairs(plan: Plan) -> Iterator[tuple[str, str]]:
    for use, part, name in ends(plan):
        yield f"{use.path}.{part}" if part else use.path, name
    for layer in plan.layers:
        if layer.owner is None:
            names = module_names(layer)
            for use in layer.uses():
                yield use.path, f"model.layers.{layer.index}.{names.get(use.key, use.key)}"
    if plan.final_norm:
        yield plan.final_norm.path, f"model.{plan.final_norm.path}"


def _renamed(name: str, table: Mapping[str, str]) -> str:
    """The name with its longest beginning in the table replaced; as it is if there is none."""
    end = len(name)
    while end > 0:
        if name[:end] in table:
            return table[name[:end]] + name[end:]
        end = name.rfind(".", 0, end)
    return name
