"""The stack in characters: every layer and every parameter is told, in the width of the terminal, in any encoding."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

import axon_compose
from axon_compose.cli import main
from axon_compose.plan import Plan, total_parameters
from axon_compose.report import PLAIN, Style
from axon_compose.report.draw._characters import characters
from axon_compose.report.draw._columns import NARROW
from axon_compose.report.draw._fold import cards, depth, fold
from tests.shipped import VARIED, shipped

ROOT = Path(__file__).resolve().parents[3]
DEMO = """\
         embedding  512 tokens → 128                65,536    6.3 %  ▌
   ┌ ╭ absorb, layers 0..2 ─────────────────── 3 × 106,880 ────────────────────╮
×3 ┤ │ + ssm        ■ state conv, ssm              106,752   30.9 %  ██▊       │
   └ ╰─────────────────────────────────────────────────────────────────────────╯
     ╭ reason, layer 3 ─────────────────────────── 295,808 ────────────────────╮
     │ + swa        ◨ K/V 2 × 32, window 32, NoPE   49,152    4.7 %  ▍         │
     │ + moe        148,096 active                 246,400   23.8 %  ██▏       │
     ╰─────────────────────────────────────────────────────────────────────────╯
     ╭ synthesize, layer 4 ─────────────────────── 353,408 ────────────────────╮
     │ + ssm        ■ state conv, ssm              106,752   10.3 %  ▉         │
     │ + moe        148,096 active                 246,400   23.8 %  ██▏       │
     ╰─────────────────────────────────────────────────────────────────────────╯
         norm                                          128  < 0.1 %  ▏
         head       weights of the embedding"""


def plan_of(name: str) -> Plan:
    return shipped(name).plan()


def test_a_picture() -> None:
    assert "\n".join(characters(plan_of("hybrid-demo"), PLAIN, 80)) == DEMO


@pytest.mark.parametrize("name", VARIED)
def test_every_layer_and_parameter_is_told_in_any_width(name: str) -> None:
    plan = plan_of(name)
    for width in (20, 60, 80, 100, 300):
        lines = characters(plan, PLAIN, width)
        assert told(lines) == total_parameters(plan)
        assert sum("╭" in line for line in lines) == len(list(cards(fold(plan))))
        assert max(map(len, lines)) <= max(width, NARROW + 7 * depth(fold(plan)))  # brackets of three digits
        assert sum("╮" in line for line in lines) == sum("╯" in line for line in lines)
        assert len({len(line) for line in lines if line[-1] in "╮│╯"}) == 1


def told(lines: list[str]) -> int:
    """The sum of layers and of what stands before and behind them."""
    total = 0
    for line in lines:
        if found := re.search(r"(?:(\d+) × )?([\d,]+) ─+╮", line):
            total += int(found[1] or 1) * int(found[2].replace(",", ""))
        elif found := re.search(r"^ +(?:embedding|residual|norm|head) .*?()([\d,]+) +(?:< )?[\d.]+ %", line):
            total += int(found[2].replace(",", ""))
    return total


def test_repetitions_stand_inside_one_another() -> None:
    text = "\n".join(characters(plan_of("gemma3_text"), PLAIN, 100))
    assert [int(times) for times in re.findall(r"×(\d+) ┤", text)] == [5, 4, 2]
    assert text.count("┌") == text.count("└") == 3


def test_bars_tell_the_share() -> None:
    plan = plan_of("deepseek_v3")
    lines = characters(plan, PLAIN, 110)
    share, bar = re.search(r"([\d.]+) % +(\S+)", next(line for line in lines if "moe" in line)).groups()  # type: ignore[union-attr]
    eighths = 8 * bar.count("█") + " ▏▎▍▌▋▊▉".find(bar[-1]) % 8
    assert eighths / 80 == pytest.approx(float(share) / 100, abs=1 / 80)


def test_sharing_and_factors_are_told() -> None:
    text = "\n".join(characters(plan_of("shared-kv"), PLAIN, 110))
    assert "reads kv of layer 2" in text
    assert "weights of the embedding" in text
    assert "∥ attn" in "\n".join(characters(plan_of("parallel-hybrid"), PLAIN, 110))
    shared = {
        "version": 1,
        "name": "x",
        "dims": {"hidden_size": 64, "vocab_size": 128},
        "components": {"attn": {"type": "attention", "num_heads": 4}, "mlp": {"type": "mlp", "intermediate_size": 8}},
        "blocks": {
            "look": {"share": "look", "branches": ["attn", "mlp"]},
            "long": [{"use": "attn", "scale": 0.22}, {"use": "mlp", "as": "k"}, {"add": "k"}],
        },
        "stack": "look*3 long",
    }
    plan = axon_compose.load(shared).plan()
    lines = characters(plan, PLAIN, 110)
    assert sum("weights of layer 0" in line for line in lines) == 2
    assert any("layers 1..2" in line and " shared ─" in line for line in lines)
    assert any("kept as k" in line for line in lines)
    assert any(re.search(r"\+ k\b", line) for line in lines)
    assert any("output × 0.22" in line for line in lines)


def test_colours_are_only_colours() -> None:
    plan = plan_of("bit-axon")
    painted = characters(plan, Style(True), 90)
    assert "\x1b[38;5;" in painted[0]
    assert [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in painted] == characters(plan, PLAIN, 90)


def show(monkeypatch: pytest.MonkeyPatch, encoding: str, *arguments: str) -> str:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding))
    assert main(["show", *arguments]) == 0
    sys.stdout.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-8"])
def test_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = show(monkeypatch, encoding, "rwkv7").splitlines()
    pretty = show(monkeypatch, "utf-8", "rwkv7").splitlines()
    assert [len(line) for line in shown] == [len(line) for line in pretty]
    assert "?" not in "".join(shown)


def test_json_loses_nothing_in_any_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    arguments = ("hybrid-demo", "--stage", "document", "--set", "x-note='→ é 🦀'", "--json")
    answers = [json.loads(show(monkeypatch, encoding, *arguments)) for encoding in ("ascii", "latin-1", "utf-8")]
    assert answers[0] == answers[1] == answers[2]


def test_the_picture_is_as_wide_as_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["show", "hybrid-demo"]) == 0
    assert DEMO in capsys.readouterr().out
    assert main(["show", "hybrid-demo", "--table"]) == 0
    table = capsys.readouterr().out
    assert "╭" not in table
    assert "RotatingKVCache 32" in table


def test_characters_need_no_page_and_nothing_that_reads_one() -> None:
    """`show` draws nothing else, and begins that much sooner."""
    heavy = ("http", "ssl", "xml", "statistics", "axon_compose.report.draw._page", "axon_compose.report.draw._bitmap")
    code = (
        f"import sys; from axon_compose.report.draw import characters; print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
