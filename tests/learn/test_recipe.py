"""The recipe refuses what cannot be, and the learning rate is the published function of the budget."""

from __future__ import annotations

import subprocess
import sys
from math import cos, pi

import pytest

from axon_compose.learn import Budget, Recipe, Spent


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch": 0}, "`batch` is below 1: 0"),
        ({"batch": 2.5}, "`batch` is not a whole number: 2.5"),
        ({"learning_rate": 0.0}, "`learning_rate` is not above 0: 0.0"),
        ({"learning_rate": float("nan")}, "`learning_rate` is not a number: nan"),
        ({"warmup": 1.5}, "`warmup` is above 1: 1.5"),
        ({"schedule": "linear"}, "`schedule` is none of cosine, wsd, constant: 'linear'"),
        ({"batch": 6, "accumulate": 4}, "`accumulate` does not divide `batch`: 6 by 4"),
        ({"clip": True}, "`clip` is not a number: True"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Recipe(**options)


def test_cosine_after_warmup() -> None:
    recipe = Recipe(learning_rate=0.5, warmup=0.2, final=0.1)
    assert recipe.learning_rate_at(0) == 0
    assert recipe.learning_rate_at(0.1) == pytest.approx(0.25)
    assert recipe.learning_rate_at(0.2) == pytest.approx(0.5)
    assert recipe.learning_rate_at(0.4) == pytest.approx(0.05 + 0.45 * (1 + cos(pi / 4)) / 2)
    assert recipe.learning_rate_at(1) == pytest.approx(0.05)
    assert recipe.learning_rate_at(1.3) == pytest.approx(0.05)


def test_wsd_stays_and_falls() -> None:
    recipe = Recipe(learning_rate=1.0, schedule="wsd", warmup=0.1, decay=0.2, final=0.0)
    assert [recipe.learning_rate_at(part) for part in (0.05, 0.1, 0.5, 0.8)] == pytest.approx([0.5, 1, 1, 1])
    assert [recipe.learning_rate_at(part) for part in (0.9, 1.0)] == pytest.approx([0.5, 0])


@pytest.mark.parametrize(
    ("text", "unit", "amount"),
    [
        ("300steps", "steps", 300),
        ("5min", "minutes", 5),
        ("90s", "minutes", 1.5),
        ("20Mtok", "tokens", 20e6),
        ("1.5 Btokens", "tokens", 1.5e9),
        ("1e14flop", "flops", 1e14),
        ("3Pflops", "flops", 3e15),
    ],
)
def test_budgets_are_read(text: str, unit: str, amount: float) -> None:
    budget = Budget.parse(text)
    assert budget.unit == unit
    assert budget.amount == pytest.approx(amount)


@pytest.mark.parametrize("text", ["", "5", "min", "5 parsecs", "-3steps", "0steps", "1e999flop", "1.2.3min"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # whatever it says
        Budget.parse(text)


def test_budgets_are_spent() -> None:
    spent = Spent(10, 2000, 30.0, 10**9)
    parts = [Budget(unit, amount).part(spent) for unit, amount in
             (("steps", 20), ("tokens", 8000), ("minutes", 1), ("flops", 1e10))]  # fmt: skip
    assert parts == [0.5, 0.25, 0.5, 0.1]
    assert spent + Spent(1, 200, 3.0, 10**8) == Spent(11, 2200, 33.0, 11 * 10**8)


def test_a_recipe_needs_no_mlx() -> None:
    check = "import sys, axon_compose.learn; assert not {'mlx', 'numpy', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
