"""A FILE that is not there: what may have been meant."""

from __future__ import annotations

from pathlib import Path

from axon_compose.diagnostics import nearest

__all__ = ["meant_instead"]


def meant_instead(name: str) -> str | None:
    """Help for a missing file: the nearest shipped architecture, or the nearest file in its folder."""
    from axon_compose.registry import Registry  # only a mistake pays for it

    path = Path(name)
    known = [full.removeprefix("core/") for full in Registry.installed().architectures()]
    bare = name.removesuffix(".yaml").removesuffix(".yml")
    near = bare if bare in known else _neighbour(path) or nearest(bare, known)
    if near:
        return f"did you mean `{near}`?"
    if path.suffix or len(path.parts) != 1:
        return None
    return "give the path of a file, or a name: `axon-compose list` has the shipped architectures"


def _neighbour(path: Path) -> str | None:
    """The file of a like name in the same folder."""
    try:
        names = [file.name for file in path.parent.iterdir() if file.suffix == path.suffix and file.is_file()]
    except OSError:
        return None
    near = nearest(path.name, names)
    return str(path.with_name(near)) if near else None
