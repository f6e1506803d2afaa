"""The page of a run: figures are those of its record, and nothing comes from outside."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from math import exp
from typing import Any

import pytest

from axon_compose.report.draw import training_page, training_picture
from axon_compose.report.draw._training import _means


def record(steps: int = 300) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = [
        {"kind": "evaluation", "step": 0, "tokens": 0, "seconds": 0.0, "flops": 0, "loss": 6.0, "bits_per_byte": 8.0}
    ]
    for step in range(steps):
        spent = {"tokens": 100 * (step + 1), "seconds": 0.5 * (step + 1), "flops": 10**9 * (step + 1)}
        figures = {"loss": 2 + 4 * exp(-step / 50), "learning_rate": 1e-3, "gradient_norm": 1.0, "load.0.moe": 0.3}
        lines.append({"kind": "step", "step": step, **spent, **figures, "load.worst": 0.7})
        if step == steps // 2:
            lines.append({"kind": "evaluation", "step": step + 1, **spent, "loss": 2.5, "bits_per_byte": 3.6})
    done = {"tokens": 100 * steps, "seconds": 0.5 * steps, "flops": 10**9 * steps}
    lines.append({"kind": "evaluation", "step": steps, **done, "loss": 2.125, "bits_per_byte": 3.0625})
    lines.append({"kind": "sample", "step": steps, **done, "text": "<b>the\nend\x1b"})
    return lines


def test_the_page_says_what_the_record_does() -> None:
    page = training_page("a & b", record())
    assert "<h1>a &amp; b</h1>" in page
    tiles = dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", page))
    assert tiles == {
        "Held-out loss": "2.125", "Bits per byte": "3.062", "Steps": "300", "Tokens": "30.0K",
        "Time in steps": "150 s", "Tokens per second": "200", "FLOPs": "300 G",
    }  # fmt: skip
    titles = re.findall(r"<h2>([^<]*)</h2>", page)
    assert titles == ["Loss over tokens", "Loss over operations", "Loss over time", "Learning rate",
                      "Norm of the gradient", "Load", "What it writes"]  # fmt: skip
    assert "<pre>&lt;b&gt;the\nend\\x1b</pre>" in page
    assert not re.findall(r"(?:src|href)=\"(?!#)", page)
    assert page == training_page("a & b", record())


def test_a_point_is_the_mean_of_its_steps() -> None:
    points = list(_means([line for line in record() if line["kind"] == "step"], "tokens", "loss"))
    assert 30 < len(points) <= 120
    assert points[0] == pytest.approx((100, 6))
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert all(y == pytest.approx(2 + 4 * exp(-(x / 100 - 1) / 50), rel=0.01) for x, y in points)


def test_the_picture_stands_alone() -> None:
    root = ET.fromstring(training_picture(record()))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    words = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"training", "held out", "loss in nats"} <= set(words)
    assert any("--ink" in (node.text or "") for node in root.iter("{http://www.w3.org/2000/svg}style"))


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_short_runs_have_a_page(steps: int) -> None:
    page = training_page("short", record(steps))
    assert ("No step has been made." in page) == (steps == 0)
