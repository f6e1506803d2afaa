"""The six tasks of MAD (Poli et al. 2024, arXiv:2403.17844)."""

from __future__ import annotations

import numpy as np

from axon_compose.learn.tasks._draw import Draw, Drawn, Integers, distinct, unscored
from axon_compose.learn.tasks.specs.mad import (
    CompressionOptions,
    CopyingOptions,
    FuzzyOptions,
    MemorisationOptions,
    NoisyOptions,
    RecallOptions,
)
from axon_compose.learn.tasks.specs.recall import keys_of, values_of

__all__ = ["compression", "copying", "facts", "fuzzy", "memorisation", "recall"]


def recall(options: RecallOptions, draw: Draw) -> Drawn:
    """In-context recall, and with noise noisy recall of MAD.

    Each sequence has a value for every key, drawn anew. It consists of keys, each followed by its value; keys repeat,
    the last one for certain, and where one has been before, its value is the target. With noise, a share of pairs is
    two tokens of noise instead, which come from a vocabulary of their own.
    """
    keys, values = keys_of(options.vocab), values_of(options.vocab)
    shape = (draw.batch, options.length // 2)
    value_of = keys + draw.rng.integers(values, size=(draw.batch, keys))
    k = draw.rng.integers(keys, size=shape)
    last = draw.rng.integers(shape[1] - 1, size=draw.batch)  # the place of the pair that comes once more at the end
    k[:, -1] = k[np.arange(draw.batch), last]
    v = np.take_along_axis(value_of, k, axis=1)
    asked = _seen_before(k)
    if isinstance(options, NoisyOptions):
        noise = options.vocab + draw.rng.integers(options.noise_vocab, size=(2, *shape))
        noisy = draw.rng.random(shape) < options.noise
        noisy[:, -1] = noisy[np.arange(draw.batch), last] = False
        asked = _seen_before(np.where(noisy, -1 - np.arange(shape[1]), k))
        k, v = np.where(noisy, noise, (k, v))
    tokens = np.stack((k, v), axis=-1).reshape(draw.batch, -1)
    targets = unscored(tokens)
    targets[:, ::2] = np.where(asked, v, targets[:, ::2])
    return tokens, targets


def fuzzy(options: FuzzyOptions, draw: Draw) -> Drawn:
    """Fuzzy recall of MAD: keys and values are one to `motif` tokens long.

    A sequence is made of P pairs, drawn with repetition and written one after the other; the last one of which it is
    certain that it fits is one that has been before. Where a key has been before, the tokens of its value are the
    targets, the first at the last token of the key. Equal keys have equal values.
    """
    keys, values = keys_of(options.vocab), values_of(options.vocab)
    k, k_length = _motifs(draw, options, keys)
    v, v_length = _motifs(draw, options, values)
    same = (k_length[:, :, None] == k_length[:, None]) & (k[:, :, None] == k[:, None]).all(axis=-1)
    first = same.argmax(axis=2)  # of equal keys the first has the say
    rows = np.arange(draw.batch)[:, None]
    pair = draw.rng.integers(options.pairs, size=(draw.batch, options.length // 2))
    fitting = options.length // (2 * options.motif)
    pair[:, fitting - 1] = pair[rows[:, 0], draw.rng.integers(fitting - 1, size=draw.batch)]
    chosen = first[rows, pair]
    asked = _seen_before(chosen)
    k, k_length, v, v_length = k[rows, chosen], k_length[rows, chosen], v[rows, chosen], v_length[rows, chosen]
    width = k_length + v_length
    start = np.cumsum(width, axis=1) - width
    # Two more places than a sequence has: what is asked at its last token, and what does not fit.
    nowhere = options.length + 1
    tokens = np.zeros((draw.batch, options.length + 2), dtype=np.int64)
    targets = unscored(tokens)
    for j in range(options.motif):
        at = np.minimum(np.where(j < k_length, start + j, nowhere), nowhere)
        tokens[rows, at] = k[..., j]
        at = np.minimum(np.where(j < v_length, start + k_length + j, nowhere), nowhere)
        tokens[rows, at] = keys + v[..., j]
        targets[rows, np.where(asked, at - 1, nowhere)] = keys + v[..., j]
    return tokens[:, : options.length], targets[:, : options.length]


def copying(options: CopyingOptions, draw: Draw) -> Drawn:
    """Selective copying of MAD (after Jing et al. 2017, arXiv:1706.02761).

    Tokens stand at random places among blanks. After them come as many tokens `copy` as there were, and the targets at
    those are the tokens in the order in which they stood.
    """
    blank, copy = options.vocab, options.vocab + 1
    read = options.length - options.copies
    content = draw.rng.integers(options.vocab, size=(draw.batch, options.copies))
    at = np.sort(distinct(draw.rng, (draw.batch, options.copies), read), axis=1)
    tokens = np.full((draw.batch, options.length), blank)
    targets = unscored(tokens)
    np.put_along_axis(tokens, at, content, axis=1)
    tokens[:, read:], targets[:, read:] = copy, content
    return tokens, targets


def compression(options: CompressionOptions, draw: Draw) -> Drawn:
    """Compression of MAD.

    A random sequence ends in a token that nothing else uses. A network of two layers reads the model's last vector and
    a position, and has to say which token stood there (`Reconstruction`). So the target of a position is its own token,
    which nobody but that network can be asked for.
    """
    content = draw.rng.integers(options.vocab, size=(draw.batch, options.length - 1))
    end = np.full((draw.batch, 1), options.vocab)
    return np.hstack((content, end)), np.hstack((content, unscored(end)))


def memorisation(options: MemorisationOptions, draw: Draw) -> Drawn:
    """Memorisation of MAD.

    Each key has a value that is the same in all sequences and that no sequence shows. A sequence consists of keys, each
    followed by a token that asks; the target there is the value.
    """
    value_of = facts(options)
    k = draw.rng.integers(len(value_of), size=(draw.batch, options.length // 2))
    tokens = np.stack((k, np.full_like(k, options.vocab)), axis=-1).reshape(draw.batch, -1)
    targets = unscored(tokens)
    targets[:, 1::2] = value_of[k]
    return tokens, targets


def facts(options: MemorisationOptions) -> Integers:
    """(keys,) the value of each key: the table that is to be learned by heart."""
    keys = keys_of(options.vocab)
    return keys + np.random.default_rng(options.table).integers(values_of(options.vocab), size=keys)


def _seen_before(names: Integers) -> Integers:
    """(B, n), whether the same name stands earlier in the row."""
    order = np.argsort(names, axis=1, kind="stable")
    ordered = np.take_along_axis(names, order, axis=1)
    again = np.zeros(names.shape, dtype=bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    found = np.empty_like(again)
    np.put_along_axis(found, order, again, axis=1)
    return found


def _motifs(draw: Draw, options: FuzzyOptions, below: int) -> tuple[Integers, Integers]:
    """(B, P, motif) tokens, and (B, P) how many of them count; the others are 0."""
    length = draw.rng.integers(1, options.motif + 1, size=(draw.batch, options.pairs))
    tokens = draw.rng.integers(below, size=(draw.batch, options.pairs, options.motif))
    return np.where(np.arange(options.motif) < length[..., None], tokens, 0), length
