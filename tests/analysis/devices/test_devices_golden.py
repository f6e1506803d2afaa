"""What the commands print, word for word. `UPDATE_GOLDEN=1` writes it anew; read the difference."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from axon_compose.cli import main

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
