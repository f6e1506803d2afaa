"""The page of families on several devices: how far their logits are from those of one device.

python docs/devices_page.py              # measure everything, and write docs/families-on-devices.md
python docs/devices_page.py llama rwkv7  # measure these; the others keep their figures
"""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from families_page import NONE, _bound, fixture, known

from axon_compose import load
from axon_compose.devices import TensorPlan, split_plan
from axon_compose.plan import Plan

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "families-on-devices.md"
CONFIGS: Final = ROOT / "tests" / "families" / "configs"
_COLUMNS: Final = ("family", "tensor, 2 devices", "more devices", "one rounding", "whole on each of 2", "pipeline")
#: Published models of which the page says how large a device's share is.
_PUBLISHED: Final = (
    "DeepSeek-V3", "Falcon-H1-0.5B-Base", "falcon-mamba-7b", "gpt-oss-20b", "Jamba-v0.1",
    "Kimi-Linear-48B-A3B-Instruct", "LFM2-350M", "Llama-3.2-1B", "MiniMax-Text-01-hf", "Nemotron-H-8B-Base-8K",
    "Olmo-Hybrid-7B", "Qwen3-Next-80B-A3B-Instruct", "recurrentgemma-2b", "rwkv7-168M-pile", "Zamba2-2.7B",
)  # fmt: skip
_SIZES: Final = (2, 4, 8)
#: What a pipeline has to be, bit for bit.
EQUAL: Final = "equal"

_INTRODUCTION: Final = """\
# Families on several devices

<!-- Written by `python docs/devices_page.py`; do not edit. -->

How far the logits of several devices are from those of one, for the small checkpoint of every
[family](families.md), in float32. The devices are threads of one process, which sum and exchange arrays as processes
do over a network. Tokens are fed at once, in chunks, token by token, and as a batch of unequal rows that are padded on
the left; the figure is the largest difference on any device, relative to the largest logit.

* *tensor* splits every component (`axon-compose check --devices N` does the same with random weights). Parts are summed
  in another order than the whole, so the last digits differ. *more devices* is the same on 3 where 2 leave heads whole,
  and on 4 for families with recurrent layers and a few others.
* *one rounding* is what the logits of one device move by if every weight is rounded once more: a model that makes much
  of roundings shows more of the order of summation.
* *whole* are components of which each device has all, and why. The small checkpoints have odd numbers of heads more
  often than published ones.
* *pipeline* runs half of the layers on each of two devices. `{equal}` means the same logits bit for bit.

`mlx.launch -n 2 -- python benchmarks/families_on_ranks.py` splits the same checkpoints over real processes, connected
by MLX's ring on the loopback; their differences are below 1e-5 too.

Data parallel training does not depend on the family: every device has the whole model, or a share of each weight.
"""


_SHARES: Final = """\
## Published sizes

The part of all parameters that a device has, planned from the published configurations; nothing is run. What is above
an nth are routers, low-rank parts, B and C of few groups, and what stays whole.

| model | 2 devices | 4 | 8 | whole on each of 8 |
|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Figures:
    """What has to be measured, as the cells of the table show it."""

    tensor: str
    more: str
    rounding: str
    whole: str
    pipeline: str


def page(figures: dict[str, Figures]) -> str:
    """The whole page."""
    rows = [
        f"| `{family.name}` | {' | '.join(vars(figures[family.name]).values())} |"
        for family in known()
        if family.name in figures
    ]
    head = [_INTRODUCTION.format(equal=EQUAL), f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    return "\n".join([*head, *rows, "", _SHARES + "\n".join(map(_shares, _PUBLISHED))]) + "\n"


def _shares(name: str) -> str:
    """The row of a published model."""
    with TemporaryDirectory() as folder:
        shutil.copy(CONFIGS / f"{name}.json", Path(folder, "config.json"))
        plan = load(checkpoint=folder).plan()
    tensors = [split_plan(plan, size) for size in _SIZES]
    shares = (f"{100 * _parameters(tensor.plan) / _parameters(plan):.1f} %" for tensor in tensors)
    return f"| {' | '.join([name, *shares, _reasons(plan, tensors[-1]) or NONE])} |"


def _parameters(plan: Plan) -> int:
    uses = {use.path: use for use in plan.uses()}.values()
    return sum(prod(shape) for use in uses for shape in use.params.values())


def on_page() -> dict[str, Figures]:
    """The figures that the page shows."""
    rows = re.findall(r"^\| `(\w+)` \|(.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: Figures(*(cell.strip() for cell in row.split(" | "))) for name, row in rows}


def measure(family: str) -> Figures:
    """Run the checkpoint of a family on one device and on several; takes some seconds."""
    from axon_compose.proof.check._compare import distance
    from axon_compose.proof.check._devices import shared
    from axon_compose.proof.check._subject import Subject
    from axon_compose.registry import State
    from tests.families.models import expected, model

    whole, (tokens, _) = model(fixture(family)), expected(fixture(family))
    subject = Subject(whole.plan, model=whole, sample=tokens)
    two = shared(subject, 2)
    reasons = _reasons(subject.plan, two.tensor)
    more = 3 if "multiple" in reasons else 4
    wanted = more == 3 or any(isinstance(use.cache, State) for use in subject.plan.uses())
    return Figures(
        tensor=_bound(two.differences[two.worst]),
        more=f"{more}: {_more(subject, more)}" if wanted else NONE,
        rounding=_bound(distance(subject.rounded, subject.unrounded)),
        whole=reasons or NONE,
        pipeline=_pipeline(whole, tokens),
    )


def _more(subject: Any, size: int) -> str:
    from axon_compose.diagnostics import Refusal
    from axon_compose.proof.check._devices import shared

    try:
        found = shared(subject, size)
    except Refusal:
        return "nothing divides"
    return _bound(found.differences[found.worst])


def _reasons(plan: Plan, tensor: TensorPlan) -> str:
    """Components that stay whole, by their names; norms and what else works on the residual stream are left out."""
    kinds = ("layer", "block", "embedding", "head")
    found = {
        use.name: tensor.whole[use.path] for use in plan.uses() if use.path in tensor.whole and use.spec.kind in kinds
    }
    return "; ".join(f"`{name}`: {reason}" for name, reason in found.items())


def _pipeline(whole: Any, tokens: Any) -> str:
    """Whether two devices with half of the layers each give the logits of one, bit for bit."""
    import mlx.core as mx

    from axon_compose.model import divided

    def fed(model: Any) -> list[Any]:
        cache = model.make_cache()
        ends = (0, 7, 30, 31, 32, tokens.shape[1])
        found = [model(tokens), *(model(tokens[:, first:end], cache) for first, end in pairwise(ends))]
        mx.eval(found)
        return found

    expected = fed(whole)
    parts = divided(whole, 2).run(fed)
    same = all(bool(mx.array_equal(a, b)) for part in parts for a, b in zip(part, expected, strict=True))
    return EQUAL if same else "differs"


def main(names: list[str]) -> None:
    """Measure the named families, or all, and write the page."""
    from tests.families import seeded

    seeded.complete()
    figures = on_page() if PAGE.exists() and names else {}
    for family in known():
        if not names or family.name in names:
            figures[family.name] = measure(family.name)
            print(f"{family.name}: {' | '.join(vars(figures[family.name]).values())}", flush=True)
            PAGE.write_text(page(figures), encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(sys.argv[1:])
