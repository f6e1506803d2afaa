"""Tiny models and a disk that fails on demand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from axon_compose.checkpoints.files import _disk, write_folder

SHAPES = {
    "embed_tokens.weight": (300, 8),
    "layers.0.A_log": (7,),
    "layers.0.q_proj.weight": (8, 8),
    "norm.weight": (8,),
}


def arrays(fill: float = 0.0) -> dict[str, mx.array]:
    """Fresh lazy arrays: bfloat16, but `A_log` in float32; the values depend on `fill` alone."""
    made = {}
    for i, (name, shape) in enumerate(SHAPES.items()):
        values = mx.random.normal(shape, key=mx.random.key(i)) + fill
        made[name] = values if name.endswith("A_log") else values.astype(mx.bfloat16)
    return made


def build(target: Path, fill: float = 0.0, **changes: Any) -> dict[str, Any]:
    """Write a small model folder in two shards."""
    arguments: dict[str, Any] = {
        "config": {"model_type": "axon_compose", "vocab_size": 300},
        "tensors": arrays(fill),
        "tokenizer": "bytes",
        "build_record": {"seed": 7, "plugins": {"core": "axon-compose 0.2.0"}},
        "max_shard_bytes": 4850,
    }
    return write_folder(target, **(arguments | changes))


def content(folder: Path) -> dict[str, bytes] | None:
    """File name to bytes; None for no folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else None


class FailingDisk:
    """Counts every change to the disk and raises at the n-th; a write fails half way, as on a full disk."""

    CALLS = ("create_folder", "write_chunk", "sync", "rename", "move", "exchange")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail_at: int | None, error: BaseException) -> None:
        self.count = 0
        self.log: list[str] = []
        self._fail_at, self._error = fail_at, error
        for name in self.CALLS:
            monkeypatch.setattr(_disk, name, self._wrap(name, getattr(_disk, name)))

    def _wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.count += 1
            self.log.append(name)
            if self.count != self._fail_at:
                return real(*arguments)
            if name == "write_chunk":
                file, chunk = arguments
                real(file, chunk[: len(chunk) // 2])
            raise self._error

        return call
