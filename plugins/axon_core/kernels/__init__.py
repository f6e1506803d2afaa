"""Recurrences as kernels: one launch for a whole sequence, with the states in registers or in the cache.

Each function here takes the pure form of a recurrence and what to give to it. Where Metal or CUDA is the default device
and the sizes fit, or the CPU is and `axon-native` is installed, it runs a kernel instead, and keeps the pure form for
derivatives; everywhere else it runs the pure form. So a caller has one line for all, and `axon_core.cpu.plain_forms`
turns kernels off.

A kernel for a GPU reads and writes float32. Both languages have one text, the body of a function over flat arrays, in
which

    at               number of this thread in the launch; the lanes of a SIMD group (a warp) are 32 neighbours
    exponential(x)   the exponential, to the last digits
    lane_sum(x)      sum of x over the 32 lanes, the same in all of them
    a_shape          shape of the input `a`

Tests compile the generated texts of both languages as C++ and compare them with the pure forms, and the one for CUDA
also goes through NVIDIA's compiler where that is installed. The kernels have not yet run on Metal or CUDA.
"""

from __future__ import annotations

from axon_core.kernels._delta_rules import gated_delta_rule, wkv7
from axon_core.kernels._scan import selective_scan
from axon_core.kernels._ssd import ssd_scan

__all__ = ["gated_delta_rule", "selective_scan", "ssd_scan", "wkv7"]
