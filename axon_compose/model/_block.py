"""One layer of the stack as a module: residual branches, run as the plan says."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_compose.model._calls import call, call_here, call_offered, offers, read, together, write
from axon_compose.plan import Branch, Layer, Member, Use

__all__ = ["Block", "Reuse"]

Values = dict[str, Any]


class Block(nn.Module):
    r"""A layer with weights of its own.

    For each branch in order, with components :math:`f_j` that read the same input, each within norms of its own:

    .. math::
        x \leftarrow r x + s \cdot \mathrm{post}\Big(\sum_j s_j \, \mathrm{post}_j(f_j(\mathrm{pre}_j(h)))\Big),
        \qquad h = \mathrm{pre}(x)

    Norms that a branch or a component does not have are left out. Where the plan has a residual scheme, what comes in
    and goes out is its residual state, and x is what its connections read from that.

    Args:
        layer: Its part of the plan.
        modules: Name inside the layer to module.
        names: What the modules are called here, by their names in the plan, where that is something else.

    Attributes:
        gather: Gives the weights that the layer runs with, of those that it holds, where these are parts of them.
    """

    gather: Callable[[Any], Any] | None = None

    def __init__(self, layer: Layer, modules: Mapping[str, nn.Module], names: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._plan, self._names = layer, _Names(names or {})
        for key, module in modules.items():
            self[self._names.get(key, key)] = module

    def module(self, use: Use) -> Any:
        """The module of a component."""
        key = use.key
        return self[self._names.data.get(key, key)]

    def __call__(
        self, x: mx.array, masks: Sequence[Any], cache: Any, values: Values, layer: Layer | None = None
    ) -> tuple[mx.array, Values]:
        """Run the layer.

        Everything that the layer uses comes in as an argument and all that it gives goes out as a result, so that a
        gradient checkpoint around the call sees it.

        Args:
            x: (B, L, D), or the residual state of the plan's scheme.
            masks: One mask for each group of the plan.
            cache: The layer's cache, or None.
            values: Named values that the layer reads.
            layer: Another layer's plan, to run it with these weights.

        Returns:
            The same, and the values that the layer publishes.
        """
        if self.gather is None:
            return self._run(x, masks, cache, values, layer or self._plan)
        held = self.trainable_parameters()
        self.update(self.gather(held))
        try:
            return self._run(x, masks, cache, values, layer or self._plan)
        finally:
            self.update(held)

    def _run(self, x: mx.array, masks: Sequence[Any], cache: Any, values: Values, layer: Layer) -> tuple[Any, Values]:
        run = _Run(self, layer, masks, cache, values)
        for branch in run.layer.branches:
            if branch.connection:
                x = run.read(branch.connection, x)
            x = run.branch(branch, x)
            if branch.closes:
                x = run.write(x)
        return x, run.published


class _Names(UserDict[str, str]):
    """A mapping that `mlx.nn.Module` does not take for parameters."""


class Reuse(nn.Module):
    """A layer that runs with the weights of an earlier one; it has none of its own.

    The earlier block is held where module traversal does not look, so that its weights are stored, counted, adapted and
    updated once. It is called as a whole, so that what is wrapped around blocks is also around their reuse.
    """

    def __init__(self, layer: Layer, owner: Block) -> None:
        super().__init__()
        self._plan = layer
        object.__setattr__(self, "_owner", owner)

    @property
    def owner(self) -> Block:
        """The block whose weights these are."""
        owner: Block = object.__getattribute__(self, "_owner")
        return owner

    def __call__(self, x: mx.array, masks: Sequence[Any], cache: Any, values: Values) -> tuple[mx.array, Values]:
        """See `Block.__call__`."""
        return self.owner(x, masks, cache, values, self._plan)


class _Run:
    """One call of one layer: what came in, what is kept for later branches, what goes out."""

    def __init__(self, modules: Block, layer: Layer, masks: Sequence[Any], cache: Any, values: Values) -> None:
        self.modules, self.layer = modules, layer
        self.masks, self.cache, self.values = masks, cache, values
        self.kept: dict[str, mx.array] = {}
        self.published: Values = {}
        self.open: tuple[Use, Any] | None = None

    def read(self, connection: Use, state: Any) -> mx.array:
        x, held = read(connection, self.modules.module(connection), state, **self.taken(connection))
        self.open = connection, held
        return x

    def write(self, y: mx.array) -> Any:
        assert self.open is not None, "the plan opens a connection before it closes one"
        connection, held = self.open
        return write(connection, self.modules.module(connection), held, y, **self.remembered(connection))

    # What has no effect is asked about instead of called: this runs for every branch of every token.

    def branch(self, branch: Branch, x: mx.array) -> mx.array:
        if (
            branch.alone is not None
            and (done := self.at_once(branch.alone, branch.alone.pre or branch.pre, x)) is not None
        ):
            return done
        if branch.add is not None:
            y: mx.array | None = _scaled(self.kept[branch.add], branch.scale)
        else:
            y = self.members(branch, self.normed(branch.pre, x) if branch.pre else x)
        if not branch.residual and y is not None:
            return y
        x = _scaled(x, branch.skip)
        return x if y is None else x + y

    def at_once(self, member: Member, norm: Use | None, x: mx.array) -> mx.array | None:
        """`x + use(norm(x))` by a component that has a `residual`; None unless it does that now."""
        module = self.modules.module(member.use)
        made: Any = type(module)  # which mypy takes for no key
        if not offers(made):
            return None
        before = None if norm is None else self.modules.module(norm)
        return call_offered(
            member.use, module.residual, before, x, **self.remembered(member.use), **self.taken(member.use)
        )

    def members(self, branch: Branch, h: mx.array) -> mx.array | None:
        """The branch's output; None if every component's output is kept instead of added."""
        total = parts = None
        for member in branch.members:
            y = self.component(member.use, self.normed(member.pre, h) if member.pre else h)
            if member.use.shard_output is not None:
                if member.use.shard_output == "later":
                    parts = y if parts is None else parts + y
                    continue
                if parts is not None and member.plain and member.use.shard_output == "sum":
                    y, parts = y + parts, None
                y = together(member.use, y)
            if member.post:
                y = self.normed(member.post, y)
            y = _scaled(y, member.scale)
            if member.keep is not None:
                self.kept[member.keep] = self.finish(branch, y)
            else:
                total = y if total is None else total + y
        return None if total is None else self.finish(branch, total)

    def finish(self, branch: Branch, y: mx.array) -> mx.array:
        return _scaled(self.normed(branch.post, y) if branch.post else y, branch.scale)

    def normed(self, norm: Use, x: mx.array) -> mx.array:
        return call(norm, self.modules.module(norm), x.shape, x)

    def component(self, use: Use, x: mx.array) -> mx.array:
        """The output of a component, or what this device has of it."""
        arguments = self.remembered(use)
        if use.reads:
            arguments |= self.taken(use)
        if use.writes:
            arguments["publish"] = partial(self.publish, use)
        return call_here(use, self.modules.module(use), x.shape, x, **arguments)

    def remembered(self, use: Use) -> Values:
        """Mask and cache, of what has them."""
        arguments: Values = {}
        if len(use.masks) == 1:
            arguments["mask"] = self.masks[use.masks[0]]
        elif use.masks:
            arguments["mask"] = tuple(self.masks[index] for index in use.masks)
        if use.slot is not None:
            own = self.cache is None or len(use.slot) == 1
            arguments["cache"] = self.cache if own else self.cache[use.slot[1]]
        return arguments

    def taken(self, use: Use) -> Values:
        return {name: self.values[source] for name, source in use.reads.items()}

    def publish(self, use: Use, name: str, value: Any) -> None:
        """Keep a value for later layers; one that none of them reads would only be held."""
        if name in use.writes:
            self.published[f"{self.layer.index}.{use.key}.{name}"] = value


def _scaled(y: mx.array, scale: float) -> mx.array:
    return y if scale == 1.0 else y * scale
