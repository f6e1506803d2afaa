"""The model under test: its weights, its tokens, and ways to look inside and to switch parts off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Final

import mlx.core as mx
from mlx.utils import tree_map

from axon_compose.model import LanguageModel, blamed, random_weights
from axon_compose.plan import Layer, Plan, Use
from axon_compose.proof.check._switched_off import Skipped, silent

__all__ = ["SEEDS", "Forward", "Subject"]

#: Tokens and caches to outputs (B, L, width): logits, or what a layer gives.
Forward = Callable[[mx.array, list[Any] | None], mx.array]

#: Seeds that MLX takes.
SEEDS: Final = 2**64
#: Windows above this are not filled: a component without `shrink` may have one of thousands of tokens.
LARGEST_WINDOW: Final = 128
#: Long enough to cross a chunk of a scan (256 tokens) and several blocks of a window (64).
LONG: Final = 291
#: Long enough to leave a window's first block.
MEDIUM: Final = 83


class Subject:
    """A small model in float32 with random weights.

    Freshly made parameters are often equal, zero or one; all are moved a little, so that nothing is right by
    accident.

    Args:
        plan: The model, in small sizes.
        seed: Of weights and tokens.
        model: The model with weights of its own, where it has some.
        sample: Tokens (2, L) to take instead of random ones.
        rounded: Logits of the sample by rounded weights, where they are known.
        unrounded: The same by the weights themselves.
    """

    def __init__(
        self,
        plan: Plan,
        seed: int = 0,
        *,
        model: LanguageModel | None = None,
        sample: mx.array | None = None,
        rounded: mx.array | None = None,
        unrounded: mx.array | None = None,
    ) -> None:
        self.plan, self.seed = plan, seed
        self._known = dict[str, mx.array]()
        given = {"model": model, "sample": sample, "rounded": rounded, "unrounded": unrounded}
        self.__dict__ |= {name: value for name, value in given.items() if value is not None}  # computed otherwise

    @cached_property
    def model(self) -> LanguageModel:
        """The model in float32, in evaluation mode."""
        return self.fresh("float32")

    @cached_property
    def bfloat(self) -> LanguageModel:
        """The same model in bfloat16."""
        return self.fresh("bfloat16")

    def both(self) -> Iterator[tuple[str, LanguageModel]]:
        """The model in each of the two dtypes, to be left as it is."""
        yield "float32", self.model
        yield "bfloat16", self.bfloat

    def fresh(self, dtype: str) -> LanguageModel:
        """Another model with the same weights, in a dtype; what is done to one is not done to the other."""
        model = random_weights(self.plan, dtype=dtype, seed=self.seed % SEEDS, as_made=True)
        model.update(tree_map(lambda own, drawn: drawn.astype(own.dtype), model.parameters(), self._weights))
        model.eval()
        with blamed(self.plan):
            mx.eval(model.parameters())
        return model

    @cached_property
    def _weights(self) -> dict[str, Any]:
        """The tree of parameters as they are made in float32, moved: drawn once for all the models."""
        made = random_weights(self.plan, seed=self.seed % SEEDS, as_made=True).parameters()
        keys = iter(mx.random.split(_key(self.seed + 1), 10_000))

        def move(value: mx.array) -> mx.array:
            noise = 0.02 * mx.random.normal(value.shape, key=next(keys))
            return value + noise.astype(value.dtype) if mx.issubdtype(value.dtype, mx.floating) else value

        moved: dict[str, Any] = tree_map(move, made)
        return moved

    def unlike(self) -> LanguageModel:
        """A model with other weights, as they are made."""
        model = random_weights(self.plan, seed=(self.seed + 1) % SEEDS, as_made=True)
        model.eval()
        return model

    def tokens(self, batch: int, length: int, salt: int = 0) -> mx.array:
        """Random tokens (B, L)."""
        key = _key(1_000_003 * self.seed + 7919 * salt + length)
        return mx.random.randint(0, int(self.plan.dims.vocab_size), (batch, length), key=key)

    @cached_property
    def sample(self) -> mx.array:
        """Tokens (2, L) of a length that leaves a window's first block."""
        return self.tokens(2, MEDIUM)

    @cached_property
    def unrounded(self) -> mx.array:
        """Logits of the sample."""
        return self.known(self.sample, None)

    @cached_property
    def rounded(self) -> mx.array:
        """Logits of the sample by rounded weights."""
        return self.roundly(self.sample)

    def roundly(self, tokens: mx.array) -> mx.array:
        """Logits by weights that are each moved by at most half of what float32 can distinguish."""
        kept = self.model.trainable_parameters()  # no tables of numbers, such as those that name experts
        keys = iter(mx.random.split(_key(self.seed + 2), 10_000))

        def move(value: mx.array) -> mx.array:
            noise = mx.random.uniform(-1, 1, value.shape, key=next(keys)) * 2.0**-24
            return value * (1 + noise) if value.dtype == mx.float32 else value

        self.model.update(tree_map(move, kept))
        try:
            return self.forward(tokens)
        finally:
            self.model.update(kept)

    @cached_property
    def windows(self) -> list[int]:
        """Every window of the model that can be filled here, rising."""
        sizes = {size for group in self.plan.masks for size in (group.kept, group.window) if size is not None}
        return sorted(size for size in sizes if size <= LARGEST_WINDOW)

    @property
    def window(self) -> int:
        """The largest window, or 8 as any other length."""
        return self.windows[-1] if self.windows else 8

    @property
    def decoded(self) -> int:
        """How many tokens are decoded one by one: as many as wrap a window, or a few where there is none to wrap."""
        return min(self.window, 16) + 3 if self.windows else 5

    def forward(self, tokens: mx.array, cache: list[Any] | None = None) -> mx.array:
        """Logits, computed."""
        with blamed(self.plan, lambda: self.model(tokens)):
            logits = self.model(tokens, cache)
            mx.eval(logits, [leaf.state for leaf in cache or ()])
        return logits

    def known(self, tokens: mx.array, cache: list[Any] | None = None) -> mx.array:
        """The same by the model as it is: without a cache, tokens that were asked for before are not computed again."""
        if cache is not None:
            return self.forward(tokens, cache)
        key = repr(tokens.tolist())
        if key not in self._known:
            self._known[key] = self.forward(tokens)
        return self._known[key]

    def by_layer(self, tokens: mx.array, cache: list[Any] | None = None) -> mx.array:
        """A forward pass that gives the outputs of all layers side by side, (B, L, layers * width), and no logits."""
        model: Any = self.model
        blocks, seen = model.layers, list[mx.array]()
        model.layers = [_Tap(block, seen) for block in blocks]
        try:
            self.forward(tokens, cache)
        finally:
            model.layers = blocks
        return mx.concatenate([out.reshape(*tokens.shape, -1) for out in seen], axis=-1)

    @contextmanager
    def replaced(self, index: int, change: Callable[[Any], Any]) -> Iterator[None]:
        """Put something else in the place of a layer for a while."""
        blocks = self.model.layers
        self.model.layers = [change(block) if i == index else block for i, block in enumerate(blocks)]
        try:
            yield
        finally:
            self.model.layers = blocks

    @contextmanager
    def without(self, index: int) -> Iterator[None]:
        """Skip a layer: what it adds is dropped, what it publishes is not."""
        with self.replaced(index, Skipped):
            yield

    @contextmanager
    def alone(self, layer: Layer, use: Use) -> Iterator[None]:
        """Let one component be the only one that mixes tokens; the others run and publish, but add nothing."""
        model: Any = self.model
        blocks, mine = model.layers, _weights_of(layer)
        silenced = []
        for other in self.plan.layers:
            if other.owner is not None:
                continue
            for part in other.uses():
                if mixes(part) and (other.index, part.key) != (mine, use.key):
                    module = blocks[other.index][part.key]
                    silenced.append((blocks[other.index], part.key, module))
                    blocks[other.index][part.key] = silent(part, module)
        alike = {other.index for other in self.plan.layers if _weights_of(other) == mine} - {layer.index}
        model.layers = [Skipped(block) if i in alike else block for i, block in enumerate(blocks)]
        try:
            yield
        finally:
            model.layers = blocks
            for block, key, module in silenced:
                block[key] = module

    def describe(self, index: int) -> str:
        """A layer in a few words."""
        layer = self.plan.layers[index]
        names = ", ".join(member.use.name for branch in layer.branches for member in branch.members)
        return f"layer {index} ({names})"


def _key(number: int) -> mx.array:
    return mx.random.key(number % SEEDS)


def mixes(use: Use) -> bool:
    """Whether a component lets tokens see each other: it keeps something, or reads what another layer kept."""
    return use.cache is not None or bool(use.source_layers)


def _weights_of(layer: Layer) -> int:
    """The layer that holds the weights which a layer runs with."""
    return layer.index if layer.owner is None else layer.owner


class _Tap:
    """A layer whose outputs are kept."""

    def __init__(self, block: Any, seen: list[mx.array]) -> None:
        self.block, self.seen = block, seen

    def __call__(self, *arguments: Any) -> Any:
        out = self.block(*arguments)
        self.seen.append(out[0])
        return out
