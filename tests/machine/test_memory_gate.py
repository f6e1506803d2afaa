"""What is counted before a model is made is what it takes, and too little memory is refused instead of running out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from axon_compose import Architecture, load
from axon_compose.checkpoints.weights import load_nbytes
from axon_compose.model._build import build_nbytes
from tests import forks
from tests.children import PATIENCE, child

MIB = 1 << 20


def description(name: str) -> dict[str, Any]:
    """Small models whose memory is in one place: a table, matrices, experts."""
    width, tokens, mlp, tied = {
        "a tied table": (256, 60_000, {"type": "mlp", "intermediate_size": 128}, True),
        "two tables": (256, 40_000, {"type": "mlp", "intermediate_size": 128}, False),
        "wide": (512, 500, {"type": "mlp", "intermediate_size": 8192}, True),
        "experts": (256, 500, {"type": "moe", "num_experts": 32, "top_k": 2, "intermediate_size": 640}, True),
    }[name]
    return {
        "version": 1,
        "name": "m",
        "dims": {"hidden_size": width, "vocab_size": tokens},
        "components": {"mlp": mlp},
        "blocks": {"a": ["mlp"]},
        "stack": "a*2",
        "head": {"tied": tied},
    }


NAMES = ("a tied table", "two tables", "wide", "experts")

#: Builds a model as `build` does, and prints the most memory that arrays took.
PEAK = """
import json, sys
import mlx.core as mx
from axon_compose import load
from axon_compose.model import try_out
data, options = json.loads(sys.argv[1])
mx.reset_peak_memory()
try_out(load(data).build(**options))
print(mx.get_peak_memory())
"""


def measured(data: dict[str, Any], **options: Any) -> int:
    """Bytes that arrays take at most, in a process of their own, loading included."""
    command = [*forks.python(), "-c", PEAK, json.dumps([data, options])]
    env = os.environ | forks.OFFLINE
    with child(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return int(out)


@pytest.mark.skipif(mx.default_device() != mx.cpu, reason="what the CPU takes")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_random_weights_and_a_first_run(name: str, dtype: str) -> None:
    plan = load(description(name)).plan()
    counted = build_nbytes(plan, dtype)
    peak = measured(description(name), dtype=dtype)
    assert peak <= counted * 1.05 + 8 * MIB
    assert counted <= 1.8 * peak


# ---- checkpoints


def stored(name: str, shape: tuple[int, ...], kind: str) -> dict[str, mx.array]:
    """A matrix under the name of its rule, stored in one way; experts may be one by one."""
    if kind == "experts one by one" and len(shape) == 3:
        base = name.removesuffix(".weight")
        return {f"{base}.{expert}.weight": mx.zeros(shape[1:], dtype=mx.bfloat16) for expert in range(shape[0])}
    if kind == "fp8" and len(shape) == 2 and "embed" not in name:
        scales = [-(-size // 128) for size in shape]
        return {name: mx.to_fp8(mx.ones(shape)), f"{name}_scale_inv": mx.ones(scales)}
    if kind == "mxfp4" and len(shape) == 3:
        experts, rows, columns = shape
        scales = [experts, columns, rows // 32]
        blocks = {"blocks": mx.zeros([*scales, 16], dtype=mx.uint8), "scales": mx.full(scales, 127, dtype=mx.uint8)}
        return {f"{name}_{end}": value for end, value in blocks.items()}
    if kind == "4 bits of MLX" and len(shape) == 2:
        packed = mx.quantize(mx.ones(shape, dtype=mx.bfloat16), group_size=64, bits=4)
        return {name.removesuffix("weight") + end: x for end, x in zip(("weight", "scales", "biases"), packed)}  # noqa: B905
    return {name: mx.zeros(shape, dtype=mx.float32 if kind == "float32" else mx.bfloat16)}


def checkpoint(name: str, folder: Path, kind: str) -> dict[str, Any]:
    """Write a checkpoint of a model, its matrices stored in one way, and return the file that reads it."""
    data = description(name)
    rules: dict[str, Any] = {}
    tensors: dict[str, mx.array] = {}
    for parameter, shape in load(data).plan().parameters():
        tensors |= stored(f"t.{parameter}", shape, kind)
        base = parameter.removesuffix(".weight")
        stacked = kind == "experts one by one" and len(shape) == 3
        rules |= {f"t.{base}.<e>": {"to": base, "stack": "e"}} if stacked else {f"t.{parameter}": parameter}
        if kind == "4 bits of MLX" and len(shape) == 2:
            rules |= {f"t.{base}": base}
    file = folder / "model.safetensors"
    mx.save_safetensors(str(file), tensors, {"format": "mlx" if "MLX" in kind else "pt"})
    if kind == "fp8":
        content = file.read_bytes()
        size = int.from_bytes(content[:8], "little")
        header = content[8 : 8 + size].replace(b'"U8"', b'"F8_E4M3"')
        file.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])
    return {**data, "huggingface": {"weights": rules}}


CASES = [
    ("wide", "bfloat16", None),
    ("wide", "bfloat16", "float32"),
    ("wide", "float32", "bfloat16"),
    ("wide", "fp8", None),
    ("two tables", "fp8", "float32"),
    ("experts", "mxfp4", None),
    ("experts", "mxfp4", "float32"),
    ("wide", "4 bits of MLX", None),
    ("wide", "4 bits of MLX", "float32"),
    ("experts", "experts one by one", None),
    ("experts", "experts one by one", "float32"),
]


def counted_of(architecture: Architecture, folder: Path, dtype: str | None) -> tuple[int, int]:
    """Bytes of the weights, and in all."""
    weights, besides = load_nbytes(architecture.load_plan(folder), architecture.plan(), dtype)
    return weights, weights + besides


@pytest.mark.skipif(mx.default_device() != mx.cpu, reason="what the CPU takes")
@pytest.mark.parametrize(("name", "kind", "dtype"), CASES)
def test_checkpoints(name: str, kind: str, dtype: str | None, tmp_path: Path) -> None:
    data = checkpoint(name, tmp_path, kind)
    architecture = load(data)
    weights, counted = counted_of(architecture, tmp_path, dtype)
    model = architecture.build(weights=tmp_path, dtype=dtype)
    assert weights == sum(value.nbytes for value in _arrays(model))
    del model
    peak = measured(data, weights=str(tmp_path), dtype=dtype)
    # A dozen arrays of 48 tokens and 8192 channels in float32 weigh as much as the packed weights of the small model.
    activations = 12 * 48 * 8192 * 4 if kind == "4 bits of MLX" else 0
    assert peak <= counted * 1.05 + 8 * MIB + activations
    assert counted <= 2 * peak


def _arrays(model: Any) -> list[mx.array]:
    from mlx.utils import tree_flatten

    return [value for _, value in tree_flatten(model.parameters())]


@pytest.mark.parametrize(("stored", "dtype"), [("bfloat16", "float32"), ("fp8", None)])
def test_what_will_be_there_is_refused_not_what_is_stored(
    stored: str, dtype: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stored bytes would fit."""
    from axon_compose.checkpoints.files import CheckpointError
    from axon_compose.machine import memory

    architecture = load(checkpoint("wide", tmp_path, stored))
    free = architecture.load_plan(tmp_path).nbytes + MIB
    monkeypatch.setattr(memory, "available", lambda: free)
    with pytest.raises(CheckpointError, match=f"AX401.*`m` {'in float32' if dtype else 'as it is stored'} needs"):
        architecture.build(weights=tmp_path, dtype=dtype)
    architecture.build(weights=tmp_path, dtype=dtype, allow_large=True)


# ---- a limit on the address space: built or refused, and nothing in between

LIMITED = """
import resource, sys
from pathlib import Path
import axon_compose.cli
import mlx.core as mx, axon_compose.model, axon_compose.checkpoints.folder, axon_core.experts
mx.eval(mx.zeros(1))
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(axon_compose.cli.main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no limit on the address space")
@pytest.mark.parametrize("name", ["a tied table", "experts"])
def test_a_limit_on_the_address_space(name: str, tmp_path: Path) -> None:
    data = checkpoint(name, tmp_path, "experts one by one" if name == "experts" else "bfloat16")
    (tmp_path / "config.json").write_text("{}")
    file = tmp_path / "m.yaml"
    file.write_text(json.dumps(data))
    plan = load(data).plan()
    random = build_nbytes(plan, "bfloat16")
    _, loaded = counted_of(load(data), tmp_path, "float32")
    _try_limits(["build", str(file), "--dtype", "bfloat16"], random)
    _try_limits(["build", str(file), "--weights", str(tmp_path), "--dtype", "float32"], loaded)


def _try_limits(command: list[str], counted: int) -> None:
    """A little less, and a little more, than what is counted and kept in reserve."""
    reserve = (768 + 128) * MIB
    codes = []
    for limit in (counted + reserve - 2 * MIB, counted + reserve + 32 * MIB):
        begin = [sys.executable, "-c", LIMITED, str(limit), *command]
        env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # each of its threads reserves addresses, too
        with child(begin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as process:
            out, err = process.communicate(timeout=PATIENCE)
        refused = process.returncode == 2 and "error[AX401]" in err
        built = process.returncode == 0 and "all finite" in out
        assert refused or built, (limit, process.returncode, out, err)
        codes.append(process.returncode)
    assert codes == [2, 0]
