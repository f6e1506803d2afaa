"""What is printed of a ranking."""

from __future__ import annotations

from dataclasses import replace

from axon_compose.report._ranking import ranking_html, ranking_text
from axon_compose.report.display import html_of
from axon_compose.surgery import Ranking
from axon_compose.surgery._rank import RankedLayer

RANKING = Ranking(
    source="small",
    change="attn -> window:8",
    edit={},
    text="python-docs",
    tokens=1024,
    context=4096,
    layers=(RankedLayer(2, 0.0, 1.0, 2000), RankedLayer(0, 0.0125, 0.96875, 2000), RankedLayer(3, 1.5, 0.25, -500)),
    cache_bytes=10_000,
    budget=6000,
    chosen=(0, 2),
)
TEXT = """\
small: attn -> window:8, in one layer at a time, on 1,024 tokens of python-docs

  layer  KL divergence  same first choice  cache saved
      2              0            100.00%      2.00 kB  proposed
      0         0.0125             96.88%      2.00 kB  proposed
      3         1.5000             25.00%       -500 B

  caches of 4,096 tokens in bfloat16: 10.0 kB
  with layers 0, 2 changed: 6.00 kB
  what several layers do together is not the sum; the receipt of the edit says it
"""


def test_the_text_of_a_ranking() -> None:
    assert ranking_text(RANKING) == TEXT
    assert str(RANKING) == TEXT.rstrip()


def test_without_a_budget_nothing_is_proposed() -> None:
    text = ranking_text(replace(RANKING, budget=None, chosen=None))
    assert "proposed" not in text
    assert "with layers" not in text


def test_a_budget_that_is_met_already() -> None:
    assert "nothing has to change" in ranking_text(replace(RANKING, budget=20_000, chosen=()))


def test_a_notebook_shows_the_same() -> None:
    assert html_of(RANKING) == ranking_html(RANKING)
    assert ranking_html(RANKING).count("<tr>") == 4
