"""Places where a component stands: its type by name, and then the options of that type.

The type is an `enum` and each type's options follow by `if`/`then`. A union would be shorter, but a fault in one
component would then read "none of these fits"; this way it names the option, or the types that exist.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from axon_compose.language.schema._formulas import Schema
from axon_compose.language.schema._options import has_required, options, over_base
from axon_compose.record import record
from axon_compose.registry import Kind, Registry

__all__ = ["OVER_BASE", "Components"]

#: Ending of definitions that hold for a file with `extends`.
OVER_BASE: Final = "_over_base"

_THIRD_PARTY: Final = r"^(?!core/)[a-z][a-z0-9_-]*/[a-z][a-z0-9_-]*$"
_TYPE_TEXT: Final = "A component type: `name` if built in, else `plugin/name`."
_PLACES: Final = ["pre", "post", "sandwich", "none"]
_PLACE_TEXT: Final = "Position of the norm: before the component, after it, both, or none."


@record
class _Type:
    """One registered type: how files write it, and where its options are defined."""

    names: tuple[str, ...]
    summary: str
    key: str
    default: bool
    needy: bool

    @property
    def pattern(self) -> str:
        """What the names have in common."""
        return f"^(core/)?{self.names[0]}$" if len(self.names) > 1 else f"^{self.names[0]}$"


@dataclass
class Components:
    """Definitions of everything that a registry offers.

    Attributes:
        registry: The plugins.
        published: Leave third-party plugins out, and accept types that are not known.
        definitions: What `$defs` must hold, filled by `place`.
    """

    registry: Registry
    published: bool
    definitions: dict[str, Schema] = field(default_factory=dict)

    def place(
        self, name: str, kinds: tuple[Kind, ...], text: str, *, words: dict[str, str] | None = None, typed: bool = False
    ) -> None:
        """Define a place, and the same over a base.

        Args:
            name: Key of the definition.
            kinds: What may stand there.
            text: Description.
            words: Words with a meaning of their own in the place of a type, with what they mean.
            typed: Whether the type must be written; the default of the kind otherwise.
        """
        types = self._types(kinds, {"type": True})
        self.definitions[f"{name}_type"] = self._type_name(types, words or {})
        for ending in ("", OVER_BASE):
            found = self._item(name, types, text, typed, ending)
            if typed and not ending:
                found["required"] = ["type"]
            self.definitions[name + ending] = found

    def branch_norm(self, text: str) -> None:
        """Define the norm of a branch, or of a component in it: a word for its place, or a mapping with `place`."""
        place = {"description": _PLACE_TEXT, "default": "pre", "enum": _PLACES}
        types = self._types(("norm",), {"type": True, "place": True}, "_of_branch")
        untyped = {"properties": {"type": {"type": "null"}}}
        self.definitions["branch_norm"] = {
            "title": "norm of a branch",
            "description": text,
            "type": ["string", "object"],
            "properties": {"place": place, "type": self._type_property("norm", null=True)},
            "anyOf": [{"enum": _PLACES}, {"type": "object"}],
            "allOf": [
                *self._choices(types, "", None),
                {"if": {"type": "object", **untyped}, "then": self._any_of_kind(types, ["type", "place"])},
            ],
        }

    def _item(self, name: str, types: list[_Type], text: str, typed: bool, ending: str) -> Schema:
        null = ["null"] if ending else []
        needy = [written for t in types if t.needy for written in t.names]
        rules: list[Schema] = [{"if": {"enum": needy}, "then": {"type": "object"}}] if needy else []
        untyped = None if typed or ending or name == "final_norm" else next((t for t in types if t.default), None)
        rules += self._choices(types, ending, untyped)
        if name == "final_norm" and not ending:
            condition = {"type": "object", "properties": {"type": {"type": "null"}}}
            rules.append({"if": condition, "then": self._any_of_kind(types, ["type"])})
        return {
            "title": name.replace("_", " "),
            "description": text,
            "type": ["object", "string", *null],
            "properties": {"type": self._type_property(name, null=not typed or bool(ending))},
            "anyOf": [{"$ref": f"#/$defs/{name}_type"}, {"type": ["object", *null]}],
            "allOf": rules,
        }

    def _type_property(self, name: str, *, null: bool) -> Schema:
        reference = {"$ref": f"#/$defs/{name}_type"}
        return {"description": _TYPE_TEXT, "anyOf": [reference, {"type": "null"}]} if null else reference

    def _choices(self, types: list[_Type], ending: str, untyped: _Type | None) -> list[Schema]:
        rules = []
        for each in types:
            # A pattern, since editors show the entries of an `enum` even in a condition.
            named: Schema = {"type": "string", "pattern": each.pattern}
            condition: Schema = {"type": "object", "required": ["type"], "properties": {"type": named}}
            if each is untyped:
                del condition["required"]
                named["type"] = ["string", "null"]
            rules.append({"if": condition, "then": {"$ref": f"#/$defs/{each.key}{ending}"}})
        return rules

    def _any_of_kind(self, types: list[_Type], further: list[str]) -> Schema:
        """Options without a type: it comes from the section `norm`, so what differs between types is left open."""
        properties: Schema = dict.fromkeys(further, True)
        for each in types:
            for name, option in self.definitions[each.key]["properties"].items():
                if name not in properties:
                    properties[name] = option
                elif _meaning(properties[name]) != _meaning(option):
                    properties[name] = True
        return (
            {"properties": properties} if self.published else {"properties": properties, "additionalProperties": False}
        )

    def _type_name(self, types: list[_Type], words: dict[str, str]) -> Schema:
        listed = {**words, **{t.names[0]: t.summary for t in types}}
        names: Schema = {"enum": list(listed), "enumDescriptions": list(listed.values())}
        full = "|".join(t.names[1].removeprefix("core/") for t in types if len(t.names) > 1)
        others = [{"type": "string", "pattern": f"^core/({full})$"}] if full else []
        if self.published:
            others.append({"type": "string", "pattern": _THIRD_PARTY})
        return {"description": _TYPE_TEXT, "anyOf": [names, *others]}

    def _types(self, kinds: tuple[Kind, ...], extra: dict[str, Any], variant: str = "") -> list[_Type]:
        found = []
        for full, spec in self.registry.components().items():
            namespace, _, name = full.partition("/")
            core = namespace == "core"
            if spec.kind not in kinds or (self.published and not core):
                continue
            key = f"{namespace}.{name}{variant}"
            if key not in self.definitions:
                schema = options(spec, key, extra)
                self.definitions[key] = schema
                if not variant:
                    target = f"{key}{OVER_BASE}"
                    self.definitions[target] = over_base(schema, f"#/$defs/{key}", f"#/$defs/{target}")
            needy = has_required(self.definitions[key])
            names = (name, full) if core else (full,)
            found.append(_Type(names, spec.summary, key, core and spec.default, needy))
        return found


def _meaning(schema: Any) -> Any:
    """A schema without its words."""
    if not isinstance(schema, dict):
        return schema
    return {key: value for key, value in schema.items() if key not in ("title", "description", "default")}
