"""Hugging Face's model of a checkpoint, where torch is installed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx

from axon_compose.proof.verify._trace import Trace

__all__ = ["run_transformers"]


def run_transformers(folder: Path, tokens: mx.array) -> Trace:
    """Load a checkpoint with transformers and run one forward pass on the CPU, in float32 with eager attention.

    Args:
        folder: Of the checkpoint; code in it is not run, nothing is downloaded.
        tokens: (B, L).

    Raises:
        ModuleNotFoundError: If torch is not installed.
        Exception: Whatever transformers raises; also if weights are missing, which it would fill with random numbers.
    """
    import torch

    with _quiet():
        from transformers import AutoModelForCausalLM

        model, loaded = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        missing = _not_computed(model, loaded["missing_keys"])
        if missing:
            raise ValueError(f"it finds no weights for {len(missing)} parameters: {', '.join(missing[:3])}")
        hidden: list[torch.Tensor] = []
        with torch.inference_mode(), ExitStack() as hooks:
            for layer in _layers(model.eval()):
                hooks.callback(layer.register_forward_hook(_listener(hidden), with_kwargs=True).remove)
            logits = model(torch.tensor(tokens.tolist()), use_cache=False).logits
    return Trace(_array(logits), hidden=tuple(map(_array, hidden)))


def _not_computed(model: Any, missing: Iterable[str]) -> list[str]:
    """Those that are random without a tensor: buffers of integers come of the configuration, such as tables' sizes."""
    computed = {name for name, buffer in model.named_buffers() if not buffer.is_floating_point()}
    return sorted(set(missing) - computed)


def _listener(hidden: list[Any]) -> Any:
    def listen(layer: Any, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        if not hidden:
            hidden.append(arguments[0] if arguments else named["hidden_states"])
        hidden.append(output[0] if isinstance(output, tuple) else output)

    return listen


def _layers(model: Any) -> list[Any]:
    """The decoder layers: the outermost list of modules that is as long as the configuration says."""
    import torch

    count = model.config.get_text_config().num_hidden_layers
    lists = (module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    return next((list(found) for found in lists if len(found) == count), [])


def _array(tensor: Any) -> mx.array:
    return mx.array(tensor.detach().float().cpu().numpy())


@contextmanager
def _quiet() -> Iterator[None]:
    """No network, and nothing printed beside our report."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    offline = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    logging.set_verbosity_error()
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
        if offline is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = offline
