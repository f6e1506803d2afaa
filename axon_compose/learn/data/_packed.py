"""Documents one after the other, cut into sequences: every token is a target once in every epoch, padding never."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from axon_compose.diagnostics import CheckpointError
from axon_compose.learn.batches import LEFT_OUT, Batch
from axon_compose.learn.data._prepare import Pieces, Prepared

__all__ = ["TextBatches"]

#: An evaluation looks at as many targets as so many steps have, but not at fewer or more than these.
_STEPS: Final = 8
_FEWEST: Final = 2**12
_MOST: Final = 2**15


class _Stream:
    """Pieces of text in an order, each followed by the end token, as one long row that is never made as a whole.

    Args:
        tokens: All ids.
        pieces: (n, 2), where each begins and ends, in order.
        end: The token after each, or None.
    """

    def __init__(self, tokens: npt.NDArray[Any], pieces: Pieces, end: int | None) -> None:
        self._tokens, self._pieces, self._end = tokens, pieces, end
        lengths = pieces[:, 1] - pieces[:, 0] + (end is not None)
        self._starts = np.concatenate([[0], np.cumsum(lengths)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def cut(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Tokens from `start` to before `stop`; before the first stands the last, as after every document."""
        if start < 0:
            return np.concatenate([self.cut(len(self) + start, len(self)), self.cut(0, stop)])
        index = int(np.searchsorted(self._starts, start, "right")) - 1
        parts: list[Any] = []
        while start < stop:
            after = int(self._starts[index + 1])
            offset, until = start - int(self._starts[index]), min(stop, after)
            begin, finish = self._pieces[index]
            parts.append(self._tokens[begin + offset : min(begin + offset + until - start, finish)])
            if until == after and self._end is not None:
                parts.append([self._end])
            start, index = until, index + 1
        return np.concatenate(parts).astype(np.int64)


class TextBatches:
    """Sequences of equal length out of packed documents; see `axon_compose.learn.Batches`.

    In every epoch documents stand one after the other in a new order, each followed by the end token, and are cut into
    sequences of `length` targets, which are dealt out in another order. Each token is a target once in an epoch and is
    predicted from those before it in its sequence. Before its first target stands the token before it, or, where the
    tokenizer begins texts with one, that one. Only the last sequence of an epoch has padding, which is no target.

    Args:
        prepared: The tokens.
        batch: Sequences of a step.
        length: Tokens of each.
        seed: Of both orders.

    Raises:
        CheckpointError: AX814 the text does not fill one sequence.
    """

    def __init__(self, prepared: Prepared, *, batch: int, length: int, seed: int = 0) -> None:
        self.prepared, self.batch, self.length, self.seed = prepared, batch, length, seed
        total = len(_Stream(prepared.tokens, prepared.training, prepared.maker.end))
        if total < length:
            hint = f"shorten the sequences with `--length {max(total // 2, 1)}`, or add text" if total else "add text"
            raise CheckpointError("AX814", f"the text has {total} tokens, a sequence {length}", hint)
        #: Of texts and tokenizer: what has to be the same for a run to be continued, beside the recipe.
        self.digest = prepared.digest
        #: Sequences of an epoch.
        self.sequences = -(-total // length)
        self._epoch = lru_cache(2)(self._make_epoch)

    @property
    def tokens_of_step(self) -> int:
        """Positions of a batch."""
        return self.batch * self.length

    def at(self, step: int) -> Batch:
        """The batch of a step; an epoch ends within one where it does."""
        rows = [self._row(*divmod(number, self.sequences)) for number in self._numbers(step)]
        return _batch(rows, self.length)

    def held_out(self, targets: int | None = None) -> Iterator[Batch]:
        """What no step learns from, the same each time.

        Args:
            targets: Of a long text not all of it, but about so many; as many as eight steps have, from 4,096 to 32,768,
                unless given.
        """
        stream = _Stream(self.prepared.tokens, self.prepared.held_out, self.prepared.maker.end)
        targets = targets or max(_FEWEST, min(_MOST, _STEPS * self.tokens_of_step))
        sequences = min(-(-len(stream) // self.length), max(1, targets // self.length))
        for first in range(0, sequences, self.batch):
            rows = [self._window(stream, index) for index in range(first, min(first + self.batch, sequences))]
            yield _batch(rows + [np.zeros(0, np.int64)] * (self.batch - len(rows)), self.length)

    def _numbers(self, step: int) -> range:
        return range(step * self.batch, (step + 1) * self.batch)

    def _row(self, epoch: int, index: int) -> npt.NDArray[np.int64]:
        stream, order = self._epoch(epoch)
        return self._window(stream, int(order[index]))

    def _make_epoch(self, epoch: int) -> tuple[_Stream, npt.NDArray[np.int64]]:
        random = np.random.default_rng([self.seed, epoch])
        pieces = random.permutation(self.prepared.training)
        stream = _Stream(self.prepared.tokens, pieces, self.prepared.maker.end)
        return stream, random.permutation(self.sequences)

    def _window(self, stream: _Stream, index: int) -> npt.NDArray[np.int64]:
        """Up to `length + 1` tokens: one that is no target, and the targets of a sequence."""
        start = index * self.length
        row = stream.cut(start - 1, min(start + self.length, len(stream)))
        begin = self.prepared.maker.begin
        if begin and tuple(row[1 : len(begin) + 1]) != begin:  # a model that knows no text without it is at a loss
            row[0] = begin[-1]
        return row


def _batch(rows: list[npt.NDArray[np.int64]], length: int) -> Batch:
    tokens = np.zeros((len(rows), length), np.int32)
    targets = np.full((len(rows), length), LEFT_OUT, np.int32)
    for index, row in enumerate(rows):
        tokens[index, : max(len(row) - 1, 0)] = row[:-1]
        targets[index, : max(len(row) - 1, 0)] = row[1:]
    return Batch(mx.array(tokens), mx.array(targets))
