"""Routers whose experts get about as many tokens each: by a loss, or by a bias that moves with their load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import mlx.core as mx
import numpy as np

from axon_compose.learn.batches import LEFT_OUT
from axon_compose.learn.ranks import Ranks
from axon_compose.model import module_at
from axon_compose.plan import Plan, Use

__all__ = ["Balance", "falls_of", "move_biases", "switch_loss"]

#: How figures of the load are named in the metrics of a step: the largest share of an expert, as a part of an even one.
LOAD: Final = "load"
#: The parameter that counts in the choice of experts alone, by which those with a bias are balanced.
BIAS: Final = "correction_bias"


class Balance:
    r"""The load of a model's experts, and what evens it out.

    Mixtures of experts publish the scores s of their E experts and which k were chosen. For tokens that count, with the
    share :math:`f_e` of all choices that fell on expert e (an even one is 1 / E):

    * **by a loss** (Fedus et al. 2021, "Switch Transformers", arXiv:2101.03961; GShard), where nothing else balances:
      :math:`\alpha E \sum_e f_e P_e` is added for each layer, with the mean :math:`P_e` of the scores, which are made
      to sum to one. It is :math:`\alpha` for an even load.
    * **by a bias** (Wang et al. 2024, arXiv:2408.15664; DeepSeek-V3), where the router has a `correction_bias`: after a
      step, that of each expert moves by :math:`\gamma\, \mathrm{sign}(1 / E - f_e)`. No gradient is involved.

    Args:
        plan: The model.
        loss: :math:`\alpha`; 0 for none.
        rate: :math:`\gamma`; 0 for none.
        ranks: The processes that a batch is divided over: shares are those of the whole batch.
    """

    def __init__(self, plan: Plan, loss: float = 0.01, rate: float = 1e-3, ranks: Ranks | None = None) -> None:
        self.loss, self.rate, self.ranks = loss, rate, ranks or Ranks()
        #: Routers by the name of their load; a layer that runs with another's weights has a load of its own.
        self.routers: dict[str, Use] = {
            f"{layer.index}.{use.key}": use
            for layer in plan.layers
            for use in layer.uses()
            if use.spec.learning.load and "experts_of_token" not in use.params
        }

    def __bool__(self) -> bool:
        """Whether there is anything to balance."""
        return bool(self.routers)

    def figures(self, values: Mapping[str, Any], targets: mx.array) -> tuple[mx.array, dict[str, mx.array]]:
        """The loss of a pass, and the load of each router, both as sums over the tokens that count.

        Args:
            values: What the layers published.
            targets: (B, L), -100 for tokens that do not count.
        """
        counts = (targets != LEFT_OUT).astype(mx.float32).reshape(-1, 1)
        number = counts.sum()
        total, loads = mx.array(0.0), {}
        for name, shares in self._shares(values, counts).items():
            use, (scores, _) = self.routers[name], values[f"{name}.routing"]
            loads[f"{LOAD}.{name}"] = shares * number
            if self.loss and BIAS not in use.params:
                total = total + self.loss * switch_loss(scores, shares, counts) * number
        return total, loads

    def _shares(self, values: Mapping[str, Any], counts: mx.array) -> dict[str, mx.array]:
        """The shares of the experts of each router; what fell on them in all ranks is added in one message."""
        routings = {name: values[f"{name}.routing"] for name in self.routers}
        falls = [falls_of(chosen, scores.shape[-1], counts) for scores, chosen in routings.values()]
        ends = np.cumsum([each.size for each in falls])[:-1].tolist()
        together = mx.split(self.ranks.sum(mx.concatenate(falls)), ends)
        return {name: each / mx.maximum(each.sum(), 1.0) for name, each in zip(routings, together, strict=True)}

    def settle(self, model: Any, loads: Mapping[str, mx.array]) -> None:
        """Move the biases of a model, after a step.

        Args:
            model: Its parameters change in place.
            loads: The shares of each router's experts in the whole step, as `figures` named them.
        """
        for path, found in self._by_weights(loads).items():
            if self.rate:
                move_biases(module_at(model, model.path_of(path)), found, self.rate)

    def shown(self, loads: Mapping[str, mx.array]) -> dict[str, float]:
        """For metrics: of each router, how many times as many tokens its busiest expert has as with an even load."""
        found = {name: load.size * float(load.max()) for name, load in loads.items()}
        return found | ({f"{LOAD}.worst": max(found.values())} if found else {})

    def _by_weights(self, loads: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """Paths of routers with a bias, and the mean load of all layers that run with their weights."""
        together: dict[str, list[mx.array]] = {}
        for name, use in self.routers.items():
            if BIAS in use.params:
                together.setdefault(use.path, []).append(loads[f"{LOAD}.{name}"])
        return {path: mx.stack(each).mean(axis=0) for path, each in together.items()}


def falls_of(chosen: mx.array, experts: int, counts: mx.array) -> mx.array:
    """How many (E,) of the choices (..., k) of tokens that count, (tokens, 1), fell on each expert."""
    rows = chosen.reshape(counts.shape[0], -1)
    return mx.stop_gradient(mx.zeros((experts,)).at[rows].add(mx.broadcast_to(counts, rows.shape)))


def switch_loss(scores: mx.array, shares: mx.array, counts: mx.array) -> mx.array:
    """`E * sum of f_e * P_e`: scores (..., E), shares f (E,), and tokens that count, (tokens, 1)."""
    rows = scores.reshape(counts.shape[0], -1)
    probabilities = rows / mx.maximum(rows.sum(axis=-1, keepdims=True), 1e-20)
    mean = (counts * probabilities).sum(axis=0) / mx.maximum(counts.sum(), 1.0)
    return shares.size * (shares * mean).sum()


def move_biases(router: Any, load: mx.array, rate: float) -> None:
    """Raise the bias of experts with less than an even share (E,), and lower that of others, by `rate`."""
    router[BIAS] = router[BIAS] + rate * mx.sign(1 / load.size - load).astype(router[BIAS].dtype)
