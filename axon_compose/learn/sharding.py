"""Weights and moments of which every rank keeps a part: they are put together while they are needed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, cast

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from axon_compose.learn.holding import Copied, sum_of_squares
from axon_compose.learn.ranks import Ranks
from axon_compose.model import Block

__all__ = ["Sharded"]

Arrays = dict[str, mx.array]


class Sharded(Copied):
    """Every rank keeps one of n equal parts of each matrix and table, and of the moments of the optimiser.

    That is the third stage of ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054), as `mlx.nn.fully_shard` has it too. The
    numbers of a parameter are cut in their order, and the last part is filled up with zeros, so that every size can be
    cut; a matrix that Muon moves is cut by its rows. Vectors and what is frozen stay whole. A layer puts its weights
    together when it runs, and again in the backward pass where it is computed again (`segment`); embedding and head are
    whole during a step. Gradients are summed over the ranks and cut at once. (`mlx.nn` does so by a sum that scatters,
    which MLX's ring does not have.)

    Args:
        model: What is trained; its parameters become parts.
        ranks: The processes, at least two.
        rows: Paths of matrices that are cut by rows, or stay whole if the rows of one of them cannot be divided.

    Attributes:
        by_rows: Whether they are cut.
    """

    shards = True

    def __init__(self, model: Any, ranks: Ranks, rows: Collection[str] = ()) -> None:
        super().__init__(model, ranks)
        #: Shapes of what is cut, by path, and of a part.
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.parts: dict[str, tuple[int, ...]] = {}
        weights = dict(tree_flatten(model.trainable_parameters()))
        self.by_rows = bool(rows) and not any(weights[path].shape[0] % ranks.size for path in rows)
        for path, value in weights.items():
            if value.ndim > 1 and (path not in rows or self.by_rows):
                self.shapes[path], self.parts[path] = tuple(value.shape), _part(value.shape, ranks.size, path in rows)
        self.blocks = {path: module for path, module in model.named_modules() if isinstance(module, Block)}
        self._hold(weights)
        self._let_blocks_gather(True)

    # Training.

    def taken(self, weights: Any) -> Any:
        """The weights with those that no layer holds put together."""
        flat = dict(tree_flatten(weights))
        return tree_unflatten(list((flat | self._together(self._ends(flat))).items()))

    def mean(self, gradients: Any, figures: list[mx.array]) -> tuple[Any, list[mx.array]]:
        """The same; gradients of parts are means already."""
        flat = dict(tree_flatten(gradients))
        others = [path for path in flat if path not in self.shapes]
        values, figures = self.ranks.mean([[flat[path] for path in others], figures])
        return tree_unflatten(list((flat | dict(zip(others, values, strict=True))).items())), figures

    def square(self, gradients: dict[str, mx.array]) -> mx.array:
        """The same; squares of parts are those of all ranks."""
        cut = self.ranks.sum(sum_of_squares(value for path, value in gradients.items() if path in self.shapes))
        return cut + sum_of_squares(value for path, value in gradients.items() if path not in self.shapes)

    # The model as a whole.

    @contextmanager
    def running(self) -> Iterator[None]:
        """Where the model can be called: what no layer holds is put together, each layer when it runs."""
        held = dict(tree_flatten(self.model.trainable_parameters()))
        ends = self._together(self._ends(held))
        mx.eval(ends)
        self.model.update(tree_unflatten(list(ends.items())))
        try:
            yield
        finally:
            self.model.update(tree_unflatten(list(held.items())))

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Where rank 0 has all weights, and the others none but their parts: they do not run the model there."""
        held = dict(tree_flatten(self.model.trainable_parameters()))
        for path in self.shapes:
            array = self.sent(path, held[path])
            if self.ranks.first:
                self.model.update(tree_unflatten([(path, array)]))
        self._let_blocks_gather(False)
        try:
            yield
        finally:
            self._let_blocks_gather(True)
            self.model.update(tree_unflatten(list(held.items())))

    # The state of a run.

    def shape_of(self, name: str, array: mx.array) -> tuple[int, ...]:
        """See `Copied.shape_of`."""
        return self.shapes[path] if (path := self._path(name, array)) else tuple(array.shape)

    def sent(self, name: str, array: mx.array) -> mx.array:
        """An array whole, computed: every rank has it for a moment."""
        path = self._path(name, array)
        found = array if path is None else self._together({path: array})[path]
        mx.eval(found)
        return found

    def received(self, name: str, own: mx.array, found: mx.array | None) -> mx.array:
        """See `Copied.received`."""
        path = self._path(name, own)
        if path is None:
            return super().received(name, own, found)
        whole = mx.zeros(self.shapes[path], own.dtype) if found is None else found
        return self._cut(path, self.ranks.shared(whole))

    def _path(self, name: str, array: mx.array) -> str | None:
        """The parameter that an array is a part of, or of whose moments; None if the array is whole.

        Names are paths, `weights.PATH`, or `optimizer.states.NUMBER.PATH.MOMENT`.
        """
        kind, _, rest = name.partition(".")
        path = {"weights": rest, "optimizer": ".".join(rest.split(".")[2:-1])}.get(kind, name)
        return path if self.parts.get(path) == tuple(array.shape) else None

    # Cutting and putting together.

    def _hold(self, weights: Arrays) -> None:
        for path in self.shapes:
            self.model.update(tree_unflatten([(path, self._cut(path, weights.pop(path)))]))

    def _cut(self, path: str, whole: mx.array) -> mx.array:
        size, part = self.ranks.size, self.parts[path]
        row = mx.contiguous(_filled(whole, size)[self.ranks.rank].reshape(part))
        mx.eval(row)
        return row

    def _ends(self, arrays: Arrays) -> Arrays:
        """Those of some arrays that are cut and no layer holds."""
        inside = tuple(f"{path}." for path in self.blocks)
        return {path: array for path, array in arrays.items() if path in self.shapes and not path.startswith(inside)}

    def _let_blocks_gather(self, gather: bool) -> None:
        for place, block in self.blocks.items():
            block.gather = self._gathering(f"{place}.") if gather else None

    def _gathering(self, place: str) -> Callable[[Any], Any]:
        def gather(weights: Any) -> Any:
            flat = dict(tree_flatten(weights))
            cut = {place + name: array for name, array in flat.items() if place + name in self.shapes}
            whole = {path.removeprefix(place): array for path, array in self._together(cut).items()}
            return tree_unflatten(list((flat | whole).items()))

        return gather

    def _together(self, parts: Arrays) -> Arrays:
        """Whole arrays of parts; the mean of their gradients goes back to the parts."""
        return {path: _gathered(self.ranks, self.shapes[path])(part) for path, part in parts.items()}


def _part(shape: Sequence[int], size: int, rows: bool) -> tuple[int, ...]:
    """The shape of one of `size` parts."""
    return (shape[0] // size, *shape[1:]) if rows else (-(-prod(shape) // size),)


def _filled(whole: mx.array, size: int) -> mx.array:
    """(size, numbers): the parts of an array, the last one filled up with zeros."""
    flat, missing = whole.reshape(-1), -whole.size % size
    return (mx.pad(flat, (0, missing)) if missing else flat).reshape(size, -1)


def _gathered(ranks: Ranks, shape: tuple[int, ...]) -> Callable[[mx.array], mx.array]:
    """A function of a part that gives the whole array."""

    @mx.custom_function
    def gather(part: mx.array) -> mx.array:
        return ranks.joined(part.reshape(1, -1)).reshape(-1)[: prod(shape)].reshape(shape)

    @gather.vjp
    def back(part: mx.array, cotangent: mx.array, _: Any) -> mx.array:
        mine = ranks.sum(_filled(cotangent, ranks.size).astype(mx.float32))[ranks.rank] / ranks.size
        return mine.reshape(part.shape).astype(part.dtype)

    return cast(Callable[[mx.array], mx.array], gather)
