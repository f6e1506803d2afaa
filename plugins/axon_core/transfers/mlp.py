r"""Feed-forward layers of another width.

A layer adds :math:`\sum_c d_c\, a_c(x)` over its inner channels c, with :math:`d_c` the column of `down_proj`.

* Wider: new channels with :math:`d_c = 0` change nothing. Their gate and projection are drawn as for training, so that
  a gradient reaches :math:`d_c` from the first step (zeros in all three would never move).
* Narrower: what is lost is the sum over the dropped channels. Without a text a channel is judged by the product of the
  norms of its weights, which bounds :math:`|d_c\, a_c(x)|` for inputs of one length up to a constant (magnitude
  pruning, Li et al. 2017, arXiv:1608.08710); with one, by what it was measured to carry (Muralidharan et al. 2024,
  "Minitron", arXiv:2407.14679).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from axon_compose.registry import Case
from axon_core.transfers._heads import Array, drawn

__all__ = ["by_use", "resized"]


def resized(case: Case, arrays: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """A wider layer with channels that add nothing yet, or a narrower one without its smallest channels."""
    new, old = case.options.intermediate_size, case.source_options.intermediate_size
    if new < old:
        made = _sliced(arrays, _largest(_size(arrays), new))
    else:
        made = {name: _widened(name, array, new - old, rng) for name, array in arrays.items()}
    return _completed(case, made)


def by_use(case: Case, arrays: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """A narrower layer of the channels that carried most."""
    assert case.measured is not None
    kept = _largest(np.asarray(case.measured["importance"]), case.options.intermediate_size)
    return _completed(case, _sliced(arrays, kept))


def _completed(case: Case, made: dict[str, Array]) -> dict[str, Array]:
    """With biases of zero and a gain of one where the source has none, and the gate's factor in the gate's weights."""
    options = case.options
    factor = np.float32(case.source_options.gate_scale / options.gate_scale)
    found = {name: array * factor if name.startswith("gate_proj") else array for name, array in made.items()}
    if options.gain:
        found.setdefault("gain", np.ones(1, np.float32))
    if not options.bias:
        return {name: array for name, array in found.items() if not name.endswith(".bias")}
    for name in [name for name in found if name.endswith(".weight")]:
        found.setdefault(name.replace("weight", "bias"), np.zeros(len(found[name]), np.float32))
    return found


def _whole(name: str) -> bool:
    """Whether a parameter has nothing for each channel."""
    return name in ("down_proj.bias", "gain") or name.startswith("act_fn.")


def _largest(figures: Array, count: int) -> np.ndarray:
    """Indices of the largest figures, in rising order."""
    return np.sort(np.argsort(-figures, kind="stable")[:count])


def _size(arrays: Mapping[str, Array]) -> Array:
    """The product of the norms of each channel's weights, (channels,)."""
    size = np.linalg.norm(arrays["down_proj.weight"], axis=0) * np.linalg.norm(arrays["up_proj.weight"], axis=1)
    gate = arrays.get("gate_proj.weight")
    return size if gate is None else size * np.linalg.norm(gate, axis=1)


def _sliced(arrays: Mapping[str, Array], kept: np.ndarray) -> dict[str, Array]:
    made = {}
    for name, array in arrays.items():
        if name == "down_proj.weight":
            array = array[:, kept]
        elif not _whole(name):
            array = array[kept]
        made[name] = array
    return made


def _widened(name: str, array: Array, more: int, rng: np.random.Generator) -> Array:
    if name == "down_proj.weight":
        return np.pad(array, ((0, 0), (0, more)))
    if _whole(name):
        return array
    if array.ndim == 1:
        return np.pad(array, (0, more))
    return np.concatenate([array, drawn(rng, more, array.shape[1])])
