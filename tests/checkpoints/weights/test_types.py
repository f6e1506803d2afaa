"""Every number of a parameter comes from one tensor of floats, whatever else is in the files."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from checkpoint_cases import Case, numbers

from axon_compose.checkpoints.files import CheckpointError
from axon_compose.checkpoints.files._safetensors import ITEM_BITS, NOT_IN_MLX

#: Types whose numbers are not weights.
NOT_FLOAT = ["BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64", "C64", "F8_E8M0"]


def write(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]]) -> None:
    """A safetensors file of raw bytes, of types that no library here could write."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))


def raw(dtype: str, *shape: int) -> tuple[str, tuple[int, ...], bytes]:
    return dtype, shape, bytes(ITEM_BITS[dtype] * int(np.prod(shape)) // 8)


@pytest.mark.parametrize("dtype", [*NOT_FLOAT, *sorted(NOT_IN_MLX), "F8_E4M3"])
def test_a_weight_is_a_float(dtype: str, tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", {"a.weight": raw(dtype, 4, 2)})
    with pytest.raises(CheckpointError) as caught:
        Case(tmp_path, {"a": "a"}, {"a.weight": (4, 2)}).plan()
    assert caught.value.code == "AX555"
    assert "`a.weight` is " in caught.value.message
    assert dtype in caught.value.message or "fp8 without" in caught.value.message


@pytest.mark.parametrize("dtype", [*NOT_FLOAT, *sorted(NOT_IN_MLX), "F8_E4M3"])
def test_a_dropped_tensor_may_have_any_type(dtype: str, tmp_path: Path) -> None:
    """MLX refuses a whole file for one tensor that it cannot hold: the others are read around it."""
    values = {name: numbers(3, 2, seed=seed) for seed, name in enumerate("abc")}
    halves = {"b": "F16", "c": "BF16"}
    coded = {"a": values["a"], "b": values["b"].astype(np.float16)}
    words = np.array(mx.array(values["c"]).astype(mx.bfloat16).view(mx.uint16))
    tensors = {"a.weight": ("F32", (3, 2), coded["a"].tobytes()), "gone": raw(dtype, 8), "none": raw(dtype, 0)}
    tensors |= {"b.weight": (halves["b"], (3, 2), coded["b"].tobytes()), "c.weight": ("BF16", (3, 2), words.tobytes())}
    write(tmp_path / "model.safetensors", tensors)
    shapes = {f"{name}.weight": (3, 2) for name in "abc"}
    rules = {"<x>": "<x>", "gone": None, "none": None}
    found = Case(tmp_path, rules, shapes).load()
    assert found["a.weight"].dtype == mx.float32
    assert found["b.weight"].dtype == mx.float16
    assert found["c.weight"].dtype == mx.bfloat16
    assert np.array_equal(np.array(found["a.weight"]), values["a"])
    assert np.array_equal(np.array(found["b.weight"]), coded["b"])
    assert np.array_equal(np.array(found["c.weight"].view(mx.uint16)), words)


def test_two_tensors_for_one_place_of_a_stack(tmp_path: Path) -> None:
    """The later one took the place of the earlier, and nobody was told."""
    case = Case(tmp_path, {"(a|b).<e>": {"to": "w", "stack": "e"}}, {"w.weight": (2, 3)})
    case.write({f"{name}.{e}.weight": np.full((3,), value) for name, value in (("a", 1.0), ("b", 7.0)) for e in (0, 1)})
    with pytest.raises(CheckpointError) as caught:
        case.plan()
    assert caught.value.code == "AX553"
    text = "\n".join(caught.value.details)
    assert "2 assigned twice" in text
    assert "w.weight, of a.0.weight and b.0.weight" in text
    assert "w.weight, of a.1.weight and b.1.weight" in text


@pytest.mark.parametrize(
    "tensors",
    [
        {"w": ("F32", (32, 64), bytes(4 * 32 * 64)), "w_blocks": raw("U8", 64, 1, 16), "w_scales": raw("U8", 64, 1)},
        {"w_scales": raw("U8", 64, 1), "w_blocks": raw("U8", 64, 1, 16), "w": ("F32", (32, 64), bytes(4 * 32 * 64))},
    ],
)
def test_two_forms_of_one_tensor(tensors: Any, tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", tensors)
    with pytest.raises(CheckpointError) as caught:
        Case(tmp_path, {"w": "w"}, {"w": (32, 64)}).plan()
    assert caught.value.code == "AX555"
    assert "are both stored for `w`" in caught.value.message


def test_scales_of_activations_are_left_aside(tmp_path: Path) -> None:
    case = Case(tmp_path, {"l.<l>.q": "l.<l>.q"}, {"l.0.q.weight": (2, 2)})
    scales = {
        f"l.0.{name}": np.ones(1, np.float32)
        for name in ("q.input_scale", "attn.k_scale", "attn.v_scale", "attn.prob_scale")
    }
    case.write({"l.0.q.weight": numbers(2, 2), **scales})
    assert sorted(case.plan().dropped) == sorted(scales)
    case.write({"l.0.q.weight": numbers(2, 2), "attn.other_scale": np.ones(1, np.float32)})
    with pytest.raises(CheckpointError, match=r"attn\.other_scale, which no rule matches"):
        case.plan()
    kept = Case(tmp_path, {"l.<l>.q": "l.<l>.q"}, {"l.0.q.weight": (2, 2), "l.0.q.input_scale": (1,)})
    kept.write({"l.0.q.weight": numbers(2, 2), "l.0.q.input_scale": np.float32([3.0])})
    assert np.array_equal(np.array(kept.load()["l.0.q.input_scale"]), [3.0])
