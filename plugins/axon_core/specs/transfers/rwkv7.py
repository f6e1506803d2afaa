"""RWKV-7's time mixing out of attention: what it takes of its projections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from axon_compose.registry import Case, Piece, Transfer, TransferExample
from axon_core.specs.transfers._common import ATTENTION
from axon_core.specs.transfers.recurrent import (
    CLAIM,
    HALF_LIFE,
    ROWS,
    SIZE,
    SLOW,
    SMALL,
    misfit,
    near,
    read_names,
)

__all__ = ["RWKV7_TRANSFERS"]


def _time_mix(case: Case) -> Mapping[str, Piece] | str:
    new = case.options
    each = (new.heads(case.dims.hidden_size), new.head_dim)
    if fault := misfit(case, {"query": each, "key": each, "value": each}):
        return fault
    projections = {
        f"{name}_proj.weight": (read_names(case, of), ROWS[of]) for name, of in zip("rkv", "qkv", strict=True)
    }
    low_rank = "wagv" if new.value_from is not None else "wag"
    mixed = {"v_lora.lora.2.bias": ("", f"a thousandth of the values of `{new.value_from}`")}
    return near(
        **projections,
        **{f"x_{name}": ("", "zero: the current token alone") for name in "rwkvag"},
        **{f"{name}_lora.lora.0.weight": ("", "zero: the same for every token") for name in low_rank},
        **(mixed if new.value_from is not None else {}),
        **{
            "w_lora.lora.2.bias": SLOW,
            "a_lora.lora.2.bias": ("", "zero: half of what a key holds is removed, and half of the new value written"),
            "g_lora.lora.2.weight": ("", "as for training, with rows of the sum that makes the gate one"),
            "k_k": ("", "one"),
            "k_a": ("", "one"),
            "r_k": ("", "zero: no token skips the state"),
            "g_norm.weight": ("", "one"),
            "g_norm.bias": ("", "zero"),
            "o_proj.weight": (f"o_proj.weight {read_names(case, 'v')}", SMALL),
        },
    )


RWKV7_TRANSFERS: Final = (
    Transfer(
        name="transfer",
        sources=ATTENTION,
        pieces=_time_mix,
        make="axon_core.transfers.rwkv7:from_attention",
        claim=f"{CLAIM}; values are written by half under keys of length one, times the length that the key had.",
        paper='Goldstein et al. 2025, "RADLADS" (arXiv:2505.03005)',
        settings={"half_life": HALF_LIFE, "size": SIZE},
        examples=(
            TransferExample({"num_heads": 4, "head_dim": 16}, {"num_heads": 4, "num_kv_heads": 2}),
            TransferExample({"num_heads": 2, "head_dim": 16, "gate_low_rank_dim": 8}, {"num_heads": 4, "bias": True}),
        ),
    ),
)
