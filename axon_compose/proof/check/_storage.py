"""Caches and dtypes: written, advanced, as large as declared, and of the right type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import mlx.core as mx

from axon_compose.plan import Plan
from axon_compose.proof.check._compare import at_most
from axon_compose.proof.check._large import amplified
from axon_compose.proof.check._report import Truth
from axon_compose.proof.check._subject import Subject
from axon_compose.registry import CacheSpec, Composite, State

__all__ = ["cache_bytes", "caches", "dtypes"]

Leaf = tuple[str, CacheSpec, Any]

#: Tokens that a row is said to have left, so that it can be seen how many were counted.
AHEAD: Final = 10_000


def caches(subject: Subject) -> Truth:
    """Every cache is written, moves on, and counts its tokens."""
    first, more = 2 * subject.window + 3, subject.window + 1  # some states change with every few tokens alone
    cache = subject.model.make_cache()
    faults: list[str] = []
    if len(cache) != len(subject.plan.slots):
        faults.append(f"{len(cache)} caches for {len(subject.plan.slots)} slots")
    for _, spec, leaf in leaves(subject.plan, cache):
        if isinstance(spec, State):
            leaf.prepare(lengths=[AHEAD])
    tokens = subject.tokens(1, first)
    subject.forward(tokens, cache)
    before = [_arrays(leaf) for *_, leaf in leaves(subject.plan, cache)]
    # Other tokens than the last ones, for a state may hold no more than those.
    subject.forward((tokens[:, -more:] + 1) % int(subject.plan.dims.vocab_size), cache)
    for (where, spec, leaf), old in zip(leaves(subject.plan, cache), before, strict=True):
        fault = (
            _state_fault(spec, leaf, old, first + more) if isinstance(spec, State) else _kv_fault(leaf, first + more)
        )
        faults += [f"{where}: {fault}"] if fault else []
    detail = "; ".join(faults) or f"{len(before)} caches"
    return at_most("caches", "every cache is written and counts its tokens", len(faults), 0, detail)


def _kv_fault(leaf: Any, tokens: int) -> str:
    if leaf.empty():
        return "is created and never written"
    if leaf.offset != tokens:
        return f"counts {leaf.offset} tokens of {tokens}"
    return "" if _finite(_arrays(leaf)) else "contains NaN or infinity"


def _state_fault(spec: State, leaf: Any, before: list[Any], tokens: int) -> str:
    now = _arrays(leaf)
    if len(now) != len(spec.arrays):
        return f"has {len(now)} arrays, declared {len(spec.arrays)}"
    for array, old, new in zip(spec.arrays, before, now, strict=True):
        if new is None:
            return f"`{array.name}` is created and never written"
        if tuple(new.shape[1:]) != tuple(array.shape):
            return f"`{array.name}` is {tuple(new.shape[1:])}, declared {tuple(array.shape)}"
        if new.size and mx.array_equal(old, new).item():
            return f"`{array.name}` is not brought up to date"
    advanced = AHEAD - leaf.lengths.item()
    if advanced != tokens:
        return f"is advanced by {advanced} tokens in {tokens}"
    return "" if _finite(now) else "contains NaN or infinity"


def cache_bytes(subject: Subject) -> Truth:
    """Declared bytes = bytes of what the caches hold, in float32 and in bfloat16.

    Caches of keys and values allocate ahead, in steps of 256 tokens, and a rotating one keeps a prompt whole until
    the next token; what is compared is the part that holds tokens, after a prompt and one more token.
    """
    faults, sizes = [], []
    for dtype, model in subject.both():
        for prompt in (2, 3 * subject.window + 5):
            cache = model.make_cache()
            for piece in (subject.tokens(1, prompt), subject.tokens(1, 1)):
                model(piece, cache)
                mx.eval([leaf.state for leaf in cache])
            for where, spec, leaf in leaves(subject.plan, cache):
                held, declared = _held(leaf), spec.nbytes(prompt + 1, dtype)
                if held != declared:
                    faults.append(
                        f"{where}: {held:,} bytes after {prompt + 1} tokens in {dtype}, declared {declared:,}"
                    )
            sizes.append(f"{sum(slot.nbytes(prompt + 1, dtype) for slot in subject.plan.slots):,}")
    detail = "; ".join(faults[:5]) or f"{' and '.join(sizes)} bytes"
    return at_most("cache-bytes", "cache sizes match the declared bytes", len(faults), 0, detail)


def _held(leaf: Any) -> int:
    """Bytes of the part of a cache that holds tokens."""
    arrays = _arrays(leaf)
    if not hasattr(leaf, "offset"):
        return sum(array.nbytes for array in arrays if array is not None)
    kept = min(leaf.offset, getattr(leaf, "max_size", leaf.offset))
    return sum(array[:, :, :kept].nbytes for array in arrays if array is not None)


def dtypes(subject: Subject) -> Truth:
    """A model keeps its dtype: weights, logits and caches; and stays finite, also with large values inside."""
    faults = []
    for dtype, model in subject.both():
        kept = {f"{use.path}.{name}" for use in subject.plan.uses() for name in use.spec.float32}
        cache = model.make_cache()
        tokens = subject.tokens(2, 2 * subject.window + 3)
        outputs = {"logits": model(tokens), "logits with a cache": model(tokens, cache)}
        with amplified(subject, model):
            outputs["logits of large values"] = model(tokens)
        outputs |= {f"{where} of the cache": a for where, a in _wrong_arrays(subject.plan, cache, dtype)}
        for name, value in outputs.items():
            if value.dtype != getattr(mx, dtype):
                faults.append(f"{name}: {value.dtype} in a model in {dtype}")
            if not mx.isfinite(value).all().item():
                faults.append(f"{name}: not finite in {dtype}")
        faults += [
            f"{name}: {value.dtype} in a model in {dtype}"
            for name, value in _parameters(model)
            if value.dtype != (mx.float32 if name in kept else getattr(mx, dtype))
        ]
    detail = "; ".join(faults[:5]) or "float32 and bfloat16"
    return at_most("dtypes", "weights, caches and logits keep the model's dtype", len(faults), 0, detail)


def _parameters(model: Any) -> list[tuple[str, mx.array]]:
    from mlx.utils import tree_flatten

    return [
        (name, value) for name, value in tree_flatten(model.parameters()) if mx.issubdtype(value.dtype, mx.floating)
    ]


def _wrong_arrays(plan: Plan, cache: list[Any], dtype: str) -> Iterator[tuple[str, mx.array]]:
    """Arrays of caches that are not of the declared dtype."""
    for where, spec, leaf in leaves(plan, cache):
        arrays = _arrays(leaf)
        declared = [a.dtype or dtype for a in spec.arrays] if isinstance(spec, State) else [dtype] * len(arrays)
        for array, wanted in zip(arrays, declared, strict=False):
            if array is not None and array.dtype != getattr(mx, wanted):
                yield where, array


def leaves(plan: Plan, cache: list[Any]) -> Iterator[Leaf]:
    """Every cache that holds arrays, with its spec and where it is."""
    layers = {layer.slot: layer.index for layer in plan.layers if layer.slot is not None}
    for slot, (spec, built) in enumerate(zip(plan.slots, cache, strict=False)):
        yield from _leaves(f"cache of layer {layers[slot]}", spec, built)


def _leaves(where: str, spec: CacheSpec, built: Any) -> Iterator[Leaf]:
    if isinstance(spec, Composite):
        for index, child in enumerate(spec.children):
            yield from _leaves(f"{where}, part {index}", child, built[index])
    else:
        yield where, spec, built


def _arrays(leaf: Any) -> list[Any]:
    return list(leaf.cache) if hasattr(leaf, "cache") else [leaf.keys, leaf.values]


def _finite(arrays: list[Any]) -> bool:
    return all(mx.isfinite(array).all().item() for array in arrays if array is not None)
