"""Linear attention and state spaces out of attention: what each takes of its projections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from axon_compose.registry import Case, Piece, Setting, Transfer, TransferExample
from axon_core.specs._heads import head_shape
from axon_core.specs.transfers._common import ATTENTION, misfit_of_attention, ratio_fault

__all__ = [
    "CLAIM",
    "DELTA_TRANSFERS",
    "HALF_LIFE",
    "KIMI_TRANSFERS",
    "LIGHTNING_TRANSFERS",
    "MAMBA2_TRANSFERS",
    "ROWS",
    "SIZE",
    "SLOW",
    "SMALL",
    "closed_by_norm",
    "keeps_norms",
    "misfit",
    "near",
    "read_names",
]

HALF_LIFE: Final = Setting(
    1024.0, "Tokens after which the slowest head has forgotten half; the fastest takes a 64th of that.", least=1
)
_TAP: Final = Setting(
    0.5,
    "Tap of the current token in the convolutions, others are 0; a small one keeps the activation nearly linear.",
    0,
)
SIZE: Final = Setting(
    0.03,
    "Size of what the layer gives after its norm, beside that of values: attention averages those of many tokens.",
    least=0,
)
_SIZE_HALF_OPEN: Final = Setting(
    0.03, "The same as of `kimi_delta_attention`, for a gate that is half open: `gate_activation: sigmoid`.", least=0
)
_GATE: Final = Setting(
    "closed",
    "closed: the layer adds nothing until it is trained; random: as for training from the start.",
    choices=("closed", "random"),
)
_MAMBA_IN_LLAMA: Final = 'Wang et al. 2024, "The Mamba in the Llama" (arXiv:2408.15237)'
_APRIEL: Final = 'Ostapenko et al. 2025, "Apriel-H1" (arXiv:2511.02651)'


def misfit(case: Case, sizes: Mapping[str, tuple[int, int]]) -> str | None:
    """Why a layer cannot take over attention's projections.

    Args:
        case: Both layers.
        sizes: Number of heads and their width in the new layer, for `query`, `key` and `value`.
    """
    if fault := misfit_of_attention(case):
        return fault
    heads, kv_heads, width = head_shape(case.source_options, case.source_dims)
    value = case.source_options.v_head_dim or width
    for what, old, wide in (("query", heads, width), ("key", kv_heads, width), ("value", kv_heads, value)):
        new, new_wide = sizes[what]
        if new_wide != wide:
            return f"the width of a {what} is {new_wide}, in the source {wide}"
        if fault := ratio_fault(f"{what} heads", new, old):
            return fault
    return ratio_fault("heads of the output", sizes["value"][0], heads)


def near(**rules: tuple[str, str]) -> dict[str, Piece]:
    """Pieces out of parameters of the source, separated by spaces, and rules."""
    return {name: Piece(tuple(sources.split()), rule, "near") for name, (sources, rule) in rules.items()}


def read_names(case: Case, letters: str) -> str:
    """Names of the source's projections, by letter, with what is multiplied into them."""
    old = case.source_options
    letters = letters.replace("v", "k") if old.k_eq_v else letters
    names = [f"{letter}_proj.weight" for letter in dict.fromkeys(letters)]
    if old.qk_norm is not None and old.qk_norm.weight:
        names += [f"{letter}_norm.weight" for letter in "qk" if letter in letters]
    return " ".join(names)


def _read_biases(case: Case, letters: str) -> str:
    """Names of the biases that those projections have, with what is multiplied into them; empty for none."""
    old = case.source_options
    had = "".join(name for name in letters if getattr(old.bias, "k" if name == "v" and old.k_eq_v else name))
    return read_names(case, had).replace("proj.weight", "proj.bias")


_TAPS: Final = ("", "the current token alone")
SLOW: Final = ("", "half-lives that are spread over the heads")
_OUTPUT: Final = "the output, head by head, times the size of values, which the norm takes away"
SMALL: Final = "the output, head by head, times a part of the size of values, which the norm takes away"
_SMALL_HALF: Final = f"{SMALL}, and twice that for the gate"
_SILENT: Final = ("", "zero: the layer adds nothing yet")
_HALF_OPEN: Final = ("", "zero: the gate is half open")


def _delta(case: Case) -> Mapping[str, Piece] | str:
    new = case.options
    key_heads, key_dim, heads, value_dim = new.head_shapes()
    keys = (key_heads, key_dim)
    if fault := misfit(case, {"query": keys, "key": keys, "value": (heads, value_dim)}):
        return fault
    if new.separate:
        projections = {f"{name}_proj.weight": (read_names(case, name), ROWS[name]) for name in "qkv"}
        taps = {f"{name}_conv1d.weight": _TAPS for name in "qkv"}
    else:
        projections = {"in_proj_qkv.weight": (read_names(case, "qkv"), "queries, keys and values, head by head")}
        taps = {"conv1d.weight": _TAPS}
    half_open = new.gate_activation == "sigmoid"
    closed = _HALF_OPEN if half_open else _SILENT
    gate = {"in_proj_z.weight": closed} if case.settings["gate"] == "closed" else {}
    return near(
        **projections,
        **taps,
        **gate,
        **{
            "in_proj_a.weight": ("", "zero: decays are the same for every token"),
            "in_proj_b.weight": ("", "zero: every token is written by half, or wholly with `neg_eigval`"),
            "A_log": SLOW,
            "dt_bias": ("", "zero"),
            "norm.weight": ("", "one"),
            "out_proj.weight": (f"o_proj.weight {read_names(case, 'v')}", _SMALL_HALF if half_open else _OUTPUT),
        },
    )


def _kimi(case: Case) -> Mapping[str, Piece] | str:
    new = case.options
    each = (new.num_heads, new.head_dim)
    if fault := misfit(case, {"query": each, "key": each, "value": each}):
        return fault
    projections = {f"{name}_proj.weight": (read_names(case, name), ROWS[name]) for name in "qkv"}
    zero = {"f": ("", "zero: decays are the same for every token"), "g": _HALF_OPEN}
    return near(
        **projections,
        **{f"{name}_conv.conv.weight": _TAPS for name in "qkv"},
        **{f"{name}_{'b_' if name in new.low_rank else ''}proj.weight": rule for name, rule in zero.items()},
        **{
            "b_proj.weight": ("", "zero: every token is written by half, or wholly with `neg_eigval`"),
            "A_log": SLOW,
            "dt_bias": ("", "what the half-lives need"),
            "o_norm.weight": ("", "one"),
            "o_proj.weight": (f"o_proj.weight {read_names(case, 'v')}", _SMALL_HALF),
        },
    )


def keeps_norms(case: Case) -> bool:
    """Whether lightning attention has the norms of queries and keys that the source has, for as many heads."""
    new, old = case.options, case.source_options
    heads, kv_heads, _ = head_shape(old, case.source_dims)
    return new.qk_norm is not None and new.qk_norm == old.qk_norm and heads == kv_heads == new.num_heads


def _lightning(case: Case) -> Mapping[str, Piece] | str:
    new = case.options
    width, _ = new.widths(case.dims.hidden_size)
    each = (new.num_heads, width)
    if fault := misfit(case, {"query": each, "key": each, "value": each}):
        return fault
    rules = {
        "query_key_value.weight": (read_names(case, "qkv"), "queries, keys and values, head by head"),
        "g_proj.weight": _HALF_OPEN,
        "g_norm.weight": ("", "one"),
        "dense.weight": (f"o_proj.weight {read_names(case, 'v')}", _SMALL_HALF),
    }
    old = case.source_options
    if new.bias:
        names = _read_biases(case, "qkv")
        rules["query_key_value.bias"] = (names, "their biases" if names else "zero")
    if new.out_bias:
        rules["dense.bias"] = ("o_proj.bias", "the bias of the output") if old.bias.o else ("", "zero")
    if keeps_norms(case):
        shapes = new.qk_norm.shapes(new.num_heads, width)
        rules |= {
            f"{of}_layernorm.{name}": (f"{of[0]}_norm.{name}", "the norm of the source")
            for of in ("query", "key")
            for name in shapes
        }
    return near(**rules)


def closed_by_norm(options: Any) -> bool:
    """Whether Mamba-2 normalises what the gate lets through: then the norm's scale closes it, not the gate."""
    return options.norm and not options.norm_before_gate


def _mamba2(case: Case) -> Mapping[str, Piece] | str:
    new, old = case.options, case.source_options
    groups, heads = (new.n_groups, new.d_state), (new.heads(case.dims.hidden_size), new.head_dim)
    if fault := misfit(case, {"query": groups, "key": groups, "value": heads}):
        return fault
    closed = case.settings["gate"] == "closed"
    gate = "z open" if new.bias else "z zero" if closed and not closed_by_norm(new) else "z as for training"
    rules = {
        "in_proj.weight": (read_names(case, "vkq"), f"x of values, B of keys, C of queries; {gate}, steps of one size"),
        "conv1d.weight": _TAPS,
        "A_log": SLOW,
        "dt_bias": ("", "steps of one, or as near to that as may be"),
        "D": ("", "zero: no token skips the state"),
        "out_proj.weight": (
            f"o_proj.weight {read_names(case, 'v')}",
            "the output, head by head, times what the scan changes",
        ),
    }
    if new.norm:
        silent = closed and closed_by_norm(new) and not new.bias
        rules["norm.weight"] = _SILENT if silent else ("", "one")
    if new.conv_bias:
        rules["conv1d.bias"] = ("", "zero")
    if new.bias:
        rules["in_proj.bias"] = (
            _read_biases(case, "vkq"),
            "biases of values, keys and queries, and a gate that is open",
        )
    if new.output_bias:
        rules["out_proj.bias"] = ("o_proj.bias", "the bias of the output") if old.bias.o else ("", "zero")
    return near(**rules)


ROWS: Final = {"q": "queries, head by head", "k": "keys, head by head", "v": "values, head by head"}
CLAIM: Final = "Never the same: queries, keys, values and output are kept, and the softmax becomes a state that decays"

DELTA_TRANSFERS: Final = (
    Transfer(
        name="transfer",
        sources=ATTENTION,
        pieces=_delta,
        make="axon_core.transfers.gated_delta_net:from_attention",
        claim=f"{CLAIM}; its gate has no bias and begins closed, so that the layer adds nothing until it is trained. "
        "A sigmoid begins half open.",
        paper=_APRIEL,
        settings={"half_life": HALF_LIFE, "tap": _TAP, "gate": _GATE, "size": _SIZE_HALF_OPEN},
        examples=(
            TransferExample({"num_k_heads": 2, "num_v_heads": 4, "head_k_dim": 16}, {"num_heads": 4}),
            TransferExample({"num_k_heads": 1, "head_k_dim": 16, "separate": True}, {"num_heads": 4, "bias": True}),
            TransferExample({"num_k_heads": 2, "head_k_dim": 16, "gate_activation": "sigmoid"}, {"num_heads": 4}),
        ),
    ),
)
KIMI_TRANSFERS: Final = (
    Transfer(
        name="transfer",
        sources=ATTENTION,
        pieces=_kimi,
        make="axon_core.transfers.kimi_delta_attention:from_attention",
        claim=f"{CLAIM}.",
        paper=_APRIEL,
        settings={"half_life": HALF_LIFE, "tap": _TAP, "size": SIZE},
    ),
)
LIGHTNING_TRANSFERS: Final = (
    Transfer(
        name="transfer",
        sources=ATTENTION,
        pieces=_lightning,
        make="axon_core.transfers.lightning_attention:from_attention",
        claim=f"{CLAIM}, at the fixed rates of the layer.",
        paper='Zhang et al. 2024, "LoLCATs" (arXiv:2410.10254), for linear attention that begins with the projections',
        settings={"size": SIZE},
    ),
)
MAMBA2_TRANSFERS: Final = (
    Transfer(
        name="transfer",
        sources=ATTENTION,
        pieces=_mamba2,
        make="axon_core.transfers.mamba2:from_attention",
        claim=f"{CLAIM}; with `bias` its gate begins open, without it closed.",
        paper=_MAMBA_IN_LLAMA,
        settings={"half_life": HALF_LIFE, "tap": _TAP, "size": SIZE, "gate": _GATE},
        examples=(
            TransferExample({"num_heads": 4, "head_dim": 16, "d_state": 16, "n_groups": 4}, {"num_heads": 4}),
            TransferExample(
                {"num_heads": 4, "head_dim": 16, "d_state": 16, "bias": True, "norm": False},
                {"num_heads": 4, "bias": True},
            ),
        ),
    ),
)
