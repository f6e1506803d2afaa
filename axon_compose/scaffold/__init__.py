"""A new plugin package from a template: records, a right layer, an architecture and tests."""

from axon_compose.scaffold._render import ScaffoldError, new_plugin

__all__ = ["ScaffoldError", "new_plugin"]
