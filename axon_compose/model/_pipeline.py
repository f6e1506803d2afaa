"""A pass through a model whose layers are divided over several processes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final, Protocol
from weakref import ref

import mlx.core as mx
import mlx.nn as nn

from axon_compose.devices import PipelinePlan, Visit
from axon_compose.model._forward import make_mask, position
from axon_compose.model._post import Post, ring_path

__all__ = ["Ends", "Pipeline", "Stack"]

Values = dict[str, Any]
#: What the hidden state is called beside the values that come with it: no value has a name without a dot.
_STATE: Final = "state"


class Ends(Protocol):
    """What is before and after the layers."""

    def entered(self, inputs: mx.array, values: Values) -> Any:
        """The residual state of the tokens; what the embedding publishes goes into `values`."""

    def left(self, state: Any, shape: tuple[int, ...]) -> mx.array:
        """What the head reads, (B, L, D)."""

    def scored(self, h: mx.array) -> mx.array:
        """Logits of that, (B, L, vocab_size)."""


class Divides(Protocol):
    """A model whose layers can be divided."""

    def divided(self, group: Any, split: Sequence[int] | None) -> Pipeline:
        """Keep what this process needs; see `Stack.pipeline`."""


class _Owner(ref[Any]):
    """The model that has a stack. The stack must not hold it, or its weights would stay until garbage is collected."""

    def __deepcopy__(self, copies: dict[int, Any]) -> _Owner:
        model = self()
        return _Owner(copies.get(id(model), model))


class Stack(nn.Module):
    """What mlx-lm's models have as `model.model`: the layers, and how they are divided over processes.

    Args:
        model: Divides the layers; its stack this is.

    Attributes:
        start_idx: The first layer whose weights this process has.
        end_idx: The one after the last; None for all.
        pipeline_rank: The process; the last one runs the first layers, as in mlx-lm.
        pipeline_size: Number of processes.
    """

    def __init__(self, model: Divides) -> None:
        super().__init__()
        self._owner = _Owner(model)
        self.pipeline_rank, self.pipeline_size = 0, 1
        self.start_idx = 0
        self.end_idx: int | None = None

    @property
    def pipeline_layers(self) -> list[Any]:
        """The layers whose weights this process has."""
        return list(self["layers"][self.start_idx : self.end_idx])

    def pipeline(self, group: Any, split: Sequence[int] | None = None) -> None:
        """Keep the layers of this process alone; the model then runs together with those of the other ones.

        Every process is called with the same tokens and gets the same logits, those of one process bit for bit. It
        makes its own caches, and nothing is trained.

        Args:
            group: The processes, a `mx.distributed.Group`.
            split: Layers of each process, by rank; balanced by bytes and operations unless given.

        Raises:
            Refusal: `AX990`, the layers cannot be divided so.
        """
        model = self._owner()
        if model is None:
            raise ValueError("the model of these layers is gone")
        pipeline = model.divided(group, split)
        self.pipeline_rank, self.pipeline_size = pipeline.post.rank, pipeline.post.size
        self.start_idx, self.end_idx = pipeline.stage.layers.start, pipeline.stage.layers.stop


class Pipeline:
    """What one process does in every pass.

    The state goes from stage to stage in the order of the layers, with the published values that later layers read. One
    process makes the logits and all others get them from it: more bytes than what the head reads, which every process
    could make them of, but then every process would need the largest matrix of all. They are handed over as a sum of
    which only one part is not zero, since a sum, unlike what is received, can wait for what has to be sent before it.

    Logits of a part of a prompt are nothing that anybody looks at. So they are made and sent when somebody does; those
    of a single token, or without caches, at once.

    Args:
        plan: Who runs what.
        group: See `Post`. The last process runs the first stage.
        modules: Those of all layers; it keeps those that run here.
    """

    def __init__(self, plan: PipelinePlan, group: Any, modules: Sequence[Any]) -> None:
        self.plan, self.post = plan, Post(group)
        self.number = self._rank(self.post.rank)
        self.stage = plan.stages[self.number]
        mine = [index for visit in plan.visits if visit.stage == self.number for index in visit.layers]
        self.modules = {index: modules[index] for index in mine}
        self._constant: list[Values | None] = [None] * len(plan.visits)
        self._types: dict[str, mx.Dtype] = {}

    @property
    def embeds(self) -> bool:
        """Whether this process turns tokens into vectors."""
        return self.plan.visits[0].stage == self.number

    @property
    def scores(self) -> bool:
        """Whether this process makes the logits."""
        return self.plan.head == self.number

    def _rank(self, stage: int) -> int:
        """The rank of a stage, and the stage of a rank."""
        return self.post.size - 1 - stage

    def run(self, ends: Ends, inputs: mx.array, cache: Sequence[Any] | None, *, scores: bool) -> mx.array:
        """A pass; see `LanguageModel`.

        Args:
            ends: The embedding, and what comes after the layers.
            inputs: (B, L) tokens, the same in all processes.
            cache: Of the stage's slots, or None.
            scores: Whether to give logits, or what the head reads.
        """
        dims, key = self.plan.plan.dims, (*inputs.shape, cache is None)
        state = self._last_state(ends, inputs, cache, key)
        last, lazy = self.plan.visits[-1].stage, cache is not None and inputs.shape[1] > 1
        shape, root = (*inputs.shape, int(dims.hidden_size)), self._rank(last)
        read = ends.left(state, shape) if last == self.number else None
        if not scores:
            return self._told("read", read, shape, root, lazy=lazy)
        head = self._rank(self.plan.head)
        read = self.post.carry(read, ring_path(root, head, self.post.size), ("read", *key), lazy=lazy)
        made = ends.scored(read) if self.scores else None
        return self._told("scores", made, (*inputs.shape, int(dims.vocab_size)), head, after=read, lazy=lazy)

    def _last_state(self, ends: Ends, inputs: mx.array, cache: Sequence[Any] | None, key: tuple[Any, ...]) -> Any:
        """The residual state after the last layer, in the process that runs that."""
        stage = self.stage
        masks = tuple(make_mask(group, cache, inputs.shape[1]) for group in stage.masks)
        values: Values = {"offset": position(cache, stage.offset), "tokens": inputs}
        if cache is not None:
            _count(cache[len(stage.slots) - stage.counting :], *inputs.shape)
        before, state = None, None
        for number, visit in enumerate(self.plan.visits):
            if before is not None:
                state = self._moved(number, before, state, values, key)
            elif self.embeds:
                state = ends.entered(inputs, values)
            if visit.stage == self.number:
                state = self._through(visit, state, masks, cache, values)
            before = visit
        return state

    def _through(
        self, visit: Visit, state: Any, masks: Sequence[Any], cache: Sequence[Any] | None, values: Values
    ) -> Any:
        for index in visit.layers:
            layer = self.plan.plan.layers[index]
            slot = None if cache is None or layer.slot is None else cache[self.stage.places[index]]
            read = {source: values[source] for source in layer.reads}
            state, published = self.modules[index](state, masks, slot, read)
            values.update(published)
        return state

    def _moved(self, number: int, before: Visit, state: Any, values: Values, key: tuple[Any, ...]) -> Any:
        """Take the state to the stage of a visit, and the values that are read there or later."""
        visit, known = self.plan.visits[number], self._constant[number]
        first = bool(visit.constant) and known is None
        names = [name for name in visit.values if first or name not in visit.constant]
        parcel = {_STATE: state} | {name: values[name] for name in names} if before.stage == self.number else None
        announced = None if visit.varies else (number, first, *key)
        path = ring_path(self._rank(before.stage), self._rank(visit.stage), self.post.size)
        arrived = self.post.carry(parcel, path, announced)
        constant = {name: arrived[name] for name in visit.constant} if arrived and first else known or {}
        self._constant[number] = constant
        if visit.stage != self.number:
            return None
        values.update({name: arrived[name] for name in names} | constant)
        return arrived[_STATE]

    def _told(
        self,
        what: str,
        own: mx.array | None,
        shape: tuple[int, ...],
        root: int,
        *,
        after: mx.array | None = None,
        lazy: bool,
    ) -> mx.array:
        """An array that one process has, in all of them.

        Args:
            what: Its name, always of the same type.
            own: The array; None in other processes.
            shape: What it has.
            root: The process.
            after: What has to be sent before others can have it.
            lazy: Whether to wait until somebody looks at it.
        """
        if what not in self._types:
            around = [(root + hop) % self.post.size for hop in range(self.post.size)]
            empty = None if own is None else mx.zeros((0,), own.dtype)
            self._types[what] = self.post.carry(empty, around, what).dtype
        if own is None:
            own = mx.full(shape, -0.0, self._types[what])  # 0 + -0 is 0, and -0 + -0 is -0
            if after is not None:
                (own,) = mx.depends([own], [after])
        return self.post.total(own, lazy=lazy)


def _count(caches: Sequence[Any], batch: int, length: int) -> None:
    """Let caches count tokens that no layer here keeps anything of."""
    for cache in caches:
        if hasattr(cache, "update_and_fetch"):
            cache.update_and_fetch(mx.zeros((batch, 1, length, 1), mx.uint8), mx.zeros((batch, 1, length, 0), mx.uint8))
            if hasattr(cache, "to_quantized"):  # as `kv_bits` asks for: there are no numbers to quantise
                cache.to_quantized = partial(_itself, cache)
        else:
            cache[0] = mx.zeros((batch, 1), mx.bool_)
            cache.advance(length)


def _itself(cache: Any, **_: Any) -> Any:
    return cache
