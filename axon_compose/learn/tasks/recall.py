"""Multi-query associative recall, and induction."""

from __future__ import annotations

import numpy as np

from axon_compose.learn.tasks._draw import Draw, Drawn, distinct, unscored
from axon_compose.learn.tasks.specs.recall import InductionOptions, MqarOptions, keys_of, values_of

__all__ = ["induction", "mqar"]


def mqar(options: MqarOptions, draw: Draw) -> Drawn:
    r"""Multi-query associative recall (Arora et al. 2023, Zoology, arXiv:2312.04927).

    A sequence begins with P pairs of different keys and values, $k_1 v_1 \dots k_P v_P$. In the rest each key stands
    once more, and the target there is its value. Every other token is a random value, so that before its query a key
    stands in its pair alone, however small the vocabulary is (Zoology draws them from all 8192 tokens). The query of
    the i-th pair is at the g-th place for queries, and the g are drawn without replacement with

    $$p(g) \propto g^{a - 1}$$

    where a is `power`: as in text, most repeat soon, and some late. Places for queries are every second token.
    """
    pairs, keys, values = options.pairs, keys_of(options.vocab), values_of(options.vocab)
    k = distinct(draw.rng, (draw.batch, pairs), keys)
    v = keys + draw.rng.integers(values, size=(draw.batch, pairs))
    tokens = keys + draw.rng.integers(values, size=(draw.batch, options.tokens))
    targets = unscored(tokens)
    tokens[:, 0 : 2 * pairs : 2], tokens[:, 1 : 2 * pairs : 2] = k, v
    places = (options.tokens - 2 * pairs) // 2
    weight = (options.power - 1) * np.log(np.arange(1, places + 1))
    # The largest of log p + Gumbel noise are a draw without replacement, in its order.
    chosen = np.argsort(-(weight + draw.rng.gumbel(size=(draw.batch, places))), axis=1)[:, :pairs]
    at = 2 * pairs + 2 * chosen
    np.put_along_axis(tokens, at, k, axis=1)
    np.put_along_axis(targets, at, v, axis=1)
    return tokens, targets


def induction(options: InductionOptions, draw: Draw) -> Drawn:
    """Induction heads (Olsson et al. 2022, arXiv:2209.11895).

    A sequence repeats with a period between a quarter and half of its length, drawn for each sequence; a period holds
    no token twice. Scored is every place from the first repetition on: what comes next is what came after this token
    before. A model that copies from a fixed distance does not get it, since the distance differs between sequences.
    """
    period = draw.rng.integers(options.length // 4, options.length // 2 + 1, size=(draw.batch, 1))
    once = distinct(draw.rng, (draw.batch, options.length // 2), options.vocab)
    at = np.arange(options.length + 1)
    repeated = np.take_along_axis(once, at % period, axis=1)
    tokens, following = repeated[:, :-1], repeated[:, 1:]
    return tokens, np.where(at[:-1] >= period, following, unscored(tokens))
