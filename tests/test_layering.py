"""The stages stand in one order, and those before the model know no mlx."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "axon_compose"

#: A module may import what stands above it, itself, and nothing else of ours.
ORDER = [
    "diagnostics",
    "_data_files",
    "codes",
    "source",
    "registry",
    "document",
    "huggingface",
    "plan",
    "cost",
    "concrete",
    "memory",
    "blas",
    "doctor",
    "diff",
    "lint",
    "schema",
    "report",
    "draw",
    "checkpoint",
    "weights",
    "model",
    "_api",
    "integrations",
    "analysis",
    "bench",
    "comparison",
    "testing",
    "scaffold",
    "cli",
]
#: Names that only carry types or versions between stages.
FREE = {"axon_compose", "axon_compose.__version__"}
LIGHT = [stage for stage in ORDER if stage not in ("model", "integrations", "analysis", "testing")]
HEAVY = ("mlx", "mlx_lm", "numpy", "matplotlib", "transformers", "jsonschema", "torch")


def stage_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Modules of ours that a file imports when it is imported itself."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        for inner in ast.walk(node)
        if inner is not node
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("axon_compose"):
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.startswith("axon_compose"))
    return found - FREE


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def test_every_module_has_a_place_in_the_order() -> None:
    assert {stage_of(path) for path in FILES} <= set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    stage = stage_of(path)
    for name in imports(path):
        other = name.split(".")[1]
        assert ORDER.index(other) <= ORDER.index(stage), f"{stage} imports {other}, which is a later stage"


def test_the_compiler_names_no_layer() -> None:
    names = {"axon_ssm", "sliding_window_attention", "rms_norm", "shared_expert_moe", "token_embedding", "lm_head"}
    stages = ("source", "document", "registry", "plan", "diff", "lint", "model")
    for path in FILES:
        if stage_of(path) in stages:
            strings = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
            assert not strings & names, f"{path} names a layer"


@pytest.mark.parametrize("stage", LIGHT)
def test_stages_before_the_model_load_without_mlx(stage: str) -> None:
    check = f"import axon_compose.{stage}, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["validate", "show", "cost", "compare", "lint"])
def test_describing_commands_never_import_mlx(command: str) -> None:
    check = (
        f"import sys; from axon_compose.cli import main; code = main([{command!r}, 'hybrid-demo']); "
        f"assert code == 0; print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
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
