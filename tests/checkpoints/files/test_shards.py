"""Writing weights: the files are what other readers expect, and memory stays near one tensor."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from checkpoint_models import SHAPES, arrays
from safetensors import safe_open

from axon_compose.checkpoints.files import (
    TensorSpec,
    drain,
    load_weights,
    plan_shards,
    read_header,
    tensor_specs,
    write_shards,
)

INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
DTYPES = ["bool_", *INTEGERS, "float16", "bfloat16", "float32", "complex64"]


def write(folder: Path, tensors: dict[str, Any], **options: Any) -> dict[str, Any]:
    return write_shards(folder, tensor_specs(tensors), drain(tensors), **options)


def test_round_trip_through_our_reader_and_mlx(tmp_path: Path) -> None:
    write(tmp_path, arrays())
    loaded = load_weights(tmp_path, SHAPES)
    expected = arrays()
    assert {name: a.dtype for name, a in loaded.items()} == {name: a.dtype for name, a in expected.items()}
    assert all(mx.array_equal(loaded[name], expected[name]) for name in SHAPES)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_and_layout(tmp_path: Path, dtype: str) -> None:
    base = (mx.arange(24) % 5).astype(getattr(mx, dtype)).reshape(4, 6)
    made = {"plain": base, "transposed": base.T, "sliced": base[::2, 1:], "scalar": base[1, 1], "none": base[:0]}
    write(tmp_path, dict(made))
    loaded = mx.load(str(tmp_path / "model.safetensors"))
    for name, array in made.items():
        assert loaded[name].dtype == array.dtype
        assert loaded[name].shape == array.shape
        assert mx.array_equal(loaded[name], array)


def test_the_reference_reader_agrees(tmp_path: Path) -> None:
    write(tmp_path, arrays())
    with safe_open(tmp_path / "model.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "mlx"}
        assert {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()} == SHAPES  # noqa: SIM118
        values = file.get_tensor("layers.0.A_log")
    assert values.tolist() == arrays()["layers.0.A_log"].tolist()


def test_every_tensor_is_aligned_to_its_numbers(tmp_path: Path) -> None:
    odd = {
        "a": mx.zeros((3,), dtype=mx.bfloat16),
        "b": mx.zeros((5,)),
        "c": mx.zeros((1,), dtype=mx.int8),
        "d": mx.zeros((3,)),
    }
    write(tmp_path, odd)
    path = tmp_path / "model.safetensors"
    data = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    assert data % 8 == 0
    for entry in read_header(path).values():
        assert entry.start % {"F32": 4, "BF16": 2, "I8": 1}[entry.dtype] == 0


def test_shards_their_names_and_the_index(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    records = write(tmp_path, arrays(), max_shard_bytes=160, progress=lambda done, total: seen.append((done, total)))
    expected = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert sorted(records) == [*expected, "model.safetensors.index.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(records)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    total = 300 * 8 * 2 + 7 * 4 + 64 * 2 + 8 * 2
    assert index["metadata"] == {"total_size": total}
    for name, file in index["weight_map"].items():
        assert name in read_header(tmp_path / file)
    assert set(index["weight_map"]) == set(SHAPES)
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)
    for name, record in records.items():
        assert record.size == (tmp_path / name).stat().st_size
    assert set(load_weights(tmp_path, SHAPES)) == set(SHAPES)


def test_a_shard_holds_what_fits() -> None:
    specs = [TensorSpec(name, (size,), "int8") for name, size in [("a", 4), ("b", 6), ("c", 25), ("d", 3), ("e", 7)]]
    shards = plan_shards(specs, 10)
    assert [[spec.name for spec in shard.specs] for shard in shards] == [["a", "b"], ["c"], ["d", "e"]]
    assert shards[0].file == "model-00001-of-00003.safetensors"
    assert [shard.file for shard in plan_shards(specs, 45)] == ["model.safetensors"]
    assert len(plan_shards([], 10)) == 1


@pytest.mark.parametrize("names", [["a", "a"], ["__metadata__"], [""]])
def test_bad_names(names: list[str]) -> None:
    with pytest.raises(ValueError, match="unique"):
        plan_shards([TensorSpec(name, (1,), "int8") for name in names])


def test_the_tensors_must_be_those_announced(tmp_path: Path) -> None:
    specs = [TensorSpec("a", (2,), "float32")]
    wrong = {
        "other": [("b", mx.zeros((2,)))],
        "shape": [("a", mx.zeros((3,)))],
        "type": [("a", mx.zeros((2,), dtype=mx.float16))],
        "few": [],
        "many": [("a", mx.zeros((2,))), ("b", mx.zeros((2,)))],
    }
    for name, tensors in wrong.items():
        (tmp_path / name).mkdir()
        with pytest.raises(ValueError, match="announced"):
            write_shards(tmp_path / name, specs, iter(tensors))
    with pytest.raises(ValueError, match="float64 cannot be saved"):
        plan_shards([TensorSpec("a", (1,), "float64")])


def test_functions_are_called_in_their_turn(tmp_path: Path) -> None:
    calls = []

    def maker(value: float) -> Any:
        def make() -> mx.array:
            calls.append(value)
            return mx.full((4,), value)

        return make

    specs = [TensorSpec(name, (4,), "float32") for name in "abc"]
    write_shards(tmp_path, specs, ((name, maker(float(i))) for i, name in enumerate("abc")), max_shard_bytes=16)
    assert calls == [0.0, 1.0, 2.0]
    assert load_weights(tmp_path, {"b": (4,), "a": (4,), "c": (4,)})["c"].tolist() == [2.0] * 4


def test_same_arrays_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    assert write(tmp_path / "a", arrays(), max_shard_bytes=200) == write(tmp_path / "b", arrays(), max_shard_bytes=200)


MEMORY = """
import sys
from pathlib import Path
import mlx.core as mx
from axon_compose.checkpoints.files import drain, tensor_specs, write_shards
made = {str(i): mx.full((1024, 1024), i, dtype=mx.float32) + 1 for i in range(24)}
mx.reset_peak_memory()
held = list(made.values()) if sys.argv[2] == "held" else None
write_shards(Path(sys.argv[1]), tensor_specs(made), drain(made))
print(mx.get_peak_memory() / 2**22)
"""


@pytest.mark.parametrize(("mode", "low", "high"), [("dropped", 1, 4), ("held", 24, 60)])
def test_peak_memory_is_a_few_tensors_unless_somebody_holds_them(
    tmp_path: Path, mode: str, low: int, high: int
) -> None:
    command = [sys.executable, "-c", MEMORY, str(tmp_path), mode]
    peak = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)  # in tensors of 4 MiB
    assert low <= peak <= high


def test_files_begin_with_layers_and_keep_what_every_device_needs_apart() -> None:
    parts = {"q.weight": 4, "k.weight": 5, "v.weight": 1}
    layers = [TensorSpec(f"model.layers.{i}.{part}", (size,), "int8") for i in range(5) for part, size in parts.items()]
    ends = [TensorSpec(name, (8,), "int8") for name in ("model.embed.weight", "model.norm.weight", "lm_head.weight")]
    files = plan_shards([ends[0], *layers, *ends[1:]], 20)
    assert [list(shard.specs) for shard in files] == [ends[:1], layers[:6], layers[6:12], layers[12:], ends[1:]]
    assert [len(shard.specs) for shard in plan_shards(layers, 6)] == [1, 2] * 5  # each layer is above the limit
    assert [shard.file for shard in plan_shards(layers, 50)] == ["model.safetensors"]
