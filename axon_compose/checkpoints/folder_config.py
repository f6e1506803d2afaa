"""The config.json of a folder: what is ours, what of a checkpoint's is kept, and how modules are quantised."""

from __future__ import annotations

import json
from collections import Counter
from math import isfinite
from typing import Any, Final

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from axon_compose.checkpoints.files._trust import without_code
from axon_compose.language.source import plain
from axon_compose.model import LanguageModel
from axon_compose.model.names import CONFIG_KEY, MODEL_TYPE, FolderNames
from axon_compose.plan import Compiled

__all__ = ["described_config", "folder_config", "without_infinity"]

#: Tokens that config.json names: of a wrapper, those at its top, as mlx_lm and transformers read them.
_IDS: Final = ("bos_token_id", "eos_token_id", "pad_token_id")


def folder_config(architecture: Compiled, model: LanguageModel, *, ids: bool) -> dict[str, Any]:
    """The config.json of a folder; `ids`: with the tokens that the checkpoint's config.json names."""
    dtype = str(_dtype(model)).rpartition(".")[2]
    return described_config(architecture, dtype, ids=ids) | _quantization(model, FolderNames(architecture.plan()))


def described_config(architecture: Compiled, dtype: str, *, ids: bool) -> dict[str, Any]:
    """The same of a model that is not there yet, and not quantised.

    Args:
        architecture: What it is.
        dtype: The type that most of its numbers will have.
        ids: With the tokens that the checkpoint's config.json names.
    """
    plan, source = architecture.plan(), architecture.config
    carried: dict[str, Any] = {}
    described = {"architecture": architecture.data, "plugins": dict(plan.plugins), **FolderNames.note}
    if source:
        written = without_infinity(plain(source.written or source.top))
        if source.model_types:  # a folder that was built of no checkpoint has none
            described["source"], _ = without_code(written)
        carried["max_position_embeddings"] = source.value("max_position_embeddings")
        if ids:
            carried |= {name: written.get(name, source.value(name)) for name in _IDS}
    return {
        **{name: value for name, value in carried.items() if value is not None},
        "model_type": MODEL_TYPE,
        "architectures": ["AxonComposeForCausalLM"],
        "vocab_size": plan.dims.vocab_size,
        "hidden_size": plan.dims.hidden_size,
        "num_hidden_layers": len(plan.layers),
        "torch_dtype": dtype,
        CONFIG_KEY: described,
    }


def without_infinity(value: Any) -> Any:
    """The same for JSON, which has no word for infinity: as Python writes it, in quotes."""
    if isinstance(value, dict):
        return {key: without_infinity(item) for key, item in value.items()}
    if isinstance(value, list):
        return list(map(without_infinity, value))
    return json.dumps(value) if isinstance(value, float) and not isfinite(value) else value


def _dtype(model: LanguageModel) -> Any:
    """The type that most numbers of the model have, packed ones left aside."""
    sizes: Counter[Any] = Counter()
    for _, value in tree_flatten(model.parameters()):
        if mx.issubdtype(value.dtype, mx.floating):
            sizes[value.dtype] += value.size
    return sizes.most_common(1)[0][0]


def _quantization(model: LanguageModel, names: FolderNames) -> dict[str, Any]:
    """How the modules are quantised, as `mlx_lm` reads it: the usual way, and each module that differs."""
    modules = {
        names.in_folder(model.plan_name(path)): {
            "group_size": module.group_size,
            "bits": module.bits,
            "mode": module.mode,
        }
        for path, module in tree_flatten(model.leaf_modules(), is_leaf=lambda leaf: isinstance(leaf, nn.Module))
        if hasattr(module, "bits")
    }
    if not modules:
        return {}
    usual = json.loads(Counter(json.dumps(how) for how in modules.values()).most_common(1)[0][0])
    return {"quantization": usual | {path: how for path, how in modules.items() if how != usual}}
