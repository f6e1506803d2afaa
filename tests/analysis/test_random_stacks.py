"""Random stacks of all components hold every truth; a failure prints a file that `axon-compose check --as-is` fails on.

`AXON_COMPOSE_STACKS=500 pytest --hypothesis-seed=1 tests/analysis/test_random_stacks.py` tries more of them.
"""

from __future__ import annotations

import os
from typing import Any

import mlx.core as mx
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

import axon_compose
from axon_compose.analysis import check_plan
from axon_compose.concrete import to_text
from axon_compose.report._check import check_text
from axon_compose.report._style import PLAIN
from axon_compose.testing.strategies import stacks

STACKS = int(os.environ.get("AXON_COMPOSE_STACKS", "6"))


@settings(
    max_examples=STACKS,
    suppress_health_check=list(HealthCheck),
    # Replaying and explaining cost as much as trying; what failed is in the message.
    phases=(Phase.generate, Phase.shrink),
    database=None,
    print_blob=False,
)
@given(stacks(), st.integers(0, 999))
def test_every_truth_holds(description: dict[str, Any], seed: int) -> None:
    report = check_plan(axon_compose.load(description).plan(), seed=seed)
    mx.clear_cache()  # every stack has sizes of its own
    if not report.passed:
        note(f"axon-compose check random.yaml --as-is --seed {seed}\n\n# random.yaml\n{to_text(description)}")
    assert report.passed, "\n" + check_text(report, PLAIN)
