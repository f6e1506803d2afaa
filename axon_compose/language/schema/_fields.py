"""What models say of their fields, as pieces of a schema."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from axon_compose.language.schema._formulas import Schema

__all__ = ["Schema", "from_field", "model_text", "ref"]


def ref(name: str) -> Schema:
    """A reference to a definition."""
    return {"$ref": f"#/$defs/{name}"}


def model_text(model: type[BaseModel]) -> str:
    """What a model says of itself, in one line."""
    return " ".join((model.__doc__ or "").split())


def from_field(model: type[BaseModel], field: str, **schema: Any) -> Schema:
    """The schema of a field, with the text and the default that its model gives it."""
    info = model.model_fields[field]
    found: Schema = {"description": info.description}
    if isinstance(info.default, int | float | str) and info.default != "":
        found["default"] = info.default
    return found | schema
