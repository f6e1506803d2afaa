"""The plugin of `tests/plugins/axon-rude`, and a model that is made of it.

The variable `RUDE=place:act` says what the plugin does where.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["RUDE_FILE", "install_rude"]

_PACKAGE: Final = Path(__file__).resolve().parent / "plugins" / "axon-rude" / "axon_rude"

RUDE_FILE: Final = """\
version: 1
name: rude
dims: {hidden_size: 32, vocab_size: 300}
components:
  rude: {type: rude/layer, width: 4}
  state: {type: rude/state}
  attn: {type: attention, num_heads: 2}
blocks:
  near: [attn, rude]
  far: [state]
stack: near*2 far
"""


def install_rude(folder: Path, version: str = "1.5") -> Path:
    """Make an empty folder one for `PYTHONPATH` in which the plugin is installed, as far as Python can see."""
    (folder / "axon_rude").symlink_to(_PACKAGE, target_is_directory=True)
    metadata = folder / f"axon_rude-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: axon-rude\nVersion: {version}\n")
    (metadata / "entry_points.txt").write_text("[axon_compose]\nrude = axon_rude\n")
    return folder
