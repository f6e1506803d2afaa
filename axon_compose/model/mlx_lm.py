"""What a built folder's `model_file` imports: the classes that `mlx_lm` asks of an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.nn as nn
from transformers import AutoConfig, PretrainedConfig

from axon_compose.model._build import make_module
from axon_compose.model._language_model import LanguageModel
from axon_compose.model.names import CONFIG_KEY, MODEL_TYPE, FolderNames, ends, module_names
from axon_compose.plan import Plan, compile_source

__all__ = ["Model", "ModelArgs"]


class Config(PretrainedConfig):
    """Makes `model_type` known to transformers, which reads tokenizers and would warn at every command."""

    model_type = MODEL_TYPE


AutoConfig.register(MODEL_TYPE, Config, exist_ok=True)


class ModelArgs:
    """The configuration of a built folder.

    Attributes:
        model_type: Always `axon_compose`.
        plan: The model, compiled again from the description in config.json.
        names: The names of the folder's weights.
    """

    def __init__(self, plan: Plan, config: Mapping[str, Any]) -> None:
        self.plan = plan
        self.model_type = MODEL_TYPE
        self.config = dict(config)
        self.names = FolderNames(plan, config)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> ModelArgs:
        """Compile the description that `build` wrote into config.json.

        Raises:
            ArchitectureError: If it no longer holds, such as without a plugin that it names.
        """
        return cls(compile_source(config[CONFIG_KEY]["architecture"]).plan(), config)


class Model(LanguageModel):
    """A compiled model as `mlx_lm` makes it: from its arguments, weights to be loaded.

    Its modules have the paths of mlx-lm's own models (`axon_compose.model.names`): layers and the final norm are in
    `model`, and beside them what the embedding and the head consist of, which themselves are out of sight of whoever
    walks through the modules. Before they run, they take their parts from there, whatever those were replaced by.

    Folders of version 0.1 keep the paths that they were built with, and so do adapters that were trained on them.
    """

    def __init__(self, args: ModelArgs) -> None:
        names = args.names
        super().__init__(args.plan, make_module, module_names if names.like_mlx_lm else lambda layer: {})
        self.args = args
        self.model_type = args.model_type
        if names.like_mlx_lm:
            self._move()

    def _move(self) -> None:
        for name in ("embedding", "layers", "norm", "head"):
            if name in self:
                object.__setattr__(self, name, self.pop(name))
        self.model = nn.Module()
        for use, part, name in ends(self.plan):
            holder, key = self._place(name)
            holder[key] = self._part(use.path, part)
        self.model.layers = self.layers
        if self.plan.final_norm:
            self.model.norm = self.norm

    def hidden(self, inputs: Any, cache: list[Any] | None = None) -> Any:
        """See `LanguageModel.hidden`."""
        if "model" in self:
            self._take_parts()
        return super().hidden(inputs, cache)

    def _take_parts(self) -> None:
        """Give the embedding, the final norm and the head the modules and arrays that are in sight now."""
        for use, part, name in ends(self.plan):
            holder, key = self._place(name)
            if part:
                outer, _, last = part.rpartition(".")
                self._part(use.path, outer)[last] = holder[key]
            else:
                object.__setattr__(self, use.path, holder[key])
        if self.plan.final_norm:
            object.__setattr__(self, "norm", self.model["norm"])

    def _place(self, name: str) -> tuple[Any, str]:
        """The module that a part of the embedding or head is in, and its name there."""
        place, _, key = name.rpartition(".")
        return (self[place] if place else self), key

    def _part(self, end: str, part: str) -> Any:
        """A part of the embedding or head."""
        found: Any = getattr(self, end)
        for key in filter(None, part.split(".")):
            found = found[int(key)] if isinstance(found, list) else found[key]
        return found

    def train(self, mode: bool = True) -> Model:
        """See `LanguageModel.train`."""
        super().train(mode)
        if "model" in self:
            self.embedding.train(mode)
            self.head.train(mode)
        return self

    def path_of(self, name: str) -> str:
        """See `LanguageModel.path_of`."""
        return self.args.names.in_folder(name)
