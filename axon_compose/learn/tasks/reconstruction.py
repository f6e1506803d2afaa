"""The decoder of the compression task: all tokens of a sequence, from the model's last vector."""

from __future__ import annotations

from typing import Any, Final

import mlx.core as mx
import mlx.nn as nn

from axon_compose.model import LanguageModel

__all__ = ["Reconstruction"]

#: Positions that have a vector: those of the longest sequence that the task can have.
_POSITIONS: Final = 512


class Reconstruction(LanguageModel):
    r"""A model, and a network of two layers that reads its last vector (MAD, arXiv:2403.17844).

    With the model's last hidden vector h and a vector :math:`p_i` that is learned for each position,

    .. math:: z_i = W_2 \, \mathrm{gelu}(W_1 (h + p_i))

    stands where the hidden vector of position i was, and the model's own head reads it. So nothing reaches the answer
    but through h.

    Args:
        model: Whose modules are trained; they keep their names.
    """

    def __init__(self, model: LanguageModel) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(model.__dict__)
        dict.update(self, model)
        width = int(model.plan.dims.hidden_size)
        self.up, self.down = nn.Linear(width, 2 * width, bias=False), nn.Linear(2 * width, width, bias=False)
        self.positions = nn.Embedding(_POSITIONS, width)

    def hidden(self, inputs: mx.array, cache: list[Any] | None = None) -> mx.array:
        """(B, L, D), of which no position knows more than the last vector of the model."""
        last = super().hidden(inputs, cache)[:, -1:]
        read = last + self.positions(mx.arange(inputs.shape[1]))
        found: mx.array = self.down(nn.gelu(self.up(read)))
        return found
