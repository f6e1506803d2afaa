"""Every command of mlx_lm over three models, as `mlx_lm_matrix.yaml` lists them; docs/mlx-lm-commands.md is that list.

The two imported models are compared with mlx-lm's own class on the checkpoint that they come from. Commands run in this
process, with the arguments that a person would give; `test_mlx_lm_commands.py` runs those of daily use as processes.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import shutil
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import mlx.core as mx
import numpy as np
import pytest
import yaml
from mlx_lm.utils import load_model
from test_mlx_lm_commands import DATASETS
from test_mlx_lm_server import served

from axon_compose import load
from axon_compose.checkpoints.export import export
from axon_compose.checkpoints.folder import write_model
from axon_core.cpu import reference_implementations

ROWS = yaml.safe_load((Path(__file__).parent / "mlx_lm_matrix.yaml").read_text())["rows"]
PROMPT = "State space, a window and experts: describe, trust, run."
DIMS = {
    "hidden_size": 64, "vocab_size": 320, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "intermediate_size": 128, "moe_intermediate_size": 64, "num_experts": 4, "num_experts_per_tok": 2,
}  # fmt: skip
FAMILIES = {"dense": "llama", "moe": "qwen3_moe"}
LOUD = re.compile(r"\b(x|in|q|k)_proj\.weight")
#: Training moves the scales; how far apart the logits may be then, relative to the largest.
LIMITS = {"dwq": 2e-3}


@dataclass(frozen=True)
class Side:
    """A folder that commands run on, and a place for what they write."""

    folder: Path
    place: Path

    def run(self, command: str, *arguments: object, stdin: str = "") -> str:
        """Run a command in this process; what it prints."""
        subpackage = "quant." if command in ("awq", "dwq", "dynamic_quant", "gptq") else ""
        main = importlib.import_module(f"mlx_lm.{subpackage}{command}").main
        said = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, mock.patch.dict(os.environ):  # some set variables for good
            patch.setattr(sys, "argv", [f"mlx_lm.{command}", *map(str, arguments)])
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            patch.chdir(self.place)
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
                main()
        return said.getvalue()

    def model(self, command: str, *arguments: object, **how: Any) -> str:
        """Run a command that takes a model."""
        return self.run(command, "--model", self.folder, "--trust-remote-code", *arguments, **how)

    def generated(self, *arguments: object, tokens: int = 24) -> str:
        return self.model("generate", "--prompt", PROMPT, "--max-tokens", tokens, "--verbose", "False", *arguments)

    def made(self, command: str, *arguments: object) -> Path:
        """The folder that a command writes."""
        target = self.place / f"made-{len(list(self.place.iterdir()))}"
        where = "--save-path" if command == "fuse" else "--mlx-path"
        self.model(command, where, target, *arguments)
        return target


def tensors(folder: Path) -> dict[str, bytes]:
    """Every tensor of a folder, as bytes, but for norms, which have names of their own in ours."""
    found: dict[str, mx.array] = {}
    for path in folder.glob("model*.safetensors"):
        found |= mx.load(str(path))
    return {name: bytes(np.array(value.view(mx.uint8))) for name, value in found.items() if "norm" not in name}


@dataclass(frozen=True)
class Rounded:
    """Tensors in which a number halfway between two others may have gone either way: sums end in other digits."""

    tensors: dict[str, bytes]

    def like(self, other: Rounded) -> bool:
        same, total = 0, 0
        for name, found in self.tensors.items():
            if name.endswith(".weight"):
                wanted = np.frombuffer(other.tensors[name], np.uint8)
                same += int((np.frombuffer(found, np.uint8) == wanted).sum())
                total += len(found)
        return self.tensors.keys() == other.tensors.keys() and same / total > 0.999


def logits(folder: Path) -> np.ndarray:
    model, _ = load_model(folder, trust_remote_code=True)
    tokens = mx.random.randint(0, 256, (2, 20), key=mx.random.key(1))
    return np.array(model(tokens).astype(mx.float32))


@dataclass(frozen=True)
class Case:
    """One column: our folder, and the checkpoint that it was built from."""

    ours: Path
    stock: Path | None
    draft: Path


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory, model: Path) -> dict[str, Case]:
    place = tmp_path_factory.mktemp("matrix")
    found: dict[str, Case] = {}
    for column, family in FAMILIES.items():
        known = load(family).document.dims
        small = [f"dims.{name}={value}" for name, value in DIMS.items() if name in known]
        write_model(load(family, settings=small), place / "random", tokenizer="bytes-chat", force=True)
        weights = mx.load(str(place / "random/model.safetensors"))
        louder = {name: value * (4 if LOUD.search(name) else 1) for name, value in weights.items()}
        mx.save_safetensors(str(place / "random/model.safetensors"), louder, metadata={"format": "mlx"})
        stock, ours = place / f"{column}-checkpoint", place / column
        export(place / "random", stock, "huggingface")
        write_model(load(checkpoint=stock), ours, weights=stock, tokenizer=stock)
        found[column] = Case(ours, stock, place / "dense-checkpoint")
    return {"hybrid": Case(model, None, place / "dense-checkpoint"), **found}


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Local stand-ins for what the commands would fetch: calibration text, data sets, tasks, the hub."""
    words = np.random.default_rng(1).choice(PROMPT.split(), 300)
    cached = tmp_path / "home/.cache/mlx-lm/calibration_v5.txt"
    cached.parent.mkdir(parents=True)
    cached.write_text(" ".join(words))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TERM", "dumb")
    stand_in = types.ModuleType("datasets")
    exec(DATASETS, stand_in.__dict__)
    monkeypatch.setitem(sys.modules, "datasets", stand_in)


# ---- one function for each row; what it returns is compared with what the stock class gives


def draft(side: Side, case: Case) -> str:
    return side.generated("--draft-model", case.draft, "--num-draft-tokens", 3)


def chat(side: Side) -> str:
    said = side.model("chat", "--max-tokens", 12, stdin="hello\nhello\nq\n")
    return re.sub(r"\d+ tokens.*", "", said.partition("hello")[2])  # not the head, which names the folder


def server(side: Side) -> list[str]:
    with served(side.folder, side.place / "log.txt") as asked:
        return [asked.chat(prompt) for prompt in ("ok", PROMPT)]


def cache_prompt(side: Side) -> str:
    file, cut = side.place / "prompt.safetensors", 40
    side.model("cache_prompt", "--prompt", PROMPT[:cut], "--prompt-cache-file", file)
    rest = ("--prompt", PROMPT[cut:], "--prompt-cache-file", file, "--max-tokens", 24, "--verbose", "False")
    return side.model("generate", *rest)


def benchmark(side: Side) -> None:
    assert "Averages" in side.model("benchmark", "-p", 16, "-g", 4, "-n", 1)


def perplexity(side: Side, data: Path) -> float:
    sizes = ("--data-path", data, "--sequence-length", 24, "--num-samples", 4, "--batch-size", 2)
    return float(re.findall(r"Perplexity: ([\d.]+)", side.model("perplexity", *sizes))[0])


def evaluate(side: Side) -> list[float]:
    class Instance:
        def __init__(self, *args: str) -> None:
            self.args = args

    def simple_evaluate(model: Any, **_: Any) -> Any:
        pairs = [Instance("a window of", " sixteen"), Instance("a window of", " tokens"), Instance("trust", ", run")]
        return {"results": {"local": {"likelihoods": [float(score) for score, _ in model.loglikelihood(pairs)]}}}

    parts = {name: types.ModuleType(name) for name in ("lm_eval", "lm_eval.api.model", "lm_eval.api.registry")}
    parts["lm_eval"].simple_evaluate = simple_evaluate  # type: ignore[attr-defined]
    parts["lm_eval.api.model"].LM = object  # type: ignore[attr-defined]
    parts["lm_eval.api.registry"].register_model = lambda name: lambda kind: kind  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        for name, part in parts.items():
            patch.setitem(sys.modules, name, part)
        module = importlib.import_module("mlx_lm.evaluate")
        patch.setattr(module, "version", lambda name: "0")
        patch.delitem(sys.modules, "mlx_lm.evaluate")  # the next one has the real lm_eval, if it is there
        patch.setitem(sys.modules, "mlx_lm.evaluate", module)
        side.model("evaluate", "--tasks", "local", "--output-dir", side.place / "answers")
    (answer,) = (side.place / "answers").iterdir()
    found: list[float] = json.loads(answer.read_text())["local"]["likelihoods"]
    return found


def converted(*options: str) -> Callable[[Side], dict[str, bytes]]:
    def convert(side: Side) -> dict[str, bytes]:
        folder = side.made("convert", *options)
        if list(folder.glob("*.py")):  # ours; experts of the stock class do not run in 16 bits on a CPU
            assert Side(folder, side.place).generated().strip()
        return tensors(folder)

    return convert


def dequantized(side: Side) -> dict[str, bytes]:
    return tensors(Side(side.made("convert", "-q"), side.place).made("convert", "--dequantize"))


def calibrated(command: str, *options: object) -> Callable[[Side], np.ndarray]:
    return lambda side: logits(side.made(command, *options))


def dwq(side: Side, data: Path) -> np.ndarray:
    """By the products of MLX on both sides: its first step moves every scale by the sign of a gradient in bfloat16."""
    sizes = ("--data-path", data, "--num-samples", 4, "--max-seq-length", 33, "--batch-size", 2)
    with reference_implementations():
        return logits(side.made("dwq", *sizes))


def trained(*options: object, keys: tuple[str, ...] = ()) -> Callable[[Side, Path], Any]:
    """What is trained, how much of it, and the losses before the first step; the first draw of adapters is not ours."""

    def train(side: Side, data: Path) -> Any:
        config = side.place / "lora.yaml"
        parameters = {"rank": 4, "scale": 4.0, "dropout": 0.0} | ({"keys": list(keys)} if keys else {})
        config.write_text(yaml.safe_dump({"lora_parameters": parameters}))
        sizes = ("--iters", 1, "--batch-size", 2, "--max-seq-length", 32, "--val-batches", 2, "--num-layers", 4)
        run = ("--train", "--data", data, "--adapter-path", side.place / "adapters", "-c", config)
        said = side.model("lora", *run, *sizes, "--steps-per-report", 1, *options)
        adapters = mx.load(str(side.place / "adapters/adapters.safetensors"))
        names = sorted(name for name in adapters if "norm" not in name)
        losses = re.findall(r"Iter 1: Val loss ([\d.]+)", said) + re.findall(r"Train loss ([\d.]+)", said)
        return [names, re.findall(r"Trainable parameters: .*", said), list(map(float, losses))]

    return train


def fused(side: Side, case: Case, data: Path) -> np.ndarray:
    """The adapters of the stock class, joined with either model; a hybrid is trained itself."""
    place = side.place / "training"
    place.mkdir()
    trained("--learning-rate", 0.05)(Side(case.stock or side.folder, place), data)
    return logits(side.made("fuse", "--adapter-path", place / "adapters"))


def gguf(side: Side, case: Case, data: Path) -> None:
    place = side.place / "training"
    place.mkdir()
    trained()(Side(side.folder, place), data)
    side.made("fuse", "--adapter-path", place / "adapters", "--export-gguf")


def share(side: Side) -> None:
    with pytest.raises(ValueError, match="No hostfile"):
        side.run("share", "--path", side.folder)


def upload(side: Side) -> None:
    sent: list[Path] = []

    class Hub:
        def create_repo(self, **_: Any) -> None: ...

        def upload_large_folder(self, folder_path: Path, **_: Any) -> None:
            sent.append(Path(folder_path))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.HfApi", Hub)
        folder = Path(shutil.copytree(side.folder, side.place / "m"))
        assert "--trust-remote-code" in (folder / "README.md").read_text()
        side.run("upload", "--path", folder, "--upload-repo", "me/model")
    assert sent == [folder]
    assert "me/model" in (folder / "README.md").read_text()


def manage(side: Side) -> None:
    with pytest.raises(SystemExit):
        side.run("manage", "--help")


TRIALS: dict[str, Callable[..., Any]] = {
    "generate": lambda side: side.generated(),
    "generate --draft-model": draft,
    "chat": chat,
    "server": server,
    "cache_prompt then generate --prompt-cache-file": cache_prompt,
    "benchmark": benchmark,
    "perplexity on a local data set": perplexity,
    "evaluate": evaluate,
    "convert -q": converted("-q"),
    "convert -q --q-mode mxfp4": converted("-q", "--q-mode", "mxfp4"),
    **{
        f"convert -q --quant-predicate {recipe}": converted("-q", "--quant-predicate", recipe)
        for recipe in ("mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6")
    },
    "convert --dtype float16": converted("--dtype", "float16"),
    "convert --dequantize": dequantized,
    "gptq": lambda side: Rounded(tensors(side.made("gptq", "--sequence-length", 128))),
    "dynamic_quant": calibrated("dynamic_quant"),
    "dwq": dwq,
    "awq": calibrated("awq", "--num-samples", 8, "--n-grid", 2, "--sequence-length", 64),
    "lora --train": trained(),
    "lora --train, keys self_attn.q_proj in the configuration": trained(keys=("self_attn.q_proj",)),
    "lora --train --fine-tune-type full": trained("--fine-tune-type", "full"),
    "lora --train --fine-tune-type dora": trained("--fine-tune-type", "dora"),
    "fuse": fused,
    "fuse --export-gguf": gguf,
    "share": share,
    "upload": upload,
    "manage": manage,
}


def name_of(row: dict[str, str]) -> str:
    return f"{row['command']} {row.get('with', '')}".strip()


def attempt(name: str, side: Side, case: Case, data: Path) -> Any:
    trial = TRIALS[name]
    wanted = {"case": case, "data": data}
    names = trial.__code__.co_varnames[1 : trial.__code__.co_argcount]
    side.place.mkdir()
    return trial(side, **{key: wanted[key] for key in names})


@pytest.mark.parametrize("column", ["hybrid", *FAMILIES])
@pytest.mark.parametrize("row", [pytest.param(row, id=name_of(row)) for row in ROWS])
def test_a_cell(row: dict[str, str], column: str, cases: dict[str, Case], data: Path, tmp_path: Path) -> None:
    case, name = cases[column], name_of(row)
    ours = Side(case.ours, tmp_path / "ours")
    if row[column] == "no":
        with pytest.raises((NotImplementedError, ValueError)):
            attempt(name, ours, case, data)
        return
    found = attempt(name, ours, case, data)
    if row[column] == "runs":
        return
    assert case.stock is not None
    wanted = attempt(name, Side(case.stock, tmp_path / "stock"), case, data)
    if isinstance(wanted, dict):
        differ = {name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)}
        assert bool(differ) == (row[column] == "equal but for the router")
        assert all(".mlp.gate." in name for name in differ)
        return
    assert row[column] == "equal"
    if isinstance(wanted, Rounded):
        assert found.like(wanted)
    elif isinstance(wanted, np.ndarray):
        assert np.abs(found - wanted).max() <= LIMITS.get(row["command"], 1e-4) * np.abs(wanted).max()
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-4)
    elif row["command"] in ("lora", "evaluate"):
        assert found == wanted or np.allclose(found[-1], wanted[-1], atol=2e-3)
        assert found[:-1] == pytest.approx(wanted[:-1]) if row["command"] == "evaluate" else found[:-1] == wanted[:-1]
    else:
        assert found == wanted


def test_the_matrix_has_every_command() -> None:
    source = (Path(importlib.import_module("mlx_lm.cli").__file__ or "")).read_text()
    commands = re.search(r"subcommands = \((.*?)\)", source, re.DOTALL)
    assert commands is not None
    assert {row["command"] for row in ROWS} == set(re.findall(r'"(\w+)"', commands[1]))
    assert [name_of(row) for row in ROWS] == list(TRIALS)
    assert all(row["why"] for row in ROWS if "no" in {row["hybrid"], row["dense"], row["moe"]})
