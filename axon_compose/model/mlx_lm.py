"""What a built folder's `model_file` imports: the classes that `mlx_lm` asks of an architecture."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

import mlx.core as mx
from transformers import AutoConfig, PretrainedConfig

from axon_compose.model._build import make_module
from axon_compose.model._folder_model import FolderModel
from axon_compose.model._requirements import saying_what_to_install, without_tracebacks
from axon_compose.model.names import MODEL_TYPE, FolderNames, description_in
from axon_compose.model.ranks import ending_a_server, facts, joined
from axon_compose.plan import Compiled, Plan, compile_source

__all__ = ["Model", "ModelArgs"]


class Config(PretrainedConfig):
    """Makes `model_type` known to transformers, which reads tokenizers and would warn at every command."""

    model_type = MODEL_TYPE


#: Calls `train` in all processes alike, before the first step and after evaluations.
_TRAINER: Final = "mlx_lm.tuner.trainer"

AutoConfig.register(MODEL_TYPE, Config, exist_ok=True)
without_tracebacks()


class ModelArgs:
    """The configuration of a built folder.

    Attributes:
        model_type: Always `axon_compose`.
        plan: The model, compiled again from the description in config.json.
        compiled: That description.
        config: All of config.json.
        names: The names of the folder's weights.
    """

    def __init__(self, plan: Plan, config: Mapping[str, Any], compiled: Compiled | None = None) -> None:
        self.plan = plan
        self.compiled = compiled
        self.model_type = MODEL_TYPE
        self.config = dict(config)
        self.names = FolderNames(plan, config)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> ModelArgs:
        """Compile the description that `build` wrote into config.json.

        Raises:
            ArchitectureError: If it no longer holds, such as without a plugin that it names; the message says what to
                install.
            CheckpointError: AX560 there is none.
        """
        described = description_in(config)
        with ending_a_server(), saying_what_to_install(described.get("plugins", {})):
            compiled = compile_source(described["architecture"])
        return cls(compiled.plan(), config, compiled)


class Model(FolderModel):
    """A compiled model as `mlx_lm` makes it: from its arguments, weights to be loaded.

    Folders of version 0.1 keep the paths that they were built with, and so do adapters that were trained on them.
    """

    def __init__(self, args: ModelArgs) -> None:
        super().__init__(args.plan, make_module, args.names)
        self.args = args
        self.compiled = args.compiled
        self.model_type = args.model_type

    def train(self, mode: bool = True) -> Model:
        """See `LanguageModel.train`; processes that `mlx_lm.lora` trains it in compare it first."""
        if mode and sys._getframe(1).f_globals.get("__name__") == _TRAINER:
            with joined(mx.distributed.init(), lambda: facts(self.plan, getattr(self.reader, "folder", None))):
                pass
        super().train(mode)
        return self

    @property
    def written(self) -> Mapping[str, Any]:
        """The config.json that the model was made of."""
        return self.args.config
