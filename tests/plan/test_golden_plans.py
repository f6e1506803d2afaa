"""Every shipped architecture: what `show` says of it, and for small ones the whole plan, word for word.

To write them anew after a deliberate change: `UPDATE_GOLDEN=1 pytest tests/plan`, then read the difference.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from axon_compose import load
from axon_compose.plan import Plan, active_parameters, plan_to_dict, total_parameters
from axon_compose.registry._data_files import data_dir
from axon_compose.report import PLAIN, show_text
from tests.shipped import ALL, shipped

WHOLE = ["hybrid-demo", "parallel-hybrid", "shared-kv"]
GOLDEN = Path(__file__).parent / "golden"


def compare(found: str, golden: Path) -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(found, encoding="utf-8")
    assert found == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ALL)
def test_show(name: str) -> None:
    compare(show_text(shipped(name).plan(), PLAIN), GOLDEN / f"{name}.txt")


@pytest.mark.parametrize("name", WHOLE)
def test_whole_plan(name: str) -> None:
    compare(json.dumps(plan_to_dict(load(name).plan()), indent=1) + "\n", GOLDEN / f"{name}.json")


@pytest.mark.parametrize("name", ALL)
def test_shipped_architectures_name_their_schema_and_themselves(name: str) -> None:
    text = (data_dir("architectures") / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=../schemas/architecture-1.schema.json\n")
    assert shipped(name).name == name


def counts(plan: Plan) -> tuple[int, int]:
    return total_parameters(plan), active_parameters(plan)


def test_bit_axon_has_the_parameters_that_its_reference_implementation_has() -> None:
    """5,766,778,880 without a final norm (tied weights once); ours adds the 2,560 of its final norm."""
    plan = load("bit-axon").plan()
    total, active = counts(plan)
    assert plan.final_norm is not None
    assert total - plan.final_norm.size == 5_766_778_880
    assert f"{active / 1e9:.2f}" == "2.75"
    assert counts(load("bit-axon", settings=["final_norm=none"]).plan())[0] == 5_766_778_880


def test_active_parameters_leave_out_the_experts_that_are_not_chosen() -> None:
    plan = load("hybrid-demo").plan()
    moe = next(use for use in plan.uses() if use.name == "moe")
    experts = sum(shape[0] * shape[1] * shape[2] for name, shape in moe.params.items() if name.startswith("switch_mlp"))
    assert moe.size - moe.active == experts // 2  # two of four


def test_the_three_sizes_of_bit_axon_keep_its_order() -> None:
    for name, blocks in {
        "bit-axon": "absorb*8 reason*8 synthesize*8",
        "bit-axon-medium": "absorb*4 reason*4 synthesize*4",
        "bit-axon-small": "absorb reason synthesize synthesize",
    }.items():
        expected = [b for term in blocks.split() for b in [term.split("*")[0]] * int((term + "*1").split("*")[1])]
        assert [layer.block for layer in load(name).plan().layers] == expected
