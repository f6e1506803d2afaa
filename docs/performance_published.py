"""Published weights on the page of performance: against mlx-lm as processes, and quantised against llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from performance_results import Results, table, times

__all__ = ["published", "quantised"]

_NAMES: Final = {"smollm2": "SmolLM2-135M", "gemma3": "Gemma 3 270M"}
_FIGURES: Final = {
    "first_token": "first token, s",
    "prompt_rate": "prompt, tokens/s",
    "decode_rate": "decode, tokens/s",
    "peak": "peak, MB",
    "processor": "processor, s",
}


def published(results: Results) -> str:
    """Runs of `mlx_lm.generate` on a built folder, and on its export for mlx-lm."""
    rows = []
    for name, result in results.get("published", {}).items():
        model, form = name.split("/")
        cells = (f"{result[figure][0]:.3g} ({times(result[figure][1])})" for figure in _FIGURES)
        rows.append([_NAMES[model], form, *cells])
    if not rows:
        return ""
    text = (
        "## Published weights, as a process\n\n"
        "`mlx_lm.generate` on a folder of `axon-compose build`, with axon-native, and in brackets how many times as\n"
        "good it is as on its export for mlx-lm's own class: the whole process, with imports and loading\n"
        "(`benchmarks/real_models.py`). Peaks are of resident memory, mapped files included.\n\n"
    )
    return text + table(["model", "form", *_FIGURES.values()], rows)


def quantised(results: Results) -> str:
    """Quantised models in a process that stays, beside llama.cpp."""
    found: Mapping[str, Any] = results.get("quantised", {})
    if not found:
        return ""
    rows = []
    for name, result in found.items():
        for side, figures in result["sides"].items():
            cells = (f"{figures[figure]['median']:.3g} ({times(figures[figure]['ratio'])})" for figure in _QUANTISED)
            rows.append([name, side, *cells])
    text = (
        "## Quantised models\n\n"
        "Tokens a second of a process that stays, by the clock and of processor time; in brackets, how many times as\n"
        "fast axon-compose with axon-native is. Prompts of 64 tokens, one thread for products\n"
        "(`benchmarks/quantised.py`). llama.cpp rounds activations to 8 bits and multiplies integers, where they stay\n"
        "float32 here.\n\n"
    )
    return text + table(["model", "", *_QUANTISED.values()], rows)


_QUANTISED: Final = {
    "prefill": "prefill",
    "decode": "decode",
    "prefill, processor": "prefill, of the processor",
    "decode, processor": "decode, of the processor",
}
