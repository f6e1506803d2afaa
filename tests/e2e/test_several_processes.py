"""The unmodified `mlx_lm` commands with a built folder in two processes on the loopback: the texts of one process."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlx.core as mx
import pytest
from commands import axon, complaints, environment, generated, mlx_lm, plain
from servers import TOKENS, Server, free_port

from tests.children import PATIENCE
from tests.ranks import ended, launched, ring

pytestmark = pytest.mark.xdist_group("several")  # one worker starts them, one pair after the other

PROMPTS = ["a window of sixteen tokens", "state space, a window and experts: describe, trust, run. "]
SERVER = ["-m", "mlx_lm", "server", "--trust-remote-code"]


@pytest.fixture(scope="module")
def expected(model: Path) -> list[str]:
    """What one process answers."""
    answers = answers_alone(model)
    assert len(set(answers)) == len(answers)
    return answers


def answers_alone(folder: Path) -> list[str]:
    """What this process answers with a model."""
    from mlx_lm import generate, load

    network, tokenizer = load(str(folder), trust_remote_code=True)
    asked = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    prompts = [tokenizer.apply_chat_template(messages, add_generation_prompt=True) for messages in asked]
    return [generate(network, tokenizer, prompt, max_tokens=TOKENS) for prompt in prompts]


@contextmanager
def pair(folder: Path, log: Path, *options: str) -> Iterator[Server]:
    """A server in two processes."""
    port = free_port()
    command = [*SERVER, "--model", str(folder), "--port", str(port), *options]
    with log.open("w") as stream, launched(2, command, stdout=stream, stderr=stream, env=environment()) as process:
        yield Server(process, port, log)


@pytest.mark.parametrize("options", [(), ("--pipeline",)], ids=["tensor", "pipeline"])
def test_a_server_answers_as_one_process_and_ends_with_a_rank(
    model: Path, expected: list[str], tmp_path: Path, options: tuple[str, ...]
) -> None:
    log = tmp_path / "log.txt"
    with pair(model, log, *options) as server:
        # The last one is in the caches of both by then, which must find the same of it.
        assert [server.chat(prompt) for prompt in (*PROMPTS, PROMPTS[1])] == [*expected, expected[1]]
        os.kill(a_rank(server.process.pid), signal.SIGKILL)
        server.process.wait(PATIENCE)
        with pytest.raises(OSError):  # whoever asks is not left waiting
            server.get("/health")
    said = plain(log.read_text())
    (killed,) = re.findall(r"Node with rank (\d) exited with code -9", said)
    messages = re.findall(r"error\[.*", said)  # none if `mlx.launch` was faster and ended the other rank itself
    assert messages in ([], [f"error[AX970]: rank {killed} has ended, its connection was closed"])


def a_rank(launcher: int) -> int:
    """A process that `mlx.launch` has started."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return max(int(pid) for pid, parent in (line.split() for line in listed.splitlines()) if int(parent) == launcher)


@pytest.mark.parametrize("command", ["server", "lora"])
def test_a_rank_with_other_weights_ends_all(model: Path, data: Path, tmp_path: Path, command: str) -> None:
    other = tmp_path / "other"
    shutil.copytree(model, other)
    file = str(other / "model.safetensors")
    weights = mx.load(file)
    name = next(name for name in weights if name.endswith("q_proj.weight"))
    mx.save_safetensors(file, {**weights, name: weights[name] * 1.01}, metadata={"format": "mlx"})
    trained = [
        "--train",
        "--data",
        str(data),
        "--iters",
        "2",
        "--num-layers",
        "2",
        "--adapter-path",
        str(tmp_path / "a"),
    ]
    options = {"server": ["--port", str(free_port())], "lora": trained}
    begin = ["-m", "mlx_lm", command, "--trust-remote-code", *options[command], "--model"]
    commands = [[*begin, str(folder)] for folder in (model, other)]
    with ring(tmp_path, commands) as processes:
        (code, _, said), (second, _, silent) = ended(processes)
    assert (code, second) == (1, 1)
    assert "error[AX971]: rank 1 has another content of `model.safetensors` than rank 0: " in said
    assert "AX971" not in silent


def test_a_rank_that_cannot_build_the_model_ends_all(model: Path, tmp_path: Path) -> None:
    """The server would go on without a model, and the other one would wait for it."""
    other = tmp_path / "other"
    shutil.copytree(model, other)
    config = other / "config.json"
    config.write_text(config.read_text().replace('"axon_ssm"', '"gone/ssm"'))
    commands = [[*SERVER, "--model", str(folder), "--port", str(free_port())] for folder in (other, model)]
    with ring(tmp_path, commands) as processes:
        (code, _, said), (second, _, last) = ended(processes)
    assert (code, second) == (1, 1)
    assert "gone" in re.findall(r"error\[.*", said)[0]
    assert "error[AX970]: another rank has ended before all had agreed\n" in last


def test_more_stages_than_layers_end_all_with_one_message(tmp_path: Path) -> None:
    sizes = ["dims.hidden_size=64", "dims.vocab_size=259", "dims.num_hidden_layers=1"]
    flags = [part for size in sizes for part in ("--set", size)]
    done = axon("build", "llama", "--out", tmp_path / "model", "--tokenizer", "bytes-chat", *flags)
    assert done.returncode == 0, done.stderr
    command = [*SERVER, "--model", str(tmp_path / "model"), "--port", str(free_port()), "--pipeline"]
    with ring(tmp_path, [command, command]) as processes:
        said = ended(processes)
    assert [code for code, _, _ in said] == [1, 1]
    assert re.findall(r"error\[(\w+)", "".join(err for _, _, err in said)) == ["AX990"]


#: `mlx_lm.chat` twice, as it is, in processes that are started once.
CHATS = """
import sys
from mlx_lm import chat
arguments = sys.argv
for more in ([], ["--pipeline"]):
    sys.argv = [*arguments, *more]
    chat.main()
"""


def test_a_chat_in_two_processes_tensor_parallel_and_as_a_pipeline(model: Path) -> None:
    common, talk = ["--trust-remote-code", "--model", str(model), "--max-tokens", "16"], "hello\nq\n"
    (alone,) = answers_in(mlx_lm("chat", *common[1:], stdin=talk))
    with launched(2, ["-c", CHATS, *common], env=environment()) as process:
        said, _ = process.communicate(2 * talk, timeout=PATIENCE)
    assert not complaints(said)
    assert "[ring]" not in said  # at the end the last token, computed ahead, has arrived
    assert alone
    assert answers_in(plain(said)) == [alone, alone]


def answers_in(said: str) -> list[str]:
    """What is between a question, which is not shown, and the line with the speed."""
    return re.findall(r"› \n([^›]*)\n  16 tokens", said)


def test_lora_in_two_processes(built: Path, data: Path, tmp_path: Path) -> None:
    """With plain steps along the gradient, which keep a rounding error as small as it is."""
    built = Path(shutil.copytree(built, tmp_path / "built"))  # the shared folder stays as `build` wrote it
    run = ["--model", str(built), "--train", "--data", str(data), "--iters", "2", "--batch-size", "4"]
    run += ["--max-seq-length", "64", "--num-layers", "4", "--learning-rate", "0.1", "--optimizer", "sgd"]
    mlx_lm("lora", *run, "--adapter-path", tmp_path / "one")
    command = ["-m", "mlx_lm", "lora", "--trust-remote-code", *run, "--adapter-path", str(tmp_path / "two")]
    with launched(2, command, env=environment()) as process:
        said, _ = process.communicate(timeout=PATIENCE)
    assert not complaints(plain(said)), said
    one, two = (mx.load(str(tmp_path / name / "adapters.safetensors")) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert mx.abs(value).max() > 0, name
        assert mx.abs(value - two[name]).max() <= 1e-4 * mx.abs(value).max(), name
    texts = [generated(built, PROMPTS[0], "--adapter-path", str(tmp_path / name)) for name in ("one", "two")]
    assert texts[0] == texts[1]


def test_generate_runs_once_in_each_process(model: Path) -> None:
    """It does not share a model: the documentation says so, and what to use."""
    common = ["--model", str(model), "--prompt", PROMPTS[0], "--max-tokens", "8", "--verbose", "False"]
    alone = mlx_lm("generate", *common)
    with launched(2, ["-m", "mlx_lm", "generate", "--trust-remote-code", *common], env=environment()) as process:
        said, _ = process.communicate(timeout=PATIENCE)
    assert plain(said) == alone * 2


def test_an_export_with_the_stock_class(expected: list[str], tmp_path: Path) -> None:
    """`mlx_lm`'s own llama shares itself; few of its classes do. It says what the built folder says in one process."""
    sizes = ["dims.hidden_size=64", "dims.vocab_size=259", "dims.num_hidden_layers=2", "dims.intermediate_size=128"]
    sizes += ["dims.num_attention_heads=4", "dims.num_key_value_heads=2", "dims.head_dim=16"]
    built, exported = tmp_path / "built", tmp_path / "exported"
    flags = [part for size in sizes for part in ("--set", size)]
    for command in (
        ("build", "llama", "--out", built, "--tokenizer", "bytes-chat", *flags),
        ("export", built, "--to", "mlx-lm", "--out", exported),
    ):
        done = axon(*command)
        assert done.returncode == 0, done.stderr
    with pair(exported, tmp_path / "log.txt") as server:
        assert [server.chat(prompt) for prompt in PROMPTS] == answers_alone(built)
