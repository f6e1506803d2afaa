"""The page of families: what each is, and how its small checkpoint compares with transformers and with mlx-lm.

python docs/families_page.py              # measure everything, and write docs/families.md
python docs/families_page.py llama rwkv7  # measure these; the others keep their figures
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Final

from families_zoo import modules, sections

from axon_compose import load
from axon_compose.checkpoints.huggingface import Family, families
from axon_compose.checkpoints.upstream import FAULTS
from axon_compose.diagnostics import Problems
from axon_compose.language.source import plain, read_file
from axon_compose.registry import Registry
from axon_compose.report import describe_cache

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "families.md"
FIXTURES: Final = ROOT / "tests" / "families" / "fixtures"
#: The version that was measured, and what with.
MLX_LM: Final = "0.32.2"
TOKENS: Final = 64
SEED: Final = 1
#: Where the checkpoint of another name shows more: mlx-lm loads no experts of gpt_oss but packed ones.
FIXTURE_OF: Final = {"gpt_oss": "gpt_oss_mxfp4"}
_COLUMNS: Final = (
    "family", "what it is", "YAML", "mlx-lm", "from transformers", "from mlx-lm", "checks", "caches", "model types",
)  # fmt: skip
#: A cell for what there is not.
NONE: Final = "–"
#: The bounds that differences are rounded up to.
STEPS: Final = (1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 1e-4)

_INTRODUCTION: Final = """\
# Families

<!-- Written by `python docs/families_page.py`; do not edit. -->

The published models that axon-compose reads: `axon-compose import DIR` recognises them by the `model_type` in
config.json. Each is a file in [architectures/](../architectures), tested on a small checkpoint in the layout of the
published ones (`tests/families/fixtures`).

* *YAML* is the line count of the file, and of those it `extends`; *mlx-lm* that of the module in mlx-lm {version}.
* *from transformers* is the largest difference of a logit from those that transformers computes for the same
  checkpoint, relative to the largest logit, in float32. For families that transformers does not have they come from
  mlx-lm, where the cell says so, and for `rwkv7` from a float64 reference. `phi3` uses its original context there,
  since transformers changes its RoPE factors with the prompt length.
* *from mlx-lm* is the same from mlx-lm's own model, on {tokens} random tokens, as `axon-compose verify` compares it.
  Where the two differ, the name of the bug is given; it is explained [below](#where-mlx-lm-differs). With the bug
  worked around, the difference is gone. Where mlx-lm cannot load the checkpoint, the exception that it raises is named.
* *checks* are those of `axon-compose check` that passed, on layers like those of the checkpoint: caches, masks,
  batches, gradients.
"""

_FAULTS: Final = """\
## Where mlx-lm differs

Found with these checkpoints in mlx-lm {version}. Transformers is taken as correct, unless another source is
named. The figures are in `tests/families/upstream_faults.yaml`.

| fault | families | mlx-lm | right |
|---|---|---|---|
"""


@dataclass(frozen=True)
class Figures:
    """What has to be measured, as the cells of the table show it."""

    lines: str
    reference: str
    peer: str
    truths: str


def page(figures: dict[str, Figures]) -> str:
    """The whole page."""
    parts = [
        _INTRODUCTION.format(tokens=TOKENS, version=MLX_LM),
        f"| {' | '.join(_COLUMNS)} |",
        "|---" * len(_COLUMNS) + "|",
        *(f"| {' | '.join(_cells(family, figures[family.name]))} |" for family in known()),
        "",
        *sections(known(), MLX_LM),
        _FAULTS.format(version=MLX_LM) + "\n".join(_fault_rows()),
    ]
    return "\n".join(parts) + "\n"


def known() -> list[Family]:
    """The families that are shipped."""
    return families(Registry.installed())


def _cells(family: Family, figures: Figures) -> Iterator[str]:
    text = family.path.read_text(encoding="utf-8").splitlines()
    yield f"`{family.name}`"
    yield next(line for line in text if line.startswith("# ") and "yaml-language-server" not in line)[2:]
    yield " + ".join(_lines(family.path))
    yield from (figures.lines, figures.reference, figures.peer, figures.truths)
    yield ", ".join(_caches(family.name)) or "none"
    yield ", ".join(f"`{name}`" for name in family.model_types)


def _lines(path: Path) -> Iterator[str]:
    """Lines of a file, and of those that it builds on."""
    yield str(len(path.read_text(encoding="utf-8").splitlines()))
    base = plain(read_file(path, Problems())).get("extends")  # type: ignore[union-attr, arg-type]
    if base:
        first, *above = _lines(path.parent / f"{base}.yaml")
        yield f"{first} (`{base}`)"
        yield from above


def _caches(family: str) -> list[str]:
    """Kinds of caches of the checkpoint's layers, in order."""
    found = (
        describe_cache(use.cache) for use in load(checkpoint=FIXTURES / fixture(family)).plan().uses() if use.cache
    )
    return list(dict.fromkeys(re.sub(r"(?<=RotatingKVCache) [\d,]+", "", cache) for cache in found))


def fixture(family: str) -> str:
    """The checkpoint of a family."""
    return FIXTURE_OF.get(family, family)


def _fault_rows() -> Iterator[str]:
    for fault in FAULTS:
        if fault.peer == "mlx-lm":
            types = ", ".join(f"`{name}`" for name in fault.model_types) or "all"
            yield f"| {fault.name} | {types} | {fault.what} | {fault.right} |"


# What is measured.


def on_page() -> dict[str, Figures]:
    """The figures that the page shows."""
    rows = re.findall(r"^\| `(\w+)` \|(.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    cells = [(name, [cell.strip() for cell in row.split(" | ")]) for name, row in rows]
    return {name: Figures(*row[2:6]) for name, row in cells if len(row) == len(_COLUMNS) - 1}  # not the zoo's


def measure(family: Family) -> Figures:
    """Run the checkpoint of a family in every way; takes some seconds."""
    from axon_compose.proof.check import check_plan
    from axon_compose.proof.check._shrink import small_architecture
    from tests.families.models import architecture

    truths = check_plan(small_architecture(architecture(fixture(family.name)).plan(), alike=1).plan()).truths
    return replace(compared(family), truths=f"{sum(truth.passed for truth in truths)} of {len(truths)}")


def compared(family: Family) -> Figures:
    """The same without the truths, in about a second."""
    from tests.families.models import difference, expected, model

    name, lines = fixture(family.name), _module_lines(family.model_types)
    tokens, reference = expected(name)
    return Figures(
        lines=lines,
        reference=_bound(difference(model(name)(tokens), reference)) + _by_whom(name),
        peer=NONE if lines == NONE else _against_mlx_lm(name),
        truths="",
    )


def _module_lines(model_types: tuple[str, ...]) -> str:
    """Lines of mlx-lm's module for the first of the types that it has."""
    from mlx_lm.utils import MODEL_REMAPPING

    files = {path.stem: path for path in modules()}
    found = [files[name] for name in (MODEL_REMAPPING.get(t, t) for t in model_types) if name in files]
    return str(len(found[0].read_text(encoding="utf-8").splitlines())) if found else NONE


def _by_whom(name: str) -> str:
    """What is added to the figure of a family that transformers does not have."""
    from tests.families.models import BY_MLX_LM

    return " (mlx-lm)" if name in BY_MLX_LM else ""


def _against_mlx_lm(name: str) -> str:
    """How far mlx-lm is off, and the faults that explain it."""
    from axon_compose.proof.verify import verify
    from tests.families.models import copied

    config = "config.published.json" if (FIXTURES / name / "config.published.json").exists() else "config.json"
    with tempfile.TemporaryDirectory() as place:
        folder = copied(name, Path(place) / name, config)
        (found,) = verify(folder, tokens=TOKENS, seed=SEED, against=["mlx-lm"]).peers
    faults = ", ".join(fault.name for fault in found.faults)
    if found.forward is None and "not supported" in found.error.partition("Model type")[2]:
        return NONE  # it knows the whole model alone, not its text model
    if found.forward is None:
        return f"not loaded: {faults or found.error.partition(':')[0]}"
    return _bound(found.forward) if found.status == "ok" else f"{found.forward:.1e}: {faults or 'unexplained'}"


def _bound(figure: float) -> str:
    return next((f"< {step:.0e}".replace("e-0", "e-") for step in STEPS if figure < step), f"{figure:.1e}")


def main(names: list[str]) -> None:
    """Measure the named families, or all, and write the page."""
    from tests.families import seeded

    seeded.complete()
    assert version("mlx-lm") == MLX_LM, "another version: write it into this file"
    figures = on_page() if PAGE.exists() and names else {}
    for family in known():
        if not names or family.name in names:
            figures[family.name] = measure(family)
    PAGE.write_text(page(figures), encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(sys.argv[1:])
