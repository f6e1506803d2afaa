"""What is printed of healing, and its page."""

from __future__ import annotations

from dataclasses import replace

from axon_compose.report._healed import healed_html, healed_text
from axon_compose.report.display import html_of
from axon_compose.report.draw import healed_page
from axon_compose.surgery import Healed
from tests.report.test_receipt_text import RECEIPT

BEFORE = replace(RECEIPT, divergence=0.25, agreement=0.5, perplexity=40.0, text="held-out text")
HEALED = Healed(
    outcome=None,
    before=BEFORE,
    after=replace(BEFORE, divergence=0.0625, agreement=0.75, perplexity=24.5),
    curve=(("", 0, 0.25), ("layers", 1000, 0.125), ("logits", 2000, 0.0625)),
)
TEXT = """\
windows learns from small, 32 tokens of held-out text

                     as edited     now   source
  KL divergence         0.2500  0.0625        0
  same first choice     50.00%  75.00%  100.00%
  perplexity                40    24.5       22

  tokens  what learned          KL divergence
       0  as edited                    0.2500
   1.00K  layers by themselves         0.1250
   2.00K  predictions                  0.0625

  KL divergence: of the source's predictions from those of the model, in nats a token
"""


def test_the_text_of_healing() -> None:
    assert healed_text(HEALED) == TEXT
    assert str(HEALED) == TEXT.rstrip()


def test_a_notebook_shows_the_same() -> None:
    assert html_of(HEALED) == healed_html(HEALED)
    assert "windows learns from small" in healed_html(HEALED)


def test_a_page_has_the_curve_and_the_layers_before_and_after() -> None:
    page = healed_page(HEALED)
    assert all(f"<h2>{title}</h2>" in page for title in ("Divergence over tokens", "Layers as edited", "Layers now"))
    assert "layers by themselves" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_without_an_evaluation_there_is_no_curve() -> None:
    page = healed_page(replace(HEALED, curve=HEALED.curve[:1], after=BEFORE))
    assert "<h2>Divergence over tokens</h2>" not in page


def test_a_page_of_a_model_that_is_its_source_has_no_curve() -> None:
    same = replace(BEFORE, divergence=0.0)
    page = healed_page(
        replace(HEALED, before=same, after=same, curve=(("", 0, 0.0), ("logits", 9, 0.0), ("logits", 18, 0.0)))
    )
    assert "Divergence over tokens" not in page
    assert "Evaluations" in page
