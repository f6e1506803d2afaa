"""Arrays that go from one process to the next: their shapes once, then the numbers."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from typing import Any, Final

import mlx.core as mx

from axon_compose.model._turns import in_turn

__all__ = ["Post", "ring_path"]

#: Types of arrays by the names that announcements have for them.
_DTYPES: Final = {
    str(dtype).removeprefix("mlx.core."): dtype
    for dtype in (
        mx.bool_, mx.uint8, mx.uint16, mx.uint32, mx.uint64, mx.int8, mx.int16, mx.int32, mx.int64,
        mx.float16, mx.bfloat16, mx.float32, mx.complex64,
    )
}  # fmt: skip


class _Distributed:
    """Sends and receives by `mlx.core.distributed`."""

    def __init__(self, group: mx.distributed.Group) -> None:
        self.group = group

    def send(self, array: mx.array, to: int) -> mx.array:
        in_turn()
        return mx.distributed.send(array, to, group=self.group)

    def receive(self, shape: Sequence[int], dtype: mx.Dtype, source: int) -> mx.array:
        in_turn()
        return mx.distributed.recv(shape, dtype, source, group=self.group)

    def sum(self, array: mx.array) -> mx.array:
        in_turn()
        return mx.distributed.all_sum(array, group=self.group)


class Post:
    """Takes arrays from process to process, between neighbours of a ring alone, as MLX's backends for rings do.

    The receiver must know what comes. So the first time that something is sent under a key, its structure, shapes and
    types go ahead, and both sides remember them; without a key they go ahead every time, for what changes its shape.
    Waiting for them is waiting for the process before, which has not got to compute them.

    What is not lazy is sent at once, in the order of the calls: nobody needs to look at a result for it to be sent,
    and all processes send and receive in the same order.

    Args:
        group: The processes: a `mx.distributed.Group`; or anything with `rank()`, `size()`, `send(array, to)`,
            `receive(shape, dtype, source)` and `sum(array)`.
    """

    def __init__(self, group: Any) -> None:
        self.rank, self.size = group.rank(), group.size()
        self._way = group if hasattr(group, "receive") else _Distributed(group)
        self._known: dict[Hashable, str] = {}

    def carry(self, value: Any, path: Sequence[int], key: Hashable | None, *, lazy: bool = False) -> Any:
        """Take a value along a path.

        Args:
            value: Arrays, and tuples, lists or mappings of them, None allowed; needed where the path begins.
            path: Ranks, each a neighbour of the one before.
            key: What stands for the same structure, shapes and types each time; None if nothing does.
            lazy: Send when the result is computed, and not before.

        Returns:
            The value; None away from the path.

        Raises:
            ValueError: If the value is not what was sent before under this key.
        """
        if self.rank not in path:
            return None
        place = path.index(self.rank)
        if place:
            value = self._receive(path[place - 1], key, lazy)
        if place + 1 < len(path):
            value = self._send(value, path[place + 1], key, lazy)
        return value

    def total(self, array: mx.array, *, lazy: bool = False) -> mx.array:
        """The sum of the arrays of all processes, which have the same shape and type.

        Args:
            array: That of this one.
            lazy: See `carry`.
        """
        return self._started(self._way.sum(array), lazy)

    def _send(self, value: Any, to: int, key: Hashable | None, lazy: bool) -> Any:
        text = json.dumps(_described(value))
        known = None if key is None else self._known.get(("to", to, key))
        if known is None:
            data = text.encode()
            mx.eval(self._way.send(mx.array([len(data)], dtype=mx.int32), to))
            mx.eval(self._way.send(mx.array(list(data), dtype=mx.uint8), to))
            self._known["to", to, key] = text
        elif known != text:
            raise ValueError(f"what goes to device {to} was {known} and is {text} now")

        def sent(array: mx.array) -> mx.array:
            return self._started(self._way.send(array, to), lazy) if array.size else array

        return _mapped(sent, value)

    def _receive(self, source: int, key: Hashable | None, lazy: bool) -> Any:
        text = None if key is None else self._known.get(("from", source, key))
        if text is None:
            length: Any = self._way.receive((1,), mx.int32, source).item()
            data: Any = self._way.receive((length,), mx.uint8, source).tolist()
            text = self._known["from", source, key] = bytes(data).decode()
        return self._filled(json.loads(text), source, lazy)

    def _filled(self, described: Any, source: int, lazy: bool) -> Any:
        """What was described, with arrays that come from a process."""
        if described is None:
            return None
        (kind, inner), *_ = described.items()
        if kind == "array":
            dtype, *shape = inner
            if 0 in shape:
                return mx.zeros(shape, _DTYPES[dtype])
            return self._started(self._way.receive(shape, _DTYPES[dtype], source), lazy)
        if kind == "mapping":
            return {name: self._filled(each, source, lazy) for name, each in inner.items()}
        found = [self._filled(each, source, lazy) for each in inner]
        return tuple(found) if kind == "tuple" else found

    @staticmethod
    def _started(array: mx.array, lazy: bool) -> mx.array:
        if not lazy:
            mx.async_eval(array)  # type: ignore[no-untyped-call]
        return array


def ring_path(start: int, end: int, size: int) -> list[int]:
    """Ranks from one to another, the shorter way round."""
    ahead = (end - start) % size
    step, count = (1, ahead) if ahead <= size - ahead else (-1, size - ahead)
    return [(start + step * number) % size for number in range(count + 1)]


def _described(value: Any) -> Any:
    """Structure, types and shapes, as JSON has them."""
    if value is None:
        return None
    if isinstance(value, mx.array):
        return {"array": [str(value.dtype).removeprefix("mlx.core."), *value.shape]}
    if isinstance(value, dict):
        return {"mapping": {name: _described(each) for name, each in value.items()}}
    if isinstance(value, list | tuple):
        return {"tuple" if isinstance(value, tuple) else "list": list(map(_described, value))}
    raise TypeError(f"a {type(value).__name__} cannot go from device to device, arrays and tuples of them can")


def _mapped(change: Any, value: Any) -> Any:
    if isinstance(value, mx.array):
        return change(value)
    if isinstance(value, dict):
        return {name: _mapped(change, each) for name, each in value.items()}
    return type(value)(_mapped(change, each) for each in value) if isinstance(value, list | tuple) else value
