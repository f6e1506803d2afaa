"""Recurrences as kernels: one launch for a whole sequence, with the states in registers or in the cache.

Each function here takes the reference implementation of a recurrence and its arguments. Where Metal or CUDA is the
default device and the sizes fit, or on the CPU with `axon-native` installed, it runs a kernel instead; everywhere else
it runs the reference. So a caller has one line for all devices, and `axon_core.cpu.reference_implementations` turns
kernels off. `axon-native` has gradients too; other derivatives, and all of those on a GPU, are the reference's.

Products with stored matrices (`native_product`), and what layers do between them (`native_norm`, `native_layer_norm`,
`native_gated`, `native_activated`, `native_rotation`, `native_convolution`, `native_causal_attention`, and of one token
`native_attention`), or all that a layer makes of a few tokens (`native_mlp`, `native_experts`, `native_routed`,
`native_heads`, `native_attended`, `native_selective`), have kernels for the CPU alone; on GPUs MLX has its own.

A kernel for a GPU reads and writes float32. Both languages have one text, the body of a function over flat arrays, in
which

    at               number of this thread in the launch; the lanes of a SIMD group (a warp) are 32 neighbours
    exponential(x)   the exponential, to the last digits
    lane_sum(x)      sum of x over the 32 lanes, the same in all of them
    a_shape          shape of the input `a`

Tests compile the generated sources of both languages as C++ and compare them with the reference implementations; the
one for CUDA also goes through NVIDIA's compiler where that is installed. The kernels have not yet run on Metal or CUDA.
"""

from __future__ import annotations

from axon_core.kernels._delta_rules import gated_delta_rule, wkv7
from axon_core.kernels._layers import (
    Routing,
    Selective,
    Stored,
    StoredNorm,
    native_attended,
    native_experts,
    native_heads,
    native_kept,
    native_mlp,
    native_routed,
    native_selective,
    readable,
)
from axon_core.kernels._linear import linear_scan
from axon_core.kernels._passes import (
    GATES,
    is_native_pass,
    native_activated,
    native_attention,
    native_causal_attention,
    native_convolution,
    native_gated,
    native_layer_norm,
    native_norm,
    native_rotation,
)
from axon_core.kernels._products import is_native, native_product
from axon_core.kernels._scan import selective_scan
from axon_core.kernels._ssd import ssd_scan

__all__ = [
    "GATES",
    "Routing",
    "Selective",
    "Stored",
    "StoredNorm",
    "gated_delta_rule",
    "is_native",
    "is_native_pass",
    "linear_scan",
    "native_activated",
    "native_attended",
    "native_attention",
    "native_causal_attention",
    "native_convolution",
    "native_experts",
    "native_gated",
    "native_heads",
    "native_kept",
    "native_layer_norm",
    "native_mlp",
    "native_norm",
    "native_product",
    "native_rotation",
    "native_routed",
    "native_selective",
    "readable",
    "selective_scan",
    "ssd_scan",
    "wkv7",
]
