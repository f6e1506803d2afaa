"""Arrays by heads, and the projections of attention as other layers take them over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from axon_compose.registry import Case, Normal
from axon_core.specs._heads import HeadNormOptions, head_shape

__all__ = ["NO_SINK", "Array", "Projections", "by_heads", "drawn", "read_attention", "spread"]

Array = npt.NDArray[np.float32]

#: A sink's score of which the exponential is 0 beside that of any other, and which float16 holds.
NO_SINK: Final = -30000.0


def by_heads(rows: Array, heads: int) -> Array:
    """(heads * width, ...) to (heads, width, ...)."""
    return rows.reshape(heads, -1, *rows.shape[1:])


def spread(array: Array, new: int, axis: int = 0) -> Array:
    """Other numbers of heads along an axis: each repeated, or neighbours merged by their mean.

    Query heads share key/value heads in order, so neighbours stay with neighbours.
    """
    old = array.shape[axis]
    if new >= old:
        return np.repeat(array, new // old, axis=axis)
    shape = (*array.shape[:axis], new, old // new, *array.shape[axis + 1 :])
    return array.reshape(shape).mean(axis=axis + 1, dtype=np.float64).astype(np.float32)


def drawn(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """A matrix as training draws one that has no other declaration, (rows, columns)."""
    shape = (rows, columns)
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(Normal().deviation(shape, 1))


@dataclass(frozen=True, slots=True)
class Projections:
    """What attention multiplies with, by heads, with constant factors and the scales of norms in it.

    Attributes:
        q: Of queries, (H, W, D).
        k: Of keys, (K, W, D).
        v: Of values, (K, V, D).
        o: Of the output, (D, H, V).
        q_bias: (H, W), zeros where there is none; and so on.
        k_bias: (K, W).
        v_bias: (K, V).
        o_bias: (D,).
    """

    q: Array
    k: Array
    v: Array
    o: Array
    q_bias: Array
    k_bias: Array
    v_bias: Array
    o_bias: Array


def read_attention(case: Case, arrays: Mapping[str, Array], *, scaled: bool = True) -> Projections:
    """The projections of an attention layer that is the source of a case.

    Constant factors (`input_scale`, `key_scale`, `value_scale`) are multiplied in, and so are the learned scales of the
    norms of queries and keys, so that channels keep their weight against each other; the division by their length is
    left to the layer that takes them over. The softmax scale is not in it.

    Args:
        case: Both layers.
        arrays: Of the source.
        scaled: Whether the scales of the norms are multiplied in.
    """
    options: Any = case.source_options
    heads, kv_heads, width = head_shape(options, case.source_dims)
    value = options.v_head_dim or width
    sizes = {"q": heads * width, "k": kv_heads * width, "v": kv_heads * value}
    read, bias = {}, {}
    for name, size in sizes.items():
        stored = "k" if name == "v" and options.k_eq_v else name
        factor = options.key_scale if stored == "k" else 1.0
        read[name] = arrays[f"{stored}_proj.weight"] * np.float32(options.input_scale * factor)
        bias[name] = arrays.get(f"{stored}_proj.bias", np.zeros(size, np.float32)) * np.float32(factor)
    for each in (read, bias):
        each["v"] = each["v"] * np.float32(options.value_scale)
        norm = options.qk_norm if scaled else None
        each["q"] = _scaled(each["q"], "q", heads, width, norm, arrays)
        each["k"] = _scaled(each["k"], "k", kv_heads, width, norm, arrays)
    return Projections(
        by_heads(read["q"], heads),
        by_heads(read["k"], kv_heads),
        by_heads(read["v"], kv_heads),
        arrays["o_proj.weight"].reshape(-1, heads, value),
        by_heads(bias["q"], heads),
        by_heads(bias["k"], kv_heads),
        by_heads(bias["v"], kv_heads),
        arrays.get("o_proj.bias", np.zeros(case.dims.hidden_size, np.float32)),
    )


def _scaled(
    rows: Array, name: str, heads: int, width: int, norm: HeadNormOptions | None, arrays: Mapping[str, Array]
) -> Array:
    """Rows (heads * width, ...) times the scale of their norm."""
    learned = arrays.get(f"{name}_norm.weight")
    if norm is None or learned is None:
        return rows
    scale = np.broadcast_to((learned + np.float32(norm.offset)).reshape(-1, width), (heads, width)).reshape(-1)
    return rows * scale.reshape(-1, *[1] * (rows.ndim - 1))
