"""Attention out of attention: another window, other numbers of heads, further parts at neutral values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Literal

from axon_compose.registry import Case, Dims, Piece, Transfer, TransferExample
from axon_core.specs._heads import head_shape
from axon_core.specs.transfers._common import ATTENTION, differing, misfit_of_attention, ratio_fault, width_fault

__all__ = ["aligned_pieces", "attention_transfers", "neutral_gate", "pieces_by_heads"]

Params = Callable[[Any, Dims], Mapping[str, tuple[int, ...]]]
Exactness = Literal["exact", "near"]

#: Options that make no difference for texts that fit into the window, or that have parameters of their own.
_SIZES: Final = ("num_heads", "num_kv_heads", "head_dim", "v_head_dim", "window_size", "chunk_size")
_PARTS: Final = (
    "indexer", "bias", "sinks", "gate", "gate_activation", "head_gain", "log_scaling", "kv_from", "k_eq_v", "relative",
)  # fmt: skip


def attention_transfers(params: Params) -> tuple[Transfer, ...]:
    """The transfers between types that have the options of attention.

    Args:
        params: Of their records.
    """

    def any_heads(case: Case) -> Mapping[str, Piece] | str:
        found = aligned_pieces(case, params)
        return pieces_by_heads(case, params) if isinstance(found, str) else found

    def fewer(case: Case) -> Mapping[str, Piece] | str:
        old, new = _counts(case)
        if new[1] >= old[1]:
            return f"the mean is for fewer key/value heads than the source's {old[1]}, not {new[1]}"
        return pieces_by_heads(case, params)

    def more(case: Case) -> Mapping[str, Piece] | str:
        old, new = _counts(case)
        if new[0] < old[0] or new[1] < old[1]:
            return f"repeating gives no fewer heads than the source's {old[0]} and {old[1]}, not {new[0]} and {new[1]}"
        return pieces_by_heads(case, params)

    make = "axon_core.transfers.attention:"
    window = {"window_size": 8, "rope": True}  # which one of the types needs and the other may have
    whole = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 16}
    halves = {"num_heads": 8, "num_kv_heads": 4, "head_dim": 16, "v_head_dim": 8}
    merging = 'Ainslie et al. 2023, "GQA" (arXiv:2305.13245)'
    return (
        Transfer(
            name="transfer",
            sources=ATTENTION,
            pieces=any_heads,
            make="axon_core.transfers.aligned_heads:transferred",
            claim="The same for texts within the window where heads are kept or repeated; heads that are merged are "
            "aligned first where `align` fits, and are means of neighbours else.",
            paper=merging,
        ),
        Transfer(
            name="mean",
            sources=ATTENTION,
            pieces=fewer,
            make=f"{make}heads",
            examples=(TransferExample(whole | window, whole | window | {"num_kv_heads": 4}),),
            claim="The same if the key/value heads that are merged were equal.",
            paper=merging,
        ),
        Transfer(
            name="align",
            sources=ATTENTION,
            pieces=partial(aligned_pieces, params=params),
            make="axon_core.transfers.aligned_heads:aligned",
            claim="The same if the key/value heads that are merged were equal, or became so by a linear map of their "
            "values and a turn and factor of each rotated pair of their keys; else the nearest such merger.",
            paper='Jin et al. 2024, "Align Attention Heads Before Merging Them" (arXiv:2412.20677)',
            examples=(TransferExample(whole | window, whole | window | {"num_kv_heads": 4}),),
        ),
        Transfer(
            name="repeat",
            sources=ATTENTION,
            pieces=more,
            make=f"{make}heads",
            examples=(TransferExample(whole | window | {"num_heads": 8, "num_kv_heads": 4}, whole | window),),
            claim="The same: repeated query heads share what one of them gave.",
            paper='Chen et al. 2016, "Net2Net" (arXiv:1511.05641)',
        ),
        Transfer(
            name="split",
            sources=ATTENTION,
            pieces=partial(_split_pieces, params=params),
            make=f"{make}split",
            claim="The same: each head becomes several with its queries and keys, and a part of its values each.",
            examples=(TransferExample(halves | window, whole | window),),
        ),
    )


def _counts(case: Case) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    return head_shape(case.source_options, case.source_dims), head_shape(case.options, case.dims)


def neutral_gate(case: Case) -> bool:
    """Whether the new layer has a gate that the source does not: then it starts as the same factor everywhere."""
    gate = case.options.gate
    return gate is not None and gate != case.source_options.gate


def pieces_by_heads(case: Case, params: Params) -> Mapping[str, Piece] | str:
    """Parameters of attention with other numbers of heads, or other options, and where they come from."""
    new, old = case.options, case.source_options
    (heads, kv_heads, width), (new_heads, new_kv_heads, new_width) = _counts(case)
    # A layer that reads another one's keys can lend queries and output to one that does too.
    if fault := width_fault(case) if new.kv_from is not None else misfit_of_attention(case):
        return fault
    if new_width != width or (new.v_head_dim or width) != (old.v_head_dim or width):
        return "heads have other widths than those of the source"
    if new.k_eq_v and not old.k_eq_v:
        return "with `k_eq_v` values are keys, which those of the source are not"
    if fault := ratio_fault("query heads", new_heads, heads) or ratio_fault("key/value heads", new_kv_heads, kv_heads):
        return fault
    known = params(old, case.source_dims)
    changed = _changed(case)
    found = {}
    for name, shape in params(new, case.dims).items():
        by_distance = name in ("r_proj.weight", "profiles")
        piece = _relative_piece(name, case) if by_distance else _piece(name, shape, known, case)
        if piece is not None:
            near = changed and name.startswith(("q_proj", "k_proj", "v_proj", "o_proj"))
            found[name] = Piece(piece.sources, piece.rule + changed, "near") if near else piece
    return found


def _piece(name: str, shape: tuple[int, ...], known: Mapping[str, Any], case: Case) -> Piece | None:
    """Where a parameter comes from; None where it begins as for training."""
    (heads, kv_heads, _), (new_heads, new_kv_heads, _) = _counts(case)
    part = name.partition(".")[0]
    if name in known and not (part == "g_proj" and neutral_gate(case)):
        if part == "indexer":
            same = case.options.indexer == case.source_options.indexer
            return Piece((name,), "the same indexer") if same else None
        if "_norm" in name and known[name] == shape:
            return Piece((name,), "the same")  # one for all heads
        if "_norm" in name and not _norms_alike(case):
            return None
        keys = part in ("k_proj", "v_proj", "k_norm")
        piece = _by_heads(name, *((new_kv_heads, kv_heads) if keys else (new_heads, heads)))
        if name == "o_proj.weight" and neutral_gate(case):
            return Piece(piece.sources, f"{piece.rule}, divided by what the gate gives", piece.exactness)
        return piece
    if part == "v_proj" and name.replace("v_", "k_") in known:
        piece = _by_heads(name.replace("v_", "k_"), new_kv_heads, kv_heads)
        return Piece(piece.sources, f"the keys, which were the values too: {piece.rule}", piece.exactness)
    if name.endswith("proj.bias"):
        return Piece((), "zero, as without a bias")
    if name == "sinks":
        return Piece((), "so low that no attention goes there")
    if name in ("head_gain", "log_scaling.bias"):
        return Piece((), "one")
    if name == "log_scaling.scale":
        return Piece((), "zero: the position changes nothing")
    if name == "g_proj.weight":
        return Piece((), "zero: the gate is the same everywhere, which the output makes up for")
    return None


def _relative_piece(name: str, case: Case) -> Piece | None:
    """Where scores by distance come from: profiles are those of all heads, and mixed by each."""
    (heads, *_), (new_heads, *_) = _counts(case)
    if case.options.relative != case.source_options.relative:
        return Piece((), "zero: no distance has a score") if name == "r_proj.weight" else None
    return Piece((name,), "the same") if name == "profiles" else _by_heads(name, new_heads, heads)


def _norms_alike(case: Case) -> bool:
    """Whether norms of queries and keys have their scales for the same parts."""
    new, old = case.options.qk_norm, case.source_options.qk_norm
    return (new.over, new.per_head) == (old.over, old.per_head)


def _by_heads(name: str, new: int, old: int) -> Piece:
    output = name == "o_proj.weight"
    if name == "o_proj.bias" or new == old:
        return Piece((name,), "the same")
    if new > old:
        share = ", each with its share of the output" if output else ""
        return Piece((name,), f"each head {new // old} times{share}")
    rule = "sums" if output else "means"
    return Piece((name,), f"{rule} of {old // new} neighbouring heads", "near")


def _changed(case: Case) -> str:
    """Options that change what the layer computes, and parts that the new one lacks; empty where there are none."""
    new, old = case.options, case.source_options
    names = [
        name
        for name in type(new).model_fields
        if name not in (*_SIZES, *_PARTS) and getattr(new, name) != getattr(old, name)
    ]
    names += [name for name in ("sinks", "head_gain", "log_scaling") if getattr(old, name) and not getattr(new, name)]
    names += [f"bias.{name}" for name, had in old.bias if had and not getattr(new.bias, name)]
    if old.gate is not None and (old.gate, old.gate_activation) != (new.gate, new.gate_activation):
        names.append("gate")
    if old.relative is not None and old.relative != new.relative:
        names.append("relative")
    if (old.kv_from is None) != (new.kv_from is None):
        names.append("kv_from")
    return differing(names)


def _split_pieces(case: Case, params: Params) -> Mapping[str, Piece] | str:
    new, old = case.options, case.source_options
    (heads, kv_heads, width), (new_heads, new_kv_heads, new_width) = _counts(case)
    parts, rest = divmod(new_heads, heads)
    value = old.v_head_dim or width
    if fault := misfit_of_attention(case):
        return fault
    if rest or parts < 2 or new_kv_heads != kv_heads * parts:
        return f"{heads} and {kv_heads} heads cannot be split into {new_heads} and {new_kv_heads}"
    if new_width != width or (new.v_head_dim or width) * parts != value:
        return f"split in {parts}, heads keep a `head_dim` of {width} and have a `v_head_dim` of {value / parts:g}"
    if new.k_eq_v or old.v_norm or new.v_norm or old.output_norm or new.output_norm:
        return "values that are keys, or are normalised, cannot be split"
    if changed := _changed(case):
        return f"split heads keep all other options{changed}"
    known = params(old, case.source_dims)
    if missing := next((name for name in params(new, case.dims) if name not in known), None):
        return f"the source has no `{missing}`"
    if old.qk_norm and (old.qk_norm.over == "all" or old.qk_norm.per_head):
        return "norms of queries and keys that know of all heads cannot be split"
    pieces = {}
    for name in params(new, case.dims):
        carried = name.startswith(("v_proj", "o_proj.weight")) or (name.startswith("g_proj") and new.gate != "head")
        kept = name in ("o_proj.bias", "profiles") or "_norm" in name
        rule = "the same" if kept else f"a part for each of {parts}" if carried else f"each head {parts} times"
        pieces[name] = Piece((name,), rule)
    return pieces


def aligned_pieces(case: Case, params: Params) -> Mapping[str, Piece] | str:
    """Parameters of attention with fewer key/value heads, aligned before they are merged."""
    new, old = case.options, case.source_options
    (heads, kv_heads, width), (new_heads, new_kv_heads, new_width) = _counts(case)
    if fault := misfit_of_attention(case):
        return fault
    if new_heads != heads or kv_heads % new_kv_heads or new_kv_heads == kv_heads:
        return f"{kv_heads} key/value heads of {heads} heads cannot be aligned to {new_kv_heads} of {new_heads}"
    if new_width != width or (new.v_head_dim or width) != (old.v_head_dim or width):
        return "heads have other widths than those of the source"
    for name in ("qk_norm", "v_norm", "output_norm", "clip", "k_eq_v", "indexer"):
        if getattr(old, name) or getattr(new, name):
            return f"with `{name}` heads cannot be turned: write `init: mean`"
    if old.gate == "elementwise":
        return "with `gate: elementwise` values cannot be mixed: write `init: mean`"
    known = params(old, case.source_dims)
    changed = _changed(case)
    if changed or set(known) != set(params(new, case.dims)):
        return f"aligned heads keep all other options{changed}"
    times = kv_heads // new_kv_heads
    rules = {"q": f"turned as the keys of {times} heads are", "k": f"what the keys of {times} heads have in common"}
    rules |= {"v": f"what the values of {times} heads have in common", "o": f"values of {times} heads out of one"}
    others = {"q": "k", "k": "q", "v": "o", "o": "v"}
    pieces = {}
    for name in known:
        letter = name[0]
        if not name.startswith(("q_proj", "k_proj", "v_proj", "o_proj.weight")):
            pieces[name] = Piece((name,), "the same")
            continue
        read = [each for each in known if each.startswith((f"{letter}_proj", f"{others[letter]}_proj"))]
        pieces[name] = Piece(tuple(each for each in read if each != "o_proj.bias"), rules[letter], "near")
    return pieces
