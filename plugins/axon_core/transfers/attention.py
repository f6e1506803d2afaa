r"""Attention out of attention: other numbers of heads.

Query head :math:`h` of :math:`H` reads key/value head :math:`\lfloor h K / H \rfloor` of :math:`K`, and the layer adds
:math:`\sum_h O_h\, a_h(x)` to the stream, with :math:`a_h` what head h attends to. So

* key/value heads may be repeated, each for a part of the queries that shared it: nothing changes;
* r copies of a query head give the same sum if each has :math:`O_h / r`: nothing changes (Net2Net, Chen et al. 2016,
  arXiv:1511.05641);
* a head can be parted into r with its queries and keys, each with a part of its values and of the columns of
  :math:`O_h`: nothing changes;
* neighbouring key/value heads can be merged by their mean, which is the same if they were equal and otherwise what
  uptraining best starts from (Ainslie et al. 2023, "GQA", arXiv:2305.13245, figure 4: mean before first before random);
* neighbouring query heads can be merged by the mean of :math:`Q` and the sum of :math:`O`, likewise.

A window, sinks of no weight, gains of one and a gate that is the same everywhere change nothing either, the window for
texts that fit into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log

import numpy as np

from axon_compose.registry import Case
from axon_core.specs.attention import attention_params, head_shape
from axon_core.specs.transfers.attention import neutral_gate, pieces_by_heads
from axon_core.transfers._heads import NO_SINK, Array, by_heads, spread

__all__ = ["heads", "split"]


def heads(case: Case, arrays: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """Attention with other numbers of heads, and with further parts at neutral values."""
    shapes = attention_params(case.options, case.dims)
    pieces = pieces_by_heads(case, attention_params)
    assert not isinstance(pieces, str), pieces
    queries, keys, _ = head_shape(case.options, case.dims)
    old_queries, old_keys, _ = head_shape(case.source_options, case.source_dims)
    made = {}
    for name, piece in pieces.items():
        if not piece.sources:
            made[name] = np.full(shapes[name], _neutral(name), np.float32)
            continue
        array = arrays[piece.sources[0]]
        new, old = (keys, old_keys) if name.startswith(("k_", "v_")) else (queries, old_queries)
        if name == "o_proj.weight":
            # Of copies each has its share; of merged heads the sum is the mean as often as they were.
            array = spread(array.reshape(len(array), old, -1), new, axis=1) * np.float32(old / new)
            array = (array / np.float32(_gate(case))).reshape(shapes[name])
        elif array.shape != shapes[name]:
            array = spread(by_heads(array, old), new).reshape(shapes[name])
        made[name] = array
    return made


def split(case: Case, arrays: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """Attention whose heads are parted, each with a part of the old head's values."""
    queries, keys, _ = head_shape(case.source_options, case.source_dims)
    parts = head_shape(case.options, case.dims)[0] // queries
    made = {}
    for name, shape in attention_params(case.options, case.dims).items():
        array = arrays[name]
        old = keys if name.startswith(("k_", "v_")) else queries
        if name == "o_proj.weight":
            columns = array.T.reshape(keys, queries // keys, parts, -1, len(array))
            array = columns.swapaxes(1, 2).reshape(-1, len(array)).T
        elif name.startswith("v_proj"):
            pass  # the parts of a head lie one after the other
        elif name.startswith("g_proj") and case.options.gate == "elementwise":
            array = array.reshape(keys, queries // keys, parts, -1, *array.shape[1:]).swapaxes(1, 2)
        elif name not in ("o_proj.bias", "profiles") and "_norm" not in name:
            # Query heads that shared a key/value head stay together, once for each of its parts.
            grouped = by_heads(array, old).reshape(keys, 1, old // keys, -1)
            array = np.repeat(grouped, parts, axis=1)
        made[name] = np.ascontiguousarray(array.reshape(shape))
    return made


def _neutral(name: str) -> float:
    return {"sinks": NO_SINK, "head_gain": 1.0, "log_scaling.bias": 1.0}.get(name, 0.0)


def _gate(case: Case) -> float:
    """What a new gate gives everywhere while its projection is zero."""
    if not neutral_gate(case):
        return 1.0
    return 0.5 if case.options.gate_activation == "sigmoid" else log(2)
