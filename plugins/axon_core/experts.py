"""Expert matrices: mlx-lm's switch layers, made to work in every type on every device.

`mx.gather_mm` on the CPU takes float32 alone. `ExpertLinear` therefore works in float32 there and returns the type of
its input. It is a `SwitchLinear`, so that the recipes for LoRA and quantisation find it. Many tokens go through the
experts in blocks there (`axon_core.grouped`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchGLU, SwitchLinear, SwitchMLP

from axon_compose.machine.blas import is_reference_blas
from axon_core.activations import ACTIVATIONS, gated
from axon_core.alike import Alike, not_offered
from axon_core.cpu import fast
from axon_core.few_tokens import inherits
from axon_core.float32_products import Packing, wide
from axon_core.grouped import columns_multiplied, group, is_worth_grouping, rows_multiplied
from axon_core.kernels import GATES, Stored, is_native, native_product
from axon_core.linear import transposed_factor
from axon_core.specs.mlp import ActivationName, Limit

__all__ = ["ExpertGLU", "ExpertLinear", "ExpertMLP", "QuantizedExpertLinear"]

#: Elements of quantised experts that are unpacked at once: 256 MiB in float32.
_UNPACKED: Final = 64 << 20
#: Rows up to which the kernel of `axon-native` reads matrices of float32 faster than OpenBLAS.
_FEW: Final = 16


class ExpertLinear(SwitchLinear, metaclass=Alike):
    """One linear layer per expert, `weight` (experts, output, input); each row of the input goes to one of them."""

    alike: Final = SwitchLinear
    narrow: ClassVar[type[ExpertLinear]]

    #: Its weight may be column-major; see `axon_compose.model`.
    column_major: Final = True

    def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:
        """Multiply each row by the matrix of its expert.

        Args:
            x: Input, (..., 1, input); its leading axes broadcast with those of `indices`.
            indices: Expert of each row, (...).
            sorted_indices: Whether `indices` rise, which lets the GPU read each matrix once.

        Returns:
            Output, (..., 1, output), in the type of `x`.
        """
        weight = self["weight"]
        float32 = x.dtype == weight.dtype == mx.float32
        reads = is_native() and not self.training and not (float32 and (indices.size > _FEW or is_reference_blas()))
        if (float32 and not reads) or mx.default_device() != mx.cpu:
            return super().__call__(x, indices, sorted_indices)
        y = native_product(x, weight, indices=indices) if reads else None
        if y is None:
            y = self._widened(x.astype(mx.float32), indices, sorted_indices)
        if "bias" in self:
            y = y + mx.expand_dims(self["bias"][indices], -2)
        return y.astype(x.dtype)

    def _widened(self, rows: mx.array, indices: mx.array, sorted_indices: bool) -> mx.array:
        """The products in float32 by MLX."""
        weight = self["weight"]
        if indices.size <= self.num_experts:
            # Few rows, as in decoding: converting the matrices that are used is less than converting all.
            return rows @ weight[indices].astype(mx.float32).swapaxes(-1, -2)
        matrices = weight.astype(mx.float32).swapaxes(-1, -2)
        return mx.gather_mm(rows, matrices, rhs_indices=indices, sorted_indices=sorted_indices)

    def stored(self) -> Stored | None:
        """As of `Linear`; None in training, too."""
        weight = self["weight"]
        if self.training or type(self).__call__ is not ExpertLinear.__call__:
            return None
        if weight.dtype == mx.float32 and is_reference_blas():
            return None
        return weight, None, None, self.get("bias"), 0, 0, ""

    def in_blocks(self, x: mx.array, experts: mx.array) -> mx.array:
        """Multiply blocks of tokens by the matrices of their experts.

        Args:
            x: Input in float32, (blocks, b, input), or in training (blocks, input, b): as the weight likes it.
            experts: Expert of each block, (blocks,).

        Returns:
            Output in float32, (blocks, b, output), or in training (blocks, output, b).
        """
        weight = self["weight"].astype(mx.float32)
        y = columns_multiplied(weight, x, experts) if self.training else rows_multiplied(weight, x, experts)
        if "bias" in self:
            y = y + mx.expand_dims(self["bias"][experts], -1 if self.training else -2)
        return y

    def to_quantized(
        self, group_size: int = 64, bits: int = 4, mode: str = "affine", global_scale: bool = False
    ) -> QuantizedExpertLinear:
        """The quantised experts, as mlx-lm gives them, with products in float32 on the CPU."""
        made = QuantizedExpertLinear(self.input_dims, self.output_dims, self.num_experts, False, group_size, bits, mode)
        made._quantize(self["weight"], global_scale)
        if "bias" in self:
            made.bias = self["bias"]
        return made


class QuantizedExpertLinear(QuantizedSwitchLinear, metaclass=Alike):
    """Quantised experts; on the CPU they compute in float32, whatever type their scales and inputs have."""

    alike: Final = QuantizedSwitchLinear

    def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:
        """Multiply each row by the matrix of its expert; see `ExpertLinear`."""
        if not fast():
            return super().__call__(x, indices, sorted_indices)
        weight, scales, biases = self["weight"], self["scales"], self.get("biases")
        packing: dict[str, Any] = {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}
        y = native_product(x, weight, scales, biases, indices=indices, **packing)
        if y is None:
            y = mx.gather_qmm(
                x.astype(mx.float32),
                weight,
                wide(scales),
                wide(biases),
                rhs_indices=indices,
                transpose=True,
                global_scale=self.global_scale,
                sorted_indices=sorted_indices,
                **packing,
            )
        y = y.astype(x.dtype if biases is None else mx.result_type(x, scales))
        return y + mx.expand_dims(self["bias"][indices], -2) if "bias" in self else y

    def stored(self) -> Stored | None:
        """What kernels read of it; None where it does more."""
        if type(self).__call__ is not QuantizedExpertLinear.__call__:
            return None
        arrays = self["weight"], self["scales"], self.get("biases"), self.get("bias")
        return *arrays, self.group_size, self.bits, self.mode

    def in_blocks(self, x: mx.array, experts: mx.array) -> mx.array:
        """As in `ExpertLinear`, for inference, with the matrices unpacked for the moment."""
        packing = Packing(self.group_size, self.bits, self.mode)
        weight = packing.unpacked(self["weight"], self["scales"], self.get("biases"), self.global_scale)
        y = rows_multiplied(weight, x, experts)
        return y + mx.expand_dims(self["bias"][experts], -2) if "bias" in self else y

    def may_be_unpacked(self) -> bool:
        """Whether all matrices fit into memory in float32 beside the rest, and that is worth it."""
        bits = self.bits or (8 if self.mode == "mxfp8" else 4)
        return not self.training and not is_reference_blas() and self["weight"].size * 32 // bits <= _UNPACKED


class NarrowExpertLinear(ExpertLinear):
    """Experts whose width no group of quantised numbers divides; see `axon_core.alike`."""

    to_quantized = not_offered


ExpertLinear.narrow = NarrowExpertLinear


def _goes_in_blocks(layer: Any) -> bool:
    """Whether a layer of experts takes blocks.

    Not with an adapter, nor where a kernel puts tokens together itself; quantised where it can be unpacked.
    """
    if isinstance(layer, QuantizedExpertLinear):
        return layer.may_be_unpacked() and not is_native(layer.mode, layer.bits, layer.group_size)
    if not isinstance(layer, ExpertLinear):
        return False
    return layer.training or layer["weight"].dtype == mx.float32 or not is_native()


def _in_blocks(
    layers: Sequence[Any], x: mx.array, indices: mx.array, run: Callable[[mx.array, mx.array], mx.array]
) -> mx.array | None:
    """Run experts on blocks of tokens; None where it is not worth it, or they are not what they were made as."""
    one_token = indices.size == indices.shape[-1]
    if one_token or not fast() or not all(map(_goes_in_blocks, layers)):
        return None
    num_experts = layers[0].num_experts
    if not is_worth_grouping(indices.size, num_experts):
        return None
    groups = group(indices.reshape(-1, indices.shape[-1]), num_experts)
    rows = x.reshape(-1, x.shape[-1]).astype(mx.float32)[groups.tokens]
    training = layers[0].training
    y = run(transposed_factor(rows) if training else rows, groups.experts)
    y = (y.swapaxes(-1, -2) if training else y).flatten(0, 1)[groups.places]
    return y.reshape(*indices.shape, -1).astype(x.dtype)


class _Activation(nn.Module):
    """An activation by its name, for a compiled function cannot be copied or pickled."""

    def __init__(self, name: ActivationName, limit: Limit = None) -> None:
        super().__init__()
        self.name, self.limit = name, limit

    def __call__(self, x: mx.array, gate: mx.array | None = None) -> mx.array:
        """Of `x`, or of the gate, times `x`: the argument order of `SwitchGLU`."""
        return ACTIVATIONS[self.name](x) if gate is None else gated(self.name, gate, x, self.limit)


class ExpertGLU(SwitchGLU):
    """Gated feed-forward experts: `down(act(gate(x)) * up(x))`.

    Args:
        dims: Width of input and output.
        hidden_dims: Width of each expert.
        num_experts: Number of experts.
        activation: Activation of the gate, a name of `axon_core.activations.ACTIVATIONS`, or `swiglu_oai`.
        bias: Whether the projections have biases.
        limit: Bound of both factors (see `axon_core.activations.gated`).
    """

    def __init__(
        self,
        dims: int,
        hidden_dims: int,
        num_experts: int,
        activation: ActivationName = "silu",
        bias: bool = False,
        limit: Limit = None,
    ) -> None:
        # Not SwitchGLU's own: it would make the matrices twice.
        nn.Module.__init__(self)
        self.gate_proj = ExpertLinear(dims, hidden_dims, num_experts, bias=bias)
        self.up_proj = ExpertLinear(dims, hidden_dims, num_experts, bias=bias)
        self.down_proj = ExpertLinear(hidden_dims, dims, num_experts, bias=bias)
        self.activation = _Activation(activation, limit)

    def is_plain(self) -> bool:
        """As of `axon_core.mlp.MLP`."""
        act = self["activation"]
        if not isinstance(act, _Activation) or act.limit is not None or act.name not in GATES:
            return False
        return inherits(self, ExpertGLU, "__call__")

    def __call__(self, x: mx.array, indices: mx.array) -> mx.array:
        """What the experts `indices` (..., k) make of `x` (..., dims): (..., k, dims)."""

        def run(blocks: mx.array, experts: mx.array) -> mx.array:
            up, gate = self["up_proj"].in_blocks(blocks, experts), self["gate_proj"].in_blocks(blocks, experts)
            return self["down_proj"].in_blocks(self["activation"](up, gate), experts)

        y = _in_blocks((self["gate_proj"], self["up_proj"], self["down_proj"]), x, indices, run)
        return super().__call__(x, indices) if y is None else y


class ExpertMLP(SwitchMLP):
    """Feed-forward experts of two matrices: `fc2(act(fc1(x)))`; arguments as for `ExpertGLU`, without a limit."""

    def __init__(
        self,
        dims: int,
        hidden_dims: int,
        num_experts: int,
        activation: ActivationName = "silu",
        bias: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        self.fc1 = ExpertLinear(dims, hidden_dims, num_experts, bias=bias)
        self.fc2 = ExpertLinear(hidden_dims, dims, num_experts, bias=bias)
        self.activation = _Activation(activation)

    def __call__(self, x: mx.array, indices: mx.array) -> mx.array:
        """What the experts `indices` (..., k) make of `x` (..., dims): (..., k, dims)."""

        def run(blocks: mx.array, experts: mx.array) -> mx.array:
            return self["fc2"].in_blocks(self["activation"](self["fc1"].in_blocks(blocks, experts)), experts)

        y = _in_blocks((self["fc1"], self["fc2"]), x, indices, run)
        return super().__call__(x, indices) if y is None else y
