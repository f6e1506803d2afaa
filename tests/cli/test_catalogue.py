"""`list`, `describe`, `help` and `completion`: what there is, what it takes, and what may have been meant."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from axon_compose import load
from axon_compose.cli import main
from axon_compose.cli._parser import FLAGS, make_parser
from axon_compose.machine import libraries
from axon_compose.registry import ComponentSpec, Options, Registry, option_names
from axon_compose.report import PLAIN
from axon_compose.report._catalogue import component_data, component_text

ARCHITECTURES = Path(__file__).resolve().parents[2] / "architectures"
#: Options of commands that write something.
WRITING = ("build", "compare", "draw", "edit", "export", "heal", "import", "race", "receipt", "schema", "train")


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    try:
        code = main(argv)
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def commands(argv: Sequence[str] = ()) -> dict[str, argparse.ArgumentParser]:
    (found,) = (action for action in make_parser(argv)._actions if action.dest == "command")
    return dict(found.choices or {})


@pytest.mark.parametrize("place", FLAGS)
def test_a_command_is_parsed_by_the_flags_of_its_module_alone(place: str) -> None:
    names, known = FLAGS[place].split(), commands()
    for name in names:
        few = commands([name, "--help"])
        assert list(few) == [*names, "help"]
        assert few[name].format_help() == known[name].format_help()


# list


def test_everything_that_can_be_named_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "list", "--json")
    result = json.loads(out)["result"]
    assert code == 0
    named = {entry["name"] for title in ("architectures", "families") for entry in result[title]}
    assert named == {path.stem for path in ARCHITECTURES.glob("*.yaml")}
    assert {entry["name"] for entry in result["components"]} == {
        name.removeprefix("core/") for name in Registry.installed().components()
    }
    families = {entry["name"]: entry["what"] for entry in result["families"]}
    assert families["llama"] == "llama, mistral, ministral, xverse"
    assert all(load(name).document.huggingface for name in ("llama", "gpt2"))
    assert all(entry["summary"] for title in result for entry in result[title])


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("kimi", {"deepseek_v3", "kimi_delta_attention"}),  # a model type, and a component
        ("GRIFFIN", {"rg_lru"}),  # a summary, whatever its case
        ("axon_ssm", {"axon_ssm", "axon_ssm_block", "axon_ssm_moe_block"}),
    ],
)
def test_a_search_looks_at_names_types_and_summaries(
    search: str, expected: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run(capsys, "list", "--json")
    entries = [entry for entries in json.loads(out)["result"].values() for entry in entries]
    having = {entry["name"] for entry in entries if search.lower() in " ".join(map(str, entry.values())).lower()}
    code, out, _ = run(capsys, "list", search)
    assert code == 0
    assert set(re.findall(r"^  (\S+)", out, re.MULTILINE)) == having
    assert expected <= having


def test_a_search_without_a_hit_suggests(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "list", "mixtrl") == (
        1,
        "",
        "nothing has `mixtrl` in its name or summary; did you mean `mixtral`?\n",
    )


# describe


@pytest.mark.parametrize("name", sorted(Registry.installed().components()))
def test_every_option_of_every_component_is_described(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    spec = Registry.installed().component(name)
    code, out, err = run(capsys, "describe", name)
    assert (code, err) == (0, "")
    assert spec.summary.split()[0] in out
    assert "cannot be said" not in out
    shown = re.findall(r"^  (\w+)  ", out.partition("\noptions\n")[2], re.MULTILINE)
    assert shown == option_names(spec)
    assert max(map(len, out.splitlines())) <= 100


def test_what_is_described_is_what_the_record_says(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run(capsys, "describe", "core/attention", "--json")[1])["result"]
    assert (found["type"], found["kind"], found["distribution"]) == ("attention", "layer", "axon-compose 0.2.0")
    assert "arXiv:1706.03762" in found["source"]
    options = {option["name"]: option for option in found["options"]}
    assert options["num_heads"]["required"]
    assert options["rope.theta"]["default"] == 10000.0
    assert options["gate"]["type"] == "elementwise, head"
    transfers = {(each["init"], each["from"][-1]): each for each in found["transfers"]}
    assert "Ainslie" in transfers["mean", "sliding_window_attention"]["paper"]
    assert "init split" in run(capsys, "describe", "attention")[1]
    for example in found["examples"]:
        data = {"version": 1, "dims": {"hidden_size": 64, "vocab_size": 8}, "blocks": {"l": ["a"]}, "stack": "l"}
        load({**data, "components": {"a": example}})


def test_other_names(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "describe", "atention")
    assert code == 2
    assert err == "error[AX202]: unknown component `atention`\n  = help: did you mean `attention`?\n"
    code, _, err = run(capsys, "describe", "llama")
    assert code == 2
    assert "it is an architecture: `axon-compose show llama`" in err


def test_a_plugin_without_examples_or_with_a_fault() -> None:
    class Few(Options):
        """Nothing much."""

        width: int

    def broken(options: Any, dims: Any) -> Any:
        raise RuntimeError("no cache today")

    bare = ComponentSpec("bare", "layer", Few, "x:Y", "A layer.")
    text = component_text("acme/bare", "axon-acme 1.0", bare, PLAIN)
    assert "acme/bare: layer of axon-acme 1.0" in text
    assert "not known, since the record has no example" in text
    assert "width  integer; required." in text
    faulty = ComponentSpec("faulty", "layer", Few, "x:Y", "A layer.", cache=broken, examples=({"width": 1},))
    assert "cannot be said: RuntimeError: no cache today" in component_text("acme/faulty", "a 1", faulty, PLAIN)


def test_options_as_a_json_schema() -> None:
    schema = {
        "type": "object",
        "properties": {
            "size": {"type": ["integer", "null"], "default": 3, "description": "How wide."},
            "inner": {"$ref": "#/$defs/node"},
            "any": True,
        },
        "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
    }
    spec = ComponentSpec("odd", "layer", schema, "x:Y", "A layer.", examples=({},))
    options = component_data("acme/odd", "a 1", spec)["options"]
    assert [(option["name"], option["type"]) for option in options] == [
        ("size", "integer"), ("inner", "mapping"), ("inner.next", "mapping"), ("any", "any"),
    ]  # fmt: skip
    assert options[0]["default"] == 3


# names that are not there


@pytest.mark.parametrize(
    ("argv", "help_"),
    [
        (["show", "hybird-demo"], "did you mean `hybrid-demo`?"),
        (["cost", "lama"], "did you mean `llama`?"),
        (["lint", "llama.yaml"], "did you mean `llama`?"),
        (["check", "modle.yaml"], "did you mean `model.yaml`?"),
        (["validate", "axon"], None),
        (["diff", "model.yaml", "mixtrall"], "did you mean `mixtral`?"),
        (["show", "zzzzzz"], "`axon-compose list` has the shipped architectures"),
    ],
)
def test_near_names_are_suggested(
    argv: list[str],
    help_: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "model.yaml").write_text("extends: hybrid-demo\n")
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *argv)
    assert code == 2
    assert "No such file or directory" in err
    assert help_ is None or help_ in err


def test_a_folder_is_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "build", "llama", "--weights", "lama")
    assert code != 0
    assert "did you mean" not in err


# help


def test_help_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "help") == run(capsys, "--help")
    for name in commands():
        assert run(capsys, "help", name) == run(capsys, name, "--help")
    code, _, err = run(capsys, "help", "shwo")
    assert code == 2
    assert "there is no command `shwo`; did you mean `show`?" in err


def test_what_is_written_goes_by_the_same_names_everywhere() -> None:
    for name, parser in commands().items():
        known = parser._option_string_actions
        assert ("-o" in known) == ("--out" in known) == (name in WRITING), name
        if name in WRITING:
            assert known["-o"] is known["--out"] is known["--output"]


# completion


def completed(script: Path, *words: str) -> set[str]:
    """What bash offers for the last word."""
    line = " ".join(word or '""' for word in words)
    code = (
        f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
        'COMP_LINE="${COMP_WORDS[*]}"; COMP_POINT=${#COMP_LINE}; '
        '_shtab_axon_compose; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True, cwd=script.parent, timeout=60)
    assert not done.stderr, done.stderr
    return set(done.stdout.split())


def test_bash_completes_commands_options_names_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab", reason="needs shtab")
    script = tmp_path / "completion.bash"
    code, out, _ = run(capsys, "completion", "bash")
    assert code == 0
    script.write_text(out)
    (tmp_path / "hybrid-own.yaml").touch()
    assert completed(script, "axon-compose", "val") == {"validate"}
    assert {"--table", "--stage"} <= completed(script, "axon-compose", "show", "--")
    assert completed(script, "axon-compose", "show", "hybrid") == {"hybrid-demo", "hybrid-own.yaml"}
    assert completed(script, "axon-compose", "describe", "sliding") == {"sliding_window_attention"}
    assert completed(script, "axon-compose", "explain", "AX13") >= {"AX132", "AX133"}
    assert completed(script, "axon-compose", "cost", "llama", "--dtype", "bf") == {"bfloat16"}


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_get_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab", reason="needs shtab")
    code, out, _ = run(capsys, "completion", shell)
    assert code == 0
    assert "validate" in out


def test_without_the_library_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    code, out, err = run(capsys, "completion", "bash")
    assert (code, out) == (2, "")
    assert "completion needs shtab, which is not installed" in err
    assert "`pip install shtab`" in err
