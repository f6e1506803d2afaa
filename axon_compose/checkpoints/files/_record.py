"""`build.json`: how a folder was made, and the size and hash of every file in it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from axon_compose.checkpoints.files._disk import FileRecord
from axon_compose.diagnostics import CheckpointError
from axon_compose.machine.files import open_regular, read_regular

__all__ = [
    "BUILD_FILE",
    "BUILD_FORMAT",
    "dump_json",
    "is_plain_name",
    "read_build",
    "record_of",
    "strangers",
    "verify",
]

BUILD_FILE: Final = "build.json"
#: Version of the layout of `build.json`; raised when a reader of today would misread it.
BUILD_FORMAT: Final = 1

_MAX_BYTES: Final = 64 * 1024 * 1024
_CHUNK: Final = 1 << 20
#: What Python and file managers drop into any folder.
_NOISE: Final = {"__pycache__", ".DS_Store"}


def dump_json(value: Any, *, in_order: bool = False) -> bytes:
    """JSON text of one form only: keys sorted unless `in_order`, two spaces, UTF-8, no NaN, a newline at the end."""
    text = json.dumps(value, indent=2, sort_keys=not in_order, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def is_plain_name(name: str) -> bool:
    """Whether `name` is a visible file directly in the folder, on every system."""
    return name.isprintable() and not name.startswith(".") and not set(name) & set("/\\:") and name != ""


def record_of(record: Mapping[str, Any], files: Mapping[str, FileRecord]) -> dict[str, Any]:
    """The content of `build.json`.

    Raises:
        ValueError: `record` uses a key that belongs to the format.
    """
    if reserved := {"build_format", "files"} & set(record):
        raise ValueError(f"a build record cannot have the keys {sorted(reserved)}")
    listed = {name: {"bytes": file.size, "sha256": file.sha256} for name, file in files.items()}
    return {**record, "build_format": BUILD_FORMAT, "files": listed}


def read_build(folder: Path) -> dict[str, Any]:
    """Read `build.json`.

    Raises:
        CheckpointError: AX521 there is none, or it cannot be read as one.
    """
    path = Path(folder) / BUILD_FILE
    try:
        text = read_regular(path, _MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise ValueError("not a file of reasonable size")
        content = json.loads(text.decode("utf-8"))
    except FileNotFoundError:
        raise CheckpointError("AX521", f"`{folder}` has no `{BUILD_FILE}`: not an axon-compose build") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError("AX521", f"cannot read `{path}`: {error}") from error
    _check_form(content, path)
    return dict(content)


def _check_form(content: Any, path: Path) -> None:
    form = content.get("build_format") if isinstance(content, dict) else None
    if type(form) is int and form > BUILD_FORMAT:
        raise CheckpointError(
            "AX521", f"`{path}` has the format {form}, newer than {BUILD_FORMAT}", "update axon-compose"
        )
    files = content.get("files") if isinstance(content, dict) else None
    if form != BUILD_FORMAT or type(form) is not int or not isinstance(files, dict):
        raise CheckpointError("AX521", f"`{path}` is not the record of a build")
    for name, entry in files.items():
        good = isinstance(entry, dict) and type(entry.get("bytes")) is int and isinstance(entry.get("sha256"), str)
        if not good or not is_plain_name(name):
            raise CheckpointError("AX521", f"`{path}` has a bad entry for the file {name!r}")


def strangers(folder: Path) -> list[str]:
    """Names in `folder` that no build put there, sorted; empty for an empty folder."""
    try:
        ours = {BUILD_FILE, *read_build(folder)["files"]}
    except CheckpointError:
        ours = set()
    found = [path for path in folder.iterdir() if path.name not in _NOISE]
    return sorted(path.name for path in found if path.name not in ours or (path.is_dir() and not path.is_symlink()))


def verify(folder: Path, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Hash every file of a build again and compare.

    Args:
        folder: A folder that `write_folder` made.
        progress: Called with bytes done and bytes in all.

    Returns:
        The content of `build.json`.

    Raises:
        CheckpointError: AX521 no readable record; AX522 files are missing or changed, or weights were added (the first
            ten are named).
    """
    folder = Path(folder)
    content = read_build(folder)
    files: dict[str, dict[str, Any]] = content["files"]
    done, total, faults = 0, sum(entry["bytes"] for entry in files.values()), []
    for name, entry in sorted(files.items()):
        fault = _difference(folder / name, entry)
        if fault:
            faults.append(f"`{name}` {fault}")
        done += entry["bytes"]
        if progress:
            progress(done, total)
    added = {path.name for path in folder.glob("model*.safetensors")} - set(files)
    faults += [f"`{name}` was added" for name in sorted(added)]
    if faults:
        more = f" and {len(faults) - 10} more" if len(faults) > 10 else ""
        raise CheckpointError(
            "AX522", f"`{folder}` has changed since it was built: {', '.join(faults[:10])}{more}", "build it again"
        )
    return content


def _difference(path: Path, entry: Mapping[str, Any]) -> str | None:
    try:
        digest = sha256()
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size != entry["bytes"]:
                return f"has {size} bytes instead of {entry['bytes']}"
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None if digest.hexdigest() == entry["sha256"] else "has other content"
