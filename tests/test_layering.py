"""The rooms stand in one order, every import runs down it, and those before the model know no mlx."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from axon_compose.registry import Registry

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "axon_compose"

#: A module may import what stands above it, its own room, and nothing else of ours: lazily and for types too.
ORDER = [
    "record",
    "diagnostics",
    "machine",
    "notebook",
    "registry",
    "language",
    "plan",
    "devices",
    "analysis",
    "model",
    "checkpoints",
    "integrations",
    "proof",
    "learn",
    "surgery",
    "report",
    "architecture",
    "scaffold",
    "testing",
    "cli",
    "__main__",
]
#: The one look-up against the order: results are shown by `report`, which is found by name when somebody looks.
UPWARD = {("notebook.py", "axon_compose.report.display")}
#: Who may import the front door.
GUESTS = {"architecture", "cli", "testing"}
#: Names that only carry versions.
FREE = {"axon_compose.__version__"}
HEAVY = ("gguf", "mlx", "mlx_lm", "numpy", "matplotlib", "transformers", "jsonschema", "torch")
#: Everything that has to load without any of those.
LIGHT = [
    *(room for room in ORDER if room not in ("model", "integrations", "proof", "learn", "surgery", "testing")),
    *(f"language.{part}" for part in ("source", "document", "schema", "config", "layout")),
    *(f"learn.{part}" for part in ("tasks", "tasks.specs")),
    *(f"analysis.{part}" for part in ("cost", "devices", "diff", "lint", "comparison", "measurement")),
    *(f"checkpoints.{part}" for part in ("files", "gguf._compile", "gguf._tokenizer", "huggingface", "weights")),
    *("proof", "proof.bench", "proof.doctor", "report.draw", "machine.memory", "machine.blas", "plan.concrete"),
    *("learn.recipe", "learn.budget", "surgery._plan", "surgery._fold", "report._surgery", "cli._edit"),
]
#: What modules before `model` import of those inside a function, or for types alone.
LATER = {"machine/blas.py": {"mlx"}, "registry/_json_schema.py": {"jsonschema"}}
#: Rooms that know components by their records alone.
NAMELESS = (
    "diagnostics", "machine", "registry", "language", "plan", "devices", "analysis", "model", "proof", "surgery",
    "architecture",
)  # fmt: skip


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(text: str) -> set[str]:
    """Modules of ours that a file imports anywhere: at its top, in a function, for types, or by a name in a string."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.ImportFrom(module="axon_compose"):
                found.update(f"axon_compose.{alias.name}" for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0) if module.startswith("axon_compose."):
                found.add(module)
            case ast.ImportFrom(level=level) if level:
                raise AssertionError("imports are absolute, so that a reader sees the room")
            case ast.Import():
                found.update(alias.name for alias in node.names if alias.name.startswith("axon_compose."))
            case ast.Constant(value=str(value)) if value.startswith("axon_compose.") and " " not in value:
                found.add(value.partition(":")[0])
    return found - FREE


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def test_every_module_has_a_room() -> None:
    assert {room_of(path) for path in FILES} == set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    room = room_of(path)
    for name in imports(path.read_text()):
        if (str(path.relative_to(PACKAGE)), name) in UPWARD:
            continue
        other = name.split(".")[1]
        assert ORDER.index(other) <= ORDER.index(room), f"{room} imports {name}, which is in a later room"
        assert other != "architecture" or room in GUESTS, f"{room} imports the front door"


@pytest.mark.parametrize(
    "line",
    [
        "from axon_compose.report import render",
        "import axon_compose.report",
        "from axon_compose import report",
        "if TYPE_CHECKING:\n    from axon_compose.report import render",
        "def show():\n    from axon_compose.report import render",
        "import_module('axon_compose.report.display')",
    ],
)
def test_every_form_of_import_is_seen(line: str) -> None:
    assert {name.split(".")[1] for name in imports(line)} == {"report"}


def test_the_compiler_names_no_layer() -> None:
    names = {name.removeprefix("core/") for name in Registry.installed().components() if name.startswith("core/")}
    assert {"axon_ssm", "sliding_window_attention", "rms_norm", "shared_expert_moe", "token_embedding"} < names
    assert {"lm_head", "hyper_connections", "compressed_attention", "ngram_embedding"} < names
    for path in FILES:
        if room_of(path) in NAMELESS:
            strings = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
            assert not {text.removeprefix("core/") for text in strings if isinstance(text, str)} & names, path


def packages(text: str) -> set[str]:
    """Packages that a file imports anywhere."""
    nodes = list(ast.walk(ast.parse(text)))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name.partition(".")[0] for name in found}


def test_before_the_model_no_module_imports_mlx() -> None:
    early = {path for path in FILES if ORDER.index(room_of(path)) < ORDER.index("model")}
    heavy = {*HEAVY, "axon_core", "axon_native"}
    found = {str(path.relative_to(PACKAGE)): packages(path.read_text()) & heavy for path in early}
    assert {path: names for path, names in found.items() if names} == LATER


#: Imports each module in a fork of its own, so that none finds what another one has imported, only what they all need
#: from others; prints its name and the heavy packages that came with it.
IMPORTS = """
import os, sys
from importlib import import_module

import argparse, concurrent.futures, importlib.metadata, pluggy, pydantic, yaml

modules, heavy = (text.split(",") for text in sys.argv[1:])
print("at-first", *(name for name in heavy if name in sys.modules), flush=True)
for module in modules:
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0, module
        continue
    room = import_module(f"axon_compose.{module}")
    for name in getattr(room, "__all__", ()):
        getattr(room, name)
    print(module, *(name for name in heavy if name in sys.modules), flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def imported() -> dict[str, list[str]]:
    """The heavy packages that each light module imports, with all that it exports."""
    command = [sys.executable, "-c", IMPORTS, ",".join(LIGHT), ",".join(HEAVY)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    return {module: found for module, *found in lines}


@pytest.mark.xdist_group("layering")  # one worker imports them
@pytest.mark.parametrize("module", ["at-first", *LIGHT])
def test_what_runs_no_model_loads_without_mlx(module: str, imported: dict[str, list[str]]) -> None:
    """With all that it exports, also what is imported when it is asked for."""
    assert imported[module] == []


@pytest.mark.parametrize(
    "command",
    [*([name, "hybrid-demo"] for name in ("validate", "show", "cost", "compare", "lint")),
     ["list", "mamba"], ["describe", "attention"], ["help", "show"]],
    ids=lambda command: command[0],
)  # fmt: skip
def test_describing_commands_never_import_mlx(command: list[str]) -> None:
    check = (
        f"import sys; from axon_compose.cli import main; code = main({command!r}); "
        f"assert code == 0; print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_validating_counts_nothing() -> None:
    """Costs and devices are for other commands; who validates a file does not wait until they are imported."""
    check = (
        "import sys; from axon_compose.cli import main; assert main(['validate', 'hybrid-demo']) == 0\n"
        "print([m for m in ('axon_compose.analysis', 'axon_compose.devices') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_validating_imports_little_that_others_need() -> None:
    """Each of these is several hundredths of `validate`, and nothing that it does."""
    others = (
        "importlib.metadata",
        "email",
        "shutil",
        "difflib",
        "axon_compose.report._show",
        "traceback",
        "axon_core.specs.per_layer",
        *(f"axon_compose.language.document.{part}" for part in ("_checkpoints", "_huggingface", "_patterns")),
        *(f"axon_compose.language.document.formula.{part}" for part in ("_formula", "_tokens", "_tree", "_evaluate")),
    )
    check = (
        "import sys; from axon_compose.cli import main; assert main(['validate', 'hybrid-demo']) == 0\n"
        f"print([m for m in {others!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_validating_builds_the_models_of_what_the_file_has() -> None:
    """A validator takes longer than all that it validates: defaults, and copies of what is valid, are made without."""
    check = (
        "import sys; from axon_compose.cli import main; assert main(['validate', 'hybrid-demo']) == 0\n"
        "from pydantic import BaseModel\n"
        "def models(base):\n    for each in base.__subclasses__():\n        yield from (each, *models(each))\n"
        "print(*(m.__name__ for m in models(BaseModel) if m.__pydantic_complete__ and m.model_fields), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    options = "LMHead RMSNorm SSM SharedExpertMoE SlidingWindowAttention TokenEmbedding"
    assert sorted(done.stderr.split()) == ["Envelope", *(f"{name}Options" for name in options.split())]


def test_commands_look_for_no_plugins_of_pydantic(tmp_path: Path) -> None:
    """Ours takes the place of a module of pydantic, which has to be there still and to be asked for the same."""
    information = tmp_path / "watcher-1.dist-info"
    information.mkdir()
    (information / "entry_points.txt").write_text("[pydantic]\nwatcher = no_such_module:plugin\n")
    (information / "METADATA").write_text("Name: watcher\nVersion: 1\n")
    run = "{}from axon_compose.registry import Options\nOptions()\nfrom pydantic.plugin import _loader as found\n"
    look = (
        "print(sorted(found.get_plugins()), 'entry_points' in vars(found))\n"
        "from pydantic.plugin._loader import _plugins  # as another release may, of another name\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    for first, expected, warns in (("import axon_compose.cli\n", "[] False", False), ("", "[] True", True)):
        command = [sys.executable, "-c", run.format(first) + look]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == expected
        assert ("while loading the `watcher` Pydantic plugin" in done.stderr) == warns


def test_annotations_of_models_are_no_strings() -> None:
    """Pydantic would compile each of them: a fiftieth of `validate`."""
    folders = (PACKAGE, PACKAGE.parent / "plugins" / "axon_core")
    found = {}
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        tree = ast.parse(path.read_text())
        bases = {ast.unparse(base) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases}
        models = {base for base in bases if base in ("BaseModel", "Section") or base.endswith("Options")}
        if models and "from __future__ import annotations" in path.read_text():
            found[path.name] = models
    assert found == {"_pydantic.py": {"BaseModel"}}  # the base of others, without fields


def test_no_default_of_a_model_is_made_by_a_type_of_c() -> None:
    """Pydantic would ask `inspect` for its signature, which is a text, and be a fiftieth of `validate` slower."""
    folders = (PACKAGE / "language", PACKAGE.parent / "plugins" / "axon_core" / "specs")
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Field":
                factories = {ast.unparse(word.value) for word in node.keywords if word.arg == "default_factory"}
                assert not factories & {"dict", "list", "set", "tuple"}, f"{path}:{node.lineno}"


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["build", "--help"]], ids=" ".join)
def test_help_reads_no_description(command: list[str]) -> None:
    """It starts in the time of an interpreter."""
    check = (
        f"import sys\nfrom axon_compose.cli import main\ntry: main({command!r})\nexcept SystemExit: pass\n"
        "print([m for m in ('pydantic', 'yaml', 'pluggy', 'importlib.metadata') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("command", "target", "allowed"),
    [
        ("draw", "a.svg", []),
        ("draw", "a.html", ["numpy", "matplotlib"]),
        ("compare", "a.html", ["numpy", "matplotlib"]),
    ],
)
def test_drawing_never_imports_mlx_and_only_a_page_needs_charts(
    command: str, target: str, allowed: list[str], tmp_path: Path
) -> None:
    check = (
        f"import sys; from axon_compose.cli import main; code = main([{command!r}, 'hybrid-demo', '-o', {target!r}]); "
        f"assert code == 0; print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr.strip() == str(allowed)
