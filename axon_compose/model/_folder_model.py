"""The model with the module paths of mlx-lm's own models, as its recipes want to walk through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_compose.analysis.balance import balanced_stages
from axon_compose.devices import devices_of, given_stages, own_layers, pipeline_plan, require_own_weights, split_plan
from axon_compose.model._facts import facts, loading_from
from axon_compose.model._group import joining
from axon_compose.model._language_model import LanguageModel
from axon_compose.model._pipeline import Pipeline, Stack
from axon_compose.model._places import module_at
from axon_compose.model._shard import Reader, Unchanged, part_modules, quantised_groups, take_weights
from axon_compose.model.names import FolderNames, ends, module_names
from axon_compose.model.ranks import joined
from axon_compose.plan import Plan, Use
from axon_compose.registry import CacheSpec, Shard

__all__ = ["FolderModel", "with_folder_names"]


class FolderModel(LanguageModel):
    """A language model whose modules have the paths of `axon_compose.model.names`.

    Layers and the final norm are in `model`, and beside them what the embedding and the head consist of, which
    themselves are out of sight of whoever walks through the modules. Before they run, they take their parts from
    there, whatever those were replaced by.

    Args:
        plan: The model, layer by layer.
        make: Gives the module of a component.
        names: Those of the folder; with the plan's own names it is a `LanguageModel` like any other.

    Attributes:
        reader: Reads parts of weights from the folder that the model is loaded from; None if that is not known.
    """

    reader: Reader | None = None
    _unchanged: Unchanged | None = None
    _ends: tuple[tuple[Use, str, str], ...] = ()

    def __init__(self, plan: Plan, make: Callable[[Use], nn.Module], names: FolderNames) -> None:
        super().__init__(plan, make, module_names if names.like_mlx_lm else lambda layer: {})
        mx.eval(mx.random.state)  # made of all keys before it, which would stay in memory until it is asked for
        self._folder_names = names
        self._pipeline: Pipeline | None = None
        if names.like_mlx_lm:
            self._move()

    def _move(self) -> None:
        object.__setattr__(
            self, "_ends", tuple(ends(self.plan))
        )  # asked for with every call; a tuple would be searched
        for name in ("embedding", "residual", "layers", "norm", "head"):
            if name in self:
                object.__setattr__(self, name, self.pop(name))
        self.model = Stack(self)
        self._show_parts()
        self.model.layers = self.layers[: own_layers(self.plan)]
        if self.plan.final_norm:
            self.model.norm = self.norm

    def _show_parts(self) -> None:
        """Put modules and arrays of the embedding, the residual scheme and the head in sight."""
        for use, part, name in self._ends:
            holder, key = self._place(name)
            holder[key] = self._part(use.path, part)

    def __call__(self, inputs: mx.array, cache: list[Any] | None = None) -> mx.array:
        """See `LanguageModel`."""
        if self._pipeline is None:
            return super().__call__(inputs, cache)
        self._prepare(inputs, cache)
        return self._pipeline.run(self, inputs, cache, scores=True)

    def _prepare(self, inputs: mx.array, cache: list[Any] | None) -> None:
        if "model" in self:
            self._take_parts()
        super()._prepare(inputs, cache)

    def _take_parts(self) -> None:
        """Give the embedding, the final norm and the head the modules and arrays that are in sight now."""
        for use, part, name in self._ends:
            holder, key = self._place(name)
            if key not in holder:  # another process has it
                continue
            if part:
                outer, _, last = part.rpartition(".")
                self._part(use.path, outer)[last] = holder[key]
            else:
                object.__setattr__(self, use.path, holder[key])
        if self.plan.final_norm:
            object.__setattr__(self, "norm", self.model["norm"])

    def _pass(
        self, inputs: mx.array, cache: list[Any] | None, routing: bool, segment: int
    ) -> tuple[mx.array, dict[str, Any]]:
        if self._pipeline is None:
            return super()._pass(inputs, cache, routing, segment)
        return self._pipeline.run(self, inputs, cache, scores=False), {}

    @property
    def _slots(self) -> Sequence[CacheSpec]:
        return super()._slots if self._pipeline is None else self._pipeline.stage.slots

    def divided(self, group: Any, split: Sequence[int] | None) -> Pipeline:
        """Keep what this process of a pipeline needs; see `Stack.pipeline`."""
        if self._pipeline is not None:
            raise ValueError("the layers are divided already")
        folder, asked = loading_from(), {} if split is None else {"layers for each rank": str(list(split))}
        with joined(group, lambda: facts(self.plan, folder) | asked):
            if folder is not None:
                require_own_weights(self.plan)
            return self._keep_stage(group, split)

    def _keep_stage(self, group: Any, split: Sequence[int] | None) -> Pipeline:
        plan, size, config = self.plan, group.size(), self.written or {}
        if split is None:
            bits = (config.get("quantization") or {}).get("bits")
            ranges = balanced_stages(plan, size, dtype=config.get("torch_dtype"), bits=bits)
        else:
            ranges = given_stages(plan, split[::-1])
        pipeline = Pipeline(pipeline_plan(plan, ranges), group, self.layers)
        own, layers = pipeline.stage.layers, self.model["layers"]
        self.model.layers = [layers[index] if index in own else None for index in range(own.stop)]
        object.__setattr__(self, "layers", list(pipeline.modules.values()))
        if not pipeline.embeds:
            self._forget(plan.embedding)
        if not pipeline.scores:
            self._forget(plan.head)
        self._pipeline = pipeline
        return pipeline

    def _forget(self, end: Use) -> None:
        """Drop the embedding or the head."""
        for use, _, name in self._ends:
            if use is end:
                holder, key = self._place(name)
                del holder[key]
        object.__setattr__(self, end.path, nn.Module())

    def _place(self, name: str) -> tuple[Any, str]:
        """The module that a part of the embedding or head is in, and its name there."""
        place, _, key = name.rpartition(".")
        return (self[place] if place else self), key

    def _part(self, end: str, part: str) -> Any:
        """A part of the embedding or head."""
        return module_at(getattr(self, end), part)

    def shard(self, group: Any = None) -> None:
        """Keep the part of one of several devices, as mlx-lm's `sharded_load` asks for, after loading weights lazily.

        What comes out afterwards is that of the whole model on every device: they exchange what each has a part of.

        Args:
            group: Of `mx.distributed`; all processes unless given. A group of one changes nothing.

        Raises:
            Refusal: `AX980`, no layer can be split over this number of devices; `AX981`, it holds adapters.
            PluginFault: If the code of a component is at fault.
        """
        group = group or mx.distributed.init()
        with joined(group, lambda: facts(self.plan, loading_from())):
            self.keep_part(joining(group))

    def keep_part(self, device: Shard) -> None:
        """As `shard`, for any kind of group.

        Args:
            device: Which one, of how many, and how they exchange arrays.

        Raises:
            ValueError: If the model is a part already.
        """
        if device.size == 1:
            return
        modules, whole = modules_of(self), self.plan
        if devices_of(whole) > 1:
            raise ValueError("the model is a part already")
        tensor = split_plan(
            whole,
            device.size,
            device.rank,
            sum=device.sum,
            gather=device.gather,
            groups=quantised_groups(modules),
        )
        parts, weights = part_modules(whole, tensor, modules)
        training = self.training
        FolderModel.__init__(self, tensor.plan, lambda use: parts[use.path], self._folder_names)
        self.train(training)
        del modules
        take_weights(weights, self.path_of, self._unchanged)
        if "model" in self:
            self._show_parts()  # arrays are other ones now

    def load_weights(self, file_or_weights: Any, strict: bool = True) -> FolderModel:
        """See `LanguageModel.load_weights`."""
        super().load_weights(file_or_weights, strict)
        first = self._unchanged is None  # what comes later, such as weights that were trained, has another source
        if first and self.reader is not None and isinstance(file_or_weights, list) and loading_from() is not None:
            self._unchanged = Unchanged(self.reader, file_or_weights)
        return self

    def train(self, mode: bool = True) -> FolderModel:
        """See `LanguageModel.train`."""
        super().train(mode)
        if "model" in self:
            self.embedding.train(mode)
            if self.plan.residual:
                self.residual.train(mode)
            self.head.train(mode)
        return self

    def path_of(self, name: str) -> str:
        """See `LanguageModel.path_of`."""
        return self._folder_names.in_folder(name)

    def plan_name(self, path: str) -> str:
        """See `LanguageModel.plan_name`."""
        return self._folder_names.in_plan(path)


def modules_of(model: LanguageModel) -> dict[str, Any]:
    """The modules of a model's components, by their paths in the plan."""
    if isinstance(model, FolderModel) and "model" in model:
        model._take_parts()
    plan = model.plan
    modules: dict[str, Any] = {plan.embedding.path: model.embedding, plan.head.path: model.head}
    if plan.residual:
        modules[plan.residual.path] = model.residual
    if plan.final_norm:
        modules[plan.final_norm.path] = model.norm
    for layer, block in zip(plan.layers, model.layers, strict=True):
        if layer.owner is None:
            modules |= {use.path: block.module(use) for use in layer.uses()}
    return modules


def with_folder_names(model: LanguageModel) -> FolderModel:
    """The same modules under the paths that they have in a new folder, to load adapters into or to apply a recipe to.

    What is changed in a module changes in both; a module that is replaced is replaced in the result alone.
    """
    modules = modules_of(model)
    return FolderModel(model.plan, lambda use: modules[use.path], FolderNames(model.plan))
