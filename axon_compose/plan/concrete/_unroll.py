"""A document with values for its formulas, written out again: named blocks, the stack as text, overrides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any, Final

from axon_compose.diagnostics import Problems
from axon_compose.language.document import BranchItem, Document, Unresolved, is_formula, resolve
from axon_compose.language.document._formulas import cached_parse, formulas_in
from axon_compose.language.document._settings import names_from_settings
from axon_compose.language.document._stack_compress import compress
from axon_compose.language.source import Mapping as MappingNode
from axon_compose.language.source import plain
from axon_compose.plan import Plan, Use, layer_ranges
from axon_compose.plan._stack import StackLayer, expand_stack
from axon_compose.plan.concrete._options import pruned
from axon_compose.registry import Kind, Registry

__all__ = ["unroll"]

#: Sections outside of the stack, and the kind of component that stands there.
_KINDS: Final[dict[str, Kind]] = {
    "norm": "norm",
    "embedding": "embedding",
    "residual": "residual",
    "final_norm": "norm",
    "head": "head",
}
#: Numbers of a list in dims that are written out.
_LONGEST: Final = 32


def unroll(document: Document, plan: Plan, registry: Registry, *, gguf: bool = False) -> dict[str, Any]:
    """The same model as plain data of a file that has no formulas of sizes and no generated stack.

    Args:
        document: What was planned.
        plan: What came of it.
        registry: Knows the defaults of options, which are left out.
        gguf: Keep the rules for the tensors of GGUF files too.

    Returns:
        Sections in the order of a file; `load` gives the same plan.
    """
    return _Unrolling(document, plan, registry).data(("huggingface", "gguf") if gguf else ("huggingface",))


class _Unrolling:
    def __init__(self, document: Document, plan: Plan, registry: Registry) -> None:
        self.document, self.plan, self.registry = document, plan, registry
        self.written: dict[str, Any] = plain(document.node)
        self.names: dict[str, Any] = {**document.names(), **document.dims}

    def data(self, reading: tuple[str, ...]) -> dict[str, Any]:
        stack = expand_stack(self.document, Problems())
        assert stack is not None, "it was planned"
        blocks, order = self.blocks(stack)
        components, overrides = self.components()
        found: dict[str, Any] = {"version": 1, "name": self.plan.name}
        sections = {section: of for section in reading if (of := self.reading(section))}
        found["dims"] = self.dims(sections)
        found |= {"components": components, "blocks": blocks, "stack": compress(order)}
        if overrides:
            found["overrides"] = overrides
        for section in _KINDS:
            if section in self.written and (value := self.end(section)):
                found[section] = value
        return found | sections

    # Blocks.

    def blocks(self, stack: list[StackLayer]) -> tuple[dict[str, Any], list[str]]:
        """Different layers by name, and the names in the order of the stack."""
        layers = [self.layer(index, layer) for index, layer in enumerate(stack)]
        kinds: dict[str, Any] = {}
        for layer, written in zip(stack, layers, strict=True):
            kinds.setdefault(repr(written), (layer, written))
        names = dict(zip(kinds, self.block_names(list(kinds.values())), strict=True))
        return {names[key]: kinds[key][1] for key in kinds}, [names[repr(written)] for written in layers]

    def layer(self, index: int, layer: StackLayer) -> Any:
        """The branches of a layer in plain data, without those that its formulas leave out."""
        names = {**self.names, "i": index}
        branches = [written for item in layer.branches if (written := self.branch(item, names)) is not None]
        return {"branches": branches, "share": layer.share} if layer.share else branches

    def branch(self, item: BranchItem, names: Mapping[str, Any]) -> Any:
        written = self.valued(item.model_dump(by_alias=True, exclude_unset=True, warnings=False), names)
        if "parallel" in written:
            written["parallel"] = [_short(member) for member in written["parallel"] if member["use"] is not None]
            return _short(written) if written["parallel"] else None
        if "use" in written and written["use"] is None:
            return None
        return _short(written)

    def block_names(self, kinds: list[tuple[StackLayer, Any]]) -> list[str]:
        """A name for each kind: that of its block, of its first component, or of all, whichever is unique."""
        uses = [list(_components(written)) for _, written in kinds]
        choices = [
            [layer.block for layer, _ in kinds],
            [parts[0] if parts else "layer" for parts in uses],
            [next((part for part in parts if any(part not in other for other in uses)), "layer") for parts in uses],
            ["_".join(parts)[:90] or "layer" for parts in uses],
        ]
        for names in choices:
            if len(set(names)) == len(names) and "=" not in names and not set(names) & self.document.dims.keys():
                return names
        return [f"layer_{number}" for number in range(1, len(kinds) + 1)]

    # Components.

    def components(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Every component with the options that most of its layers have; what others have goes into overrides."""
        places: dict[str, list[tuple[int, Use]]] = {}
        for layer in self.plan.layers:
            for branch in layer.branches:
                for member in branch.members:
                    places.setdefault(member.use.name, []).append((layer.index, member.use))
        found: dict[str, Any] = {}
        changes: dict[int, dict[str, Any]] = {}
        for name in self.document.envelope.components:
            if name not in places:
                continue
            uses = places[name]
            by_layer = dict(self.by_layer(name, uses))
            texts = [repr({**use.written, **by_layer}) for _, use in uses]
            usual = uses[texts.index(max(texts, key=texts.count))][1]
            for index, use in uses:
                for option in {**usual.written, **use.written}.keys() - by_layer.keys():
                    value = use.written.get(option)
                    if value != usual.written.get(option):
                        changes.setdefault(index, {})[f"{name}.{option}"] = value
            written = self.document.envelope.components[name]
            found[name] = {"type": written.type, **pruned(usual.spec, usual.options, usual.written), **by_layer}
        return found, list(_grouped(changes))

    def by_layer(self, name: str, uses: list[tuple[int, Use]]) -> Iterator[tuple[str, str]]:
        """Options with another value in every layer by a formula of the layer alone, such as `=i`."""
        for option, text in self.document.envelope.components[name].options.items():
            if is_formula(text) and cached_parse(text).names == {"i"}:
                values = [self.valued(text, {"i": index}) for index, _ in uses]
                every = len(set(map(repr, values))) == len(values) > 1
                if every and values == [use.written.get(option) for _, use in uses]:
                    yield option, text

    def end(self, section: str) -> Any:
        """A section before or after the stack, formulas resolved and defaults left out."""
        written = self.written[section]
        if not isinstance(written, dict):
            return written
        values = self.valued(written, self.names)
        kind = values.pop("type", None)
        if kind is None and section == "final_norm":
            return values  # laid over `norm`, whose options are not the defaults
        spec = self.registry.component(kind) if kind else self.registry.default(_KINDS[section])
        values = pruned(spec, None, values)
        return {"type": kind, **values} if kind else values

    # What is left of dims and of the sections huggingface and gguf.

    def dims(self, sections: Mapping[str, Any]) -> dict[str, Any]:
        used = {name for _, text in formulas_in(sections) for name in cached_parse(text).names}
        return {
            name: _in_stretches(value)
            for name, value in self.document.dims.items()
            if name in ("hidden_size", "vocab_size") or name in used
        }

    def reading(self, name: str) -> dict[str, Any]:
        """The rules of a section for tensors, with values for formulas that need no capture.

        Fields of config.json that a setting has let pass are kept too, for an export of the checkpoint's own.
        """
        section = self.written.get(name) or {}
        found = {key: section[key] for key in ("prefixes", "weights") if section.get(key)}
        valued: dict[str, Any] = self.valued(found, self.names, strict=False)
        rules = valued.get("weights", {})
        for rule in rules.values():
            if isinstance(rule, dict) and not is_formula(rule.get("when", True)):
                rule["when"] = bool(rule.get("when", True))
        kept = {pattern: rule for pattern, rule in rules.items() if not _never(rule)}
        for rule in kept.values():
            if isinstance(rule, dict) and rule["when"] is True:
                del rule["when"]
        if kept:
            valued["weights"] = {pattern: _plain_rule(rule) for pattern, rule in kept.items()}
        written = self.document.node.get(name)
        ignored = names_from_settings(written.get("ignore") if isinstance(written, MappingNode) else None)
        return ({"ignore": ignored} if ignored else {}) | valued

    def valued(self, data: Any, names: Mapping[str, Any], *, strict: bool = True) -> Any:
        """Plain data with values for formulas; the formula unless `strict`, where names are not known or it is null."""
        if isinstance(data, dict):
            return {key: self.valued(value, names, strict=strict) for key, value in data.items()}
        if isinstance(data, list):
            return [self.valued(item, names, strict=strict) for item in data]
        if not is_formula(data) or (not strict and not cached_parse(data).names <= names.keys()):
            return data
        try:
            value = resolve(data, names, self.document, (), Problems())
        except Unresolved:
            return data
        return data if value is None and not strict else value  # a formula may be null, a number in its place not


def _in_stretches(value: Any) -> Any:
    """A list of thousands of numbers that repeat, one for each row of a matrix, as `=[0.5] * 2048 + [1.0] * 64`."""
    if not isinstance(value, list) or len(value) <= _LONGEST or not all(type(item) in (int, float) for item in value):
        return value
    stretches = [(item, len(list(run))) for item, run in groupby(value)]
    if len(stretches) > _LONGEST:
        return value
    return "=" + " + ".join(f"[{item}] * {count}" for item, count in stretches)


def _short(written: dict[str, Any]) -> Any:
    """A branch, or a component in it, in its shortest form."""
    if isinstance(written.get("norm"), dict) and written["norm"].keys() == {"place"}:
        written["norm"] = written["norm"]["place"]
    return written["use"] if written.keys() == {"use"} else written


def _components(block: Any) -> Iterator[str]:
    """Names of the components of a block, each once."""
    seen: set[str] = set()
    for branch in block["branches"] if isinstance(block, dict) else block:
        items = branch.get("parallel", [branch]) if isinstance(branch, dict) else [branch]
        for item in items:
            name = item.get("use") if isinstance(item, dict) else item
            if name and name not in seen:
                seen.add(name)
                yield name


def _grouped(changes: Mapping[int, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One override for all layers with the same changes."""
    groups: dict[str, list[int]] = {}
    for layer in sorted(changes):
        groups.setdefault(repr(changes[layer]), []).append(layer)
    for layers in groups.values():
        yield {"layers": layer_ranges(layers), "set": changes[layers[0]]}


def _never(rule: Any) -> bool:
    return isinstance(rule, dict) and rule.get("when") is False


def _plain_rule(rule: Any) -> Any:
    """A rule in its shortest form, with stretches that a formula gave together beside the others."""
    parts = rule.get("split") if isinstance(rule, dict) else None
    for part in parts.values() if isinstance(parts, dict) else ():
        if isinstance(part, dict) and "sizes" in part:
            part["sizes"] = [n for size in part["sizes"] for n in (size if isinstance(size, list) else [size])]
    return rule["to"] if isinstance(rule, dict) and rule.keys() == {"to"} else rule
