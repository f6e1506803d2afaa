"""`--devices` of `cost`, `compare` and `draw`: text, JSON, pages, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from axon_compose import compare, load
from axon_compose.analysis.devices import Hardware
from axon_compose.cli import main
from axon_compose.cli._arguments import latency, link
from axon_compose.diagnostics.codes import CODES
from axon_compose.report.draw import page
from axon_compose.report.draw._devices import devices_section
from axon_compose.report.draw._schedule import simulation_section
from tests.helpers import described

FILE = "model.yaml"


@pytest.fixture(autouse=True)
def _file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(FILE).write_text(json.dumps(described(name="small")))


def answer(capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    assert main([*command, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", FILE, "--devices", "2", "--batch", "3", "--memory", "1GB", "--training"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("small in bfloat16 on 2 devices, 4,096 tokens, 3 sequences\n")
    for words in ("tensor 2", "pipeline 2", "data 2", "replicas", "fully sharded", "recommended: ", "of 3 sequences"):
        assert words in out
    assert "memory moves 400 GB/s, a link 10 GB/s each way, a message takes 50 µs" in out


def test_json_has_both_sheets(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(
        capsys, "cost", FILE, "--devices", "2", "--link", "40Gbit/s", "--latency", "0.1ms", "--context", "1k,8k"
    )
    result = found["result"]
    assert found["ok"] is True
    assert result["weight_bytes"] == load(described()).cost().weight_bytes
    devices = result["devices"]
    assert (devices["devices"], devices["context"]) == (2, 8192)
    assert devices["hardware"] == {
        "bandwidth": 400e9, "link": 5e9, "latency": 1e-4, "flops": 30e12, "memory": None,
        "machine": 1, "machine_link": None,
    }  # fmt: skip
    names = [row["name"] for row in devices["strategies"]]
    assert devices["recommended"] in names
    for row in devices["strategies"]:
        assert row["memory_bytes"] == row["weight_bytes"] + row["cache_bytes"] + row["activation_bytes"]


def test_what_fits_nowhere_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "cost", FILE, "--devices", "2", "--memory", "1kB")
    assert [fault["code"] for fault in found["diagnostics"]] == ["AX402"]
    assert found["result"]["devices"]["recommended"] is None
    assert main(["cost", FILE, "--devices", "2", "--memory", "1kB"]) == 0
    assert "warning[AX402]: `small` fits on 2 devices of 1.00 kB in no way" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["cost"], ["compare"], ["draw", "-o", "a.html"]])
def test_what_cannot_be(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, FILE, "--devices", "0"]) == 2
    assert "error[AX403]: a model cannot run on 0 devices" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, FILE, "--link", "10GB/s"])
    assert "argument --link: only with --devices" in capsys.readouterr().err
    assert not Path("a.html").exists()
    assert {"AX402", "AX403"} <= set(CODES)


@pytest.mark.parametrize(
    ("text", "speed"), [("10", 1e10), ("10GB/s", 1e10), ("250MB/s", 2.5e8), ("100 Gbit/s", 1.25e10)]
)
def test_links(text: str, speed: float) -> None:
    assert link(text) == speed


@pytest.mark.parametrize(("text", "seconds"), [("50us", 5e-5), ("50µs", 5e-5), ("0.2ms", 2e-4), ("0s", 0.0)])
def test_latencies(text: str, seconds: float) -> None:
    assert latency(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "flag",
    [("--link", "10Gb/s"), ("--link", "0"), ("--latency", "50"), ("--latency", "-1us"), ("--machine", "8")],
)
def test_speeds_that_are_none(flag: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["cost", FILE, "--devices", "2", f"{flag[0]}={flag[1]}"])
    assert f"{flag[1]!r} is not " in capsys.readouterr().err
    assert main(["cost", FILE, "--devices", "2", "--machine", "2x100GB/s"]) == 0
    assert "10 GB/s each way and 100 GB/s between the 2 of a machine" in capsys.readouterr().out


def test_compare() -> None:
    found = compare([described(), described(stack="a*4 s w")], devices=2, sort="device-memory")
    first, second = (row.strategy for row in found.rows)
    assert first is not None
    assert second is not None
    assert first.memory_bytes <= second.memory_bytes
    titles = [" ".join(column.title) for column in found.columns]
    assert titles[-3:] == ["on 2 devices", "per device", "together tokens/s"]
    data = found.to_dict()
    assert data["devices"] == 2
    assert data["rows"][0]["devices"]["recommended"] == first.name
    cramped = compare([described()], devices=2, hardware=Hardware(memory=1))
    assert "does not fit" in cramped.column("strategy").text(cramped.rows[0])
    assert "devices" not in compare([described()]).to_dict()


def test_section_of_a_page() -> None:
    model = load(described())
    drawn = devices_section(model.spread(2, context=64, hardware=Hardware(memory=10**9)))
    assert "On 2 devices, 64 tokens" in drawn
    assert drawn.count("memory of one device by each strategy") == 2  # on a desk and on a phone
    assert drawn == devices_section(model.spread(2, context=64, hardware=Hardware(memory=10**9)))


def test_page() -> None:
    model = load(described(stack="a*6"))
    simulation = model.simulate(4, context=64, batch=8, training=True)
    drawn = page(model.plan(), context=[64], devices=2, simulation=simulation)
    assert "On 2 devices, 64 tokens" in drawn
    assert "Training on 4 devices, simulated" in drawn


def test_a_notebook_shows_it() -> None:
    html = load(described()).spread(2)._repr_html_()
    assert "<table>" in html
    assert "recommended" in html


def test_a_simulation(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["cost", FILE, "--devices", "4", "--simulate", "--context", "64", "--batch", "8"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert out.startswith("small in bfloat16, decoding simulated on 4 devices: 8 sequences of 64 tokens\n")
    assert "30.0 TFLOP/s" in out
    found = answer(capsys, *command, "--training", "--layout", "2x2x1", "--flops", "1T", "--micro-batches", "4")
    (run,) = found["result"]["simulation"]["runs"]
    assert run["name"] == "tensor 2 x pipeline 2"
    assert run["layout"] == {"tensor": 2, "pipeline": 2, "data": 1}
    assert (run["micro"], run["sequences"], run["schedule"]) == (4, 2, "1f1b")
    assert found["result"]["simulation"]["hardware"]["flops"] == 1e12
    parts = ("computing", "bubble", "tensor", "experts", "gradients")
    assert sum(run[part] for part in parts) == pytest.approx(1)
    assert main([*command, "--layout", "2x2x2"]) == 2
    assert "error[AX403]: a layout of 2 x 2 x 2 is one of 8 devices" in capsys.readouterr().err
    assert main([*command, "--memory", "1kB"]) == 0
    assert "warning[AX402]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--simulate"], "argument --simulate: only with --devices"),
        (["--devices", "2", "--flops", "1T"], "argument --flops: only with --simulate"),
        (["--devices", "2", "--micro-batches", "2"], "argument --micro-batches: only with --simulate"),
        (["--devices", "2", "--simulate", "--no-overlap"], "argument --no-overlap: only with --training"),
        (["--devices", "2", "--simulate", "--schedule", "gpipe"], "argument --schedule: only with --training"),
        (["--devices", "2", "--simulate", "--segment", "0"], "argument --segment: only with --training"),
        (["--latency", "0s"], "argument --latency: only with --devices"),
        (["--devices", "2", "--simulate", "--layout", "2"], "'2' is not three numbers"),
        (["--devices", "2", "--simulate", "--flops", "30"], "'30' is not a number of operations a second"),
    ],
)
def test_flags_that_say_nothing(flags: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["cost", FILE], ["draw", FILE, "-o", "a.html"]):
        with pytest.raises(SystemExit):
            main([*command, *flags])
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("training", [True, False])
def test_section_of_a_simulation(training: bool) -> None:
    sheet = load(described(stack="a*6")).simulate(4, context=64, batch=8, training=training)
    drawn = simulation_section(sheet)
    assert f"{'Training' if training else 'Decoding'} on 4 devices, simulated" in drawn
    assert drawn.count("<title>What the stages of ") == 2
    assert drawn.count(">stage 1<") == 2
    assert "<table>" in sheet._repr_html_()


def test_what_is_whole_is_named_with_its_strategies(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "llama", "--devices", "64"]) == 0
    assert (
        "whole on every device of tensor 64: `attn`: `num_heads` (32) is not a multiple of 64"
        in capsys.readouterr().out
    )
    assert main(["cost", FILE, "--devices", "3"]) == 0
    assert "whole on every device: `attn`: " in capsys.readouterr().out
