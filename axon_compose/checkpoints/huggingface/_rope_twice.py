"""`rope_parameters` and `rope_scaling` in one configuration, as somebody leaves it who adds a scaling to a new one.

transformers 5.24 takes `rope_scaling` and forgets `rope_parameters`, the base of the rotation included
(`convert_rope_params_to_dict`). That is followed where nothing but the scaling gets lost, else refused.
"""

from __future__ import annotations

from typing import Any, Final

from axon_compose.diagnostics import Label, Problems
from axon_compose.language.config import Config
from axon_compose.language.source import Entry, Mapping, plain

__all__ = ["written_positions"]

_NEW: Final = "rope_parameters"
_OLD: Final = "rope_scaling"
#: What `rope_parameters` may say besides the scaling; beside it, these are fields of their own.
_BESIDE: Final = ("rope_theta", "partial_rotary_factor")


def written_positions(config: Config, problems: Problems) -> tuple[str, Entry, dict[str, Any]] | None:
    """The field that says how positions are rotated: its name, where it is, and what it says.

    Args:
        config: The configuration. A field of the text model comes before one of a wrapper, whatever their names.
        problems: Collects contradictions.
    """
    part = next((part for part in config.parts() if _mappings(part)), None)
    if part is None:
        return None
    found = _mappings(part)
    if len(found) == 2 and _repeats(plain(found[_NEW].node), plain(found[_OLD].node)):
        del found[_OLD]
    elif len(found) == 2:
        _check_both(config, found[_NEW], found[_OLD], problems)
    name = _OLD if _OLD in found else _NEW
    return name, found[name], plain(found[name].node)


def _mappings(part: Mapping) -> dict[str, Entry]:
    """Those of the two fields that are mappings with something in them."""
    entries = {name: part.entries[name] for name in (_NEW, _OLD) if name in part.entries}
    return {name: entry for name, entry in entries.items() if isinstance(entry.node, Mapping) and entry.node.entries}


def _repeats(newer: dict[str, Any], older: dict[str, Any]) -> bool:
    """Whether the scaling is that of the layers with full attention, written once more for older readers."""
    full = newer.get("full_attention")
    if not isinstance(full, dict) or _scaling(full) != _scaling(older):
        return False
    return all(older.get(name) in (None, full.get(name)) for name in _BESIDE)


def _check_both(config: Config, new: Entry, old: Entry, problems: Problems) -> None:
    """Refuse what cannot both hold; warn of a scaling that gets lost."""
    newer, older = plain(new.node), plain(old.node)
    if newer == older:
        return
    if any(isinstance(value, dict) for value in newer.values()):
        lost = "the rotations of the kinds of layers"
    else:
        names = [name for name in _BESIDE if newer.get(name) is not None and not _said(config, older, name)]
        lost = " and ".join(f"`{name}`" for name in names)
    if lost:
        problems.error(
            "AX612",
            f"`{_OLD}` takes the place of `{_NEW}` in transformers, and {lost} would get lost",
            old.key_span,
            labels=[Label(new.key_span, "the other one")],
            help=f"write everything into `{_NEW}`, and remove `{_OLD}`",
        )
    elif _scaling(newer) not in ({}, _scaling(older)):
        problems.warning("AX612", f"`{_OLD}` takes the place of `{_NEW}`, as in transformers", old.key_span)


def _said(config: Config, older: dict[str, Any], name: str) -> bool:
    return older.get(name) is not None or config.value(name) is not None


def _scaling(written: dict[str, Any]) -> dict[str, Any]:
    """The scaling alone, its type under one name; empty if there is none."""
    kind = written.get("rope_type") or written.get("type") or "default"
    rest = {name: value for name, value in written.items() if name not in (*_BESIDE, "type", "rope_type")}
    return {} if kind == "default" else {"rope_type": kind, **rest}
