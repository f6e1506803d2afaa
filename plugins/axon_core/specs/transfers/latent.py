"""Latent attention out of attention: its keys and values through one vector of low rank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from axon_compose.registry import Case, Piece, Setting, Transfer, TransferExample
from axon_core.specs._heads import head_shape
from axon_core.specs.transfers._common import ATTENTION, misfit_of_attention, ratio_fault

__all__ = ["LATENT_TRANSFERS", "LINEAR_EPS", "rotated_pairs", "same_gate"]

#: From this on, the norm of a latent divides by a constant, as far as float32 tells.
LINEAR_EPS: Final = 1e6


def rotated_pairs(case: Case) -> tuple[int, int] | str:
    """Rotated pairs of a head in the source, and those that the new layer keeps; (0, 0) for none."""
    new, old = case.options, case.source_options
    _, _, width = head_shape(old, case.source_dims)
    if old.rope is None and new.rope is not None:
        return "the source has no rotary positions: write `rope: false`"
    if old.rope is None or new.rope is None:
        return 0, 0
    for name in ("theta", "reverse", "scaling"):
        if getattr(new.rope, name) != getattr(old.rope, name):
            return f"`rope.{name}` differs from that of the source"
    before, after = old.rope.rotated(width), new.rope.rotated(new.qk_rope_head_dim)
    if before % after:
        return f"{after} rotated dimensions are no even choice of the source's {before}"
    return before // 2, after // 2


def _pieces(case: Case) -> Mapping[str, Piece] | str:
    new, old = case.options, case.source_options
    if fault := misfit_of_attention(case):
        return fault
    heads, kv_heads, width = head_shape(old, case.source_dims)
    value = old.v_head_dim or width
    if new.value_dim != value:
        return f"`v_head_dim` is {new.value_dim}, that of the source {value}"
    if fault := ratio_fault("query heads", new.num_heads, heads):
        return fault
    pairs = rotated_pairs(case)
    if isinstance(pairs, str):
        return pairs
    still = width - 2 * pairs[1]
    if new.qk_nope_head_dim < still:
        return f"`qk_nope_head_dim` is {new.qk_nope_head_dim}: {still} dimensions of a head are not rotated"
    if new.norm_eps < LINEAR_EPS and not case.settings["reads"]:
        return (
            "the norm of the latent changes its size: give `norm_eps: 1e8`, which undoes that, or in `init` as `reads` "
            "the root mean square of what the layer reads"
        )
    if new.own_indexer is not None or new.index_from is not None:
        return "an `indexer` chooses tokens, for which attention has nothing: add it later"
    for name in ("kv_from", "log_scaling", "rope_key_norm", "both_latents"):
        if getattr(new, name):
            return f"`{name}` is nothing that attention has: add it later"
    if new.rope is not None and new.rope.learned:
        return "attention learns no frequencies: leave `rope.learned` out"
    return _made(case, kv_heads, value, still, pairs)


def _made(case: Case, kv_heads: int, value: int, still: int, pairs: tuple[int, int]) -> Mapping[str, Piece]:
    new, old = case.options, case.source_options
    columns = case.dims.hidden_size + (1 if new.bias else 0)
    full, rank = min(kv_heads * (still + value), columns), new.kv_lora_rank
    lost = _lost(case, kv_heads, pairs)
    linear = new.norm_eps >= LINEAR_EPS
    exact = rank >= full and linear and not lost
    ending = f", rank {min(rank, full)} of {full}" + (f"; {lost}" if lost else "")
    ending += "" if linear else "; the norm of the latent stays"
    keys = _names(old, "k", new.bias)
    values = _names(old, "k" if old.k_eq_v else "v", new.bias)
    both = tuple(dict.fromkeys((*keys, *values)))
    rules = {
        "kv_a_proj_with_mqa.weight": (
            both,
            "directions of keys and values together, and the shared rotated key" + ending,
        ),
        "kv_a_layernorm.weight": (both, "what the norm takes away"),
        "embed_q.weight": (both, "keys of each head out of the latent" + ending),
        "unembed_out.weight": (both, "values of each head out of the latent" + ending),
        "o_proj.weight": (("o_proj.weight",), "the output, head by head"),
    }
    turning = _names(old, "k", new.bias) if pairs[1] else ()
    if new.q_lora_rank is None:
        rules["q_proj.weight"] = (
            _names(old, "q") + turning,
            "queries, still dimensions first" + (f"; {lost}" if lost else ""),
        )
    else:
        rows = new.num_heads * (new.qk_nope_head_dim + new.qk_rope_head_dim)
        exact = exact and new.q_lora_rank >= min(rows, case.dims.hidden_size)
        for name in ("q_a_proj.weight", "q_a_layernorm.weight", "q_b_proj.weight"):
            rules[name] = (_names(old, "q") + turning, f"queries, rank {new.q_lora_rank}")
    if new.bias:
        rules["kv_a_proj_with_mqa.bias"] = (both + _names(old, "q"), "biases of keys and values, through the latent")
        rules["o_proj.bias"] = (("o_proj.bias",), "the same") if old.bias.o else ((), "zero")
        if new.q_lora_rank is not None:
            rules["q_a_proj.bias"] = ((), "zero")
    if new.gate is not None:
        rules["g_proj.weight"] = (("g_proj.weight",), "the gate") if same_gate(case) else ((), "zero: half open")
    if new.sinks:
        rules["sinks"] = (("sinks",), "the sinks") if old.sinks else ((), "so low that no attention goes there")
    return {name: Piece(tuple(of), rule, "exact" if exact else "near") for name, (of, rule) in rules.items()}


def _names(old: Any, letter: str, bias: bool = False) -> tuple[str, ...]:
    names = [f"{letter}_proj.weight"]
    if bias and getattr(old.bias, letter):
        names.append(f"{letter}_proj.bias")
    if letter in "qk" and old.qk_norm is not None and old.qk_norm.weight:
        names.append(f"{letter}_norm.weight")
    return tuple(names)


def same_gate(case: Case) -> bool:
    """Whether the new layer can have the gate of the source."""
    new, old = case.options, case.source_options
    same_heads = new.num_heads == old.num_heads
    return bool(new.gate == old.gate and old.gate_activation == "sigmoid" and not old.bias.g and same_heads)


def _lost(case: Case, kv_heads: int, pairs: tuple[int, int]) -> str:
    """What a latent cannot keep of the source, in a few words; empty if it can keep all."""
    new, old = case.options, case.source_options
    heads = head_shape(old, case.source_dims)[0]
    if old.rope is not None and pairs[0] != pairs[1]:
        return "dimensions lose their rotation"
    if pairs[1] and kv_heads > 1:
        return f"rotated keys are what {kv_heads} heads have in common"
    for name in ("qk_norm", "softcap", "alibi", "v_norm", "output_norm", "clip"):
        if getattr(old, name):
            return f"`{name}` is gone"
    if old.sinks and not new.sinks:
        return "`sinks` are gone"
    if old.head_gain or old.log_scaling or old.temperature != new.temperature:
        return "factors of the queries differ"
    if old.gate is not None and not same_gate(case):
        return "`gate` differs"
    if old.bias.q or (old.bias.o and not new.bias) or ((old.bias.k or old.bias.v) and not new.bias):
        return "biases are gone"
    return "query heads are merged" if new.num_heads < heads else ""


_SMALL: Final = {"num_heads": 4, "kv_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "rope": False}

LATENT_TRANSFERS: Final = (
    Transfer(
        name="transfer",
        sources=ATTENTION,
        pieces=_pieces,
        make="axon_core.transfers.latent_attention:from_attention",
        claim="The same at full rank, without rotation or with one rotated key (or several that differ by a turn and a "
        "factor of each pair), and with a `norm_eps` of 1e8, which makes the norm of the latent a constant; else the "
        "best of that rank for inputs that are alike in all directions.",
        paper='Meng et al. 2025, "TransMLA" (arXiv:2502.07864); Ji et al. 2025, "MHA2MLA" (arXiv:2502.14837)',
        settings={
            "reads": Setting(
                0.0,
                "Root mean square of what the layer reads, which is that of the weights of the norm before it: with it "
                "the norm of the latent is undone on average. Needed with a small `norm_eps`.",
                least=0,
            )
        },
        examples=(
            TransferExample(_SMALL | {"norm_eps": 1e8}, {"num_heads": 4, "rope": False}),
            TransferExample(_SMALL | {"q_lora_rank": 20}, {"num_heads": 4, "rope": False}, settings={"reads": 1.0}),
        ),
    ),
)
