"""A stand-in for a GPU: kernels of MLX, in Metal or CUDA, compiled as C++ and run on the host.

`lanes.h` lets the threads of a SIMD group take turns; beside it stand headers with what the kernels use of either
language. Arrays lie between margins of NaN, so that what is read or written outside of them is seen.
"""

from __future__ import annotations

from host_gpu.launch import Launch
from host_gpu.run import COMPILER, run
from host_gpu.texts import cuda_text, metal_text

__all__ = ["COMPILER", "HostGPU", "Launch"]


class HostGPU:
    """A device with `metal_kernel` or `cuda_kernel`; keeps what was launched."""

    def __init__(self, language, folder):
        self.language, self.folder, self.launches = language, folder, []

    def kernel(self, **described):
        def launch(inputs, **called):
            self.launches.append(Launch(described, inputs, called))
            return run(self.launches[-1], self.text(), self.language, self.folder)

        return launch

    def text(self):
        """What MLX would compile for the last launch."""
        launch = self.launches[-1]
        return metal_text(launch) if self.language == "metal" else cuda_text(launch)
