"""What transformers computes: the logits that a fixture is held against. Needs torch."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file
from transformers import AutoConfig, PreTrainedModel

from tests.families.fixture_files import temporary

__all__ = ["Transformers", "forward", "new_model", "read_back"]

EAGER: Final = {"attn_implementation": "eager", "experts_implementation": "eager"}
#: How the names of a text model begin in a model of text and images.
_OF_TEXT: Final = "model.language_model."


def new_model(config: dict[str, Any], reads: str = "AutoModelForCausalLM", **options: Any) -> PreTrainedModel:
    """A float32 model in eval mode, with the values that new models have.

    Args:
        config: The fields of its config.json.
        reads: transformers' class.
        options: In place of its eager implementations.
    """
    fields = {name: value for name, value in config.items() if name != "model_type"}
    of_class = getattr(transformers, reads)
    make = getattr(of_class, "from_config", None) or of_class._from_config
    return make(AutoConfig.for_model(config["model_type"], **fields), dtype=torch.float32, **EAGER | options).eval()


def read_back(
    config: dict[str, Any], tensors: dict[str, np.ndarray], reads: str = "AutoModelForCausalLM", **options: Any
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model of a checkpoint, and what transformers says of names that do not fit; arguments as in `new_model`."""
    with temporary(config, tensors) as folder:
        model, info = getattr(transformers, reads).from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, **EAGER | options
        )
    return model.eval(), info


def forward(model: PreTrainedModel, tokens: np.ndarray) -> tuple[np.ndarray, float]:
    """Logits (B, L, V), and the smallest margin of a choice of experts relative to the spread of its scores."""
    margins = [math.inf]
    topk = torch.topk

    def watched(scores: torch.Tensor, k: int, *args: Any, **kwargs: Any) -> Any:
        if 0 < k < scores.shape[-1]:
            margins.append(_margin(scores, k))
        return topk(scores, k, *args, **kwargs)

    torch.topk = torch.Tensor.topk = watched
    try:
        with torch.no_grad():
            logits = model(torch.from_numpy(tokens.astype(np.int64)), use_cache=False).logits
    finally:
        torch.topk = torch.Tensor.topk = topk
    return logits.numpy(), min(margins)


def _margin(scores: torch.Tensor, k: int) -> float:
    """How far the last that is chosen is from the first that is not, in standard deviations."""
    ranked = scores.detach().double().sort(dim=-1, descending=True).values
    if ranked.min() > 0 and torch.allclose(ranked.sum(dim=-1), torch.ones(()).double()):
        ranked = ranked.log()  # probabilities: their logarithms are the scores
    hidden = ranked < -1e30  # by a mask: chosen only where there is nothing else
    spread = ranked.masked_fill(ranked.abs() > 1e30, math.nan)
    spread = (spread - spread.nanmean(dim=-1, keepdim=True)).square().nanmean(dim=-1).sqrt()
    margin = (ranked[..., k - 1] - ranked[..., k]) / spread
    return margin.masked_fill(hidden[..., k], math.inf).nan_to_num(math.inf).min().item()


class Transformers:
    """transformers' own class for a recipe, in float32, eager, without a cache.

    Attributes:
        config: What the fixture has as config.json.
        own: Shape and mean size of the tensors of a new model, by their names in the fixture.
        unexpected: Tensors of the fixture that the class does not read.
    """

    def __init__(self, recipe: dict[str, Any]) -> None:
        self._reads = recipe.get("class", "AutoModelForCausalLM")
        self._options = {"attn_implementation": recipe.get("attention", "eager")}
        self._computed = tuple(recipe.get("computed", ()))
        whole = recipe.get("whole")
        fields = {**whole, "text_config": recipe["config"]} if whole else recipe["config"]
        self._written, saved = _saved(new_model(fields, self._reads, **self._options))
        saved = {name: tensor for name, tensor in saved.items() if not name.endswith(self._computed)}
        beside = tuple(recipe.get("beside", ()))
        self._prefix = _OF_TEXT if whole and not beside else "model."
        of_others = (lambda name: name.startswith(beside)) if beside else _of_other_parts
        others = [name for name in saved if whole and of_others(name)]
        self._other_parts = {name: saved.pop(name) for name in others}
        self.config = self._written["text_config"] if whole else self._written
        self.own = {
            name.replace(self._prefix, "model.", 1): (tensor.shape, float(np.abs(tensor).mean()))
            for name, tensor in saved.items()
        }
        self.unexpected: Any = ()

    def logits(self, tensors: dict[str, np.ndarray], tokens: np.ndarray) -> tuple[np.ndarray, float]:
        """Logits of the checkpoint read back as published, and the smallest margin of a choice of experts."""
        renamed = {name.replace("model.", self._prefix, 1): tensor for name, tensor in tensors.items()}
        self._model, info = read_back(self._written, self._other_parts | renamed, self._reads, **self._options)
        missing = [name for name in info["missing_keys"] if not name.endswith(self._computed)]
        assert not missing, missing
        self.unexpected = info["unexpected_keys"]
        return forward(self._model, tokens)

    def exact(self, tokens: np.ndarray) -> np.ndarray | None:
        """Logits in float64 of the model that was read last, of a class that can."""
        try:
            return forward(self._model.double(), tokens)[0]
        except RuntimeError:  # the mask of XGLM is a number of float32
            return None


def _of_other_parts(name: str) -> bool:
    return not name.startswith((_OF_TEXT, "lm_head."))


def _saved(model: PreTrainedModel) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """config.json and the tensors as transformers writes them."""
    with tempfile.TemporaryDirectory() as place:
        model.save_pretrained(place)
        return json.loads((Path(place) / "config.json").read_text()), load_file(Path(place) / "model.safetensors")
