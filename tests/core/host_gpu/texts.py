"""The text that MLX gives to the compiler of a device.

That of Metal is MLX's own, reported while a function is exported, for which no device is needed. That of CUDA is put
together as MLX does it (`mlx/backend/cuda/custom_kernel.cpp`), for MLX without CUDA tells none.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
import pytest

METAL_KERNEL = mx.fast.metal_kernel


def metal_text(launch):
    def exported(*arrays):
        return METAL_KERNEL(**launch.described)(inputs=list(arrays), **launch.called, verbose=True)

    blank = [mx.zeros(a.shape, a.dtype) for a in launch.inputs]
    with tempfile.TemporaryDirectory() as folder, printed() as out:
        try:
            mx.export_function(str(Path(folder) / "kernel.mlxfn"), exported, *blank)
        except RuntimeError as error:
            pytest.skip(f"this MLX tells no text without a device: {error}")
    return re.search(r"```\n(.*)\n```", out[0], re.DOTALL)[1]


@contextlib.contextmanager
def printed():
    """What C++ prints to the standard output."""
    found = []
    with tempfile.TemporaryFile() as file:
        sys.stdout.flush()
        before = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            yield found
        finally:
            os.dup2(before, 1)
            os.close(before)
            file.seek(0)
            found.append(file.read().decode())


def cuda_text(launch):
    parameters = []
    for name, array in zip(launch.input_names, launch.inputs, strict=True):
        assert array.dtype == mx.float32
        parameters.append(f"    const float* {name}")
        if f"{name}_shape" in launch.source:
            parameters.append(f"    const __grid_constant__ Shape {name}_shape")
    parameters += [f"    float* {name}" for name in launch.output_names]
    constants = "".join(f"  constexpr int {name} = {value};\n" for name, value in launch.template)
    return (
        '#include "mlx/backend/cuda/device/utils.cuh"\n\n#include <cooperative_groups.h>\n\n'
        "#define inf cuda::std::numeric_limits<float>::infinity()\n\n"
        f"{launch.header}namespace mlx::core::cu {{\n\nnamespace cg = cooperative_groups;\n\n"
        f"__global__ void custom_kernel_{launch.name}(\n" + ",\n".join(parameters) + f") {{\n{constants}\n"
        f"{launch.source}\n}}\n\n}} // namespace mlx::core::cu\n"
    )
