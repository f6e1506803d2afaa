"""A plugin that raises, ends the process, prints, moves away or takes for ever, at every place where it is called."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import axon_compose
from axon_compose.cli import main
from axon_compose.registry import Guard, PluginFault, Raised, _discovery, _guard
from tests import forks
from tests.children import PATIENCE, child
from tests.rude import RUDE_FILE, install_rude

#: What ends a command, or a careless `except Exception`, and how it is named.
ENDS = {
    "leave": "SystemExit: 0",
    "fail": "ZeroDivisionError: divided by nothing",
    "panic": "Panic: the other language gave up",
    "mute": "Mute: its text cannot be had, for that raises SystemExit",
}


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for `PYTHONPATH` in which the plugin is installed, as far as Python can see."""
    return install_rude(tmp_path_factory.mktemp("site"))


@pytest.fixture
def file(tmp_path: Path, installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The description in the working directory, the plugin beside the others."""
    monkeypatch.syspath_prepend(str(installed))
    _forget()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rude.yaml").write_text(RUDE_FILE)
    yield Path("rude.yaml")
    _forget()


def _forget() -> None:
    _discovery.installed.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "axon_rude"]:
        del sys.modules[name]


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(rude: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setenv("RUDE", rude)
        code = main(arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


@pytest.mark.parametrize("act", ENDS)
@pytest.mark.parametrize("place", ["import", "hook"])
def test_a_plugin_that_cannot_be_loaded(run: Run, place: str, act: str) -> None:
    code, out, err = run(f"{place}:{act}", "validate", "rude.yaml")
    assert code == 1
    assert "error[AX203]: plugin `rude` cannot be used" in out + err
    assert f"axon-rude 1.5: {ENDS[act]}, at axon_rude/acts.py:" in out + err
    code, out, err = run(f"{place}:{act}", "plugins", "--json")
    (status,) = (status for status in json.loads(out)["result"] if status["namespace"] == "rude")
    assert (code, status["status"], status["version"]) == (0, "failed", "1.5")
    code, out, err = run(f"{place}:{act}", "schema")
    assert code == 0
    assert "rude/layer" not in json.dumps(json.loads(out))


@pytest.mark.parametrize("act", ENDS)
@pytest.mark.parametrize("place", ["validator", "params", "cache", "active", "window"])
def test_a_record_that_raises(run: Run, place: str, act: str) -> None:
    for command in ("validate", "show", "build", "check"):
        code, out, err = run(f"{place}:{act}", command, "rude.yaml")
        assert code == 1, command
        assert f"{ENDS[act]}, at axon_rude/acts.py:" in out + err
        assert "axon-rude 1.5" in out + err
        assert "rude.yaml:5:" in out + err


@pytest.mark.parametrize("act", ENDS)
@pytest.mark.parametrize(
    ("place", "word"),
    [("flops", "unknown"), ("saved", "estimated"), ("touched", "fault"), ("recomputed", "fault")],
)
def test_a_cost_that_is_not_known(run: Run, place: str, word: str, act: str) -> None:
    code, out, _ = run(f"{place}:{act}", "cost", "rude.yaml", "--training")
    assert code == 0
    assert f"{word}: `rude/layer` raises {ENDS[act]} in `{place}` (axon-rude 1.5, axon_rude/acts.py:" in out


@pytest.mark.parametrize("act", ENDS)
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("module", "error[AX208]: the code of `rude/layer` (`rude` in layer 0; axon-rude 1.5) cannot be imported: "),
        ("factory", "error[AX212]: the factory of `rude/layer` (`rude` in layer 0; axon-rude 1.5) raises "),
        ("forward", "error[AX212]: the forward pass of `rude/layer` (`rude` in layer 0; axon-rude 1.5) raises "),
        ("stateful", "error[AX212]: the forward pass of `rude/state` (`state` in layer 2; axon-rude 1.5) raises "),
    ],
)
def test_code_of_a_model_that_raises(run: Run, place: str, message: str, act: str) -> None:
    code, out, err = run(f"{place}:{act}", "build", "rude.yaml")
    assert (code, out) == (1, "")
    assert message in err
    assert f"{ENDS[act]}, at axon_rude/acts.py:" in err
    assert err.endswith("  = help: AXON_COMPOSE_PLUGIN_DEBUG=1 shows the traceback\n")
    code, out, err = run(f"{place}:{act}", "build", "rude.yaml", "--json")
    (fault,) = json.loads(out)["diagnostics"]
    assert (code, fault["code"]) == (1, message[6:11])


@pytest.mark.parametrize("place", ["import", "validator", "params", "module", "factory", "forward", "train", "shrink"])
def test_an_interrupt_that_nobody_sent(run: Run, place: str) -> None:
    """Not the silence that Ctrl-C is answered with."""
    code, out, err = run(f"{place}:interrupt", "check", "rude.yaml", "--truth", "steps")
    assert code == 1
    assert "KeyboardInterrupt, at axon_rude/acts.py:" in out + err
    code, out, err = run(f"{place}:interrupt", "build", "rude.yaml")
    assert code == (0 if place == "shrink" else 1)


@pytest.mark.usefixtures("forked_subjects")
@pytest.mark.parametrize("act", ENDS)
def test_bench_goes_on_without_what_raises(run: Run, act: str) -> None:
    tiny = ("--prompt", "2", "--steps", "1", "--rounds", "1")
    for place in ("factory", "forward"):
        code, out, _ = run(f"{place}:{act}", "bench", "rude.yaml", *tiny)
        assert code == 1
        assert f"`rude/layer` (`rude` in layer 0; axon-rude 1.5) raises {ENDS[act]}" in out


@pytest.mark.parametrize("act", ENDS)
@pytest.mark.parametrize("place", ["quantized", "train"])
def test_other_code_of_a_module_that_raises(run: Run, place: str, act: str) -> None:
    """It is not known for which layer it was called, but whose it is and where."""
    code, out, err = run(f"{place}:{act}", "build", "rude.yaml", "--quantize", "4", "--set", "dims.hidden_size=64")
    assert (code, out) == (1, "")
    assert f"error[AX212]: the package of `rude/layer` (axon-rude 1.5) raises {ENDS[act]}, at axon_rude/acts.py:" in err


@pytest.mark.parametrize(
    ("rude", "message"),
    [
        ("forward:forget", "`rude/layer` (`rude` in layer 0; axon-rude 1.5) gives None, not an array (B, L, 32)"),
        ("stateful:forget", "`rude/state` (`state` in layer 2; axon-rude 1.5) gives None, not an array (B, L, 32)"),
        (
            "forward:narrow",
            "`rude/layer` (`rude` in layer 0; axon-rude 1.5) gives an array (B, L, 1), not an array (B, ",
        ),
    ],
)
def test_a_layer_that_gives_something_else(run: Run, rude: str, message: str) -> None:
    """Neither is skipped, nor is the wrong shape spread over the right one."""
    code, out, err = run(rude, "build", "rude.yaml")
    assert (code, out) == (1, "")
    assert f"error[AX212]: the forward pass of {message}" in err
    code, out, err = run(rude, "check", "rude.yaml", "--truth", "one-shot,causal,gradients")
    assert code == 1
    assert out.count("the forward pass of") == 1  # once for all checks
    assert "one-shot, causal, gradients: the forward pass of" in out


def test_a_layer_that_raises_in_check(run: Run) -> None:
    code, out, _ = run("forward:fail", "check", "rude.yaml")
    assert code == 1
    assert out.count("ZeroDivisionError") == 1
    assert (
        "(`rude` in layer 0; axon-rude 1.5) raises ZeroDivisionError: divided by nothing, at axon_rude/acts.py:" in out
    )
    code, out, _ = run("forward:fail", "check", "rude.yaml", "--json")
    details = [truth["detail"] for truth in json.loads(out)["result"]["truths"] if not truth["passed"]]
    assert len(details) > 15
    assert all("axon-rude 1.5" in detail and "`rude` in layer 0" in detail for detail in details)


@pytest.mark.parametrize(
    ("rude", "message"),
    [
        (
            "factory:lazy",
            "`weight`, made by the factory of `rude/layer` (`rude` in layer 0; axon-rude 1.5), raises ",
        ),
        ("forward:lazy", "the forward pass of `rude/layer` (`rude` in layer 0; axon-rude 1.5) raises RuntimeError: "),
    ],
)
def test_lazy_arrays_that_raise(run: Run, rude: str, message: str) -> None:
    for arguments in (["build", "rude.yaml"], ["check", "rude.yaml", "--truth", "one-shot"]):
        code, out, err = run(rude, *arguments)
        assert code == 1
        assert message in out + err


def test_lazy_weights_that_raise_when_they_are_written(run: Run, tmp_path: Path) -> None:
    code, out, err = run("factory:lazy", "build", "rude.yaml", "--out", "built")
    assert (code, out) == (1, "")
    assert (
        "error[AX212]: `weight`, made by the factory of `rude/layer` (`rude` in layer 0; axon-rude 1.5), raises " in err
    )
    assert [path.name for path in tmp_path.iterdir()] == ["rude.yaml"]


@pytest.mark.parametrize("act", ENDS)
@pytest.mark.parametrize("command", [["lint", "rude.yaml"], ["diff", "rude.yaml", "rude.yaml"]], ids=" ".join)
def test_options_that_cannot_be_read(run: Run, command: list[str], act: str) -> None:
    code, _, err = run(f"serializer:{act}", *command)
    assert code == 1
    assert "error[AX212]: the options of `rude/layer` (`rude` in layer 0; axon-rude 1.5) cannot be read: " in err
    assert f"Error calling function `write`: {ENDS[act].partition(':')[0]}: " in err


@pytest.mark.parametrize("act", ENDS)
def test_shrink_that_raises(run: Run, act: str) -> None:
    code, out, err = run(f"shrink:{act}", "check", "rude.yaml")
    assert (code, out) == (1, "")
    assert f"error[AX212]: `shrink` of `rude/layer` (`rude` in layer 0; axon-rude 1.5) raises {ENDS[act]}" in err
    code, out, err = run(f"shrink:{act}", "check", "rude.yaml", "--as-is", "--truth", "steps")
    assert code == 0


def test_shrink_that_forgets(run: Run) -> None:
    code, _, err = run("shrink:forget", "check", "rude.yaml")
    assert code == 1
    assert "error[AX212]: `shrink` of `rude/layer` (`rude` in layer 0; axon-rude 1.5) raises TypeError" in err


@pytest.mark.parametrize("place", ["import", "module", "validator", "params", "factory"])
def test_a_plugin_that_changes_the_working_directory(run: Run, tmp_path: Path, place: str) -> None:
    code, _, _ = run(f"{place}:move", "build", "rude.yaml", "--out", "built")
    assert code == 0
    assert Path.cwd() == tmp_path
    assert (tmp_path / "built" / "config.json").exists()


def test_a_plugin_that_takes_for_ever(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_guard, "SECONDS", 0.2)
    for place, patience in (("hook", "1.2"), ("schema", "0.2")):
        code, out, _ = run(f"{place}:spin", "plugins", "--json")
        (status,) = (status for status in json.loads(out)["result"] if status["namespace"] == "rude")
        assert (code, status["status"]) == (0, "failed")
        assert f"no answer after {patience} s of computing, at axon_rude/" in status["cause"]
        assert ("component `named`" in status["cause"]) == (place == "schema")
    code, out, err = run("validator:spin", "validate", "rude.yaml")
    assert code == 1
    assert "the options of `layer` cannot be checked by axon-rude 1.5" in out + err
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGVTALRM) is signal.SIG_DFL


def test_python_gets_one_kind_of_exception(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = axon_compose.load(str(file)).build()
    monkeypatch.setenv("RUDE", "forward:leave")
    import mlx.core as mx

    with pytest.raises(PluginFault, match=r"`rude` in layer 0; axon-rude 1\.5") as caught:
        model(mx.array([[1, 2, 3]]))
    assert isinstance(caught.value.__cause__, SystemExit)
    assert caught.value.code == "AX212"


SPEAKING = "import,hook,validator,params,cache,module,factory,forward,shrink".replace(",", ":speak,") + ":speak"


def command(installed: Path, folder: Path, rude: str, *arguments: str) -> tuple[int, str, str]:
    """A command as a process of its own, whose standard output is a pipe."""
    paths = [str(installed), *(path for path in sys.path if path)]
    env = os.environ | forks.OFFLINE | {"PYTHONPATH": os.pathsep.join(paths), "RUDE": rude}
    code = "import sys; from axon_compose.cli import main; sys.exit(main())"
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with child([*forks.python(), "-c", code, *arguments], env=env, cwd=folder, **pipes) as process:
        out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


@pytest.mark.parametrize(
    "arguments",
    [
        ["plugins", "--json"],
        ["show", "rude.yaml", "--json"],
        ["cost", "rude.yaml", "--json"],
        ["build", "rude.yaml", "--json"],
        ["build", "rude.yaml", "--out", "built", "--json"],
        ["check", "rude.yaml", "--truth", "chunks", "--json"],
        ["bench", "rude.yaml", "--prompt", "4", "--steps", "2", "--rounds", "1", "--json"],
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_what_a_plugin_prints_is_no_part_of_the_result(installed: Path, tmp_path: Path, arguments: list[str]) -> None:
    """Neither by `print`, nor through the stream that Python began with, nor past Python."""
    (tmp_path / "rude.yaml").write_text(RUDE_FILE)
    code, out, err = command(installed, tmp_path, SPEAKING, *arguments)
    assert code == 0, err
    assert json.loads(out)["ok"] is True
    if arguments[0] != "bench":  # what its processes say is their own
        assert all(text in err for text in ("said by print", "said by write", "said beside sys.stdout"))


def test_text_is_kept_apart_too(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "rude.yaml").write_text(RUDE_FILE)
    assert command(installed, tmp_path, SPEAKING, "build", "rude.yaml")[1].startswith("rude: 3 layers")
    assert command(installed, tmp_path, SPEAKING, "validate", "rude.yaml")[1] == "rude.yaml: ok\n"


def test_a_guard_lets_ctrl_c_through_and_nothing_else(default_signals: None) -> None:
    with pytest.raises(KeyboardInterrupt), Guard():
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(Raised, match="KeyboardInterrupt"), Guard():
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), Guard(), Guard(None):
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(PluginFault), Guard():
        raise PluginFault("AX212", "already told")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_guard_leaves_the_process_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    before, handler = sys.stdout, signal.getsignal(signal.SIGINT)
    try:
        for outside, inside in ((signal.default_int_handler, signal.SIG_IGN), (signal.SIG_IGN, signal.SIG_DFL)):
            signal.signal(signal.SIGINT, outside)
            with Guard():
                os.chdir("/")
                sys.stdout = io.StringIO()
                signal.signal(signal.SIGINT, inside)
            assert Path.cwd() == tmp_path
            assert sys.stdout is before
            assert signal.getsignal(signal.SIGINT) is outside
    finally:
        signal.signal(signal.SIGINT, handler)


def test_standard_output_that_a_plugin_closes_stays_open(capsys: pytest.CaptureFixture[str]) -> None:
    with Guard():
        print("one", end=" ", flush=True)  # noqa: T201
        sys.stdout.writelines(["two", "\n"])
        sys.stdout.close()
    with Guard():
        print("three")  # noqa: T201
    print("result")  # noqa: T201
    assert capsys.readouterr() == ("result\n", "one two\nthree\n")


def test_guards_of_several_threads_leave_standard_output_as_it_was() -> None:
    """Though the first to come is the first to go."""
    before = sys.stdout
    inside, first_gone = threading.Event(), threading.Event()

    def second() -> None:
        with Guard():
            inside.set()
            first_gone.wait(PATIENCE)

    thread = threading.Thread(target=second)
    with Guard():
        thread.start()
        assert inside.wait(PATIENCE)
    assert sys.stdout is not before
    first_gone.set()
    thread.join()
    assert sys.stdout is before


GONE = """
import os
from axon_compose.registry import Guard
os.rmdir(os.getcwd())
with Guard():
    print("in")
print("out")
"""


def test_an_unreachable_working_directory_is_no_fault(tmp_path: Path) -> None:
    """As after somebody has removed it."""
    gone = tmp_path / "gone"
    gone.mkdir()
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with child([sys.executable, "-c", GONE], cwd=gone, env=env, **pipes) as process:
        assert process.communicate(timeout=PATIENCE) == ("out\n", "in\n")
