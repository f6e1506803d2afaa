"""A built folder in the unmodified `mlx_lm` commands, each as a process of its own without network.

The model is the flagship in small: state space, sliding-window attention (16 tokens) and experts. Prompts are longer
than the window, answers are greedy unless said otherwise, and depend on the first letter of the prompt.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import mlx.core as mx
import pytest
from commands import SMALL, axon, generated, mlx_lm, python, settings

from axon_compose.checkpoints.files import read_header

PROMPT = "State space, a window and experts: describe, trust, run."
#: What the pip package `datasets` does for a path to a folder; it is no requirement of mlx-lm.
DATASETS = """\
import json, pathlib


def load_dataset(path, split):
    name, _, part = split.partition("[:")
    lines = (pathlib.Path(path) / f"{name}.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return rows[: int(part.rstrip("]"))] if part else rows
"""


@pytest.fixture(scope="module")
def answer(model: Path) -> str:
    """What the model says to `PROMPT`."""
    text = generated(model, PROMPT)
    assert len(set(text)) > 8, "an answer of one letter would hide faults"
    return text


def test_generate(model: Path, answer: str) -> None:
    assert generated(model, PROMPT) == answer
    assert generated(model, "X" + PROMPT[1:]) != answer


def test_a_base_models_prompt_has_no_template(tmp_path: Path) -> None:
    done = axon("build", "hybrid-demo", "--out", tmp_path / "base", *settings(*SMALL))
    assert done.returncode == 0, done.stderr
    said = mlx_lm("generate", "--model", tmp_path / "base", "--prompt", "only these four words", "--max-tokens", 2)
    assert f"Prompt: {len('only these four words')} tokens" in said


def test_generate_prefills_in_pieces_and_from_standard_input(model: Path, answer: str) -> None:
    arguments = ("--model", model, "--prompt", "-", "--max-tokens", 24, "--verbose", "False")
    assert mlx_lm("generate", *arguments, "--prefill-step-size", 7, stdin=PROMPT) == answer


def test_generate_with_a_temperature(model: Path, answer: str) -> None:
    first, again, other = (generated(model, PROMPT, "--temp", 1.0, "--seed", seed) for seed in (1, 1, 2))
    assert first == again
    assert len({first, other, answer}) == 3


def test_generate_needs_the_flag(model: Path) -> None:
    done = python("-m", "mlx_lm", "generate", "--model", model, "--prompt", "hi")
    assert done.returncode != 0
    assert "trust_remote_code=True" in done.stderr


def test_prompt_cache_equals_the_whole_prompt(model: Path, tmp_path: Path, answer: str) -> None:
    file, cut = tmp_path / "prompt.safetensors", 40
    said = mlx_lm("cache_prompt", "--model", model, "--prompt", PROMPT[:cut], "--prompt-cache-file", file)
    assert "Saving" in said
    assert generated(model, PROMPT[cut:], "--prompt-cache-file", file) == answer
    assert generated(model, PROMPT[cut + 1 :], "--prompt-cache-file", file) != answer
    # With a temperature the cache is used as well.
    warm = generated(model, PROMPT[cut:], "--prompt-cache-file", file, "--temp", 1.0, "--seed", 5)
    assert warm == generated(model, PROMPT, "--temp", 1.0, "--seed", 5)


def test_chat_remembers_and_forgets(model: Path) -> None:
    said = mlx_lm("chat", "--model", model, "--max-tokens", 12, stdin="hello\nhello\nr\nhello\nq\n", TERM="dumb")
    first, second, reset = (turn.split("› \n", 1)[1] for turn in re.split(r"\n  12 tokens", said)[:3])
    reset = reset.split("› \n", 1)[1]  # after the answer to `r`
    assert first == reset
    assert first != second
    assert "context cleared" in said
    assert "bye" in said


def test_convert_quantises_all_but_routers_and_gates(model: Path, tmp_path: Path, answer: str) -> None:
    said = mlx_lm("convert", "--hf-path", model, "--mlx-path", tmp_path / "q4", "-q")
    assert float(re.findall(r"([\d.]+) bits per weight", said)[0]) < 8
    names = set(read_header(tmp_path / "q4" / "model.safetensors"))
    assert "model.layers.3.self_attn.q_proj.scales" in names
    assert "model.layers.4.mlp.switch_mlp.down_proj.scales" in names
    assert "lm_head.scales" in names
    assert [name for name in names if name.endswith("gate.scales")] == []
    text = generated(tmp_path / "q4", PROMPT)
    assert len(set(text)) > 4
    assert text != answer


@pytest.mark.parametrize("quantised", [False, True])
def test_convert_to_bfloat16_keeps_what_must_be_float32(model: Path, tmp_path: Path, quantised: bool) -> None:
    mlx_lm("convert", "--hf-path", model, "--mlx-path", tmp_path / "b", "--dtype", "bfloat16", *["-q"] * quantised)
    header = read_header(tmp_path / "b" / "model.safetensors")
    kept = {name for name, entry in header.items() if entry.dtype == "F32"}
    assert kept == {f"model.layers.{i}.ssm.{name}" for i in (0, 1, 2, 4) for name in ("A_log", "D")}
    weights = [f"model.layers.0.ssm.in_proj.{'scales' if quantised else 'weight'}", "model.norm.weight"]
    assert {header[name].dtype for name in weights} == {"BF16"}
    # Drawn, since the likeliest token of random weights may be the one that ends the text.
    assert len(set(generated(tmp_path / "b", PROMPT, "--temp", 1, "--seed", 1))) > 4


@pytest.mark.parametrize("checkpoint", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_train_fuse_and_generate(
    model: Path, data: Path, tmp_path: Path, answer: str, kind: str, checkpoint: bool
) -> None:
    run = ("--train", "--data", data, "--fine-tune-type", kind, "--num-layers", 5, "--adapter-path", tmp_path / "a")
    sizes = ("--iters", 1, "--batch-size", 1, "--max-seq-length", 32, "--val-batches", 1, "--steps-per-report", 1)
    flags = ["--grad-checkpoint"] * checkpoint
    said = mlx_lm("lora", "--model", model, *run, *sizes, "--learning-rate", 0.01, *flags)
    assert re.search(r"5\.\d{3}", said), said  # near log(259), the loss of a model that knows nothing
    weights = mx.load(str(tmp_path / "a" / "adapters.safetensors"))
    trained = {name.split(".")[3] for name in weights if name.startswith("model.layers.") and "lora" in name}
    assert trained == ({"ssm", "self_attn", "mlp"} if kind == "lora" else set())
    assert all(mx.isfinite(value).all().item() for value in weights.values())
    mlx_lm("fuse", "--model", model, "--adapter-path", tmp_path / "a", "--save-path", tmp_path / "fused")
    fused = generated(tmp_path / "fused", PROMPT)
    assert fused == generated(model, PROMPT, "--adapter-path", tmp_path / "a")
    assert fused != answer


def test_train_on_quantised_weights(model: Path, data: Path, tmp_path: Path) -> None:
    mlx_lm("convert", "--hf-path", model, "--mlx-path", tmp_path / "q4", "-q")
    sizes = ("--iters", 1, "--batch-size", 1, "--max-seq-length", 32, "--val-batches", 1, "--num-layers", 5)
    mlx_lm("lora", "--model", tmp_path / "q4", "--train", "--test", "--data", data, "--adapter-path", tmp_path, *sizes)


def test_perplexity_on_local_data(model: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "datasets.py").write_text(DATASETS)
    sizes = ("--sequence-length", 24, "--num-samples", 4, "--batch-size", 2)
    said = mlx_lm("perplexity", "--model", model, "--data-path", data, *sizes, PYTHONPATH=path_with(tmp_path))
    perplexity = float(re.findall(r"Perplexity: ([\d.]+)", said)[0])
    assert 150 < perplexity < 450  # random weights: about the size of the vocabulary, 259


def path_with(folder: Path) -> str:
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


@pytest.mark.parametrize("batch", [1, 3])
def test_benchmark(model: Path, batch: int) -> None:
    said = mlx_lm("benchmark", "--model", model, "-p", 40, "-g", 4, "-b", batch, "-n", 1)
    assert "Averages: prompt_tps=" in said


def test_a_ragged_batch_equals_the_single_runs(model: Path) -> None:
    from mlx_lm import batch_generate, load, stream_generate

    network, tokenizer = load(str(model), trust_remote_code=True)
    prompts = [tokenizer.encode(PROMPT * 3)[:length] for length in (3, 17, 120, 16, 41)]
    singles = [[r.token for r in stream_generate(network, tokenizer, prompt, max_tokens=40)] for prompt in prompts]
    assert len({tuple(tokens) for tokens in singles}) == len(prompts)
    assert min(len(set(tokens)) for tokens in singles) > 4
    for size in ({}, {"prefill_step_size": 11}, {"completion_batch_size": 2, "prefill_batch_size": 2}):
        batch = batch_generate(network, tokenizer, prompts, max_tokens=40, return_token_ids=True, **size)
        for prompt, tokens, single in zip(prompts, batch.token_ids, singles, strict=True):
            ended = [token for token in single if token not in tokenizer.eos_token_ids]
            assert tokens == ended, f"a prompt of {len(prompt)} tokens, {size}"


def test_folder_without_a_plugin(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["axon_compose"]["architecture"]["components"]["ssm"]["type"] = "acme/hyena"
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    done = python("-m", "mlx_lm", "generate", "--model", tmp_path / "m", "--trust-remote-code", "--prompt", "hi")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "AX201" in done.stderr
    assert "`acme`" in done.stderr
