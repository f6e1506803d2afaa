"""Which tools run a model, said before and after it is built; imports no mlx.

mlx_lm takes the classes of a model from the Python file that config.json names as `model_file`, if it is told to trust
it (`--trust-remote-code`), or else from `mlx_lm.models.MODEL_TYPE`. Tools without such a flag (`mlx_lm.load(folder)`,
`--draft-model`, most packages that train with mlx-lm) have the second way alone. What was measured of it:

* A namespace package cannot add to `mlx_lm.models`, which has an `__init__.py`; a file in its folder can. `pip install`
  of axon-compose, editable or not, puts one there: `mlx_lm/models/axon_compose.py`. A folder without `model_file` runs
  by it in every tool, as far as axon-compose and the plugins are installed.
* A stock `model_type` runs everywhere, without axon-compose: `export --to mlx-lm` writes it for families.
* A model file that needs no axon-compose is a `model_file` still, and needs the flag.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from axon_compose.plan import Compiled

__all__ = ["MODULE", "tools"]

#: Where mlx_lm looks for the classes of a folder without `model_file`.
MODULE = "mlx_lm.models.axon_compose"


def tools(compiled: Compiled, *, model_file: bool = True) -> str:
    """The tools that run a built folder, in a line.

    Args:
        compiled: The model.
        model_file: Whether config.json names a Python file.
    """
    if not model_file:
        return "all that is made on mlx-lm, where axon-compose is installed"
    flag = "mlx_lm with --trust-remote-code; without the flag"
    stock = _stock(compiled)
    if stock:
        return f"{flag} after `export --to mlx-lm`, as a stock {stock}"
    return f"{flag} after `build --no-model-file`"


def _stock(compiled: Compiled) -> str | None:
    """The model type under which mlx-lm may run it, if it has such a model; `export` finds out."""
    section = compiled.document.huggingface
    if section is None or not section.weights or not section.model_types:
        return None
    from axon_compose.checkpoints.huggingface import exported_as, model_type_of  # needed for files of families alone

    read = compiled.config.model_types if compiled.config else ()
    own = next((name for name in read if name in section.model_types), None)  # an export keeps it
    stock = (exported_as(section, own) or own) if own else model_type_of(section, compiled.document.dims)
    return stock if stock in _known() else None


@cache
def _known() -> frozenset[str]:
    """The model types of the installed mlx-lm, read from its files: importing it would import mlx."""
    spec = find_spec("mlx_lm")
    if spec is None or spec.origin is None:
        return frozenset()
    package = Path(spec.origin).parent
    found = {path.stem for path in package.glob("models/*.py")}
    for line in ast.parse((package / "utils.py").read_text("utf-8")).body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "MODEL_REMAPPING":
            found |= set(ast.literal_eval(line.value))
    return frozenset(found)
