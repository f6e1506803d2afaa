"""The published schema in a real editor: the YAML language server, spoken to over LSP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from language_server import LanguageServer, missing

from axon_compose.registry._data_files import data_dir

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

MODELINE = f"# yaml-language-server: $schema={(data_dir('schemas') / 'architecture-1.schema.json').as_uri()}\n"
FILE = """\
version: 1
dims: {hidden_size: 64, vocab_size: 100}
components:
  ssm: {type: axon_ssm, d_state: 16}
  attn:
    type: attention
    num_heads: 4
  far: {type: zeta/thing, anything: [1]}
blocks:
  layer: [ssm, {use: attn, norm: post}]
stack: layer*3
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LanguageServer]:
    with LanguageServer(tmp_path_factory.mktemp("editor")) as server:
        yield server


class Editor:
    """One text in the editor; `|` marks the place of the cursor."""

    def __init__(self, server: LanguageServer, name: str, text: str) -> None:
        before, _, after = (MODELINE + text).partition("|")
        self.server = server
        self.text = before + after
        self.place = (before.count("\n"), len(before.rpartition("\n")[2]))
        self.uri = server.open(name, self.text)

    def squiggles(self) -> list[tuple[str, str]]:
        """Text under each squiggle, and its message."""
        found = []
        for fault in self.server.diagnostics(self.uri):
            start, end = fault["range"]["start"], fault["range"]["end"]
            line = self.text.splitlines()[start["line"]]
            same = start["line"] == end["line"]
            found.append((line[start["character"] : end["character"] if same else None], fault["message"]))
        return found

    def proposals(self) -> dict[str, str]:
        """Label to explanation of what is proposed at the cursor."""
        found = {}
        for item in self.server.complete(self.uri, *self.place):
            text: Any = item.get("documentation") or ""
            found[item["label"]] = text if isinstance(text, str) else text["value"]
        return found

    def hover(self) -> str:
        """What the pointer brings up at the cursor."""
        return self.server.hover(self.uri, *self.place)


def edited(server: LanguageServer, request: pytest.FixtureRequest, old: str = "", new: str = "") -> Editor:
    assert old in FILE
    return Editor(server, f"{request.node.name}.yaml".replace("/", "-"), FILE.replace(old, new, 1))


def test_a_sound_file_has_no_squiggle(server: LanguageServer, request: pytest.FixtureRequest) -> None:
    assert edited(server, request).squiggles() == []


@pytest.mark.parametrize("path", sorted(data_dir("architectures").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_architectures_have_no_squiggle(server: LanguageServer, path: Path) -> None:
    assert Editor(server, path.name, path.read_text(encoding="utf-8")).squiggles() == []


@pytest.mark.parametrize(
    ("old", "new", "where", "message"),
    [
        ("d_state", "d_stat", "d_stat", "Property d_stat is not allowed."),
        ("type: attention", "type: attenton", "attenton", '"attention", "sliding_window_attention"'),
        ("type: attention", "type: core/attenton", "core/attenton", '"attention", "sliding_window_attention"'),
        ("num_heads: 4", "num_heads: four", "four", "Expected an integer, or a formula that begins with `=`."),
        ("num_heads: 4", "num_kv_heads: 4", "", 'Missing property "num_heads".'),
        ("norm: post", "norm: pots", "pots", 'Valid values: "pre", "post", "sandwich", "none"'),
        ("use: attn, ", "", "{", 'Missing property "use".'),
        ("blocks:", "bloks:", "bloks", "Property bloks is not allowed."),
        ("stack: layer*3\n", "", "", 'Missing property "stack".'),
    ],
)
def test_a_mistake_gets_a_squiggle_at_its_place(
    server: LanguageServer, request: pytest.FixtureRequest, old: str, new: str, where: str, message: str
) -> None:
    ((under, text),) = edited(server, request, old, new).squiggles()
    assert where in under
    assert message in text


def test_types_are_proposed_with_what_they_are(server: LanguageServer, request: pytest.FixtureRequest) -> None:
    found = edited(server, request, "type: attention", "type: |").proposals()
    assert {"attention", "axon_ssm", "moe", "mlp"} <= found.keys()
    assert not [name for name in found if name.startswith("core/") or name in ("lm_head", "embedding")]
    assert found["moe"].startswith("Mixture of experts")


def test_options_of_the_type_are_proposed(server: LanguageServer, request: pytest.FixtureRequest) -> None:
    found = edited(server, request, "    num_heads: 4\n", "    num_heads: 4\n    |\n").proposals()
    assert {"num_kv_heads", "rope", "window_size"} <= found.keys()
    assert not {"d_state", "num_experts", "num_heads"} & found.keys()
    assert found["window_size"].startswith("Tokens that a query sees")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MODELINE + "|\n", {"version", "dims", "components", "blocks", "stack"}),
        (FILE + "norm: |\n", {"rms_norm", "layer_norm"}),
        (FILE + "final_norm: |\n", {"none", "rms_norm", "layer_norm"}),
        (FILE.replace("norm: post", "norm: |"), {"pre", "post", "sandwich", "none"}),
        (FILE + "head: {tied: |}\n", {"true", "false"}),
    ],
)
def test_sections_and_words_are_proposed(
    server: LanguageServer, request: pytest.FixtureRequest, text: str, expected: set[str]
) -> None:
    assert expected <= Editor(server, f"{abs(hash(request.node.name))}.yaml", text).proposals().keys()


@pytest.mark.parametrize(
    ("old", "new", "heading", "text"),
    [
        ("d_state", "d_st|ate", "axon\\_ssm", "States of each channel."),
        ("num_heads", "num|_heads", "attention", "Number of query heads."),
        ("norm: post", "no|rm: post", "norm of a branch", "A norm: its position"),
        ("stack:", "sta|ck:", "stack", "The order of the layers"),
    ],
)
def test_the_pointer_brings_up_what_a_key_means(
    server: LanguageServer, request: pytest.FixtureRequest, old: str, new: str, heading: str, text: str
) -> None:
    found = edited(server, request, old, new).hover()
    assert found.startswith(f"#### {heading}\n")
    assert text in found
