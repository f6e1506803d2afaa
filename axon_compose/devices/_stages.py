"""Where a stack is cut into stages, each of which a device runs: balanced, and not between a reader and its keys."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from math import inf
from typing import Final

from axon_compose.diagnostics import Refusal
from axon_compose.plan import Layer, Plan, Use, layer_numbers
from axon_compose.registry import KV, PASS_VALUES, cache_leaves

__all__ = ["given_stages", "home", "layer_loads", "own_layers", "require_own_weights", "source_use", "stages", "varies"]

#: Loads are compared as whole numbers, so that equal layers are equal whatever they add up to.
_UNITS: Final = 1_000_000


def layer_loads(held: Sequence[int], operations: Sequence[int | None]) -> list[float]:
    """What each layer costs the device that runs it: half its share of the bytes, half its share of the operations.

    A device has to hold the first and to get through the second, so neither alone may decide: the experts of a layer
    are many bytes and few operations.

    Args:
        held: Bytes of weights and caches of each layer.
        operations: Of one token in each layer; if one is unknown, bytes alone count.
    """
    known = [each for each in operations if each is not None]
    bytes_, work = sum(held) or 1, sum(known)
    if len(known) < len(operations) or not work:
        return [each / bytes_ for each in held]
    return [size / bytes_ / 2 + each / work / 2 for size, each in zip(held, known, strict=True)]


def stages(plan: Plan, size: int, loads: Sequence[float] | None = None) -> tuple[range, ...]:
    """The layers of each stage, in the order of computation, so that the largest load of a stage is as small as can be.

    Layers that use weights of an earlier one (`share`) run where that one is, and the hidden state goes there once
    more: so a loop over a stack keeps every matrix once. They count as load there and in no range beyond the last layer
    with weights of its own.

    A reader of keys and values stays with the layer that publishes them, as all that the cache holds would have to go
    from device to device with every token. Only where there are too few other places, places that part the fewest are
    taken too. All other values are as long as the chunk, and go with the hidden state.

    Args:
        plan: The model.
        size: Number of stages.
        loads: Of each layer, in any unit; its parameters unless given.

    Raises:
        Refusal: `AX990`, there are fewer layers than stages.
    """
    owners = [layer.index for layer in plan.layers if layer.owner is None]
    if not 1 <= size <= len(owners):
        message = (
            f"`{plan.name}` has {len(owners)} layers with weights of their own, which is too few for {size} devices"
        )
        raise Refusal("AX990", message, f"take {len(owners)} devices at most")
    end, places = own_layers(plan), _places(plan, owners[1:], size - 1)
    edges = [0, *places, end]
    cuts = _balanced(_between(_whole(plan, loads), edges), size)
    bounds = [edges[cut] for cut in cuts]
    return tuple(range(first, last) for first, last in pairwise(bounds))


def given_stages(plan: Plan, numbers: Sequence[int]) -> tuple[range, ...]:
    """The same where the number of layers of each stage is given.

    Raises:
        Refusal: `AX990`, they are not all positive, or not the number of layers.
    """
    end = own_layers(plan)
    if not numbers or any(number <= 0 for number in numbers) or sum(numbers) != end:
        message = f"{list(numbers)} must be positive and sum to the {end} layers of `{plan.name}`"
        raise Refusal("AX990", message, "leave the numbers out, and the layers are balanced")
    bounds = [0, *accumulate(numbers)]
    return tuple(range(first, last) for first, last in pairwise(bounds))


def own_layers(plan: Plan) -> int:
    """Layers up to the last one that has weights of its own: those that are divided over stages."""
    return 1 + max(map(home, plan.layers))


def require_own_weights(plan: Plan) -> None:
    """Refuse what `mlx_lm.utils.sharded_load` cannot load as a pipeline: it wants tensors of each layer in the index.

    Layers after the last one with weights of its own, as in a loop over a stack, are not in `model.model.layers`.

    Raises:
        Refusal: `AX991`, layers between others use weights of earlier ones.
    """
    without = [layer.index for layer in plan.layers[: own_layers(plan)] if layer.owner is not None]
    if without:
        verb = "uses the weights of an earlier one" if len(without) == 1 else "use the weights of earlier ones"
        raise Refusal(
            "AX991",
            f"{layer_numbers(without)} of `{plan.name}` {verb}, and `mlx_lm` wants tensors of each layer of a pipeline",
            "leave `--pipeline` out: tensor parallelism takes shared weights as they are",
        )


def home(layer: Layer) -> int:
    """The layer whose weights it uses."""
    return layer.index if layer.owner is None else layer.owner


def source_use(plan: Plan, source: str) -> Use:
    """The component that publishes a value, by the value's name `layer.key.value`, or `embedding.value`."""
    place, *rest = source.split(".")
    if len(rest) == 1:
        return plan.embedding
    return next(use for use in plan.layers[int(place)].uses() if use.key == rest[0])


def varies(plan: Plan, source: str) -> bool:
    """Whether the shape of a value depends on more than the chunk: what attention publishes may be its whole cache."""
    use = source_use(plan, source)
    keys = any(isinstance(leaf, KV) for leaf in cache_leaves(use.cache))
    return keys and source.rpartition(".")[2] not in use.spec.constant


def _places(plan: Plan, possible: Sequence[int], needed: int) -> list[int]:
    """Where cuts may be: those that part the fewest readers from what varies, as many as are needed at least."""
    spans = list(_spans(plan))
    parted = {place: sum(first < place <= last for first, last in spans) for place in possible}
    limit = sorted(parted.values())[needed - 1] if needed else 0
    return [place for place in possible if parted[place] <= limit]


def _spans(plan: Plan) -> Iterable[tuple[int, int]]:
    """The homes of readers and of what they read that varies, the smaller one first."""
    for layer in plan.layers:
        for source in layer.reads:
            if source not in PASS_VALUES and varies(plan, source):
                writer = source.partition(".")[0]
                ends = home(layer), home(plan.layers[int(writer)])
                yield min(ends), max(ends)


def _whole(plan: Plan, loads: Sequence[float] | None) -> list[int]:
    """The load of each layer with weights of its own, with that of the layers that use them."""
    given = [float(layer.size) for layer in plan.layers] if loads is None else loads
    total, found = sum(given) or 1, [0] * own_layers(plan)
    for layer, load in zip(plan.layers, given, strict=True):
        found[home(layer)] += round(load / total * _UNITS)
    return found


def _between(loads: Sequence[int], edges: Sequence[int]) -> list[int]:
    """Loads between neighbouring places where cuts may be."""
    sums = [0, *accumulate(loads)]
    return [sums[last] - sums[first] for first, last in pairwise(edges)]


def _balanced(loads: Sequence[int], size: int) -> list[int]:
    """Bounds of as many runs, the largest of which is as small as can be; of those the ones that are most alike.

    Returns:
        0, the first of each further run, and the number of loads.
    """
    sums = [0, *accumulate(loads)]
    most = _smallest_largest(sums, size)
    best: list[list[tuple[float, int]]] = [[(0.0, 0)] + [(inf, 0)] * len(loads)]
    for number in range(1, size + 1):
        row = [(inf, 0)] * (len(loads) + 1)
        for end in range(number, len(loads) + 1):
            first = end - 1
            while first >= 0 and sums[end] - sums[first] <= most:
                row[end] = min(row[end], (best[-1][first][0] + (sums[end] - sums[first]) ** 2, first))
                first -= 1
        best.append(row)
    bounds = [len(loads)]
    for number in range(size, 0, -1):
        bounds.append(best[number][bounds[-1]][1])
    return bounds[::-1]


def _smallest_largest(sums: Sequence[int], size: int) -> int:
    """The smallest load that no run exceeds, from the sums up to each place."""
    low, high = max(last - first for first, last in pairwise(sums)), sums[-1]
    while low < high:
        middle, start = (low + high) // 2, 0
        for _ in range(size):
            start = bisect_right(sums, sums[start] + middle) - 1
        if start == len(sums) - 1:
            high = middle
        else:
            low = middle + 1
    return low
