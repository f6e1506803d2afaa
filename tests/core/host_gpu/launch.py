"""What a kernel of MLX is built from and called with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """One call.

    Attributes:
        described: The arguments of `mx.fast.metal_kernel` or `cuda_kernel`.
        inputs: The arrays.
        called: The other arguments of the call.
    """

    described: dict
    inputs: list
    called: dict

    def __getattr__(self, name):
        for arguments in (self.described, self.called):
            if name in arguments:
                return arguments[name]
        raise AttributeError(name)
