"""Files that commands write: whole or not at all, and nothing is replaced unasked."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from axon_compose.diagnostics import Refusal

__all__ = ["refuse_existing", "write_whole"]


def refuse_existing(target: Path, force: bool) -> None:
    """Refuse a file that is there, unless it may be replaced.

    Raises:
        Refusal: AX507.
    """
    if target.is_dir() or (os.path.lexists(target) and not force):
        help_ = "name a file" if target.is_dir() else "replace it with `--force`"
        raise Refusal("AX507", f"`{target}` exists", help_)


def write_whole(target: Path, data: bytes, force: bool) -> None:
    """Write a file that is there whole or not at all; without `force` it never replaces another, however new."""
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.write_bytes(data)
        if force:
            partial.replace(target)
        else:
            os.link(partial, target)
    except FileExistsError:
        raise Refusal("AX507", f"`{target}` exists", "replace it with `--force`") from None
    finally:
        partial.unlink(missing_ok=True)
