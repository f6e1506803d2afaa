"""Names to components: every plugin alone, and only when it is named."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from registry_fakes import BROKEN, module, spec

from axon_compose.diagnostics.codes import CODES
from axon_compose.registry import ArchitectureSpec, Candidate, LookupFailure, PluginStatus, Registry
from axon_compose.registry._discovery import in_memory


def refuse() -> object:
    raise AssertionError("this plugin must not be loaded")


def candidate(
    namespace: str, plugin: object = (), distribution: str = "", load: Callable[[], object] | None = None
) -> Candidate:
    fake = in_memory(namespace, plugin)
    return Candidate(namespace, distribution or f"axon-{namespace}", "1.2", load or fake.load)


def failing(registry: Registry, name: str) -> LookupFailure:
    with pytest.raises(LookupFailure) as caught:
        registry.component(name)
    return caught.value


CORE = candidate(
    "core",
    [spec("attention"), spec("layer_norm", kind="norm"), spec("rms_norm", kind="norm", default=True)],
    "axon-compose",
)


def test_a_name_alone_is_of_core() -> None:
    registry = Registry([CORE, candidate("acme", load=refuse)])
    assert registry.component("attention") is registry.component("core/attention")
    assert registry.full_name(registry.component("attention")) == "core/attention"


def test_only_the_named_plugin_is_loaded() -> None:
    registry = Registry([candidate("core", load=refuse, distribution="axon-compose"), candidate("acme", [spec()])])
    assert registry.component("acme/hyena").name == "hyena"
    assert registry.distribution("acme") == "axon-acme 1.2"


def test_a_plugin_is_loaded_once() -> None:
    loads = []
    registry = Registry([candidate("acme", load=lambda: loads.append(1) or module(axon_components=lambda: [spec()]))])
    assert registry.component("acme/hyena") is registry.component("acme/hyena")
    failing(registry, "acme/other")
    assert loads == [1]


def test_a_failed_plugin_is_tried_once() -> None:
    loads = []
    registry = Registry([candidate("acme", load=lambda: loads.append(1) or 1 / 0)])
    failing(registry, "acme/hyena")
    failing(registry, "acme/hyena")
    assert loads == [1]


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_fails_alone(kind: str) -> None:
    plugin, cause = BROKEN[kind]
    registry = Registry([CORE, candidate("acme", plugin), candidate("good", [spec("fine")])])
    failure = failing(registry, "acme/hyena")
    assert failure.code == "AX203"
    assert failure.message == "plugin `acme` cannot be used"
    assert failure.label.startswith("axon-acme 1.2: ")
    assert cause in failure.label
    assert "\n" not in failure.label
    assert registry.component("good/fine").name == "fine"
    assert list(registry.components()) == ["core/attention", "core/layer_norm", "core/rms_norm", "good/fine"]
    status = {s.namespace: s for s in registry.statuses()}
    assert (status["acme"].status, status["good"].status) == ("failed", "ok")
    assert cause in status["acme"].cause


class Panic(BaseException):
    """What extensions in other languages raise, and pytest to skip: no `Exception`."""


@pytest.mark.parametrize(
    "error",
    [
        ImportError("no module named scipy"),
        SystemExit("bye"),
        SystemExit(),
        SystemExit(0),
        RecursionError(),
        Panic("panicked"),
        GeneratorExit(),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_a_plugin_that_cannot_be_imported(error: BaseException) -> None:
    def load() -> object:
        raise error

    line = load.__code__.co_firstlineno + 1
    label = failing(Registry([candidate("acme", load=load)]), "acme/hyena").label
    text = f": {error}" if str(error) else ""
    assert label == f"axon-acme 1.2: {type(error).__name__}{text}, at registry/test_registry_host.py:{line}"


def test_a_cause_is_short_and_printable() -> None:
    def load() -> object:
        raise ValueError("\x1b[31mred\x00" + "x" * 5000)

    label = failing(Registry([candidate("acme", load=load)]), "acme/hyena").label
    assert label.isprintable()
    assert len(label.removesuffix(f", at registry/test_registry_host.py:{load.__code__.co_firstlineno + 1}")) < 350


def test_an_interrupt_is_not_swallowed() -> None:
    def load() -> object:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("Python acts on the signal before this line")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored, as under `nohup`
    try:
        with pytest.raises(KeyboardInterrupt):
            Registry([candidate("acme", load=load)]).component("acme/hyena")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_debug_prints_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def load() -> object:
        raise ValueError("here")

    failing(Registry([candidate("acme", load=load)]), "acme/hyena")
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("AXON_COMPOSE_PLUGIN_DEBUG", "1")
    failing(Registry([candidate("acme", load=load)]), "acme/hyena")
    assert "Traceback" in capsys.readouterr().err


def test_a_chatty_plugin_does_not_touch_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    def load() -> object:
        print("hello from acme")  # noqa: T201
        return module(axon_components=lambda: [spec()])

    Registry([candidate("acme", load=load)]).component("acme/hyena")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "code", "message", "help_"),
    [
        ("attenton", "AX202", "unknown component `attenton`", "did you mean `attention`?"),
        ("core/attenton", "AX202", "unknown component `core/attenton`", "did you mean `core/attention`?"),
        ("acme/hyana", "AX202", "unknown component `acme/hyana`", "did you mean `acme/hyena`?"),
        ("acme/zzz", "AX202", "unknown component `acme/zzz`", "components of `acme`: `acme/hyena`"),
        ("acme", "AX202", "unknown component `acme`", "types of that plugin are written `acme/name`"),
        ("acne/hyena", "AX201", "unknown plugin `acne` in `acne/hyena`", "did you mean `acme`?"),
        ("zzz/hyena", "AX201", "unknown plugin `zzz` in `zzz/hyena`", "installed plugins: `core`, `acme`"),
        ("", "AX210", "`` is not the name of a type", None),
        ("Attention", "AX210", "`Attention` is not the name of a type", "did you mean `attention`?"),
        ("acme/hyena/x", "AX210", "`acme/hyena/x` is not the name of a type", None),
        ("../core", "AX210", "`../core` is not the name of a type", None),
    ],
)
def test_wrong_names(name: str, code: str, message: str, help_: str | None) -> None:
    failure = failing(Registry([CORE, candidate("acme", [spec()])]), name)
    assert (failure.code, failure.message, failure.help) == (code, message, help_)


def test_an_unknown_plugin_says_so() -> None:
    failure = failing(Registry([CORE]), "acme/hyena")
    assert failure.label == "no installed plugin provides `acme`"
    assert str(failure) == f"{failure.message}: {failure.label} - {failure.help}"


def test_without_core_the_remedy_is_told() -> None:
    failure = failing(Registry([]), "attention")
    assert (failure.code, failure.message) == ("AX201", "the built-in components are not installed")
    assert "pip install -e ." in str(failure.help)


def test_two_distributions_with_one_name() -> None:
    registry = Registry(
        [CORE, candidate("acme", distribution="a", load=refuse), candidate("acme", distribution="b", load=refuse)]
    )
    failure = failing(registry, "acme/hyena")
    assert (failure.code, failure.label) == ("AX204", "by a 1.2 and b 1.2")
    assert registry.component("attention").name == "attention"
    first, second = registry.statuses()[1:]
    assert first == PluginStatus("acme", "a", "1.2", "conflict", "also claimed by b 1.2")
    assert second == PluginStatus("acme", "b", "1.2", "conflict", "also claimed by a 1.2")


def test_a_conflict_ends_when_one_distribution_is_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXON_COMPOSE_DISABLE_PLUGINS", "Acme-Fork".lower())
    fork = candidate("acme", distribution="acme_fork", load=refuse)
    registry = Registry([fork, candidate("acme", [spec()])])
    assert registry.distribution("acme") == "axon-acme 1.2"
    assert [s.status for s in registry.statuses()] == ["ok", "disabled"]


def test_disabled_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXON_COMPOSE_DISABLE_PLUGINS", " acme, other,,")
    registry = Registry([CORE, candidate("acme", load=refuse)])
    failure = failing(registry, "acme/hyena")
    assert (failure.code, failure.message) == ("AX205", "plugin `acme` is disabled")
    assert registry.statuses()[1].status == "disabled"
    assert "acme/hyena" not in registry.components()


def test_a_stranger_cannot_take_core() -> None:
    thief = candidate("core", load=refuse, distribution="axon-thief")
    registry = Registry([thief, CORE])
    assert registry.component("attention").name == "attention"
    assert registry.statuses()[1] == PluginStatus(
        "core", "axon-thief", "1.2", "failed", "the namespace `core` belongs to axon-compose"
    )


@pytest.mark.parametrize("name", ["Acme", "1st", "a.b", "a/b", ""])
def test_a_bad_namespace_is_reported(name: str) -> None:
    status = Registry([candidate(name, load=refuse)]).statuses()[0]
    assert (status.namespace, status.status) == (name, "failed")
    assert "cannot be a namespace" in status.cause


def test_default_component() -> None:
    registry = Registry([CORE])
    assert registry.default("norm").name == "rms_norm"
    with pytest.raises(LookupFailure, match="there is no default head") as caught:
        registry.default("head")
    assert caught.value.code == "AX207"


def test_two_defaults_of_one_kind() -> None:
    core = candidate("core", [spec("a", default=True), spec("b", default=True)], "axon-compose")
    assert "two defaults of kind layer: `a` and `b`" in failing(Registry([core]), "a").label


def test_components_of_a_kind() -> None:
    assert list(Registry([CORE]).components("norm")) == ["core/layer_norm", "core/rms_norm"]


def test_status_lists_what_a_plugin_brings(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("version: 1\n")
    registry = Registry([candidate("acme", [spec(), ArchitectureSpec("tiny", str(file))])])
    assert registry.statuses() == [PluginStatus("acme", "axon-acme", "1.2", "ok", "", ("acme/hyena",), ("acme/tiny",))]


def test_architectures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("hybrid-demo", "llama-small", "tiny"):
        (tmp_path / f"{name}.yaml").write_text("version: 1\n")
    (tmp_path / "note.txt").write_text("")
    monkeypatch.setattr("axon_compose.registry._host.data_dir", lambda kind: tmp_path)
    registry = Registry([CORE, candidate("acme", [ArchitectureSpec("tiny", str(tmp_path / "tiny.yaml"))])])
    assert list(registry.architectures()) == ["hybrid-demo", "llama-small", "tiny", "acme/tiny"]
    assert registry.architecture_path("hybrid-demo") == tmp_path / "hybrid-demo.yaml"
    assert registry.architecture_path("core/hybrid-demo") == tmp_path / "hybrid-demo.yaml"
    assert registry.architecture_path("acme/tiny") == tmp_path / "tiny.yaml"


@pytest.mark.parametrize(
    ("name", "code", "help_"),
    [
        ("acme/tin", "AX209", "did you mean `acme/tiny`?"),
        ("zzz/tiny", "AX201", "installed plugins: `core`, `acme`"),
        ("../secret", "AX201", "installed plugins: `core`, `acme`"),
        ("hybrid-dem", "AX209", "did you mean `hybrid-demo`?"),
        ("hybrid-demo.yaml", "AX209", "did you mean `hybrid-demo`?"),
    ],
)
def test_wrong_architectures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str, help_: str) -> None:
    (tmp_path / "hybrid-demo.yaml").write_text("version: 1\n")
    monkeypatch.setattr("axon_compose.registry._host.data_dir", lambda kind: tmp_path)
    registry = Registry([CORE, candidate("acme", [ArchitectureSpec("tiny", str(tmp_path / "hybrid-demo.yaml"))])])
    with pytest.raises(LookupFailure) as caught:
        registry.architecture_path(name)
    assert (caught.value.code, caught.value.help) == (code, help_)


def test_installed_registry_has_core() -> None:
    registry = Registry.installed()
    assert registry.distribution("core").startswith("axon-compose ")
    assert registry.default("norm").kind == "norm"
    assert not [s for s in registry.statuses() if s.namespace == "core" and s.status != "ok"]


def test_with_plugins_takes_the_place_of_installed_ones() -> None:
    registry = Registry.with_plugins({"core": [spec("only")], "acme": module(axon_components=lambda: [spec()])})
    assert registry.component("only").name == "only"
    assert registry.distribution("acme") == "acme in-memory"
    assert failing(registry, "attention").code == "AX202"


def test_plugin_order_does_not_matter() -> None:
    plugins: list[Any] = [CORE, candidate("b", [spec("x")]), candidate("a", [spec("y")]), candidate("bad", [3])]
    forward, backward = Registry(plugins), Registry(plugins[::-1])
    assert list(forward.components()) == list(backward.components())
    assert forward.statuses() == backward.statuses()


def test_every_code_is_explained() -> None:
    folder = Path(sys.modules["axon_compose.registry"].__file__ or "").parent
    text = "".join(file.read_text(encoding="utf-8") for file in folder.glob("*.py"))
    used = {text[i : i + 5] for i in range(len(text)) if text.startswith("AX2", i)}
    assert used
    assert used <= set(CODES)
