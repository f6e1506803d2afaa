"""Rotary scaling out of a GGUF file: keys of `rope.scaling`, or factors that the converter has put into tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from axon_compose.checkpoints.files._safetensors import damaged
from axon_compose.checkpoints.files._tensors import read_numbers
from axon_compose.checkpoints.gguf._header import GgufFile
from axon_compose.checkpoints.gguf._metadata import Metadata
from axon_compose.diagnostics import Problems

__all__ = ["FACTORS", "SCALING_KEYS", "rope_scaling"]

_ORIGINAL: Final = "original_max_position_embeddings"
_LONG, _SHORT, _FREQS = "rope_factors_long.weight", "rope_factors_short.weight", "rope_freqs.weight"
#: Tensors that are read here, and are no parameters.
FACTORS: Final = (_LONG, _SHORT, _FREQS)
#: Keys that are read here.
SCALING_KEYS: Final = frozenset({
    "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length", "rope.scaling.attn_factor",
    "rope.scaling.finetuned", "rope.scaling.yarn_log_multiplier", "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow", "rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor", "rope.scale_linear",
})  # fmt: skip
#: Llama 3.1 and 3.2: wavelengths between 8192 / 4 and 8192 / 1 are blended.
_LLAMA3: Final = {_ORIGINAL: 8192, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_CLOSE: Final = 1e-5
#: A longer vector would be the half of a head of 8192 numbers.
_MOST: Final = 4096


def rope_scaling(metadata: Metadata, theta: float, problems: Problems) -> dict[str, Any] | None:
    """The option `rope.scaling`, or None where positions are not stretched.

    Args:
        metadata: Of the file.
        theta: Base of the frequencies.
        problems: Collects a type that is not known.

    Raises:
        CheckpointError: AX511 a tensor of factors cannot be one.
    """
    keys, file = metadata.keys, metadata.file
    long, short, freqs = (_factors(file, name) for name in FACTORS)
    if freqs:
        return _of_frequencies(freqs, theta)
    if long or short:  # with one of them alone the option says what is missing
        return _longrope(long, short, keys)
    kind, factor = keys.get("rope.scaling.type"), keys.get("rope.scaling.factor", keys.get("rope.scale_linear"))
    if kind in (None, "none", "longrope") and (kind is not None or factor in (None, 0, 1)):
        return None
    if kind in (None, "linear"):
        return {"type": "linear", "factor": factor or 1.0}
    if kind == "yarn":
        return _yarn(factor or 1.0, keys)
    problems.error(
        "AX604",
        f"`rope.scaling.type` is `{str(kind)[:40]}`, which is not known",
        metadata.span("rope.scaling.type", problems),
        help="known types: none, linear, yarn, longrope",
    )
    return None


def _yarn(factor: float, keys: Mapping[str, Any]) -> dict[str, Any]:
    found = {"type": "yarn", "factor": factor, _ORIGINAL: keys.get("rope.scaling.original_context_length")}
    for name in ("beta_fast", "beta_slow"):
        if (value := keys.get(f"rope.scaling.yarn_{name}")) is not None:
            found[name] = value
    if (gain := keys.get("rope.scaling.yarn_attn_factor", keys.get("rope.scaling.attn_factor"))) is not None:
        found["attention_factor"] = gain
    if multiplier := keys.get("rope.scaling.yarn_log_multiplier"):
        found |= {"mscale": 10 * multiplier, "mscale_all_dim": 10 * multiplier}  # both have one value in all models
    return found


def _longrope(long: list[float], short: list[float], keys: Mapping[str, Any]) -> dict[str, Any]:
    original = keys.get("rope.scaling.original_context_length")
    found = {"type": "longrope", _ORIGINAL: original, "short_factor": short, "long_factor": long}
    if (length := keys.get("context_length")) is not None:
        found["max_position_embeddings"] = length
    if (gain := keys.get("rope.scaling.attn_factor")) is not None:
        found["attention_factor"] = gain
    return found


def _of_frequencies(factors: list[float], theta: float) -> dict[str, Any]:
    """What one factor for each frequency is the result of: llama3's rule where it gives them, else the factors."""
    factor = max(factors)
    if theta > 0 and 1 <= factor < math.inf and _close(factors, _of_llama3(factor, len(factors), theta)):
        return {"type": "llama3", "factor": factor, **_LLAMA3}
    return {
        "type": "longrope", "factor": max(factor, 1.0), _ORIGINAL: 8192, "attention_factor": 1.0,
        "short_factor": factors, "long_factor": factors,
    }  # fmt: skip


def _of_llama3(factor: float, count: int, theta: float) -> list[float]:
    """The factors that llama3's rule gives."""
    low, high = _LLAMA3["low_freq_factor"], _LLAMA3["high_freq_factor"]

    def expected(period: float) -> float:
        turns = _LLAMA3[_ORIGINAL] / (2 * math.pi * period)
        kept = min(1.0, max(0.0, (turns - low) / (high - low)))
        return 1 / (kept + (1 - kept) / factor)

    return [expected(theta ** (i / count)) for i in range(count)]


def _close(ones: Sequence[float], others: Sequence[float]) -> bool:
    return all(abs(one - other) <= _CLOSE * abs(other) for one, other in zip(ones, others, strict=True))


def _factors(file: GgufFile, name: str) -> list[float]:
    """A vector of factors; empty if there is none."""
    tensor = file.tensors.get(name)
    if tensor is None:
        return []
    if tensor.kind != "F32" or len(tensor.shape) != 1 or tensor.shape[0] > _MOST:
        raise damaged(tensor.file, f"has the shape {list(tensor.shape)} and the type {tensor.kind}", name)
    factors: list[float] = read_numbers(tensor.file, name, "F32", tensor.shape, tensor.start).tolist()
    return factors
