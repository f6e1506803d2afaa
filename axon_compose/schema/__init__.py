"""The JSON Schema of the language, for editors; made from the models and the registry, imports no mlx."""

from axon_compose.schema._architecture import architecture_schema, dumps

__all__ = ["architecture_schema", "dumps"]
