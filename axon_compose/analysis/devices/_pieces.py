"""A plan in the pieces that devices can be given: what is before the layers, each layer, and what is after them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from axon_compose.analysis.cost import Answers, Storage, Training, bytes_read, kind, layer_traffic
from axon_compose.analysis.devices._collectives import NOTHING, Traffic, all_gather, all_reduce
from axon_compose.devices import source_use, varies
from axon_compose.plan import DTYPES, Layer, Plan, Use
from axon_compose.registry import Split, Summed

T = TypeVar("T")

__all__ = ["CHUNK", "Experts", "Piece", "Pieces"]

#: Tokens of a prompt that `mlx_lm` processes at once, which decides what a pass needs in between.
CHUNK: Final = 2048


@dataclass(frozen=True)
class Piece:
    """Components that stay together.

    Attributes:
        uses: In the order of computation.
        layer: The layer that they are, or None for what is before or after the layers.
    """

    uses: tuple[Use, ...]
    layer: Layer | None = None

    @property
    def alike(self) -> tuple[Any, ...]:
        """The same for pieces that cost the same."""
        return tuple(map(kind, self.uses))


@dataclass(frozen=True)
class Experts:
    """Experts of a layer that tokens are sent to.

    Attributes:
        number: How many.
        chosen: Of them for one token.
        nbytes: Of their weights.
    """

    number: int
    chosen: int
    nbytes: int

    def read(self, tokens: int) -> int:
        """Bytes of weights that a number of tokens read at most, each of other experts."""
        return self.nbytes * min(tokens * self.chosen, self.number) // self.number


class Pieces:
    """Counts what each piece of one device's plan costs; layers that are alike are counted once.

    Args:
        plan: The model, or one device's part of it.
        storage: How weights are stored.
        context: Tokens of each sequence.
        tensor: Devices that share each layer.
        splits: Path of each component that they share, to how.
    """

    def __init__(
        self,
        plan: Plan,
        storage: Storage,
        context: int,
        tensor: int = 1,
        splits: Mapping[str, Split] | None = None,
    ) -> None:
        self.plan, self.storage, self.context, self.tensor = plan, storage, context, tensor
        self.splits = splits or {}
        self.answers = Answers()
        self.width = DTYPES[storage.dtype]
        self.hidden = int(plan.dims.hidden_size)
        streams = plan.residual.option("streams") if plan.residual else None
        #: Bytes of what goes from a layer to the next one, of a token: several vectors with a residual scheme.
        self.stream = (streams if isinstance(streams, int) else 1) * self.hidden * self.width
        before = (plan.embedding, *((plan.residual,) if plan.residual else ()))
        after = (*((plan.final_norm,) if plan.final_norm else ()), plan.head)
        self.first, self.last = Piece(before), Piece(after)
        self.layers = tuple(Piece(tuple(layer.uses()), layer) for layer in plan.layers)
        self._known: dict[tuple[Any, ...], Any] = {}
        self._training: dict[int, Training] = {}
        self._traffic: dict[int, int] = {}

    def all(self) -> tuple[Piece, ...]:
        """Every piece, in the order of computation."""
        return (self.first, *self.layers, self.last)

    def weights(self, piece: Piece) -> int:
        """Bytes of its parameters, whether or not another layer has the same ones."""
        return self._once("weights", piece, 0, lambda: sum(map(self.storage.nbytes, piece.uses)))

    def tied_bytes(self) -> int:
        """Bytes of the parameters of the embedding that the head reads."""
        table, found = self.plan.embedding, 0
        for name in self.answers.touched(self.plan.head, 1):
            section, _, inner = name.partition(".")
            if section == "embedding" and inner in table.params:
                found += self.storage.parameter(table, inner)
        return found

    def published(self, source: str, tokens: int, batch: int) -> int:
        """About how many bytes a value has that a component publishes.

        Keys and values are those of the whole context. No record says how wide others are: those of the embedding count
        as the rows of its widest table, those of layers as the hidden state.

        Args:
            source: The value, `layer.key.value` or `embedding.value`.
            tokens: Of all sequences together, in this pass.
            batch: Sequences.
        """
        if varies(self.plan, source):
            cache = source_use(self.plan, source).cache
            return 0 if cache is None else batch * cache.nbytes(self.context, self.storage.dtype)
        table = self.plan.embedding
        rows = [table.params[name][-1] for name in self.answers.touched(table, 1) if name in table.params]
        width = max([self.hidden, *rows]) if source.startswith("embedding.") else self.hidden
        return tokens * width * self.width

    def caches(self, piece: Piece) -> int:
        """Bytes of its caches for one sequence."""
        if piece.layer is None or piece.layer.cache is None:
            return 0
        return piece.layer.cache.nbytes(self.context, self.storage.dtype)

    def moved(self, piece: Piece, batch: int) -> int:
        """Bytes that memory moves for one more token of each sequence: weights read, caches read and written."""
        read = self._once("read", piece, batch, lambda: self._read(piece, batch))
        if piece.layer is None:
            return read
        index = piece.layer.index  # layers that are alike may read keys and values of different ones
        if index not in self._traffic:
            self._traffic[index] = layer_traffic(self.plan, piece.layer, self.context, self.storage.dtype)
        return read + batch * self._traffic[index]

    def _read(self, piece: Piece, batch: int) -> int:
        return sum(bytes_read(self.plan, use, batch, self.storage, self.answers) for use in piece.uses)

    def decode_flops(self, piece: Piece) -> int:
        """Operations of one more token of one sequence, as far as components say."""
        return self._flops(piece, 1)

    def prompt_flops(self, piece: Piece) -> int:
        """Operations of a pass over one whole sequence, as far as components say."""
        return self._flops(piece, self.context)

    def _flops(self, piece: Piece, tokens: int) -> int:
        ask = self.answers.flops
        return self._once(
            "flops", piece, tokens, lambda: sum(ask(use, tokens, self.context) or 0 for use in piece.uses)
        )

    def saved(self, piece: Piece, batch: int) -> int:
        """Bytes that a forward pass over whole sequences leaves for the backward pass."""
        return self._once("saved", piece, batch, lambda: self._saved(piece, batch))

    def _saved(self, piece: Piece, batch: int) -> int:
        counted = self._trained(batch)
        found = sum(counted.saved(use, self.context) for use in piece.uses)
        return found - (counted.shared_inputs(piece.layer, self.context) if piece.layer else 0)

    def between(self, piece: Piece, batch: int) -> int:
        """About how many bytes a forward pass needs beside weights and caches, for a chunk of a prompt.

        That is what goes through the layers, and the arrays of the component that makes most.
        """
        return self._once("between", piece, batch, lambda: self._between(piece, batch))

    def _between(self, piece: Piece, batch: int) -> int:
        tokens, counted = min(CHUNK, self.context), self._trained(batch)
        stream = batch * tokens * self.stream
        if piece is self.last:  # scores are made of the last token of each sequence alone
            return stream + 2 * batch * int(self.plan.dims.vocab_size) * self.width
        return stream + max((counted.saved(use, tokens) for use in piece.uses), default=0)

    def _trained(self, batch: int) -> Training:
        if batch not in self._training:
            self._training[batch] = Training(self.plan, [], self.answers, self.storage.dtype, batch)
        return self._training[batch]

    def exchanged(self, piece: Piece, tokens: int) -> Traffic:
        """What the devices that share a layer send each other for a number of tokens in one pass."""
        return self._once("exchanged", piece, tokens, lambda: self._exchanged(piece, tokens))

    def _exchanged(self, piece: Piece, tokens: int) -> Traffic:
        total = NOTHING
        for use in piece.uses:
            width = self.tensor * int(use.dims.vocab_size) if use is self.plan.head else self.hidden
            if use.shard_output == "sum":
                total += all_reduce(tokens * width * self.width, self.tensor)
            elif use.shard_output == "gather":
                total += all_gather(tokens * width * self.width, self.tensor)
            if use.path in self.splits:
                for each in self.splits[use.path].inside:
                    number = self.width if each.dtype is None else DTYPES[each.dtype]
                    collective = all_reduce if isinstance(each, Summed) else all_gather
                    total += collective(tokens * each.width * number, self.tensor)
        return total

    def experts(self, piece: Piece) -> Iterator[Experts]:
        """The experts of a piece: stacked matrices of which one token reads some."""
        for use in piece.uses:
            touched = self.answers.touched(use, 1)
            stacks = [
                (name, shape)
                for name, shape in use.params.items()
                if len(shape) > 2 and name in touched and touched[name] < shape[0]
            ]
            if stacks:
                nbytes = sum(self.storage.parameter(use, name) for name, _ in stacks)
                yield Experts(stacks[0][1][0], touched[stacks[0][0]], nbytes)

    def _once(self, what: str, piece: Piece, number: int, ask: Callable[[], T]) -> T:
        key = (what, number, piece is self.last, *piece.alike)
        if key not in self._known:
            self._known[key] = ask()
        found: T = self._known[key]
        return found
