"""A built folder behind the unmodified `mlx_lm server`: listed, asked, streamed, and by several at once."""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import complaints, plain
from servers import TOKENS, Server, served

from tests.children import PATIENCE

pytestmark = pytest.mark.xdist_group("server")  # one worker starts it

PROMPTS = ["ok", "a window of sixteen tokens", "state space, a window and experts: describe, trust, run. " * 2]
CROWD = ["who", "a stack of sixteen layers", "one expert, two experts and a shared one: run, trust, describe. " * 3]
#: How a server ends at Ctrl-C: on Linux mlx 0.32 sometimes aborts in its own exit, with a stock llama as often as with
#: models of ours.
ENDED = (0, -signal.SIGABRT)


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "hub").mkdir()
    with served(model, folder / "log.txt", HF_HOME=str(folder)) as asked:
        yield asked


@pytest.fixture(scope="module")
def expected(model: Path) -> dict[str, str]:
    """What one sequence after the other gives without a server."""
    from mlx_lm import generate, load

    network, tokenizer = load(str(model), trust_remote_code=True)
    answers = {}
    for prompt in PROMPTS + CROWD:
        tokens = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True)
        answers[prompt] = generate(network, tokenizer, tokens, max_tokens=TOKENS)
    assert len(set(answers.values())) == len(answers)
    return answers


def test_it_lists_the_model(server: Server, model: Path) -> None:
    listed = server.get("/v1/models")
    assert str(model) in [entry["id"] for entry in listed["data"]]


def test_a_chat_says_what_one_sequence_gives(server: Server, expected: dict[str, str]) -> None:
    for prompt in PROMPTS:
        assert server.chat(prompt) == expected[prompt]


def test_a_stream_has_the_same_text(server: Server, expected: dict[str, str]) -> None:
    messages = [{"role": "user", "content": PROMPTS[1]}]
    lines = server.post("/v1/chat/completions", messages=messages, stream=True).decode().splitlines()
    events = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    pieces = [json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events[:-1]]
    assert len(pieces) > 5
    assert "".join(pieces) == expected[PROMPTS[1]]


def test_requests_at_the_same_time_get_the_answers_of_single_ones(server: Server, expected: dict[str, str]) -> None:
    # The first time prompts of unequal length are read as one batch, then from the server's cache of prompts.
    for _ in range(2):
        assert at_once(server, CROWD) == {prompt: expected[prompt] for prompt in CROWD}


def at_once(server: Server, prompts: list[str]) -> dict[str, str]:
    answers: dict[str, str] = {}
    start = threading.Barrier(len(prompts))

    def ask(prompt: str) -> None:
        start.wait()
        answers[prompt] = server.chat(prompt)

    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=PATIENCE)
    return answers


def test_completions_and_a_repeated_prompt(server: Server) -> None:
    first, second = (json.loads(server.post("/v1/completions", prompt=PROMPTS[1])) for _ in range(2))
    assert first["choices"][0]["text"] == second["choices"][0]["text"]
    assert first["usage"]["completion_tokens"] == TOKENS


def test_it_stops_when_told(server: Server) -> None:
    server.chat(PROMPTS[0])
    code = server.stop()
    log = plain(server.log.read_text())
    known = re.compile("not recommended for production|^ *warnings.warn")  # upstream's, about its web server
    assert [line for line in complaints(log) if not known.search(line)] == [], log
    assert code in ENDED, log
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.port)) != 0
