"""What is printed of a receipt, and its page."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from axon_compose.report._receipt import receipt_html, receipt_text, small
from axon_compose.report.display import html_of
from axon_compose.report.draw import receipt_page, receipt_picture
from axon_compose.surgery import Receipt
from axon_compose.surgery._records import LayerGap, Stretch

LAYERS = (
    LayerGap(0, 0, "attn, mlp", False, 0.0),
    LayerGap(1, 1, "attn, mlp", False, 0.0),
    LayerGap(2, 2, "swa, mlp", True, 0.0625),
    LayerGap(3, None, "extra", True, 0.0625),
    LayerGap(4, 3, "attn, mlp", False, 0.125),
)
RECEIPT = Receipt(
    source="small",
    edited="windows",
    text="python-docs",
    sequences=2,
    length=16,
    dtype="float32",
    divergence=0.0123,
    most=1.5,
    most_at=(2, 16),
    agreement=0.96875,
    perplexity=23.456,
    source_perplexity=22.0,
    layers=LAYERS,
    stretches=(Stretch(1, 1, 0.0), Stretch(2, 2, 0.0), Stretch(3, 4, 0.0), Stretch(5, 8, 4e-9), Stretch(9, 16, 0.0246)),
)
TEXT = """\
windows against small, 32 tokens of python-docs

  KL divergence      0.0123 nats a token, at most 1.5000 (sequence 2, token 16)
  same first choice  96.88% of tokens
  perplexity         23.46; the source 22

  layer  from           components  difference
  0..1   0..1                                0
  2      2     changed  swa, mlp        0.0625
  3      new            extra           0.0625
  4      3              attn, mlp       0.1250

  token of a sequence  KL divergence
  1                                0
  2                                0
  3..4                             0
  5..8                       4.0e-09
  9..16                       0.0246

  they first part in layer 2 (swa, mlp)
  2 sequences of 16 tokens, computed in float32
  difference: of the hidden states after a layer, relative to the source's, mean over tokens; up to 1e-05 is rounding
"""
EXACT = replace(
    RECEIPT, divergence=0.0, most=0.0, agreement=1.0, perplexity=22.0,
    layers=tuple(replace(each, gap=0.0) for each in LAYERS[:2]),
)  # fmt: skip


def test_the_text_of_a_receipt() -> None:
    assert receipt_text(RECEIPT) == TEXT
    assert str(RECEIPT) == TEXT.rstrip()


def test_an_exact_edit_says_so() -> None:
    text = receipt_text(EXACT)
    assert "KL divergence      0, to the bit\n" in text
    assert "token of a sequence" not in text
    assert "no layer gives anything else, but for roundings" in text
    assert EXACT.parted is None


def test_layers_that_are_not_known_are_said_to_be_left_out() -> None:
    text = receipt_text(replace(RECEIPT, layers=()))
    assert "it is not known which of them belong together" in text
    assert "they first part" not in text


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "-"), (0.0, "0"), (0.25, "0.2500"), (4e-9, "4.0e-09"), (1234.5, "1.2e+03"), (float("nan"), "nan")],
)
def test_small_figures(value: float | None, said: str) -> None:
    assert small(value) == said


def test_a_notebook_shows_the_same() -> None:
    assert html_of(RECEIPT) == receipt_html(RECEIPT)
    assert receipt_html(RECEIPT).count("<table>") == 3
    assert "windows against small" in receipt_html(RECEIPT)


def test_a_page_has_the_layers_and_the_places() -> None:
    page = receipt_page(replace(RECEIPT, edited="<windows>"))
    assert "&lt;windows&gt;" in page
    assert "<windows>" not in page
    assert all(f"<h2>{title}</h2>" in page for title in ("Layers", "Places in a sequence", "Layer by layer", "Terms"))
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_the_picture_has_a_bar_for_each_layer_in_one_scale() -> None:
    picture = receipt_picture(RECEIPT)
    assert picture.startswith("<svg")
    bars = [float(width) for width in re.findall(r'width="([0-9.]+)" height="12" rx="2" class="[a-z]+-bar"', picture)]
    assert len(bars) == 3  # the first two have not moved
    assert bars[0] == bars[1] == pytest.approx(bars[2] / 2, abs=0.1)
    assert "layer 3, from nothing: 0.0625" in picture


def test_a_page_of_an_exact_edit_has_no_chart_of_places() -> None:
    page = receipt_page(EXACT)
    assert "Places in a sequence" not in page
    assert "0, to the bit" in page
