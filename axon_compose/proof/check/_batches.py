"""Sequences of unequal length in one batch, by the ways in which mlx-lm brings them together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import mlx.core as mx

from axon_compose.proof.check._compare import Rows, equal
from axon_compose.proof.check._report import Truth
from axon_compose.proof.check._subject import MEDIUM, Forward, Subject

__all__ = ["joined", "left_padded", "left_padded_run", "right_padded"]

Caches = list[Any]


def left_padded(subject: Subject) -> Truth:
    """Left-padded rows match unpadded runs."""
    return _padded_rows(subject, "left-padded", "left-padded rows match unpadded runs", left_padded_run)


def right_padded(subject: Subject) -> Truth:
    """Right-padded rows, as in mlx-lm's batch generation, match unpadded runs."""
    return _padded_rows(subject, "right-padded", "right-padded rows match unpadded runs", _right)


def _padded_rows(
    subject: Subject, name: str, statement: str, run: Callable[[Subject, Forward, Rows, int], Rows]
) -> Truth:
    """One check for prompts that are fed in chunks of several sizes, at and off the edge of a window."""
    rows = _rows(subject)

    def alone(forward: Forward) -> Rows:
        return [forward(row, None) for row in rows]

    edge = [max(2, subject.window)] if subject.windows else []
    cases = [(f"chunks of {size}", lambda f, s=size: run(subject, f, rows, s), alone) for size in (7, *edge, MEDIUM)]
    return equal(subject, name, statement, cases)


def joined(subject: Subject) -> Truth:
    """Sequences that join a batch in the middle, and leave it, go on as in single runs."""
    window = subject.window
    rows = [subject.tokens(1, size, salt=i) for i, size in enumerate((window + 21, 2 * window + 30, window + 12))]
    return equal(
        subject,
        "joined",
        "sequences that join and leave a batch match single runs",
        [("merge, extend, filter, extract", lambda f: _joined(subject, f, rows), lambda f: [f(r, None) for r in rows])],
    )


def _rows(subject: Subject) -> Rows:
    """Prompts of unequal lengths, a single token among them, each with as many tokens to decode as wrap a window."""
    window = subject.window
    prompts = sorted({2 * window + 13, window + 1, window, max(1, window - 3), 1}, reverse=True)
    return [subject.tokens(1, length + subject.decoded, salt=i) for i, length in enumerate(prompts)]


def _padded(rows: Sequence[mx.array], left: bool) -> tuple[mx.array, list[int]]:
    """(B, longest) and the padding of each row; padding is a real token, so that nothing hides behind zeros."""
    longest = max(row.shape[1] for row in rows)
    padding = [longest - row.shape[1] for row in rows]
    filled = [
        mx.concatenate([row[:, :1] * 0 + 1] * pad + [row] if left else [row] + [row[:, :1] * 0 + 1] * pad, axis=1)
        for row, pad in zip(rows, padding, strict=True)
    ]
    return mx.concatenate(filled, axis=0), padding


def left_padded_run(subject: Subject, forward: Forward, rows: Rows, size: int) -> Rows:
    """Outputs of rows of unequal lengths, whose prompts are padded on the left and fed in chunks of a size."""
    decoded = subject.decoded
    tokens, padding = _padded([row[:, : row.shape[1] - decoded] for row in rows], left=True)
    cache = [with_left_padding(leaf, padding) for leaf in subject.model.make_cache()]
    outputs = mx.concatenate(
        [*_in_chunks(forward, tokens, cache, size), *_decode(forward, rows, decoded, cache)], axis=1
    )
    return [outputs[i : i + 1, pad:] for i, pad in enumerate(padding)]


def _right(subject: Subject, forward: Forward, rows: Rows, size: int) -> Rows:
    decoded = subject.decoded
    prompts = [row[:, : row.shape[1] - decoded] for row in rows]
    lengths = [prompt.shape[1] for prompt in prompts]
    tokens, padding = _padded(prompts, left=False)
    cache = merged([subject.model.make_cache() for _ in rows])
    for leaf in cache:
        leaf.prepare(lengths=lengths, right_padding=padding)
    prompt = mx.concatenate(_in_chunks(forward, tokens, cache, size), axis=1)
    for leaf in cache:
        leaf.finalize()
    after = mx.concatenate(_decode(forward, rows, decoded, cache), axis=1)
    return [mx.concatenate([prompt[i : i + 1, :length], after[i : i + 1]], axis=1) for i, length in enumerate(lengths)]


def _joined(subject: Subject, forward: Forward, rows: Rows) -> Rows:
    """Two begin alone, meet, go on with another prompt, are joined by a third; then each leaves on its own."""
    work = _Work(forward, rows)
    starts = (5, 2 * subject.window + 3, subject.window + 2)
    singles = []
    for row, start in enumerate(starts):
        singles.append(subject.model.make_cache())
        work.feed([row], singles[-1], start)
    batch = merged(singles[:2])
    work.feed([0, 1], batch, 1, times=3)
    work.prompt([0, 1], batch, (9, 4), size=5)
    work.feed([0, 1], batch, 1)
    for leaf, other in zip(batch, merged(singles[2:]), strict=True):
        leaf.extend(other)
    work.feed([0, 1, 2], batch, 1, times=3)
    for leaf in batch:
        leaf.filter([1, 2])
    work.feed([1, 2], batch, 1, times=2)
    alone = [leaf.extract(1) for leaf in batch]
    work.feed([2], alone, 3)
    work.feed([2], alone, 1, times=2)
    return work.finish([subject.model.make_cache() for _ in rows])


class _Work:
    """Sequences that are fed piece by piece, with all their outputs."""

    def __init__(self, forward: Forward, rows: Rows) -> None:
        self.forward, self.rows = forward, rows
        self.done = [0] * len(rows)
        self.outputs: list[list[mx.array]] = [[] for _ in rows]

    def feed(self, rows: list[int], cache: Caches, size: int, times: int = 1) -> None:
        """The next tokens of some rows, equally many."""
        for _ in range(times):
            self._keep(rows, self.forward(mx.concatenate([self._next(row, size) for row in rows]), cache), [size] * 9)

    def prompt(self, rows: list[int], cache: Caches, lengths: tuple[int, ...], size: int) -> None:
        """The next tokens of some rows, right-padded and in chunks."""
        tokens, padding = _padded([self._next(row, n) for row, n in zip(rows, lengths, strict=True)], left=False)
        for leaf in cache:
            leaf.prepare(lengths=list(lengths), right_padding=padding)
        self._keep(rows, mx.concatenate(_in_chunks(self.forward, tokens, cache, size), axis=1), lengths)
        for leaf in cache:
            leaf.finalize()

    def finish(self, caches: list[Caches]) -> Rows:
        """All outputs; what was not fed is computed in one piece, for it is not looked at any more."""
        rows = []
        for row, outputs in enumerate(self.outputs):
            whole = self.forward(self.rows[row], caches[row])
            rows.append(mx.concatenate([*outputs, whole[:, self.done[row] :]], axis=1))
        return rows

    def _next(self, row: int, size: int) -> mx.array:
        return self.rows[row][:, self.done[row] : self.done[row] + size]

    def _keep(self, rows: list[int], outputs: mx.array, lengths: Sequence[int]) -> None:
        for i, (row, length) in enumerate(zip(rows, lengths, strict=False)):
            self.outputs[row].append(outputs[i : i + 1, :length])
            self.done[row] += length


def _in_chunks(forward: Forward, tokens: mx.array, cache: Caches, size: int) -> list[mx.array]:
    length = tokens.shape[1]
    cuts = [*range(0, length, size), length]
    if len(cuts) > 2 and length - cuts[-2] == 1:
        del cuts[-2]  # mlx-lm's rotating cache of a batch takes no single token before the padding is dealt with
    return [forward(tokens[:, start:stop], cache) for start, stop in pairwise(cuts)]


def _decode(forward: Forward, rows: Rows, count: int, cache: Caches) -> list[mx.array]:
    last = mx.concatenate([row[:, row.shape[1] - count :] for row in rows])
    return [forward(last[:, i : i + 1], cache) for i in range(count)]


def merged(caches: list[Caches]) -> Caches:
    """Caches of single sequences as one of a batch, slot by slot."""
    return [leaves[0].merge(list(leaves)) for leaves in zip(*caches, strict=True)]


def with_left_padding(cache: Any, padding: list[int]) -> Any:
    """An empty cache as mlx-lm's cache of a batch with so much padding in front of each row."""
    from mlx_lm.models.cache import ArraysCache, BatchKVCache, BatchRotatingKVCache, CacheList, RotatingKVCache

    if isinstance(cache, CacheList):
        return CacheList(*(with_left_padding(child, padding) for child in cache.caches))
    if isinstance(cache, ArraysCache):
        return ArraysCache(len(cache.cache), left_padding=padding)
    if isinstance(cache, RotatingKVCache):
        return BatchRotatingKVCache(cache.max_size, padding)
    return BatchKVCache(padding)
