"""A folder of the cache that huggingface_hub keeps: the files of a model are below it, one folder for each commit."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from axon_compose.machine.files import read_regular

__all__ = ["snapshot_of"]

#: More than a commit's name has bytes.
_COMMIT: Final = 256


def snapshot_of(folder: Path) -> Path:
    """The files of a model in a folder such as `models--acme--quill`; any other folder as it is.

    Of several commits it is the one that the branch `main` is at, else the one that was fetched last.
    """
    snapshots = folder / "snapshots"
    if not snapshots.is_dir() or (folder / "config.json").exists():
        return folder
    found = sorted((path for path in snapshots.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    if not found:
        return folder
    main = folder / "refs" / "main"
    commit = read_regular(main, _COMMIT).decode(errors="replace").strip() if main.is_file() else ""
    return next((path for path in found if path.name == commit), found[-1])
