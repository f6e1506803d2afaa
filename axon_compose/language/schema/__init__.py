"""The JSON Schema of the language, for editors; made from the models and the registry, imports no mlx."""

from typing import Final

from axon_compose.language.schema._architecture import architecture_schema, dumps

__all__ = ["PUBLISHED_NAME", "architecture_schema", "dumps"]

#: The file in `schemas/` that files of version 1 name in their first line.
PUBLISHED_NAME: Final = "architecture-1.schema.json"
