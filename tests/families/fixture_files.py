"""Files of fixtures, as both of their generators write them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

__all__ = ["published_config", "temporary", "write_json"]


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write it with a line for each field, in order."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


@contextmanager
def temporary(config: Mapping[str, Any], tensors: dict[str, np.ndarray]) -> Iterator[Path]:
    """A checkpoint for as long as it is read."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_json(folder / "config.json", config)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        yield folder


def published_config(
    config: Mapping[str, Any], published: Mapping[str, Any], rope_kind: str = "rope_type"
) -> dict[str, Any]:
    """The same config in the words of transformers 4, as most published files have it.

    Args:
        config: As transformers 5 writes it.
        published: Fields that published files have instead or besides; None takes a field away.
        rope_kind: The word for the kind in `rope_scaling`.
    """
    found: dict[str, Any] = _plain(config)
    if found["model_type"] != "gemma4_text":  # younger than transformers 5: only its own words
        found |= _rope_fields(found.pop("rope_parameters", None), rope_kind)
        found["torch_dtype"] = found.pop("dtype", "float32")
        found["transformers_version"] = "4.51.0"
    return {name: value for name, value in (found | published).items() if published.get(name, 0) is not None}


def _rope_fields(rope: dict[str, Any] | None, rope_kind: str) -> dict[str, Any]:
    """What is now `rope_parameters` in fields of its own."""
    if not rope:
        return {}
    fields: dict[str, Any] = {}
    if "full_attention" in rope:
        fields["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    rest = dict(rope)
    fields["rope_theta"] = rest.pop("rope_theta")
    partial = rest.pop("partial_rotary_factor", 1.0)
    if partial != 1.0:
        fields["partial_rotary_factor"] = partial
    kind = rest.pop("rope_type", "default")
    fields["rope_scaling"] = None if kind == "default" else {rope_kind: kind} | rest
    return fields


def _plain(value: Any) -> Any:
    """Numbers that transformers 5 spells as {"__float__": "Infinity"} as numbers."""
    if isinstance(value, dict):
        return float(value["__float__"]) if "__float__" in value else {k: _plain(v) for k, v in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
