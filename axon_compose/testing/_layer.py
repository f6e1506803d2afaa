"""One component, or all of a plugin, tested against their records and every check of `check`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

import mlx.core as mx
from jsonschema import Draft202012Validator

from axon_compose.model import make_cache
from axon_compose.plan import Use
from axon_compose.proof.check import check_plan
from axon_compose.registry import (
    PASS_VALUES,
    ComponentSpec,
    Dims,
    PluginFault,
    Registry,
    check_options,
    load_factory,
    matching,
    options_schema,
    shrunken,
)
from axon_compose.report._check import check_text
from axon_compose.report._style import PLAIN
from axon_compose.testing._model import DIMS, model_plan
from axon_compose.testing._parts import reads_embedding
from axon_compose.testing._registered import registered
from axon_compose.testing._splits import check_splits
from axon_compose.testing._transfers import check_transfers

__all__ = ["check_layer", "check_plugin", "examples"]

#: A vocabulary that is split is a multiple of this.
_TOKENS: Final = 8


def check_layer(
    spec: ComponentSpec | str,
    options: Mapping[str, Any] | None = None,
    dims: Mapping[str, Any] = DIMS,
    *,
    registry: Registry | None = None,
    sources: Mapping[str, Mapping[str, Any]] | None = None,
    embedding: Mapping[str, Any] | None = None,
    truths: Iterable[str] | None = None,
    seed: int = 0,
) -> None:
    """Test one component against its record and every check of `check`.

    Args:
        spec: Its record, or the type as a file writes it, `namespace/name`. A type's plugin also has to load without
            importing mlx.
        options: As a file writes them.
        dims: At least `hidden_size` and `vocab_size`; keep them small.
        registry: The plugins; the installed ones unless given.
        sources: For a component that reads from another one (`kv_from`): names to component sections with `type`,
            each put into a layer before it.
        embedding: For a component that reads from the embedding: its section.
        truths: Names out of `axon_compose.proof.check.TRUTHS`; all unless given.
        seed: Of weights and tokens.

    Raises:
        AssertionError: With the report, if anything fails.
        LookupFailure: If there is no such type.
    """
    options = dict(options or {})
    by_name = isinstance(spec, str)
    name, spec, registry = registered(spec, registry)
    if by_name:
        _check_imports(name, registry)
    _check_record(spec, options, Dims(dims))
    around: dict[str, Any] = {"embedding": dict(embedding)} if embedding else {}
    plan = model_plan(name, spec.kind, options, dims, registry, sources or {}, around)
    if spec.kind in ("layer", "block"):
        _check_contract(next(use for use in plan.layers[-1].uses() if use.type == name or use.spec.name == spec.name))
    shared = plan
    if spec.kind in ("embedding", "head") or around:  # what is cut by tokens needs a vocabulary that can be
        dims = {**dims, "vocab_size": -(-int(dims["vocab_size"]) // _TOKENS) * _TOKENS}
        shared = model_plan(name, spec.kind, options, dims, registry, sources or {}, around)
    check_splits(shared, spec, seed=seed)
    report = check_plan(plan, seed=seed, truths=truths)
    assert report.passed, "\n" + check_text(report, PLAIN)


def check_plugin(
    namespace: str, dims: Mapping[str, Any] = DIMS, *, registry: Registry | None = None, seed: int = 0
) -> None:
    """Check every component of a plugin with each of its `examples`, and its `transfers`.

    Examples that read from another component are left out: give them to `check_layer` with `sources` or `embedding`.

    Args:
        namespace: The plugin's, as files write it.
        dims: See `check_layer`.
        registry: The plugins; the installed ones unless given.
        seed: Of weights and tokens.

    Raises:
        AssertionError: If the plugin cannot be used, a component has no examples, or one does not pass.
    """
    registry = registry or Registry.installed()
    found = examples(namespace, registry=registry)
    for name, options in found:
        check_layer(name, options, dims, registry=registry, seed=seed)
    for name in dict.fromkeys(name for name, _ in found):
        check_transfers(name, dims, registry=registry, seed=seed)


def examples(namespace: str, *, registry: Registry | None = None) -> list[tuple[str, Mapping[str, Any]]]:
    """Every component of a plugin with each of its `examples`: what `pytest.mark.parametrize` takes.

    Examples that read from another component are left out, as in `check_plugin`.

    Args:
        namespace: The plugin's, as files write it.
        registry: The plugins; the installed ones unless given.

    Raises:
        AssertionError: If the plugin cannot be used, or a component has no examples.
    """
    registry = registry or Registry.installed()
    status = next((status for status in registry.statuses() if status.namespace == namespace), None)
    assert status is not None, f"no installed plugin provides `{namespace}`"
    assert status.status == "ok", f"plugin `{namespace}`: {status.cause}"
    found = []
    for name in status.components:
        spec = registry.component(name)
        assert spec.examples, f"`{name}` has no examples"
        if not reads_embedding(spec):
            options = [option for value, option in spec.reads.items() if value not in PASS_VALUES]
            found += [(name, e) for e in spec.examples if not any(option in e for option in options)]
    return found


def _check_record(spec: ComponentSpec, options: Mapping[str, Any], dims: Dims) -> None:
    """The schema is one and takes what validation takes; examples and shrunken options are valid."""
    schema = options_schema(spec)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for what, each in [("options", options), *(("example", e) for e in spec.examples)]:
        _, faults = check_options(spec, each)
        assert not faults, f"`{spec.name}`: {what} {dict(each)}: {faults[0].message} {faults[0].label}"
        try:
            small = shrunken(spec, each, dims)
        except PluginFault as error:
            raise AssertionError(f"{what} {dict(each)}: {error.message}") from error
        for kind, valid in ((what, dict(each)), (f"shrunken {what}", small)):
            fault = next(iter(validator.iter_errors(valid)), None)
            assert fault is None, (
                f"`{spec.name}`: the schema refuses valid {kind} {valid}: {fault.message if fault else ''}"
            )
    _check_learning(spec, spec.examples or [options], dims)


def _check_learning(spec: ComponentSpec, cases: Iterable[Mapping[str, Any]], dims: Dims) -> None:
    """The parameters that the record names for training are there in one of the examples."""
    valid = [check_options(spec, each)[0] for each in cases]
    known = {name for options in valid for name in spec.params(options, dims)}
    initial = spec.learning.initial
    begun = {("initial", name) for options in valid for name in (initial(options, dims) if initial else ())}
    for what, name in [*spec.learning.names(), *sorted(begun)]:
        there = "*" in name or any(matching(each, (name,)) for each in known)  # a pattern may fit nothing
        assert there, f"`{spec.name}`: `learning.{what}` names `{name}`, which is no parameter of any example"


def _check_contract(use: Use) -> None:
    """What a layer is called with and gives back, tried outside of any model."""
    if any(value != source for value, source in use.reads.items()):
        return  # what it reads only exists inside of a model
    module = load_factory(use.spec)(use.options, use.dims)
    x = mx.random.normal((2, 5, int(use.dims.hidden_size)), key=mx.random.key(0))
    arguments: dict[str, Any] = {"offset": 0} if "offset" in use.spec.reads else {}
    if "tokens" in use.reads:
        arguments["tokens"] = mx.zeros((2, 5), mx.int32)
    out = module(x, **arguments)
    if use.cache is None:
        assert isinstance(out, mx.array), (
            f"`{use.type}` has no cache spec, so it returns only y, not {type(out).__name__}"
        )
        y = out
    else:
        cache = make_cache(use.cache)
        for given in (None, cache):
            out = module(x, cache=given, **arguments)
            assert isinstance(out, tuple), (
                f"`{use.type}` has a cache spec, so it gives (y, cache), not {type(out).__name__}"
            )
            assert len(out) == 2, f"`{use.type}` gives {len(out)} values, not (y, cache)"
        assert out[1] is cache, f"`{use.type}` gives another cache back than it got"
        y = out[0]
    assert y.shape == x.shape, f"`{use.type}` turns {x.shape} into {y.shape}"
    assert y.dtype == x.dtype, f"`{use.type}` turns {x.dtype} into {y.dtype}"


def _check_imports(name: str, registry: Registry) -> None:
    namespace = name.partition("/")[0] if "/" in name else "core"
    if registry.distribution(namespace).endswith(" in-memory"):
        return
    package = registry.component(name).module.partition(":")[0].partition(".")[0]
    assert not _imports_mlx(package), f"importing `{package}` imports mlx: name classes in `module` as text instead"


@cache
def _imports_mlx(package: str) -> bool:
    code = f"import sys, {package}; sys.exit(3 if 'mlx' in sys.modules else 0)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)  # noqa: S603
    assert done.returncode in (0, 3), f"`import {package}` fails: {done.stderr.strip().splitlines()[-1:]}"
    return done.returncode == 3
