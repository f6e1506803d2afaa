"""Random stacks of all components hold every truth; a failure shows a file that `axon-compose check --as-is` fails on.

`AXON_COMPOSE_STACKS=0..499 pytest -n 2 tests/proof/check/test_random_stacks.py` tries the stacks of those seeds.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import axon_compose
from axon_compose.language.layout import to_text
from axon_compose.proof.check import TRUTHS, CheckReport, check_plan
from axon_compose.registry import Registry
from axon_compose.report._check import check_text
from axon_compose.report._style import PLAIN
from axon_compose.testing._choices import Seeded
from axon_compose.testing._minimal import minimal
from axon_compose.testing._stacks import drawn_stack
from axon_compose.testing.strategies import stacks

FIRST, LAST = map(int, os.environ.get("AXON_COMPOSE_STACKS", "0..3").split(".."))
REGISTRY = Registry.installed()
FOUND = sorted((Path(__file__).parent / "found").glob("*.yaml"))


def checked(description: dict[str, Any], seed: int) -> CheckReport:
    held = [truth for truth in TRUTHS if truth not in left_out(description)]
    report = check_plan(axon_compose.load(description).plan(), seed=seed, truths=held)
    mx.clear_cache()  # every stack has sizes of its own
    return report


def left_out(description: dict[str, Any]) -> set[str]:
    """Truths that a stack does not hold by what it is."""
    components, sections = description["components"], description["components"].values()
    learns_nothing = any(map(has_no_choice, sections)) or has_idle_adapters(components)
    # The last tokens that `caches` feeds need not complete a compressed entry.
    compressed = any(section.get("compression") for section in sections)
    # 48 layers with the same weights add the same again and again, and no norm before the head takes that out.
    shared = any(isinstance(block, dict) and "share" in block for block in description["blocks"].values())
    grows = shared and description.get("final_norm") == "none"
    return {n for n, is_so in (("gradients", learns_nothing), ("caches", compressed), ("start", grows)) if is_so}


def has_no_choice(section: dict[str, Any]) -> bool:
    """Whether a router sends each token to one expert, whose weight is one."""
    return section.get("top_k") == 1 and (section.get("score") == "topk_softmax" or section.get("norm_topk", True))


def has_idle_adapters(components: dict[str, Any]) -> bool:
    """Whether a layer holds adapters of uses that are not in the stack."""
    for name, section in components.items():
        if section["type"].endswith("side_transformer") and section.get("weights_from") is None:
            users = [section, *(other for other in components.values() if other.get("weights_from") == name)]
            if not set(section.get("uses", [0])) <= {user.get("use", 0) for user in users}:
                return True
    return False


def told(description: dict[str, Any], report: CheckReport) -> str:
    """The report, and how to see it again."""
    command = f"axon-compose check random.yaml --as-is --seed {report.seed}"
    return f"\n{check_text(report, PLAIN)}\n{command}\n\n# random.yaml\n{to_text(description)}"


def assert_holds(description: dict[str, Any], seed: int) -> None:
    report = checked(description, seed)
    if not report.passed:
        raise AssertionError(told(minimal(description, report, REGISTRY), report))


@pytest.mark.parametrize("seed", range(FIRST, LAST + 1))
def test_stack_of_a_seed(seed: int) -> None:
    description = drawn_stack(Seeded(seed), REGISTRY)
    if description is None:
        pytest.skip("what was drawn does not fit together")
    assert_holds(description, seed)


@pytest.mark.parametrize("file", FOUND, ids=lambda file: file.stem)
def test_stack_that_was_found(file: Path) -> None:
    """Stacks that failed once, by the truth that was too strict and the seed: `TRUTH-SEED.yaml`."""
    truth, _, seed = file.stem.rpartition("-")
    report = check_plan(axon_compose.load(file).plan(), seed=int(seed), truths=[truth])
    assert report.passed, check_text(report, PLAIN)


@settings(
    max_examples=3,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),  # what fails is made smaller part by part, which takes a few checks instead of hundreds
)
@given(stacks(), st.integers(0, 999))
def test_any_stack(description: dict[str, Any], seed: int) -> None:
    assert_holds(description, seed)
