"""The page of mlx_lm commands: which run on built folders, and how what they give compares with the stock class."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

__all__ = ["page"]

ROOT: Final = Path(__file__).resolve().parent.parent
MATRIX: Final = ROOT / "tests" / "e2e" / "mlx_lm_matrix.yaml"
MLX_LM: Final = "0.32.2"

_INTRODUCTION: Final = """\
# mlx_lm commands on built folders

<!-- Written by `python docs/refresh.py docs/mlx-lm-commands.md` from tests/e2e/mlx_lm_matrix.yaml; do not edit. -->

A folder that `axon-compose build` wrote is `--model` for every command of mlx-lm {version}, with `--trust-remote-code`.
Here is each of them, over three models: `hybrid-demo`, which no stock class can run, and imported checkpoints of llama
(dense) and qwen3_moe (experts). `tests/e2e/test_mlx_lm_matrix.py` runs every row.

* *equal*: what comes out is what the command makes of the original checkpoint with mlx-lm's own class: the same text,
  the same figures, the same files. *But for the router*: the same files, except the matrices of routers.
* *runs*: it runs and gives what it should; there is nothing to compare with.
* *no*: it does not run, and the note says why and what to do.

| command | hybrid-demo | llama | qwen3_moe | note |
|---|---|---|---|---|
"""

_NAMES: Final = """
## Names

Weights and modules of a folder have the names of mlx-lm's own models, because recipes look for them: a layer is
`model.layers.N`, the embedding `model.embed_tokens`, a head of its own `lm_head`, the final norm `model.norm`. In a
layer a component has the name that mlx-lm gives its kind (`self_attn`, `mlp`, `linear_attn`: `module_name` in its
[record](plugins.md)) if it is the only one of that kind there, and else the name in the file; norms are named after
their branch, as in `swa_norm`. So these keys for LoRA find their layers:

```yaml
lora_parameters:
  keys: [self_attn.q_proj, self_attn.v_proj, mlp.switch_mlp.down_proj, ssm.in_proj]
  rank: 8
  scale: 20.0
  dropout: 0.0
```

Folders built by axon-compose 0.1 keep the names of the file (`layers.N.swa`, `embedding.embed_tokens`), and adapters
that were trained on them still fit; `mlx_lm.convert --quant-predicate` needs a folder that is built again.

## Without the flag

`mlx_lm.load(folder)`, `--draft-model` and most packages that train with mlx-lm pass no `--trust-remote-code`. What they
can load, `show` and `build` say for each model:

| folder | runs in |
|---|---|
| `build FILE --out DIR` | commands with `--trust-remote-code`; in Python `mlx_lm.load(DIR, trust_remote_code=True)` |
| `build FILE --out DIR --no-model-file` | any tool on mlx-lm, where axon-compose is installed |
| `export DIR --to mlx-lm`, of a family | any tool on mlx-lm, also without axon-compose |

mlx_lm takes a model's classes from the Python file that config.json names as `model_file`, if it may, and otherwise
from the module `mlx_lm.models.MODEL_TYPE`. `pip install` of axon-compose, editable or not, puts that module into the
folder of mlx-lm, as `mlx_lm/models/axon_compose.py`; a package of its own could not, since `mlx_lm.models` is no
namespace package. No code of the folder runs then, so there is nothing to trust. `build` says when the module is
missing, as in a checkout that was put on the path without `pip install`.
"""


def page() -> str:
    """The whole page."""
    rows = yaml.safe_load(MATRIX.read_text("utf-8"))["rows"]
    return _INTRODUCTION.format(version=MLX_LM) + "".join(map(_row, rows)) + _NAMES


def _row(row: dict[str, Any]) -> str:
    options = row.get("with", "")
    command = f"`{row['command']}`" if not options else f"`{row['command']} {options}`"
    if options and not options.startswith("-"):
        command = f"`{row['command']}` {options}"
    if ", " in options:
        flag, rest = options.split(", ", 1)
        command = f"`{row['command']} {flag}`, {rest}"
    cells = (row["hybrid"], row["dense"], row["moe"], row.get("why", ""))
    return f"| {command} | " + " | ".join(" ".join(str(cell).split()) for cell in cells) + " |\n"
