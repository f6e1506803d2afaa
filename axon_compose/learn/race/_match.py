"""Equal terms: a width is changed until parameters, operations or state agree with those of the first model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from math import isnan, nan
from typing import Final, Literal, TypeAlias

from axon_compose.analysis.cost import cost
from axon_compose.diagnostics import ArchitectureError, Refusal
from axon_compose.plan import Compiled

__all__ = ["CLOSE", "MATCHES", "Figure", "Make", "figure", "matched"]

Figure: TypeAlias = Literal["params", "flops", "state"]
#: A description with values laid over its dims.
Make: TypeAlias = Callable[[Mapping[str, int]], Compiled]

MATCHES: Final[tuple[Figure, ...]] = ("params", "flops", "state")
#: Figures agree when they differ by no more than this part.
CLOSE: Final = 0.01
#: By how much a width may go up or down, in the order in which it is tried: heads and groups have to divide it.
_STEPS: Final = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_LARGEST: Final = 64
_WORDS: Final[dict[Figure, str]] = {"params": "parameters", "flops": "operations", "state": "caches"}


def figure(compiled: Compiled, name: Figure, tokens: int) -> int:
    """What is made equal.

    Args:
        compiled: The model.
        name: `params`, `flops` of a sequence, or `state`: bytes of caches after it, in bfloat16.
        tokens: Of a sequence.
    """
    sheet = cost(compiled.plan(), context=tokens)
    (context,) = sheet.contexts
    return {"params": sheet.parameters, "flops": context.prefill_flops, "state": context.cache_bytes}[name]


def matched(make: Make, name: Figure, target: int, tokens: int, scale: Sequence[str]) -> dict[str, int]:
    """Dims with which a model comes as near to a figure as its widths allow.

    The first dim is changed as far as it helps, then the next one makes up for what is left, and so on.

    Args:
        make: The model with other dims.
        name: Which figure.
        target: What it shall be.
        tokens: Of a sequence.
        scale: Dims that may be changed, those that are not in the file left out.

    Returns:
        The dims that have changed, and their values.

    Raises:
        Refusal: `AX913`, none of the dims is in the file, or the figure shall be 0.
    """
    given = make({})
    dims = given.plan().dims
    known = [each for each in scale if isinstance(dims.get(each), int)]
    if not known:
        raise Refusal(
            "AX913",
            f"`{given.name}` has none of the dims {', '.join(f'`{each}`' for each in scale)} to scale",
            f"name one with `--scale`; it has {', '.join(f'`{each}`' for each in dims)}",
        )
    if not target:
        raise Refusal("AX913", f"`{given.name}` cannot be made equal to a model without {_WORDS[name]}")
    found: dict[str, int] = {}

    def miss(values: Mapping[str, int]) -> float:
        try:
            return figure(make(values), name, tokens) / target - 1
        except ArchitectureError:
            return nan

    for each in known:
        now = miss(found)
        if abs(now) <= CLOSE:
            break
        found[each] = _nearest(partial(_with, miss, found, each), int(dims[each]))
    return {each: value for each, value in found.items() if value != dims[each]}


def _with(miss: Callable[[Mapping[str, int]], float], found: Mapping[str, int], name: str, value: int) -> float:
    return miss({**found, name: value})


def _nearest(miss: Callable[[int], float], now: int) -> int:
    """The width whose figure is nearest, by bisection over those that a model can have; of equal ones, the nearest."""
    miss = cache(miss)
    if miss(now) == 0:
        return now
    step = next((step for step in _STEPS if not isnan(miss(now + step))), None)
    if step is None:
        return now
    tried = {now}
    low, high = (0, _first_above(miss, now, step)) if miss(now) < 0 else (-((now - 1) // step), 0)
    while high - low > 1:
        at = _between(miss, now, step, low, high)
        if at is None:
            break
        tried.add(now + at * step)
        low, high = (at, high) if miss(now + at * step) < 0 else (low, at)
    tried |= {now + low * step, now + high * step}
    right = {width: abs(miss(width)) for width in tried if width > 0 and not isnan(miss(width))}
    return min(right, key=lambda width: (right[width], abs(width - now)))


def _first_above(miss: Callable[[int], float], now: int, step: int) -> int:
    """How many steps up the figure is too large for certain; it doubles each time."""
    at = 1
    while at * step < now * _LARGEST and not miss(now + at * step) > 0:
        at *= 2
    return at


def _between(miss: Callable[[int], float], now: int, step: int, low: int, high: int) -> int | None:
    """How many steps to the middle, or to the place nearest to it that a model can have; None where none is near."""
    middle = (low + high) // 2
    near = sorted(range(low + 1, high), key=lambda at: abs(at - middle))[:8]
    return next((at for at in near if not isnan(miss(now + at * step))), None)
