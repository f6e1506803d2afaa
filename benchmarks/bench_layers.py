"""Single layers and recurrences against those of mlx-lm, on the same numbers: what `everything.py` measures first.

An item is a pair of functions, ours and theirs, of the same inputs. Each side runs in a process of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from axon_compose.proof.bench import Contest, Progress, Subject, Workload, contest

__all__ = ["ITEMS", "Item", "measured"]

#: Width of the layers: 6 heads of 64, 768 channels.
WIDTH: Final = 384
WINDOW: Final = 256


@dataclass(frozen=True)
class Item:
    """Something that is measured on both sides.

    Attributes:
        name: What it is.
        theirs: What it is compared with.
        prompts: Tokens.
        training: Tokens of a forward and backward pass.
        slow: Tokens from which on the other side takes minutes: they are measured once, and with OpenBLAS alone.
        recurrent: Whether axon-native has a part in it.
    """

    name: str
    theirs: str
    prompts: tuple[int, ...]
    training: tuple[int, ...] = ()
    slow: int = 1 << 30
    recurrent: bool = False

    def workloads(self, rounds: int, *, patient: bool) -> list[Workload]:
        """What is run."""
        work = [(tokens, False) for tokens in self.prompts] + [(tokens, True) for tokens in self.training]
        return [
            Workload(tokens, 0, rounds=1 if tokens >= self.slow else rounds, training=training)
            for tokens, training in work
            if patient or tokens < self.slow
        ]


ITEMS: Final = (
    Item("axon_ssm layer", "Mamba mixer of mlx-lm", (128, 512, 2048), (512,), recurrent=True),
    Item("mamba layer with norms", "Jamba mixer of mlx-lm", (128, 512, 2048), slow=2048, recurrent=True),
    Item("selective scan, 1536 x 16", "loop of mlx-lm", (512, 2048, 8192), (1024,), recurrent=True),
    Item("selective scan, 512 x 4", "loop of mlx-lm", (512, 2048), recurrent=True),
    Item("Mamba-2 scan, 12 x 64 x 64", "ssm_attn of mlx-lm", (512, 2048), (512,), recurrent=True),
    Item("gated delta rule, 6 x 64", "loop of mlx-lm", (512, 2048), (512,), recurrent=True),
    Item("Kimi delta rule, 6 x 64", "loop of mlx-lm", (512, 2048), (512,), recurrent=True),
    Item("RWKV-7, 6 x 64", "loop of mlx-lm", (512, 2048), (512,), recurrent=True),
    Item(f"window attention, {WINDOW} tokens", "full mask, fused attention", (2048, 8192), slow=8192),
    Item("causal attention", "fused attention", (512, 2048)),
    Item("experts, 2 of 8 of 1024", "SwitchGLU of mlx-lm", (1, 8, 128, 512, 2048), (512,)),
    Item("experts in bfloat16", "SwitchGLU of mlx-lm", (512,)),
)


def measured(item: Item, rounds: int, *, patient: bool, progress: Progress | None = None) -> Contest:
    """Both sides in turns; those that take minutes only by a patient user."""
    subjects = [
        Subject(name, "bench_sides:make", {"item": item.name, "side": side})
        for side, name in (("ours", "axon-compose"), ("theirs", item.theirs))
    ]
    work = item.workloads(rounds, patient=patient)
    return Contest.of(item.name, {"dtype": "float32"}, work, contest(subjects, work, progress=progress))
