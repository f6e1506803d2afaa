"""The sizes of a model, as the functions of records get them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from axon_compose.registry._splits import Shard

__all__ = ["Dims"]


class Dims(Mapping[str, Any]):
    """The resolved `dims` of a file: a read-only mapping that also answers to attributes.

    `hidden_size` and `vocab_size` are always there.

    Attributes:
        shard: The part of the model that a component is made for, where it is split over devices.
        streams: How many residual streams a component reads side by side, all of them together as wide as
            `hidden_size`; 1 but for components inside of a connection that gives them several.
    """

    __slots__ = ("_values", "shard", "streams")

    def __init__(self, values: Mapping[str, Any], shard: Shard | None = None, streams: int = 1) -> None:
        self._values = dict(values)
        self.shard = shard or Shard()
        self.streams = streams

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"dims have no `{name}`") from None

    def __repr__(self) -> str:
        return f"Dims({self._values})"
