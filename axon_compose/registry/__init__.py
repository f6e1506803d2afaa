"""Plugins and the components that they bring; imports no mlx."""

from axon_compose.registry._specs import (
    KINDS,
    KV,
    ArchitectureSpec,
    Array,
    CacheSpec,
    ComponentSpec,
    Composite,
    Dims,
    Kind,
    State,
)

__all__ = ["KINDS", "KV", "ArchitectureSpec", "Array", "CacheSpec", "ComponentSpec", "Composite", "Dims", "Kind", "State"]
