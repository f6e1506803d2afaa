"""The page in headless Chromium: no error on the console, nothing wider than a phone or a desk. Skips without it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

import axon_compose
from axon_compose.analysis.devices import Hardware, Layout
from axon_compose.proof.bench import Measurement, Spread, Workload
from axon_compose.report.draw import comparison_page, page
from axon_compose.report.draw._devices import devices_section
from axon_compose.report.draw._html import document
from axon_compose.report.draw._schedule import simulation_section
from tests.children import child

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), "")

#: A page around the page, in a frame of the wanted width, that says how wide its content is and how small its letters.
FRAME = """<!doctype html><iframe id="f" width="{width}" height="900" style="border:0" srcdoc="{page}"></iframe>
<pre id="answer"></pre><script>document.getElementById("f").onload = (event) => {{
  const inner = event.target.contentDocument, view = event.target.contentWindow;
  const shown = [...inner.querySelectorAll("text, td, th, dt, p, li, footer")].filter((e) => e.getClientRects().length);
  const small = Math.min(...shown.map((e) => parseFloat(view.getComputedStyle(e).fontSize) * (e.closest("svg")
    ? e.closest("svg").getBoundingClientRect().width / e.closest("svg").viewBox.baseVal.width : 1)));
  const wide = [...inner.querySelectorAll(".scroll")].filter((e) => e.scrollWidth > e.clientWidth).length;
  document.getElementById("answer").textContent = JSON.stringify(
    {{scroll: inner.documentElement.scrollWidth, client: inner.documentElement.clientWidth, small, wide}});
}};</script>"""


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="needs Chromium (install_browser.sh)")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["bit-axon", "gemma4_text", "nemotron_h", "deepseek_v3"])
def test_page(name: str, width: int, tmp_path: Path) -> None:
    seen(page(axon_compose.load(name).plan(), memory=16 * 10**9), width, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="needs Chromium (install_browser.sh)")
@pytest.mark.parametrize("width", [390, 800, 1280])
def test_sections_of_several_devices(width: int, tmp_path: Path) -> None:
    """With every column, many strategies, and more stages than are drawn."""
    model, hardware = axon_compose.load("mixtral"), Hardware(memory=80 * 10**9)
    sheet = model.spread(16, batch=64, hardware=hardware)
    runs = model.simulate(256, batch=1024, training=True, hardware=hardware, layout=Layout(2, 32, 4))
    several = model.simulate(256, batch=1024, training=True, hardware=hardware)
    sections = devices_section(sheet), simulation_section(runs), simulation_section(several)
    seen(document("mixtral", *sections), width, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="needs Chromium (install_browser.sh)")
@pytest.mark.parametrize("width", [390, 800, 1280])
def test_page_of_a_comparison(width: int, tmp_path: Path) -> None:
    """With every column that there is: counted, fitting, bound and measured."""
    names = ["bit-axon", "granitemoehybrid", "qwen3_next", "nemotron_h"]
    found = axon_compose.compare(names, quantize=4, memory=16 * 10**9, bandwidth=1e11)
    speed = Measurement("", Spread((12_345.0, 9_999.0)), Spread((123.0, 100.0)), 10**10, 10**10, "cpu")
    rows = tuple(replace(row, measured=speed) for row in found.rows)
    seen(comparison_page(replace(found, rows=rows, workload=Workload())), width, tmp_path)


def seen(shown: str, width: int, tmp_path: Path) -> None:
    """Open a page in a browser and hold what must be true of every one."""
    inside = html.escape(shown)
    (tmp_path / "frame.html").write_text(FRAME.format(width=width, page=inside), "utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
               "--disable-background-networking", "--enable-logging=stderr", "--window-size=1400,1000",
               "--virtual-time-budget=2000", "--dump-dom",
               (tmp_path / "frame.html").as_uri()]  # fmt: skip
    printed, said = ran(command)
    found = re.search(r'<pre id="answer">(\{.*?\})</pre>', printed)
    assert found, said
    answer = json.loads(found[1])
    assert answer["scroll"] <= answer["client"], "the page is wider than the screen"
    assert not answer["wide"], "a table is wider than the screen"
    assert answer["small"] >= 10.5, "letters too small to read"
    assert "CONSOLE" not in said


def ran(command: list[str]) -> tuple[str, str]:
    """What the browser prints, on both streams; all of its processes are gone afterwards, also when it hangs."""
    with child(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        printed, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return printed, said
