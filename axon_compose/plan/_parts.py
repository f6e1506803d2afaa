"""Components of a file against the registry: types looked up, options resolved for a layer and validated."""

from __future__ import annotations

from collections.abc import Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from axon_compose.diagnostics import Problems
from axon_compose.language.document import (
    Component,
    Document,
    NormChoice,
    Path,
    Unresolved,
    report_no_component,
    resolve,
    written_norms,
)
from axon_compose.language.document._formulas import cached_parse, formulas_in
from axon_compose.plan._declared import Declared, declared
from axon_compose.plan._overrides import Overrides
from axon_compose.plan._plan import Use
from axon_compose.record import record
from axon_compose.registry import ComponentSpec, Dims, Fault, Kind, LookupFailure, Raised, Registry, check_options

__all__ = ["IN_LAYERS", "Broken", "Part", "Parts"]

#: Kinds of components that a block may name; a norm there replaces what it reads, as a whole block does.
IN_LAYERS: Final[tuple[Kind, ...]] = ("layer", "block", "norm")

#: Largest extent of one axis that MLX can address.
MAX_EXTENT: Final = 2**31 - 1


class Broken(Exception):
    """A component cannot be used; the fault is already reported."""


@record
class Part:
    """A component with validated options, before it has a place in the model."""

    name: str
    type: str
    spec: ComponentSpec
    options: Any
    written: Mapping[str, Any]
    dims: Dims
    declared: Declared
    owner: str

    def at(self, path: str) -> Use:
        """The part at a place of the model."""
        return Use(
            self.name,
            self.type,
            self.spec,
            self.options,
            self.written,
            self.dims,
            path,
            self.declared.params,
            self.declared.active,
            self.declared.cache,
            window=self.declared.window,
            chosen=self.declared.chosen,
            chunk=self.declared.chunk,
            streams=self.declared.streams,
            buffers=self.declared.buffers,
            owner=self.owner,
        )


@dataclass
class Parts:
    """Resolves components; every answer is kept, since most layers are alike.

    Attributes:
        document: The file.
        registry: The installed plugins.
        problems: Collects faults; each is reported once.
        dims: What factories see.
        asked: Where in the file the components are that have been resolved.
    """

    document: Document
    registry: Registry
    problems: Problems
    dims: Dims
    overrides: Overrides = field(init=False)
    asked: set[Path] = field(default_factory=set)
    _specs: dict[Path, ComponentSpec | None] = field(default_factory=dict)
    _parts: dict[tuple[Any, ...], Part | None] = field(default_factory=dict)
    _alike: dict[tuple[str, Path], Part] = field(default_factory=dict)
    _unknown: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.names: dict[str, Any] = {**self.document.names(), **self.document.dims}
        self.overrides = Overrides(self.document, self.problems)

    def of_streams(self, count: int) -> Parts:
        """The same components where they read several residual streams side by side, all of them one wide vector."""
        dims = Dims({**self.dims, "hidden_size": count * self.dims.hidden_size}, streams=count)
        wide = Parts(self.document, self.registry, self.problems, dims)
        wide.overrides = self.overrides
        return wide

    def check_all(self, without: Set[Path]) -> None:
        """Validate every component that does not depend on the layer, used or not.

        Args:
            without: Those that only stand where they are wider, and are checked there.
        """
        for name, component in self.document.envelope.components.items():
            if ("components.formula",) in self.document.broken:
                return
            if self._by_layer(component.options):
                self.spec(component, ("components", name), IN_LAYERS)
            elif ("components", name) not in without:
                with suppress(Broken):
                    self.resolve(name, component, ("components", name), IN_LAYERS)

    def check_norms(self, without: Set[Path]) -> None:
        """Validate the norms of all branches and components that have one of their own, used or not.

        Args:
            without: As of `check_all`.
        """
        for choice, path in written_norms(self.document):
            component = self.own_norm(choice)
            if component and path not in without and not self._by_layer(component.options):
                with suppress(Broken):
                    self.resolve("norm", component, path, ("norm",))

    def own_norm(self, choice: NormChoice) -> Component | None:
        """The norm that a branch or component writes itself, over the file's unless it names a type; None for none."""
        if not (choice.type or choice.options):
            return None
        base = self.document.envelope.norm if choice.type is None else Component()
        return Component(type=choice.type or base.type, **{**base.options, **choice.options})

    def named(self, name: str, path: Path, layer: int) -> Part:
        """A component of the file at one layer.

        Raises:
            Broken: If it does not exist or its options are faulty; the fault is reported.
        """
        component = self.document.envelope.components.get(name)
        if component is None:
            if name not in self._unknown:
                self._unknown.add(name)
                report_no_component(self.document, name, self.document.place(*path), self.problems)
            raise Broken
        return self.resolve(name, component, ("components", name), IN_LAYERS, layer)

    def resolve(
        self, name: str, component: Component, path: Path, kinds: tuple[Kind, ...], layer: int | None = None
    ) -> Part:
        """A component with the options that hold at `layer`.

        Args:
            name: What the file calls it.
            component: Its section.
            path: Where it is in the file.
            kinds: Kinds that may stand here; without a type, the default of the first.
            layer: Index for formulas and overrides; None outside the stack.

        Raises:
            Broken: If anything is wrong with it; the fault is reported.
        """
        self.asked.add(path)
        changed = layer is not None and self.overrides.changes(name, layer)
        if not changed and (name, path) in self._alike:
            return self._alike[name, path]
        part = self._resolve(name, component, path, kinds, layer)
        if not changed and not self._by_layer(component.options):
            self._alike[name, path] = part
        return part

    def _resolve(self, name: str, component: Component, path: Path, kinds: tuple[Kind, ...], layer: int | None) -> Part:
        spec = self.spec(component, path, kinds)
        if spec is None:
            raise Broken
        written, origins = component.options, dict[str, Path]()
        names = self.names
        if layer is not None and path[0] == "components":
            written, origins = self.overrides.apply(name, written, layer)
            names = {**self.names, "i": layer}
        try:
            values = {
                key: resolve(value, names, self.document, origins.get(key, (*path, key)), self.problems)
                for key, value in written.items()
            }
        except Unresolved:
            raise Broken from None
        key = (name, path, repr(values), repr(origins))
        if key not in self._parts:
            at = layer if self._by_layer(written) else None
            self._parts[key] = self._part(name, spec, values, path, origins, at)
        part = self._parts[key]
        if part is None:
            raise Broken
        return part

    def spec(self, component: Component, path: Path, kinds: tuple[Kind, ...]) -> ComponentSpec | None:
        """The spec of a section's type, looked up and reported once; None if there is none."""
        if path not in self._specs:
            self._specs[path] = self._look_up(component, path, kinds)
        return self._specs[path]

    def _look_up(self, component: Component, path: Path, kinds: tuple[Kind, ...]) -> ComponentSpec | None:
        if (f"{path[0]}.formula",) in self.document.broken:
            return None
        try:
            spec = self.registry.component(component.type) if component.type else self.registry.default(kinds[0])
        except LookupFailure as failure:
            place = self.document.place(*path, "type")
            self.problems.error(failure.code, failure.message, place, label=failure.label, help=failure.help)
            return None
        if spec.kind not in kinds:
            wanted = " or ".join(kinds)
            self.problems.error(
                "AX206",
                f"`{component.type}` is a component of kind {spec.kind}",
                self.document.place(*path, "type"),
                label=f"expected a {wanted}",
            )
            return None
        return spec

    def _part(
        self,
        name: str,
        spec: ComponentSpec,
        values: dict[str, Any],
        path: Path,
        origins: Mapping[str, Path],
        layer: int | None,
    ) -> Part | None:
        type_name, owner = self.registry.full_name(spec), self.registry.owner(spec)
        options, faults = check_options(spec, values)
        for fault in faults:
            told = replace(fault, message=f"{fault.message} by {owner}") if fault.kind == "plugin" else fault
            self._report(told, path, origins, layer)
        if faults:
            return None
        try:
            sizes = declared(spec, options, self.dims)
        except Raised as raised:
            message = f"`{name}` does not work with these sizes: {raised.reason}"
            label = "" if type_name.startswith("core/") else f"says the record of `{type_name}`, {owner}"
            self.problems.error("AX145", message, self.document.place(*path, key=True), label=label)
            return None
        for parameter, shape in sizes.params.items():
            if any(extent > MAX_EXTENT or extent < 1 for extent in shape):
                self.problems.error(
                    "AX146",
                    f"`{name}.{parameter}` would have the shape {shape}",
                    self.document.place(*path, key=True),
                    label=f"every extent must be from 1 to {MAX_EXTENT:,}",
                )
                return None
        return Part(name, type_name, spec, options, values, self.dims, sizes, owner)

    def _report(self, fault: Fault, path: Path, origins: Mapping[str, Path], layer: int | None) -> None:
        first = str(fault.path[0]) if fault.path else ""
        full = (*origins[first], *fault.path[1:]) if first in origins else (*path, *fault.path)
        where = f" (in layer {layer})" if layer is not None else ""
        if fault.kind == "missing":
            place = (
                self.document.place(*full[:-1], "type")
                if len(fault.path) <= 1
                else self.document.place(*full[:-1], key=True)
            )
            self.problems.error("AX103", fault.message + where, place, label=fault.label, help=fault.help)
            return
        code = "AX101" if fault.kind == "unknown" else "AX102"
        place = self.document.place(*full, key=fault.at_key)
        self.problems.error(code, fault.message + where, place, label=fault.label, help=fault.help)

    @staticmethod
    def _by_layer(options: Mapping[str, Any]) -> bool:
        return any("i" in cached_parse(text).names for _, text in formulas_in(options))
