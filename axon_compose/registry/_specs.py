"""The records that a plugin hands in: what a component is, before any of its code is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from math import prod
from typing import Any, Final, Literal, Protocol

from axon_compose.record import record
from axon_compose.registry._dims import Dims
from axon_compose.registry._learning import Learning
from axon_compose.registry._splits import Split
from axon_compose.registry._transfers import Transfer

__all__ = [
    "KINDS",
    "KV",
    "PASS_VALUES",
    "ArchitectureSpec",
    "Array",
    "CacheSpec",
    "ComponentSpec",
    "Composite",
    "Dims",
    "Kind",
    "Optioned",
    "State",
    "cache_leaves",
]

Kind = Literal["layer", "norm", "position", "block", "embedding", "residual", "connection", "head"]
#: Kinds of what a plugin hands in; a connection comes with its residual scheme.
KINDS: Final = ("layer", "norm", "position", "block", "embedding", "residual", "head")
Shapes = Mapping[str, tuple[int, ...]]
#: Options of a reader, options of its source and dims to what is wrong with the source.
Accepts = Callable[[Any, Any, Dims], str | None]

#: Named values that come from the forward pass itself: the position of its first token, and its tokens.
PASS_VALUES: Final = ("offset", "tokens")

_DTYPE_BYTES: Final = {"float32": 4, "float16": 2, "bfloat16": 2, "bool": 1}


@record
class KV:
    """Keys and values of attention, growing with the context or bounded by a window.

    Attributes:
        heads: Number of key/value heads.
        head_dim: Width of a key.
        value_dim: Width of a value; `head_dim` unless given, 0 for none.
        window: Tokens that a query sees, itself included; None keeps all.
    """

    heads: int
    head_dim: int
    value_dim: int | None = None
    window: int | None = None

    @property
    def widths(self) -> tuple[int, int]:
        """Of a key and of a value."""
        return self.head_dim, self.head_dim if self.value_dim is None else self.value_dim

    def elements(self, tokens: int) -> int:
        """Numbers held for one sequence after `tokens` tokens."""
        kept = tokens if self.window is None else min(tokens, self.window)
        return kept * self.heads * sum(self.widths)

    def nbytes(self, tokens: int, dtype: str = "bfloat16") -> int:
        """Bytes that hold real tokens of one sequence (allocation steps are not counted)."""
        return self.elements(tokens) * _DTYPE_BYTES[dtype]


@record
class Array:
    """One array that a component keeps: shape without the batch axis; `dtype` None follows the activations."""

    name: str
    shape: tuple[int, ...]
    dtype: str | None = None

    def nbytes(self, dtype: str) -> int:
        """Bytes for one sequence, with activations in `dtype`."""
        return prod(self.shape) * _DTYPE_BYTES[self.dtype or dtype]


@record
class State:
    """A recurrent state of constant size: an `ArraysCache` with these arrays, in this order."""

    arrays: tuple[Array, ...]

    def nbytes(self, tokens: int, dtype: str = "bfloat16") -> int:
        """Bytes of one sequence; `tokens` does not matter unless it is 0."""
        return sum(array.nbytes(dtype) for array in self.arrays) if tokens else 0


@record
class Composite:
    """Several caches of one layer: a `CacheList` with children in this order."""

    children: tuple[CacheSpec, ...]

    def nbytes(self, tokens: int, dtype: str = "bfloat16") -> int:
        """Bytes of one sequence, all children together."""
        return sum(child.nbytes(tokens, dtype) for child in self.children)


CacheSpec = KV | State | Composite


def cache_leaves(cache: CacheSpec | None) -> Iterator[KV | State]:
    """The caches that are not made of others, in order; none of a component that keeps nothing."""
    if isinstance(cache, Composite):
        for child in cache.children:
            yield from cache_leaves(child)
    elif cache is not None:
        yield cache


class Optioned(Protocol):
    """What records have in common that are written with options: a name, a model or schema of them, and code."""

    @property
    def name(self) -> str:
        """Inside the plugin's namespace."""

    @property
    def options(self) -> type | Mapping[str, Any]:
        """A pydantic model class, or a JSON Schema of an object."""

    @property
    def module(self) -> str:
        """`package.module:attribute`."""


def _no_cache(options: Any, dims: Dims) -> CacheSpec | None:
    return None


def _no_params(options: Any, dims: Dims) -> Shapes:
    return {}


@record
class ComponentSpec:
    """What the compiler knows of a component. Cheap to import: nothing here may import mlx.

    Attributes:
        name: Type name inside the plugin's namespace, e.g. `attention`; in YAML `namespace/name`,
            and for the namespace `core` also just `name`.
        kind: Where it may stand: `layer`, `norm`, `position`, `block`, `embedding`, `residual` or `head`; `connection`
            for what is in `connections`.
        options: A pydantic model class (strict, extra forbidden) or a JSON Schema of an object.
        module: `package.module:attribute[.attribute]`, imported by `build` alone and called as
            `factory(options, dims)`; returns an `mlx.nn.Module`. `options` is an instance of the pydantic
            model, or a dict with the schema's defaults filled in.
        summary: One-line summary.
        source: Where it was published, such as `Gu and Dao 2023, "Mamba" (arXiv:2312.00752)`.
        cache: `(options, dims)` to the cache that it needs, or None.
        params: `(options, dims)` to names and shapes of every parameter.
        buffers: `(options, dims)` to names and whole numbers that follow from both, such as the multipliers of a hash:
            no parameters, but where a published file holds them, they have to be the same.
        active: `(options, dims)` to the number of parameters that one token uses; all of them unless given.
        flops: `(options, dims, tokens, context)` to the floating-point operations for `tokens` new tokens of one
            sequence, the last of which is its `context`-th: of matrix products, convolutions, attention to what a token
            may see, and scans; a multiply-add counts as two, elementwise work as nothing. None if unknown.
        touched: `(options, dims, tokens)` to the parameters of which a pass over `tokens` tokens reads only some rows:
            name to rows along the first axis, at most. A head names parameters of the embedding that it reads as
            `embedding.NAME`. Everything is read unless given.
        saved: `(options, dims, tokens, dtype)` to the arrays that its forward pass over one sequence leaves for the
            backward pass, as `Array(name, shape, dtype)`: what the gradients of its operations are made of, the input
            of its matrices included, parameters not. A dtype of None follows the activations, `bool` is for masks,
            which all sequences share. One named `input` is x itself, which counts once for the components of a branch
            that read the same x. None if unknown.
        recomputed: `(options, dims, batch, tokens)` to the bytes that are there at once while the backward pass
            computes again what was not saved, as a recurrence does segment by segment; none unless given.
        reads: Named values of the forward pass that the layer takes as keyword arguments. `offset` is the
            position of the first token (int, or (B,) array), `tokens` are the pass's tokens, (B, L); both map to None,
            or to the option without which they are not needed. Any other name maps to the option that names the
            component to read from, e.g. `{"kv": "kv_from"}`: the nearest earlier layer that uses it; or to None for a
            value of the embedding.
        writes: Named values that the layer or embedding can publish through the keyword argument
            `publish(name, value)`, which is given only when a later layer reads them.
        constant: Those of `writes` that are made of parameters alone, such as matrices that later layers use too: a
            pipeline over several devices sends them once instead of with every pass.
        accepts: For readers: `(options, options of the source, dims)` to a fault in plain words, or None if the
            source fits. A mapping of names of values to such functions where what fits depends on the value.
        window: `(options, dims)` to the tokens that a query sees; the cache's own window unless given. Needed by layers
            that attend without a cache of their own.
        chunk: `(options, dims)` to the tokens of a chunk, to which what a query sees is limited; None where there are
            no chunks.
        chosen: `(options, dims)` to the tokens that a query attends to at most, chosen by what they hold among those
            that it may see; all of them unless given, or None. Readers of another layer's values get its number.
        mask: `dense` layers get mlx-lm's mask (None, "causal" or an array); `banded` ones apply their window
            themselves in prefill and get a mask only for steps of one token.
        float32: Parameters that stay float32 when a model is cast, e.g. `("A_log", "D")`.
        unquantized: Submodules that quantisation leaves alone, e.g. `("gate",)`; also those that hold a `weight` of two
            axes or more and cannot be quantised, such as the norms of single heads, so that sizes are known beforehand.
        module_name: What mlx-lm's own models call such a module, e.g. `self_attn`, so that its recipes find it. Built
            folders use it where one component of a layer has it; unless given, the name in the file stays.
        connections: For residual schemes: how branches or layers are joined to the residual state, the usual one
            first. Each is a record of kind `connection` with a name that branches may write, and has the options of the
            scheme; one with a `cache` gets `mask` and `cache` with `write`.
        around: For connections: `branch` joins one branch and is given its output; `layer` joins branches that follow
            each other, which add to a stream of their own meanwhile, and is given that stream; `aside` is as `branch`,
            but what the branch gives is only read by later ones, so that alone it changes nothing.
        streams: For connections: `(options, dims)` to the residual streams that its branches read and give side by
            side, each as wide as the hidden size. Their components get a hidden size that is that of all, and the
            number as `dims.streams`. One unless given.
        default: Whether files that name no type for this kind get this one (the namespace `core` alone).
        shrink: `(options, dims)` to options with small sizes and the same structure, used by `check`: a model of the
            same class, or a mapping as a file writes it, such as `written(options) | {"num_heads": 2}`; None keeps the
            sizes.
        learning: What training needs to know of the parameters: which ones do not decay, factors of their learning
            rate, and how they begin.
        transfers: What `axon-compose edit` can make the parameters from, instead of training them from the beginning:
            the parameters of a component of another type, or of the same type with other options.
        split: `(options, dims, devices)` to what each device has of the component, or in plain words why it cannot be
            split, naming the option: "`num_heads` (6) is not a multiple of 4 devices". A list of ways has the best
            first: the first is taken that keeps groups of quantised weights whole. Every device has the whole component
            unless given.
        examples: Valid option mappings, tested by `axon_compose.testing`.
    """

    name: str
    kind: Kind
    options: type | Mapping[str, Any]
    module: str
    summary: str
    cache: Callable[[Any, Dims], CacheSpec | None] = _no_cache
    params: Callable[[Any, Dims], Shapes] = _no_params
    buffers: Callable[[Any, Dims], Mapping[str, tuple[int, ...]]] | None = None
    active: Callable[[Any, Dims], int] | None = None
    flops: Callable[[Any, Dims, int, int], int | None] | None = None
    touched: Callable[[Any, Dims, int], Mapping[str, int]] | None = None
    saved: Callable[[Any, Dims, int, str], Iterable[Array] | None] | None = None
    recomputed: Callable[[Any, Dims, int, int], int] | None = None
    reads: Mapping[str, str | None] = field(default_factory=dict)
    writes: tuple[str, ...] = ()
    constant: tuple[str, ...] = ()
    accepts: Accepts | Mapping[str, Accepts] | None = None
    window: Callable[[Any, Dims], int | None] | None = None
    chunk: Callable[[Any, Dims], int | None] | None = None
    chosen: Callable[[Any, Dims], int | None] | None = None
    mask: Literal["dense", "banded"] = "dense"
    float32: tuple[str, ...] = ()
    unquantized: tuple[str, ...] = ()
    module_name: str | None = None
    connections: tuple[ComponentSpec, ...] = ()
    around: Literal["branch", "layer", "aside"] = "branch"
    streams: Callable[[Any, Dims], int] | None = None
    default: bool = False
    shrink: Callable[[Any, Dims], Any] | None = None
    learning: Learning = field(default_factory=Learning)
    transfers: tuple[Transfer, ...] = ()
    split: Callable[[Any, Dims, int], Split | Sequence[Split] | str] | None = None
    examples: tuple[Mapping[str, Any], ...] = ()
    source: str = ""


@record
class ArchitectureSpec:
    """A YAML architecture that a plugin ships: a name for `extends`, and where its text is."""

    name: str
    path: str
    summary: str = ""
