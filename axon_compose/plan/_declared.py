"""What a component declares of itself, asked once and checked: a plugin's own code may return anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from math import prod
from typing import Any

from axon_compose.record import record
from axon_compose.registry import KV, Array, CacheSpec, ComponentSpec, Composite, Dims, Guard, State

__all__ = ["Declared", "Nonsense", "declared", "refusal"]


class Nonsense(TypeError):
    """An answer of the wrong type."""


@record
class Declared:
    """Sizes of a component with its options.

    Attributes:
        params: Names to shapes.
        active: Parameters that one token uses.
        cache: What it keeps between calls, or None.
        window: Tokens that a query sees, None if it follows from the cache.
        chosen: Tokens that a query attends to at most, None if to all that it sees.
        chunk: Tokens of a chunk, which see each other alone; None where there are no chunks.
        streams: For a connection: residual streams that its branches read side by side.
        buffers: Names to whole numbers that follow from the sizes.
    """

    params: Mapping[str, tuple[int, ...]]
    active: int
    cache: CacheSpec | None
    window: int | None
    chosen: int | None
    chunk: int | None
    streams: int = 1
    buffers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def declared(spec: ComponentSpec, options: Any, dims: Dims) -> Declared:
    """Ask a component for its sizes.

    Raises:
        Raised: Whatever its code raises, and `Nonsense` if an answer is not of the agreed kind.
    """
    with Guard():
        params = _named("params", "shape", spec.params(options, dims))
        total = sum(map(prod, params.values()))
        active = _integer("active", spec.active(options, dims), 0) if spec.active else total
        cache = spec.cache(options, dims)
        if cache is not None:
            _check_cache(cache, inner=False)
        window = spec.window(options, dims) if spec.window else None
        chosen = spec.chosen(options, dims) if spec.chosen else None
        chunk = spec.chunk(options, dims) if spec.chunk else None
        limits = (_limit("window", window), _limit("chosen", chosen), _limit("chunk", chunk))
        streams = _integer("streams", spec.streams(options, dims)) if spec.streams else 1
        buffers = _named("buffers", "tuple", spec.buffers(options, dims)) if spec.buffers else {}
        return Declared(params, active, cache, *limits, streams, buffers)


def refusal(spec: ComponentSpec, value: str, options: Any, source: Any, dims: Dims) -> str | None:
    """Why a component does not read a value of another one with these options, by its own account; None if it does.

    Raises:
        Raised: Whatever its code raises.
    """
    accepts = spec.accepts.get(value) if isinstance(spec.accepts, Mapping) else spec.accepts
    if accepts is None:
        return None
    with Guard():
        fault = accepts(options, source, dims)
        return str(fault) if fault else None


def _named(what: str, of: str, answer: object) -> dict[str, tuple[int, ...]]:
    """Names to integers, which are `of` something."""
    if not isinstance(answer, Mapping):
        raise Nonsense(f"`{what}` gives {_kind(answer)}, not a mapping of names to {of}s")
    found = {}
    for name, numbers in answer.items():
        if not isinstance(name, str) or not isinstance(numbers, tuple | list) or not all(map(_is_integer, numbers)):
            raise Nonsense(f"`{what}` gives {_shown(name)}: {_shown(numbers)}, not a name and a {of} of integers")
        found[name] = tuple(numbers)
    return found


def _check_cache(cache: object, *, inner: bool) -> None:
    match cache:
        case KV():
            for name in ("heads", "head_dim", "value_dim", "window"):
                value = getattr(cache, name)
                if value is not None or name in ("heads", "head_dim"):
                    _integer(f"cache: {name}", value, 0 if name == "value_dim" else 1)
        case State(arrays=tuple(arrays)):
            for array in arrays:
                if not isinstance(array, Array) or not isinstance(array.shape, tuple):
                    raise Nonsense(f"`cache` gives a state with {_kind(array)}, not `Array(name, shape)`")
                for extent in array.shape:
                    _integer(f"cache: {array.name}", extent, 0)  # a convolution over one token keeps no inputs
                if array.dtype not in (None, "float32", "float16", "bfloat16"):
                    raise Nonsense(f"`cache` gives a state of the dtype {_shown(array.dtype)}")
        case Composite(children=tuple(children)) if children and not inner:
            for child in children:
                _check_cache(child, inner=True)
        case _:
            raise Nonsense(f"`cache` gives {_kind(cache)}, not `KV`, `State`, a `Composite` of them, or None")


def _integer(what: str, value: object, least: int = 1) -> int:
    if not _is_integer(value) or not least <= value:  # type: ignore[operator]
        raise Nonsense(f"`{what}` gives {_shown(value)}, not an integer from {least}")
    return value  # type: ignore[return-value]


def _limit(what: str, value: object) -> int | None:
    return None if value is None else _integer(what, value)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value.bit_length() < 512


def _kind(value: object) -> str:
    return f"a `{type(value).__name__}`"


def _shown(value: object) -> str:
    if isinstance(value, int) and not _is_integer(value):
        return _kind(value)
    return f"`{value!r:.80}`" if isinstance(value, int | float | str | None) else _kind(value)
