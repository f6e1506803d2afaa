"""Compares mlx-lm with the fixtures: loads each checkpoint strictly and prints how far its logits are off.

    python tests/families/compare_mlx_lm.py [family ...]

Both `config.json` (transformers 5) and `config.published.json` (the fields of transformers 4) are tried.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.utils import load_model

FIXTURES = Path(__file__).parent / "fixtures"


def deviation(folder: Path, config: dict[str, Any], **changes: Any) -> str:
    """The largest difference of mlx-lm's logits relative to the largest logit, or the error it raises."""
    expected = mx.load(str(folder / "expected.safetensors"))
    with tempfile.TemporaryDirectory() as place:
        path = Path(place)
        (path / "model.safetensors").symlink_to((folder / "model.safetensors").resolve())
        (path / "config.json").write_text(json.dumps(config | changes))
        try:
            model, _ = load_model(path, strict=True)
            logits = np.array(model(expected["tokens"]))
        except Exception as error:
            return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    truth = np.array(expected["logits"])
    return f"{np.abs(logits - truth).max() / np.abs(truth).max():.1e}"


def main(names: list[str]) -> None:
    for name in names or sorted(folder.name for folder in FIXTURES.iterdir() if folder.is_dir()):
        folder = FIXTURES / name
        answers = [
            deviation(folder, json.loads((folder / file).read_text()))
            for file in ("config.json", "config.published.json")
            if (folder / file).exists()
        ]
        sys.stdout.write(f"| {name} | {' | '.join(answers)} |\n")


if __name__ == "__main__":
    main(sys.argv[1:])
