"""A plan to a cost sheet: every component is asked once for its work, everything else is counted from shapes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from axon_compose.analysis.cost._answers import Answers
from axon_compose.analysis.cost._caches import cache_parts, cache_traffic
from axon_compose.analysis.cost._reads import bytes_read
from axon_compose.analysis.cost._sheet import ContextCost, CostSheet, Fit, LayerCost, PartCost
from axon_compose.analysis.cost._training import Training
from axon_compose.analysis.cost._weights import Storage
from axon_compose.plan import Layer, Plan, Use, active_parameters, cache_nbytes, total_parameters

__all__ = ["CONTEXTS", "check_sequences", "cost", "kind", "part_name"]

#: Components that cost the same, one of them for all and how many there are.
Kinds = list[tuple[Use, int]]

#: Contexts that are looked at unless others are named.
CONTEXTS: Final = (4096, 65536)
#: A longer context counts as unlimited.
_ENDLESS: Final = 2**40


def cost(
    plan: Plan,
    *,
    context: int | Iterable[int] = CONTEXTS,
    dtype: str = "bfloat16",
    batch: int = 1,
    quantize: int | None = None,
    training: bool = False,
    segment: int | None = None,
    memory: int | None = None,
    bandwidth: float | None = None,
) -> CostSheet:
    """Count what a model costs, without building it.

    Args:
        plan: The model.
        context: Tokens of each sequence, one number or several.
        dtype: Of weights and caches: `float32`, `bfloat16` or `float16`.
        batch: Sequences per batch.
        quantize: Bits of quantised weights; not quantised unless given.
        training: Count the memory of a training step too.
        segment: Count a step of `axon-compose train` that recomputes this many layers at a time instead of saving
            their activations (gradient checkpointing); 0 saves all. Without it the step is that of a loop of MLX's own
            functions, which holds the scores of the whole batch.
        memory: Bytes available: does it fit, and up to which context?
        bandwidth: Memory bandwidth in bytes per second.

    Raises:
        ValueError: If a number is out of its range.
    """
    contexts = (context,) if isinstance(context, int) else tuple(context)
    check_sequences(contexts, batch)
    if segment is not None and (segment < 0 or not training):
        raise ValueError("`segment` must not be negative, and is for `training` alone")
    if memory is not None and memory < 0:
        raise ValueError("`memory` must not be negative")
    if bandwidth is not None and not 0 < bandwidth < float("inf"):
        raise ValueError("`bandwidth` must be above 0")
    return _Measure(plan, contexts, Storage(dtype, quantize), batch, training, bandwidth, segment).sheet(memory)


def check_sequences(contexts: Collection[int], batch: int) -> None:
    """Refuse sequences that cannot be.

    Args:
        contexts: Tokens of each sequence, one number or more.
        batch: Sequences that run together.

    Raises:
        ValueError: A number is out of its range.
    """
    if not contexts or not all(1 <= tokens <= _ENDLESS for tokens in contexts):
        raise ValueError(f"`context` must be from 1 to {_ENDLESS:,} tokens")
    if not 1 <= batch <= _ENDLESS:
        raise ValueError("`batch` must be 1 or more")


class _Measure:
    def __init__(
        self,
        plan: Plan,
        contexts: tuple[int, ...],
        storage: Storage,
        batch: int,
        training: bool,
        bandwidth: float | None,
        segment: int | None = None,
    ) -> None:
        self.plan, self.contexts, self.storage, self.batch = plan, contexts, storage, batch
        self.bandwidth = bandwidth
        self.answers = Answers()
        self.runs = list(_runs(plan))
        self.kinds = _alike(use for use, _ in self.runs)
        self.training = Training(plan, self.kinds, self.answers, storage.dtype, batch, segment) if training else None
        self.sizes: dict[int, int] = {}
        self.weight_bytes = sum(map(self.nbytes, plan.uses()))

    def sheet(self, memory: int | None) -> CostSheet:
        plan = self.plan
        contexts = tuple(map(self.context, self.contexts))
        return CostSheet(
            name=plan.name,
            dtype=self.storage.dtype,
            quantize=self.storage.bits,
            batch=self.batch,
            parameters=total_parameters(plan),
            active_parameters=active_parameters(plan),
            embedding_parameters=plan.embedding.size,
            quantized_parameters=sum(map(self.storage.quantized_size, plan.uses())),
            weight_bytes=self.weight_bytes,
            parts=tuple(self.parts()),
            layers=tuple(self.layers()),
            contexts=contexts,
            unknown=dict(self.answers.unknown),
            estimated=dict(self.answers.estimated),
            faulty=dict(self.answers.faulty),
            fit=None if memory is None else self.fit(memory, contexts),
        )

    def nbytes(self, use: Use) -> int:
        """Bytes of a component; layers that are alike share their shapes."""
        key = id(use.params)
        if key not in self.sizes:
            self.sizes[key] = self.storage.nbytes(use)
        return self.sizes[key]

    # By component and by layer.

    def parts(self) -> Iterator[PartCost]:
        groups: dict[tuple[str, str], list[tuple[Use, bool]]] = {}
        for use, owned in self.runs:
            groups.setdefault((part_name(use), use.type), []).append((use, owned))
        for (name, type_), members in groups.items():
            uses = _alike(use for use, _ in members)
            own = _alike(use for use, owned in members if owned)
            yield PartCost(
                name=name,
                type=type_,
                uses=len(members),
                parameters=sum(number * use.size for use, number in own),
                active=sum(number * use.active for use, number in own),
                weight_bytes=sum(number * self.nbytes(use) for use, number in own),
                decode_flops=tuple(self.flops(uses, 1, tokens) for tokens in self.contexts),
                prefill_flops=tuple(self.flops(uses, tokens, tokens) for tokens in self.contexts),
            )

    def layers(self) -> Iterator[LayerCost]:
        known: dict[tuple[Any, ...], LayerCost] = {}
        for layer in self.plan.layers:
            key = (layer.block, layer.owner is None, *map(kind, layer.uses()))
            if key not in known:
                known[key] = self.layer(layer)
            yield replace(known[key], index=layer.index)

    def layer(self, layer: Layer) -> LayerCost:
        uses = _alike(layer.uses())
        own = [] if layer.owner is not None else uses
        caches = (0 if layer.cache is None else layer.cache.nbytes(n, self.storage.dtype) for n in self.contexts)
        return LayerCost(
            index=layer.index,
            block=layer.block,
            parameters=layer.size,
            active=sum(number * use.active for use, number in own),
            weight_bytes=sum(number * self.nbytes(use) for use, number in own),
            cache_bytes=tuple(self.batch * size for size in caches),
            decode_flops=tuple(self.flops(uses, 1, tokens) for tokens in self.contexts),
        )

    def flops(self, uses: Kinds, tokens: int, context: int) -> int | None:
        """Operations of some components; None if one of them is unknown."""
        found = [(self.answers.flops(use, tokens, context), number) for use, number in uses]
        return None if any(each is None for each, _ in found) else sum((each or 0) * n for each, n in found)

    # By context.

    def context(self, tokens: int) -> ContextCost:
        growing, window, state = (self.batch * part for part in cache_parts(self.plan, tokens, self.storage.dtype))
        moved = self.weights_read() + self.batch * cache_traffic(self.plan, tokens, self.storage.dtype)
        return ContextCost(
            tokens=tokens,
            growing_bytes=growing,
            window_bytes=window,
            state_bytes=state,
            memory_bytes=self.weight_bytes + growing + window + state,
            prefill_flops=self.batch * self.known(tokens, tokens),
            decode_flops=self.known(1, tokens),
            moved_bytes=moved,
            tokens_per_second=self.bandwidth * self.batch / moved if self.bandwidth and moved else None,
            training=self.training.cost(tokens) if self.training else None,
        )

    def known(self, tokens: int, context: int) -> int:
        """Operations of all components that say."""
        return sum(number * (self.answers.flops(use, tokens, context) or 0) for use, number in self.kinds)

    def weights_read(self) -> int:
        """Bytes of weights that a decoding step reads; those of layers that share them are read by each."""
        ask = (self.batch, self.storage, self.answers)
        return sum(number * bytes_read(self.plan, use, *ask) for use, number in self.kinds)

    # Memory.

    def fit(self, memory: int, contexts: Sequence[ContextCost]) -> Fit:
        fits = tuple(cost.needed_bytes <= memory for cost in contexts)
        return Fit(memory, fits, _longest(lambda tokens: self.needed(tokens) <= memory))

    def needed(self, tokens: int) -> int:
        """The context's `needed_bytes`, without its operations."""
        if self.training:
            return self.training.cost(tokens).total
        return self.weight_bytes + self.batch * cache_nbytes(self.plan, tokens, self.storage.dtype)


def _longest(fits: Callable[[int], bool]) -> int | None:
    """The most tokens that fit: 0 for none, None for any number."""
    if fits(_ENDLESS):
        return None
    low, high = 0, _ENDLESS
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def part_name(use: Use) -> str:
    """What a component is called in the sheet: norms are one part, and connections belong to their residual scheme."""
    return {"norm": "norm", "connection": "residual"}.get(use.spec.kind, use.name)


def _runs(plan: Plan) -> Iterator[tuple[Use, bool]]:
    """Every component that runs in a pass, and whether its weights are its own."""
    yield plan.embedding, True
    if plan.residual:
        yield plan.residual, True
    for layer in plan.layers:
        for use in layer.uses():
            yield use, layer.owner is None
    if plan.final_norm:
        yield plan.final_norm, True
    yield plan.head, True


def kind(use: Use) -> tuple[Any, ...]:
    """What uses have in common that cost the same."""
    return use.type, use.spec.name, id(use.options), id(use.params)


def _alike(uses: Iterable[Use]) -> Kinds:
    """Uses that cost the same: one of them, and how many they are."""
    found: dict[tuple[Any, ...], list[Use]] = {}
    for use in uses:
        found.setdefault(kind(use), []).append(use)
    return [(members[0], len(members)) for members in found.values()]
