"""Code of components, called: what it raises, or gives instead of an array, is reported with its place in the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from inspect import isfunction
from typing import Any, Final

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from axon_compose.plan import Plan, Use
from axon_compose.registry import DEBUG_HELP, Guard, PluginFault, Raised, debug_traceback, load_factory

__all__ = [
    "BuildError",
    "at_once",
    "blamed",
    "call",
    "call_here",
    "call_offered",
    "collapse",
    "expand",
    "make_module",
    "offers",
    "read",
    "together",
    "weight_fault",
    "write",
]

#: Whether every output is computed before the next component is called, so that a lazy array raises where it was made.
_AT_ONCE: Final[ContextVar[bool]] = ContextVar("_AT_ONCE", default=False)


class BuildError(PluginFault):
    """A component built something else than its spec declares."""

    def __init__(self, message: str) -> None:
        super().__init__("AX211", message)


def make_module(use: Use) -> nn.Module:
    """The module of a component, with random weights.

    Raises:
        PluginFault: If its code cannot be imported, or raises.
        BuildError: If it is no module.
    """
    factory = load_factory(use.spec, use.who)
    try:
        with Guard(None):  # weights are lazy, but it may take its time
            module = factory(use.options, use.dims)
    except Raised as raised:
        raise _fault(f"the factory of {use.who} raises {raised}") from raised
    if not isinstance(module, nn.Module):
        raise BuildError(f"{use.who} built a {type(module).__name__}, not an mlx.nn.Module")
    return module


def call(use: Use, module: Any, shape: tuple[int, ...], /, *inputs: Any, **arguments: Any) -> mx.array:
    """The output of a component; where each of several devices has a part of it, that of all of them together.

    Args:
        use: The component.
        module: Its module, or what stands in for it.
        shape: What the output must have, as no broadcasting shows that it has another.
        inputs: What it is called with by position.
        arguments: The same by name.

    Raises:
        PluginFault: If its code raises anything, or gives anything else. Ctrl-C stays as it is.
    """
    y = call_here(use, module, shape, *inputs, **arguments)
    if use.shard_output is None:
        return y
    y = together(use, y)
    return y[..., : shape[-1]] if y.shape[-1] > shape[-1] else y  # after a padded part


def call_here(use: Use, module: Any, shape: tuple[int, ...], /, *inputs: Any, **arguments: Any) -> mx.array:
    """The output of a component, or what this device has of it; see `call`.

    It runs for every component of every token, so it is written out instead of calling `_run` and `_shaped`.
    """
    if use.shard_output == "gather":
        shape = (*shape[:-1], -(-(use.shard_gathered or shape[-1]) // use.dims.shard.size))
    try:
        out = module(*inputs, **arguments)
        if _AT_ONCE.get():
            mx.eval(out)
    except (PluginFault, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise _raised(use, error) from error
    y = out[0] if isinstance(out, tuple) and out else out
    return y if isinstance(y, mx.array) and y.shape == shape else _shaped(use, out, shape)


def offers(made: type) -> bool:
    """Whether a class has a method `residual` for its `__call__`, which a subclass or patch may have replaced alone."""
    return _offers(made, made.__call__)


@cache
def _offers(made: type, call: Any) -> bool:
    owner = next((each for each in made.__mro__ if "residual" in vars(each)), None)
    if owner is None or not isfunction(vars(owner)["residual"]) or call is not owner.__call__:
        return False
    return getattr(call, "__qualname__", "") == f"{owner.__qualname__}.__call__"


def call_offered(use: Use, residual: Any, norm: Any, x: mx.array, /, **arguments: Any) -> mx.array | None:
    """`x` and what a component makes of its norm, where it offers that now: (B, L, D), else None; see `call`.

    Args:
        use: The component.
        residual: What does it.
        norm: The module of a norm, or None.
        x: (B, L, D).
        arguments: What the component itself is called with by name.
    """
    try:
        y = residual(norm, x, **arguments)
        if _AT_ONCE.get() and y is not None:
            mx.eval(y)
    except (PluginFault, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise _raised(use, error) from error
    return y if y is None else _shaped(use, y, x.shape)


def together(use: Use, y: mx.array) -> mx.array:
    """The output of a component, of what each device has of it."""
    if use.shard_output == "sum":
        return use.dims.shard.sum(y)
    if use.shard_output == "gather":
        return use.dims.shard.gather(y)
    return y


def expand(use: Use, module: Any, h: mx.array) -> Any:
    """The residual state that a scheme makes of the embedding: an array, or a tuple of arrays.

    Args:
        use: The scheme.
        module: Its module.
        h: (B, L, D), of the embedding.

    Raises:
        PluginFault: If its code raises anything.
    """
    return _run(use, lambda: module.expand(h))


def collapse(use: Use, module: Any, shape: tuple[int, ...], state: Any) -> mx.array:
    """What a scheme makes of the residual state after the last layer.

    Args:
        use: The scheme.
        module: Its module.
        shape: (B, L, D).
        state: The residual state.

    Raises:
        PluginFault: If its code raises anything, or gives anything else.
    """
    return _shaped(use, _run(use, lambda: module.collapse(state)), shape)


def read(use: Use, module: Any, state: Any, /, **arguments: Any) -> tuple[mx.array, Any]:
    """What a connection gives to its branches, and what it holds until they are done.

    The first is (B, L, D), or wider for branches that read several streams.

    Args:
        use: The connection.
        module: Its module.
        state: The residual state.
        arguments: Named values that it reads.

    Raises:
        PluginFault: If its code raises anything, or does not give an array and something more.
    """
    out = _run(use, lambda: module.read(state, **arguments))
    if isinstance(out, tuple) and len(out) == 2 and isinstance(out[0], mx.array):
        x, held = out
        width = use.streams * int(use.dims.hidden_size)
        if x.ndim == 3 and x.shape[-1] == width:
            return x, held
        raise _fault(f"`read` of {use.who} gives an array {x.shape}, not (B, L, {width})")
    raise _fault(f"`read` of {use.who} gives a `{type(out).__name__}`, not an array and what it holds")


def write(use: Use, module: Any, held: Any, y: mx.array, **arguments: Any) -> Any:
    """The residual state after the branches of a connection.

    Args:
        use: The connection.
        module: Its module.
        held: What `read` held.
        y: (B, L, D), of its branches.
        arguments: Mask and cache of one that keeps something.

    Raises:
        PluginFault: If its code raises anything.
    """
    return _run(use, lambda: module.write(held, y, **arguments))


def _run(use: Use, run: Callable[[], Any]) -> Any:
    try:
        out = run()
        if _AT_ONCE.get():
            mx.eval(out)
        return out
    except (PluginFault, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise _raised(use, error) from error


def _raised(use: Use, error: BaseException) -> PluginFault:
    debug_traceback(error)
    return _fault(f"the forward pass of {use.who} raises {Raised(error)}")


def _shaped(use: Use, out: Any, shape: tuple[int, ...]) -> mx.array:
    """The array of an output, alone or the first of a tuple, if it has this shape."""
    y = out[0] if isinstance(out, tuple) and out else out
    if isinstance(y, mx.array) and y.shape == shape:
        return y
    found = f"an array {_named(y.shape, shape)}" if isinstance(y, mx.array) else f"a `{type(y).__name__}`"
    raise _fault(
        f"the forward pass of {use.who} gives {'None' if y is None else found}, not an array {_named(shape, shape)}"
    )


def _named(found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """A shape with letters for the numbers of sequences and tokens, so that every call says the same of a layer."""
    letters = dict(zip((0, 1), "BL", strict=True))
    sizes = (letters[i] if i in letters and size == wanted[i] else str(size) for i, size in enumerate(found))
    return f"({', '.join(sizes)})"


@contextmanager
def at_once() -> Iterator[None]:
    """Compute every output before the next component is called."""
    token = _AT_ONCE.set(True)
    try:
        yield
    finally:
        _AT_ONCE.reset(token)


@contextmanager
def blamed(plan: Plan, again: Callable[[], object] | None = None) -> Iterator[None]:
    """Compute lazy arrays of a model, and find out whose they are if that raises.

    Args:
        plan: The model.
        again: Runs the model once more.

    Raises:
        PluginFault: Instead of what was raised, if a component's arrays raise when they are computed one by one, or if
            it comes out of any other code of a component, such as that for quantisation.
    """
    try:
        with Guard(None):
            yield
    except Raised as raised:
        for use in plan.uses():
            _compute_weights(use)
        if again is not None and isinstance(raised.error, Exception):
            with at_once():
                again()
        for use in plan.uses():
            if raised.package and use.spec.module.startswith((f"{raised.package}.", f"{raised.package}:")):
                raise _fault(f"the package of `{use.type}` ({use.owner}) raises {raised}") from raised
        raise raised.error if isinstance(raised.error, Exception) else raised from None


def _compute_weights(use: Use) -> None:
    """Make the weights of a component anew, for of arrays that raised together it is not known which did."""
    for name, value in tree_flatten(make_module(use).parameters()):
        try:
            with Guard(None):
                mx.eval(value)
        except Raised as raised:
            raise weight_fault(use, name, raised) from raised


def weight_fault(use: Use, name: str, raised: Raised) -> PluginFault:
    """A weight that its component's factory left lazy, and that cannot be computed."""
    return _fault(f"`{name}`, made by the factory of {use.who}, raises {raised} when it is computed")


def _fault(message: str) -> PluginFault:
    return PluginFault("AX212", message, DEBUG_HELP)
