"""The whole schema: sections, components, and the two ways to read a file, with and without a base."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any, Final

from axon_compose.language.document import Envelope
from axon_compose.language.schema._components import OVER_BASE, Components
from axon_compose.language.schema._formulas import Schema
from axon_compose.language.schema._huggingface import HUGGINGFACE
from axon_compose.language.schema._options import nullable, over_base
from axon_compose.language.schema._sections import definitions, sections
from axon_compose.registry import Registry

__all__ = ["architecture_schema", "dumps"]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_REQUIRED: Final = ["version", "dims", "stack"]
#: Sections whose mappings are laid over those of a base, key by key.
_MERGED: Final = (
    "component", "block", "stack", "norm", "embedding", "residual", "final_norm", "head", "huggingface", "gguf",
)  # fmt: skip


def architecture_schema(registry: Registry, *, published: bool) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of an architecture file, version 1.

    It accepts what `axon_compose.load` accepts, short forms included, except for rules that tie two places of a
    file together; those are left to `axon-compose validate`.

    Args:
        registry: The plugins; all of them are imported (not their layers).
        published: Describe the built-in components alone and accept types of plugins that are not known. Otherwise
            describe everything that is installed, and accept nothing else.
    """
    components = _components(registry, published)
    parts = definitions()
    shared = {**parts, **components.definitions}
    for name in ("block", "stack", *HUGGINGFACE):
        whole = {key: value for key, value in parts[name].items() if key not in ("if", "then")}
        laid = over_base(whole, f"#/$defs/{name}", f"#/$defs/{name}{OVER_BASE}")
        shared[name + OVER_BASE] = nullable(laid)
    for outer, inner in permutations(HUGGINGFACE, 2):
        shared[outer + OVER_BASE] = _with_reference(shared[outer + OVER_BASE], inner)
    return {
        "$schema": _DIALECT,
        "$id": "urn:axon-compose:architecture:1",
        "title": "axon-compose architecture",
        "description": "A language model for MLX: its components, how layers are built from them, and the order "
        "of the layers.",
        "type": "object",
        "if": {"required": ["extends"]},
        "then": _file({name: _over_base(section) for name, section in sections().items()}),
        "else": {"required": _REQUIRED, **_file(sections())},
        "$defs": dict(sorted(shared.items())),
    }


def _with_reference(schema: Any, name: str) -> Any:
    """The schema with every reference to a definition turned to that for files with a base."""
    if isinstance(schema, dict):
        place = f"#/$defs/{name}"
        return {
            key: place + OVER_BASE if key == "$ref" and value == place else _with_reference(value, name)
            for key, value in schema.items()
        }
    return [_with_reference(item, name) for item in schema] if isinstance(schema, list) else schema


def _file(properties: dict[str, Any]) -> Schema:
    base = {"description": Envelope.model_fields["extends"].description, "type": "string", "minLength": 1}
    return {
        "properties": {**properties, "extends": base},
        "patternProperties": {"^x-": True},
        "additionalProperties": False,
    }


def dumps(schema: dict[str, Any]) -> str:
    """The schema as text: the same for the same schema, with a line end."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _components(registry: Registry, published: bool) -> Components:
    found = Components(registry, published)
    texts = {name: str(info.description) for name, info in Envelope.model_fields.items()}
    found.place(
        "component", ("layer", "block", "norm"), "A component: its type, or a mapping of type and options.", typed=True
    )
    found.place("norm", ("norm",), texts["norm"])
    found.place("final_norm", ("norm",), texts["final_norm"], words={"none": "No norm before the head."})
    found.place("embedding", ("embedding",), texts["embedding"])
    found.place("residual", ("residual",), texts["residual"], typed=True)
    found.place("head", ("head",), texts["head"])
    found.branch_norm("A norm: its position (`pre`, `post`, `sandwich`, `none`), or a norm of its own.")
    return found


def _over_base(section: Schema) -> Any:
    """A section of a file with `extends`: null removes the base's, and mappings need not be whole."""

    def laid(schema: Schema) -> Any:
        name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
        return {"$ref": f"#/$defs/{name}{OVER_BASE}"} if name in _MERGED else nullable(schema)

    found = {key: value for key, value in section.items() if key not in ("required", "default")}
    if "additionalProperties" in found:
        found["additionalProperties"] = laid(found["additionalProperties"])
    return laid(found)
