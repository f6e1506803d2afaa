"""What a picture says of a component beside its name and its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from axon_compose.plan import Branch, Layer, Member, Plan, Use
from axon_compose.report.draw._fold import Card

__all__ = ["embedding_notes", "head_notes", "notes", "reads"]


def embedding_notes(plan: Plan) -> tuple[str, ...]:
    """What the embedding turns into what."""
    return (f"{plan.dims.vocab_size:,} tokens → {plan.dims.hidden_size:,}",)


def head_notes(plan: Plan) -> tuple[str, ...]:
    """Whose weights a head without own ones has."""
    return () if plan.head.size else ("weights of the embedding",)


def notes(branch: Branch, member: Member, card: Card) -> tuple[str, ...]:
    """What a component of a layer reads, how its output is scaled or kept, and whose weights it has."""
    found = [f"reads {_said(value, source, card.layers)}" for value, source in reads(member.use)]
    found += [f"output × {factor:g}" for factor in (member.scale, branch.scale) if factor != 1]
    if member is branch.members[0]:
        found += [f"added to the stream × {branch.skip:g}"] if branch.skip != 1 else []
        found += [f"connection {branch.connection.name}"] if branch.connection else []
    if member.keep:
        found.append(f"kept as {member.keep}")
    if card.layer.owner is not None:
        found.append(f"weights of layer {card.layer.owner}")
    return tuple(found)


def reads(use: Use) -> list[tuple[str, str]]:
    """Values of other places that a component reads, and from where."""
    return [(value, source) for value, source in use.reads.items() if "." in source]


def _said(value: str, source: str, layers: Sequence[Layer]) -> str:
    """From where a value comes, for all layers of a card."""
    place = source.partition(".")[0]
    if not place.isdigit():
        return f"{value} of the {place}"
    sources = {found for layer in layers for use in layer.uses() for found in use.source_layers}
    if len(sources) == 1:
        return f"{value} of layer {place}"
    return f"{value} {layers[0].index - int(place)} layers back"
