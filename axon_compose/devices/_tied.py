"""What a head reads of the embedding's parameters, and where it is for that."""

from __future__ import annotations

from axon_compose.plan import Plan, Use
from axon_compose.registry import DEBUG_HELP, Guard, PluginFault, Raised

__all__ = ["beside_embedding", "tables"]

_OF_EMBEDDING = "embedding."


def tables(head: Use) -> frozenset[str] | None:
    """Parameters of the embedding that a head reads; None if its record does not say.

    Raises:
        PluginFault: `AX212`, the record raises.
    """
    if head.spec.touched is None:
        return None
    try:
        with Guard():
            names = list(head.spec.touched(head.options, head.dims, 1))
    except Raised as raised:
        raise PluginFault("AX212", f"`touched` of {head.who} raises {raised}", DEBUG_HELP) from raised
    return frozenset(name.removeprefix(_OF_EMBEDDING) for name in names if name.startswith(_OF_EMBEDDING))


def beside_embedding(plan: Plan) -> bool:
    """Whether the head reads parameters of the embedding, or may: of a pipeline, the stage that has one has both."""
    return tables(plan.head) != frozenset()
