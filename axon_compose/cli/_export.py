"""`export`: a built folder to one that stock loaders read."""

from __future__ import annotations

import argparse
from pathlib import Path
from shlex import quote

from axon_compose.cli._terminal import Terminal
from axon_compose.machine.units import human

__all__ = ["export_folder"]


def export_folder(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Write the weights of a built folder back under their original names, with the config.json of a stock model."""
    from axon_compose.checkpoints.export import export

    folder = Path(arguments.folder)
    target = Path(arguments.output) if arguments.output else _beside(folder, arguments.to)
    record = export(folder, target, arguments.to, force=arguments.force, progress=terminal.progress)
    size = sum(entry["bytes"] for entry in record["files"].values())
    text = f"wrote {target}: {record['name']} as a stock `{record['model_type']}`, {human(size)}\n"
    code = terminal.result(text, {"out": str(target), **record})
    for fault in record["upstream_faults"]:
        terminal.note(f"beware, in {fault['owner']}: {fault['what']}; right is: {fault['right']}")
    if arguments.to == "mlx-lm":
        terminal.note(f"run it:\n  mlx_lm.generate --model {quote(str(target))} --prompt 'Hello'")
    return code


def _beside(folder: Path, kind: str) -> Path:
    """Where it goes by default: beside the folder."""
    real = folder.resolve()
    return folder.with_name(f"{real.name}-{kind}") if folder.name else real.with_name(f"{real.name}-{kind}")
