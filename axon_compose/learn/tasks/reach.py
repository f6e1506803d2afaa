"""A needle at a distance, and sequences longer than those of training."""

from __future__ import annotations

import numpy as np

from axon_compose.learn.batches import LEFT_OUT
from axon_compose.learn.tasks import recall, states
from axon_compose.learn.tasks._draw import Draw, Drawn, distinct, unscored
from axon_compose.learn.tasks.specs.reach import ExtrapolationOptions, NeedleOptions
from axon_compose.learn.tasks.specs.recall import InductionOptions, keys_of, values_of
from axon_compose.learn.tasks.specs.states import StateOptions

__all__ = ["extrapolation", "needle"]


def needle(options: NeedleOptions, draw: Draw) -> Drawn:
    """Facts, filler, questions (as the passkeys of Mohtashami and Jaggi 2023, arXiv:2305.16300).

    A sequence is F pairs of keys and values, filler from a vocabulary of its own, and the keys in another order; the
    target at each is its value. No query is nearer than `distance` tokens to its value: n layers that see W tokens
    each, their own included, do not reach it if n (W - 1) is less, whatever they learn.
    """
    facts, keys = options.facts, keys_of(options.vocab)
    k = distinct(draw.rng, (draw.batch, facts), keys)
    v = keys + draw.rng.integers(values_of(options.vocab), size=(draw.batch, facts))
    filler = options.vocab + draw.rng.integers(options.filler, size=(draw.batch, options.distance - 1))
    order = distinct(draw.rng, (draw.batch, facts), facts)
    pairs = np.stack((k, v), axis=-1).reshape(draw.batch, -1)
    tokens = np.hstack((pairs, filler, np.take_along_axis(k, order, axis=1)))
    targets = unscored(tokens)
    targets[:, -facts:] = np.take_along_axis(v, order, axis=1)
    return tokens, targets


def extrapolation(options: ExtrapolationOptions, draw: Draw) -> Drawn:
    """Length extrapolation (Anil et al. 2022, arXiv:2207.04901).

    In training a sequence of the skill has `length` tokens. Held-out ones are `factor` times as long, and only what
    lies beyond `length` is scored.
    """
    length = options.length * options.factor if draw.held_out else options.length
    if options.skill == "induction":
        tokens, targets = recall.induction(InductionOptions(length=length, vocab=options.vocab), draw)
    else:
        tokens, targets = getattr(states, options.skill)(StateOptions(length=length), draw)
    beyond = np.arange(length) >= (options.length if draw.held_out else 0)
    return tokens, np.where(beyond, targets, LEFT_OUT)
