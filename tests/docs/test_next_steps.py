"""README shows a command; a reader tries the next one. Each is continued here, in the folder that README's leave."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import refresh

README = (refresh.ROOT / "README.md").read_text("utf-8")
#: The commands of README, block by block; a block needs the files of the page alone.
SHOWN = [
    re.findall(r"^\$ (.*)$", block.text, re.MULTILINE)
    for block in refresh.blocks(README)
    if block.language == "console"
]
COMMANDS = [command for block in SHOWN for command in block]
#: The beginning of a command in README, and what is tried after it. Each must succeed and say no word of an error.
NEXT: dict[str, list[str]] = {
    "axon-compose validate variant.yaml": [
        "axon-compose explain AX132 | head -1",
        "sed -e s/d_stat/d_state/ -e s/four/4/ -e s/raeson/reason/ variant.yaml > fixed.yaml",
        "axon-compose validate fixed.yaml my-model.yaml",
        "! axon-compose diff my-model.yaml fixed.yaml",
    ],
    "axon-compose show my-model.yaml": [
        "axon-compose show my-model.yaml --table",
        "axon-compose cost my-model.yaml --memory 16GB --training",
        "axon-compose lint my-model.yaml",
        "axon-compose draw my-model.yaml -o my-model.svg",
        "axon-compose compare my-model.yaml hybrid-demo",
    ],
    "axon-compose check my-model.yaml": [
        "axon-compose check my-model.yaml --truth causal,reach --as-is",
        "axon-compose build my-model.yaml",
    ],
    "axon-compose build my-model.yaml --out my-model": [
        "axon-compose build my-model.yaml --out my-model --force",
        "axon-compose show my-model",
        "axon-compose diff my-model my-model.yaml",
        "axon-compose build my-model.yaml --weights my-model --quantize 4 --out my-model-4bit",
        "mlx_lm.generate --model my-model-4bit --trust-remote-code --prompt Hello --max-tokens 4",
    ],
    "mlx_lm.generate --model my-model": [
        "axon-compose train my-model --data python-docs --out my-model-trained --steps 2 --batch 1 --length 32",
        "mlx_lm.generate --model my-model-trained --trust-remote-code --prompt Hello --max-tokens 4",
        "axon-compose train my-model-trained --data data/train.jsonl --out other --steps 1 --batch 1 --length 16",
        "mlx_lm.lora --model my-model --trust-remote-code --train --data data --num-layers 5 --iters 1 --batch-size 1 "
        "--val-batches 1 --max-seq-length 64",
        "axon-compose show adapters",
        "axon-compose build my-model.yaml --weights adapters --out trained",
        "mlx_lm.generate --model trained --trust-remote-code --prompt Hello --max-tokens 4",
        "mlx_lm.fuse --model my-model --trust-remote-code --adapter-path adapters --save-path fused",
        "axon-compose build my-model.yaml --weights fused",
    ],
    "axon-compose import tests/families/fixtures/qwen3_moe": [
        "axon-compose validate imported.yaml",
        "axon-compose show imported.yaml",
        "axon-compose cost imported.yaml",
        "axon-compose show tests/families/fixtures/qwen3_moe",
    ],
    "axon-compose build imported.yaml --weights": [
        "axon-compose build imported.yaml --weights tests/families/fixtures/qwen3_moe --out imported",
        "mlx_lm.generate --model imported --trust-remote-code --prompt Hello --max-tokens 4",
        "axon-compose export imported --to mlx-lm",
        "mlx_lm.generate --model imported-mlx-lm --prompt Hello --max-tokens 4",
        "axon-compose export imported --to huggingface",
        "axon-compose import imported-huggingface -o again.yaml",
        "axon-compose diff imported.yaml again.yaml",
        "axon-compose verify tests/families/fixtures/qwen3_moe --against mlx-lm",
        "axon-compose verify imported-huggingface --against mlx-lm",
    ],
    "axon-compose new-plugin acme": [],  # continued when it is installed
    "pip install ./axon-acme": [
        "axon-compose plugins",
        "axon-compose check --layer acme/gated_mean --cases 1",
        "python -m pytest -q -p no:cacheprovider axon-acme/tests",
    ],
    "axon-compose show acme/acme-demo": [
        "axon-compose build acme/acme-demo --out acme-model",
        "mlx_lm.generate --model acme-model --trust-remote-code --prompt Hello --max-tokens 4",
    ],
    "for name in hybrid-demo bit-axon": ["axon-compose cost bit-axon --memory 16GB --quantize 4"],
}
#: Only look at a file.
LOOKS = ("sed -n",)


def after(command: str) -> list[str] | None:
    return next((steps for begin, steps in NEXT.items() if command.startswith(begin)), None)


def test_every_command_of_readme_is_continued() -> None:
    assert COMMANDS
    for command in COMMANDS:
        assert command.startswith(LOOKS) or after(command) is not None, command
    for begin in NEXT:
        assert any(command.startswith(begin) for command in COMMANDS), f"README no longer shows `{begin}`"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the files of README, small checkpoints and some text to train on."""
    for block in refresh.blocks(README):
        if named := refresh.yaml_file(block):
            (tmp_path / named[0]).write_text(block.text, "utf-8")
    (tmp_path / refresh.CHECKPOINTS).parent.mkdir(parents=True)
    (tmp_path / refresh.CHECKPOINTS).symlink_to(refresh.ROOT / refresh.CHECKPOINTS)
    (tmp_path / "data").mkdir()
    for part in ("train", "valid", "test"):
        lines = [json.dumps({"text": f"{part} {i}: describe, trust, run."}) + "\n" for i in range(4)]
        (tmp_path / "data" / f"{part}.jsonl").write_text("".join(lines))
    return tmp_path


@pytest.mark.usefixtures("forked_commands")
@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: shown[0])
def test_the_next_step_works(shown: list[str], place: Path) -> None:
    for command in shown:
        run(command, place)  # what it says is held by the page itself
        for step in after(command) or ():
            code, text = run(step, place)
            assert code == 0, f"$ {step}\n{text}"
            assert "error" not in text, f"$ {step}\n{text}"


def run(command: str, folder: Path) -> tuple[int, str]:
    text = refresh.run(["bash", "-c", f'{command}\necho "exit code $?"'], folder)
    said, _, code = text.rpartition("exit code ")
    return int(code), said
