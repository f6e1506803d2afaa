"""What the commands print, word for word. `UPDATE_GOLDEN=1` writes it anew; read the difference."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from axon_compose import load
from axon_compose.analysis.devices import Hardware, Layout
from axon_compose.cli import main
from axon_compose.report.draw._schedule import schedule_picture

GOLDEN = Path(__file__).parent / "golden"
COMMANDS = {
    "llama-4": ["llama", "--devices", "4", "--memory", "8GB", "--batch", "4"],
    "bit-axon-4-training": ["bit-axon", "--devices", "4", "--memory", "64GB", "--training", "--segment", "1"],
    "rwkv7-3-nothing-fits": ["rwkv7", "--devices", "3", "--memory", "1MB", "--quantize", "4"],
    "mixtral-16-decoding": ["mixtral", "--devices", "16", "--memory", "64GB", "--batch", "64", "--simulate"],
    "llama-64-steps": [
        "llama", "--devices", "64", "--batch", "128", "--simulate", "--training", "--schedule", "gpipe",
        "--no-overlap", "--segment", "1", "--flops", "100T", "--link", "400Gbit/s", "--latency", "10us",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_text(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", *COMMANDS[name]]) == 0
    printed = capsys.readouterr()
    file, found = GOLDEN / f"{name}.txt", printed.err + printed.out
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(found, encoding="utf-8")
    assert found == file.read_text("utf-8")


def test_the_picture_of_the_docs() -> None:
    """Four stages of a llama, with the text of `docs/planning.md` below it."""
    hardware = Hardware(flops=300e12, bandwidth=3e12, link=50e9, latency=10e-6)
    found = load("llama").simulate(4, training=True, batch=8, micro=8, layout=Layout(1, 4), hardware=hardware).best
    file = Path(__file__).resolve().parents[3] / "docs" / "pictures" / "schedule.svg"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(schedule_picture(found), encoding="utf-8")
    assert schedule_picture(found) == file.read_text("utf-8")
    assert f"{found.bubble:.0%} of the time" in (file.parents[1] / "planning.md").read_text("utf-8")
