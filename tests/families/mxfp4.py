"""Weights in mxfp4, as gpt_oss is published: 32 values of 4 bits (E2M1) share a power of two.

The format is that of the OCP Microscaling Formats (MX) Specification v1.0. The experts of a layer are stored as
(experts, out, in): `blocks` (E, out, in / 32, 16) uint8 with the earlier value in the low half of a byte, `scales`
(E, out, in / 32) uint8, the exponent + 127.
"""

from __future__ import annotations

import numpy as np

VALUES = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
BLOCK = 32


def quantize(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Blocks and scales of a weight (E, out, in)."""
    parts = np.ascontiguousarray(weight, dtype=np.float64).reshape(*weight.shape[:-1], -1, BLOCK)
    # The largest value of a block comes to lie in [4, 8); what is above 6 becomes 6.
    exponent = np.floor(np.log2(np.abs(parts).max(axis=-1))) - 2
    scaled = parts / np.exp2(exponent)[..., None]
    code = np.abs(np.abs(scaled)[..., None] - VALUES).argmin(axis=-1) + 8 * (scaled < 0)
    blocks = code[..., 0::2] | code[..., 1::2] << 4
    return blocks.astype(np.uint8), (exponent + 127).astype(np.uint8)


def dequantize(blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The weight (E, out, in) in float32; every value is exact."""
    code = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*blocks.shape[:-1], BLOCK)
    values = np.where(code < 8, VALUES[code % 8], -VALUES[code % 8]) * np.exp2(
        scales[..., None].astype(np.float64) - 127
    )
    return values.reshape(*blocks.shape[:-2], -1).astype(np.float32)
