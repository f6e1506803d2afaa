"""How weights are moved: every option of the optimiser and of the batches, with its default. Imports no mlx."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi
from typing import Literal

from axon_compose.learn._options import check, option

__all__ = ["Recipe"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    r"""Every option of training; command lines are made of it.

    The learning rate is a function of the part :math:`t \in [0, 1]` of the budget that is spent. After a linear warm-up
    to the peak :math:`\eta` at :math:`w`, and with the fraction :math:`f` of it that is left at the end, it is

    .. math::
        \eta \Big(f + (1 - f) \tfrac{1}{2} \big(1 + \cos \pi \tfrac{t - w}{1 - w}\big)\Big)
        \quad\text{or}\quad
        \eta \min\Big(1, 1 - (1 - f) \tfrac{t - (1 - d)}{d}\Big)

    for `cosine` (Loshchilov and Hutter 2017, arXiv:1608.03983) and `wsd`, which stays at the peak until the last part
    :math:`d` (Hu et al. 2024, arXiv:2404.06395).

    Attributes:
        batch: Sequences of a step, in all processes together where several train one model.
        length: Tokens of a sequence.
        seed: Of the weights and of the order of the data.
        learning_rate: At its peak.
        schedule: `cosine`, `wsd` or `constant`.
        warmup: Part of the budget over which the learning rate rises.
        decay: Part of the budget over which `wsd` falls.
        final: What is left of the learning rate at the end, as a part of the peak.
        optimizer: `adamw`, or `muon` for the matrices of the layers and AdamW for the rest.
        weight_decay: Of both, for what decays, times the learning rate.
        beta1: Of AdamW: how much of the mean of gradients stays.
        beta2: Of AdamW: how much of the mean of their squares stays.
        epsilon: Of AdamW.
        clip: Largest norm of the gradient; 0 does not clip.
        z_loss: Factor of the z-loss, see `axon_compose.learn.loss`.
        balance_loss: Factor of the loss that evens out the load of experts, see `axon_compose.learn.balance`.
        balance_rate: Step of the biases that even it out, where routers have them.
        segment: Layers of which only the input is kept for the backward pass (gradient checkpointing); 0 keeps all.
        accumulate: Parts of a step, one after the other, that its sequences are divided into: the same step in less
            memory.
        dtype: Of the computation: `float32`, `bfloat16` or `float16`, over weights that stay as they are; `auto` is
            bfloat16 on a GPU and float32 on a CPU.
        compile: Whether the step is compiled by MLX: `on`, `off`, or `auto`, on but for short runs on the CPU.
    """

    batch: int = option(8, "sequences of a step, of all processes together", least=1)
    length: int = option(256, "tokens of a sequence", least=1)
    seed: int = option(0, "of the weights and of the order of the data", least=0, most=2**64 - 1)
    learning_rate: float = option(3e-3, "at its peak", above=0)
    schedule: Literal["cosine", "wsd", "constant"] = option(
        "cosine", "how the learning rate falls after the warm-up", choices=("cosine", "wsd", "constant")
    )
    warmup: float = option(0.05, "part of the budget over which the learning rate rises", least=0, most=1)
    decay: float = option(0.2, "part of the budget over which wsd falls", above=0, most=1)
    final: float = option(0.1, "what is left of the learning rate at the end", least=0, most=1)
    optimizer: Literal["adamw", "muon"] = option(
        "adamw", "what moves the weights; muon the hidden matrices, and AdamW the rest", choices=("adamw", "muon")
    )
    weight_decay: float = option(0.1, "pull of the weights to zero, times the learning rate", least=0)
    beta1: float = option(0.9, "how much of the mean of gradients stays", least=0, most=0.999999)
    beta2: float = option(0.95, "how much of the mean of their squares stays", least=0, most=0.999999)
    epsilon: float = option(1e-8, "of AdamW", above=0)
    clip: float = option(1.0, "largest norm of the gradient, 0 for any", least=0)
    z_loss: float = option(0.0, "factor of the squared log partition function; 1e-4 keeps scores small", least=0)
    balance_loss: float = option(0.01, "factor of the loss that evens out experts without a bias, 0 for none", least=0)
    balance_rate: float = option(1e-3, "step of the biases that even out experts, 0 for none", least=0)
    segment: int = option(0, "layers that are computed again in the backward pass, to need less memory", least=0)
    accumulate: int = option(1, "parts of a step, one after the other, to need less memory", least=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", "of the computation; the weights stay as they are", choices=("auto", "float32", "bfloat16", "float16")
    )
    compile: Literal["auto", "on", "off"] = option(
        "auto", "whether MLX compiles the step", choices=("auto", "on", "off")
    )

    def __post_init__(self) -> None:
        """Refuse what is out of range.

        Raises:
            ValueError: Naming the option.
        """
        check(self)
        if self.batch % self.accumulate:
            raise ValueError(f"`accumulate` does not divide `batch`: {self.batch} by {self.accumulate}")

    def learning_rate_at(self, done: float) -> float:
        """The learning rate when a part of the budget is spent.

        Args:
            done: From 0 to 1, at the middle of the step, so that neither the first step nor the last is lost.
        """
        done = min(max(done, 0.0), 1.0)
        if done < self.warmup:
            return self.learning_rate * done / self.warmup
        if self.schedule == "cosine":
            after = (done - self.warmup) / (1 - self.warmup) if self.warmup < 1 else 1.0
            return self.learning_rate * (self.final + (1 - self.final) * (1 + cos(pi * after)) / 2)
        if self.schedule == "wsd" and done > 1 - self.decay:
            return self.learning_rate * (1 - (1 - self.final) * (done - 1 + self.decay) / self.decay)
        return self.learning_rate
