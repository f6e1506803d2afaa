"""What processes that run one model together must have in common: packages, the description, and the weights."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, Final

from axon_compose.plan import Plan, plan_to_dict

__all__ = ["facts", "loading_from"]

_PACKAGES: Final = ("axon-compose", "mlx", "mlx-lm")
#: Bytes at the begin, in the middle and at the end of each tensor. Training moves all weights of a tensor.
_SAMPLE: Final = 64
_LARGEST_HEADER: Final = 100_000_000


def facts(plan: Plan, folder: Path | None = None) -> dict[str, str]:
    """What to compare over the ranks, the most telling first.

    Args:
        plan: The whole model.
        folder: Where its weights are, if they are in a folder.
    """
    found = {f"version of {name}": _version(name) for name in _PACKAGES}
    found |= {f"plugin `{name}`": made_by for name, made_by in plan.plugins.items()}
    written = {key: value for key, value in plan_to_dict(plan).items() if key != "plugins"}
    found["description of the model"] = _short(json.dumps(written, sort_keys=True, default=str).encode())
    if folder is not None:
        found |= {f"content of `{file.name}`": _samples(file) for file in sorted(folder.glob("model*.safetensors"))}
    return found


def loading_from() -> Path | None:
    """The folder that `mlx_lm` is loading a model from, which it does not tell the model; None if it is not loading."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == "mlx_lm.utils" and isinstance(
            found := frame.f_locals.get("model_path"), Path
        ):
            return found
        frame = frame.f_back
    return None


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _samples(file: Path) -> str:
    """A digest of the names, shapes and places of all tensors in a safetensors file, and of some bytes of each."""
    digest = sha256()
    try:
        with file.open("rb") as opened:
            for piece in _pieces(opened):
                digest.update(piece)
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return "unreadable"
    return digest.hexdigest()[:12]


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > _LARGEST_HEADER:
        raise ValueError(length)
    yield (header := file.read(length))
    tensors: dict[str, Any] = json.loads(header)
    for name in sorted(tensors.keys() - {"__metadata__"}):
        start, end = tensors[name]["data_offsets"]
        for place in (start, (start + end) // 2, max(start, end - _SAMPLE)):
            file.seek(8 + length + place)
            yield file.read(min(_SAMPLE, end - start))


def _short(data: bytes) -> str:
    return sha256(data).hexdigest()[:12]
