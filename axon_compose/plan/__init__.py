"""A document and a registry to a plan, layer by layer; imports no mlx."""

from axon_compose.plan._plan import Branch, Layer, MaskGroup, Member, Plan, Use

__all__ = ["Branch", "Layer", "MaskGroup", "Member", "Plan", "Use"]
