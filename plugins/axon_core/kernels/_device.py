"""The language of the device, and kernels that are built in it when they are first needed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal, NamedTuple

import mlx.core as mx

from axon_core.cpu import reference_only

__all__ = ["LANES", "Kernel", "Language", "language"]

Language = Literal["metal", "cuda"]

#: Threads that run in step, on Apple's GPUs and on NVIDIA's.
LANES: Final = 32


def language() -> Language | None:
    """The language of kernels on the default device; None on the CPU, and if the reference is asked for."""
    if mx.default_device() != mx.gpu or reference_only():
        return None
    if mx.metal.is_available():
        return "metal"
    return "cuda" if mx.cuda.is_available() else None


class _Dialect(NamedTuple):
    """What a language calls the words of the bodies."""

    header: str
    prologue: str


_DIALECTS: Final[dict[Language, _Dialect]] = {
    "metal": _Dialect(
        header="""
#include <metal_stdlib>
inline float exponential(float x) { return metal::precise::exp(x); }
inline float lane_sum(float x) { return metal::simd_sum(x); }
""",
        # MLX declares the attributes that it finds in the body, not those in the header.
        prologue="""
    const size_t at = thread_position_in_grid.x;
""",
    ),
    "cuda": _Dialect(
        header="""
__device__ inline float exponential(float x) { return expf(x); }
__device__ inline float lane_sum(float x) {
    for (int other = 16; other > 0; other /= 2) { x += __shfl_xor_sync(0xffffffffu, x, other); }
    return x;
}
""",
        prologue="""
    const size_t at = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
""",
    ),
}


@dataclass(frozen=True)
class Kernel:
    """A function over float32 arrays in both languages.

    Attributes:
        name: An identifier.
        inputs: Names of the inputs.
        outputs: Names of the outputs.
        group: Threads that are launched together. CUDA fills the last group up: the body returns for an `at` too large.
        body: The source, in the words that the package documents.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    group: int
    body: str

    def __call__(
        self, *arrays: mx.array, shapes: list[tuple[int, ...]], threads: int, **constants: int
    ) -> list[mx.array]:
        """Launch it on the default device, which must be one with a `language`.

        Args:
            *arrays: The inputs, float32; MLX copies those that are not contiguous.
            shapes: Those of the outputs.
            threads: How many to launch.
            **constants: Numbers that the body is compiled for.
        """
        spoken = language()
        assert spoken is not None, "no kernel without a GPU"
        return _built(self, spoken)(
            inputs=list(arrays),
            template=list(constants.items()),
            grid=(threads, 1, 1),
            threadgroup=(self.group, 1, 1),
            output_shapes=shapes,
            output_dtypes=[mx.float32] * len(shapes),
        )


@cache
def _built(kernel: Kernel, spoken: Language) -> Any:
    dialect = _DIALECTS[spoken]
    source = dialect.prologue + kernel.body
    # On CUDA, MLX keeps what it has compiled on disk under the name alone: another text needs another name.
    digest = hashlib.sha256((dialect.header + source).encode()).hexdigest()[:8]
    build = mx.fast.metal_kernel if spoken == "metal" else mx.fast.cuda_kernel
    return build(
        name=f"axon_{kernel.name}_{digest}",
        input_names=list(kernel.inputs),
        output_names=list(kernel.outputs),
        source=source,
        header=dialect.header,
    )
