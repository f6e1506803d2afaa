"""Whether mlx-lm's own classes load a folder."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any

from axon_compose.checkpoints.upstream._fault import UpstreamFault
from axon_compose.checkpoints.upstream._faults import faults_of
from axon_compose.diagnostics import CheckpointError

__all__ = ["require_loadable"]


def require_loadable(folder: Path, config: Mapping[str, Any], written: tuple[UpstreamFault, ...] = ()) -> None:
    """Refuse a folder that mlx-lm does not load without code of ours; no weight is read.

    Args:
        folder: With config.json and weights.
        config: Its config.json.
        written: Faults that the architecture file carries.

    Raises:
        CheckpointError: AX620 mlx-lm has no such model, lacks arguments, or has other names or shapes of parameters.
    """
    from mlx_lm.utils import load_model

    try:
        with redirect_stdout(sys.stderr):
            load_model(folder, lazy=True, strict=True)
    except (Exception, SystemExit) as error:  # whatever its classes raise; OLMo's leave without a package of its own
        text = f"{type(error).__name__}: {error}".strip()
        known = (fault for fault in faults_of("mlx-lm", config, 1, written) if fault.error and fault.error in text)
        what = next((f"a known fault of mlx-lm: {fault.what}; " for fault in known), "")
        hint = f"{what}the folder that was to be exported still runs, with `--trust-remote-code`"
        message = f"mlx-lm {version('mlx-lm')} does not load it as a stock `{config['model_type']}`: {_short(text)}"
        raise CheckpointError("AX620", message, hint) from error


def _short(text: str) -> str:
    """One line, of a list of parameters the beginning."""
    line = " ".join(text.split())
    return line if len(line) <= 300 else f"{line[:300]}…"
