"""The plan: a model written out layer by layer, with every name, shape, slot and mask decided. Plain data, no mlx."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from functools import cached_property
from math import prod
from typing import Any, Literal

from axon_compose.notebook import Shown
from axon_compose.record import record
from axon_compose.registry import CacheSpec, ComponentSpec, Dims

__all__ = ["Branch", "Layer", "MaskGroup", "Member", "Plan", "Use"]


@record
class Use:
    """One component at one place of the model.

    Attributes:
        name: The component's name in the file; a norm is named after the branch that it serves.
        type: Full type name, `namespace/name`.
        spec: What the registry knows of it.
        options: Validated options, ready for the factory.
        written: The options as written, formulas resolved, defaults left out.
        path: Dotted place of its weights, e.g. `layers.8.swa`.
        dims: What its factory sees.
        params: Names (relative to `path`) and shapes of its parameters.
        active: Parameters that one token uses.
        cache: What it keeps between calls, or None.
        slot: Where its cache is: `(slot,)`, or `(slot, child)` inside a `CacheList`.
        masks: Indices into `Plan.masks`: none, one, or one for each child of a component's own `Composite` cache.
        reads: Value name to the published key it comes from: `layer.key.value`, or `embedding.value`; a value of
            the pass itself has its own name.
        writes: Value names that some later layer reads.
        window: Tokens that a query sees, None if it follows from the cache.
        chosen: Tokens that a query attends to at most, None if to all that it sees.
        chunk: Tokens of a chunk, which see each other alone; None where there are no chunks.
        streams: For a connection: residual streams that its branches read side by side, each of the hidden size.
        buffers: Names (relative to `path`) and numbers that are no parameters, but that published files may hold too.
        owner: The distribution that brings it and its version, e.g. `axon-acme 1.2`.
        shard_output: In the plan of one of several devices: whether the devices' outputs are to be summed (`sum`), put
            together along the last axis (`gather`), or summed with that of a later component of the branch, to which it
            is added before (`later`); None where each has the whole output.
        shard_gathered: How many numbers the devices' outputs are together, where more than that of the whole.
    """

    name: str
    type: str
    spec: ComponentSpec
    options: Any
    written: Mapping[str, Any]
    dims: Dims
    path: str
    params: Mapping[str, tuple[int, ...]]
    active: int
    cache: CacheSpec | None = None
    slot: tuple[int, ...] | None = None
    masks: tuple[int, ...] = ()
    reads: Mapping[str, str] = field(default_factory=dict)
    writes: tuple[str, ...] = ()
    window: int | None = None
    chosen: int | None = None
    chunk: int | None = None
    streams: int = 1
    buffers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    owner: str = ""
    shard_output: Literal["sum", "gather", "later"] | None = None
    shard_gathered: int | None = None

    @property
    def who(self) -> str:
        """What messages call it where its own code fails: its type, its place in the model and its distribution."""
        layer = re.search(r"(?:^|\.)layers\.(\d+)\.", self.path)
        where = f"`{self.name}` in layer {layer[1]}" if layer else f"the model's {self.spec.kind}"
        return f"`{self.type}` ({where}; {self.owner})"

    def __repr__(self) -> str:
        return f"<Use {self.path}: {self.type}, {self.size:,} parameters>"

    @cached_property
    def key(self) -> str:
        """The name of its module inside the layer."""
        return self.path.rpartition(".")[2]

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(prod(shape) for shape in self.params.values())

    def option(self, name: str) -> Any:
        """An option by its name; None if the component has none of it."""
        return self.options.get(name) if isinstance(self.options, Mapping) else getattr(self.options, name, None)

    @property
    def token_rows(self) -> int:
        """Of an embedding or a head: rows of its table or matrix of tokens, those that pad it included."""
        return int(self.option("padded_vocab_size") or self.dims.vocab_size)

    @property
    def source_layers(self) -> tuple[int, ...]:
        """Layers that it reads values from, rising."""
        places = (source.partition(".")[0] for source in self.reads.values())
        return tuple(sorted({int(place) for place in places if place.isdigit()}))


@record
class Member:
    """One component of a branch: `scale * post(use(pre(h)))` is summed, or kept under the name `keep`.

    Attributes:
        use: The component.
        scale: Factor of its output.
        keep: Name under which its output is kept instead, or None.
        pre: Norm of its input alone, or None.
        post: Norm of its output alone, or None.
    """

    use: Use
    scale: float = 1.0
    keep: str | None = None
    pre: Use | None = None
    post: Use | None = None

    def __repr__(self) -> str:
        return f"<Member {self.use.name}>"

    @property
    def plain(self) -> bool:
        """Whether its output is added to the branch's as it is, but for the factor."""
        return self.post is None and self.keep is None

    def uses(self) -> Iterator[Use]:
        """The component and its norms, in the order of computation."""
        if self.pre:
            yield self.pre
        yield self.use
        if self.post:
            yield self.post


@record
class Branch:
    """One residual branch: `x = skip * x + scale * post(sum(member(pre(x))))`.

    With a residual scheme, x is what a connection reads from the residual state: once for the branch, whose output
    alone the connection then writes back, or once for several branches, after which it writes x back.

    Attributes:
        members: One component, or several that read the same input. Empty for `add`.
        pre: Norm of the input, or None.
        post: Norm of the output, or None.
        scale: Factor of the output.
        skip: Factor of `x`.
        residual: False where the output replaces `x`: for components of kind `block` or `norm`, and inside of a
            connection that is around one branch.
        add: Name of a kept output that is added to `x` instead.
        connection: Reads `x` from the residual state before this branch, or None if it goes on with the `x` of the
            branch before.
        closes: Whether the connection that is open writes `x` back after this branch.
    """

    members: tuple[Member, ...] = ()
    pre: Use | None = None
    post: Use | None = None
    scale: float = 1.0
    skip: float = 1.0
    residual: bool = True
    add: str | None = None
    connection: Use | None = None
    closes: bool = False

    def __repr__(self) -> str:
        return f"<Branch {' + '.join(member.use.name for member in self.members) or f'adds {self.add}'}>"

    @cached_property
    def alone(self) -> Member | None:
        """The member that is all of it, with at most one norm before it: `x + use(norm(x))`; else None."""
        if not self.residual or self.add or self.connection or self.closes or self.post or len(self.members) != 1:
            return None
        (member,), use = self.members, self.members[0].use
        factors = self.scale, self.skip, member.scale
        bare = member.plain and factors == (1.0, 1.0, 1.0) and not (self.pre and member.pre)
        return member if bare and not (use.shard_output or use.writes) else None

    @property
    def adds(self) -> bool:
        """Whether its output is added to what came before, by itself or by a connection of its own."""
        return self.residual or (self.connection is not None and self.connection.spec.around != "layer")

    def uses(self) -> Iterator[Use]:
        """Every component, connection and norms included, in the order of computation."""
        if self.connection:
            yield self.connection
        if self.pre:
            yield self.pre
        for member in self.members:
            yield from member.uses()
        if self.post:
            yield self.post


@record
class Layer:
    """One layer of the stack.

    Attributes:
        index: Its place, from 0.
        block: The block's name (`=` for one written in the stack).
        branches: Residual branches in order.
        slot: Index of its cache in `model.make_cache()`, None without cache.
        cache: One spec, or a `Composite` of those of its components in branch order.
        owner: Index of the layer whose weights it uses (`share`), None if its own.
    """

    index: int
    block: str
    branches: tuple[Branch, ...]
    slot: int | None = None
    cache: CacheSpec | None = None
    owner: int | None = None

    def __repr__(self) -> str:
        return f"<Layer {self.index}: {self.block}, {len(self.branches)} branches, {self.size:,} parameters>"

    def uses(self) -> Iterator[Use]:
        """Every component, norms included, in the order of computation."""
        for branch in self.branches:
            yield from branch.uses()

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """Sources of the named values that its components take, each once."""
        return tuple(dict.fromkeys(source for use in self.uses() for source in use.reads.values()))

    @property
    def size(self) -> int:
        """Number of parameters that this layer adds to the model."""
        return 0 if self.owner is not None else sum(use.size for use in self.uses())


@record
class MaskGroup:
    """One mask, made once per forward pass and shared by every layer that has the same needs.

    Attributes:
        kind: `kv` for attention, `state` for recurrent layers.
        kept: Tokens that the cache keeps, None for all: it decides the cache's class.
        window: Tokens that a query sees, or None.
        form: `dense`, or `banded` for layers that apply their window themselves in prefill.
        slot: Where the cache is that the mask is asked of.
    """

    kind: Literal["kv", "state"]
    kept: int | None
    window: int | None
    form: Literal["dense", "banded"]
    slot: tuple[int, ...]


@record
class Plan(Shown):
    """A whole model, explicit.

    Attributes:
        name: The file's `name`.
        dims: Resolved dims.
        embedding: Component of kind `embedding`.
        residual: Component of kind `residual`, or None for one stream that branches are added to.
        layers: The stack.
        final_norm: Component of kind `norm`, or None.
        head: Component of kind `head`.
        slots: Caches in the order of `model.make_cache()`.
        masks: Masks of a forward pass.
        offset: Slot of the cache that knows the position, or None if no layer keeps keys and values.
        plugins: Namespace to `distribution version` of every plugin that is used.
    """

    name: str
    dims: Dims
    embedding: Use
    layers: tuple[Layer, ...]
    final_norm: Use | None
    head: Use
    slots: tuple[CacheSpec, ...]
    masks: tuple[MaskGroup, ...]
    offset: tuple[int, ...] | None
    plugins: Mapping[str, str]
    residual: Use | None = None

    def __repr__(self) -> str:
        return f"<Plan {self.name}: {len(self.layers)} layers, {sum(use.size for use in self.uses()):,} parameters>"

    def uses(self) -> Iterator[Use]:
        """Every component with weights of its own, in the order of computation."""
        yield self.embedding
        if self.residual:
            yield self.residual
        for layer in self.layers:
            if layer.owner is None:
                yield from layer.uses()
        if self.final_norm:
            yield self.final_norm
        yield self.head

    @property
    def unembedding(self) -> Use:
        """What has the matrix of the scores: the head, or the embedding that it is tied to."""
        own = any(len(shape) > 1 and self.head.token_rows in shape for shape in self.head.params.values())
        return self.head if own else self.embedding

    def parameters(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Full names and shapes of every parameter, each once."""
        for use in self.uses():
            for name, shape in use.params.items():
                yield f"{use.path}.{name}", shape
