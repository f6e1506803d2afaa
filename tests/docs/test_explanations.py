"""Every example in `diagnostics/explanations` does what it claims, laid over a small file where it is a fragment."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import axon_compose
from axon_compose import ArchitectureError
from axon_compose.diagnostics import Problems
from axon_compose.diagnostics.codes import CODES
from axon_compose.language.source import Mapping, read

BASE = Path(__file__).parent / "base.yaml"
EXAMPLE = re.compile(r"^```yaml\n# (wrong|right)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: The text itself (AX0) is judged without a base, in `tests/diagnostics/test_codes.py`; edit files (AX9) in
#: `tests/surgery/test_edit_faults.py`.
EXAMPLES = [
    pytest.param(code, kind, text, id=f"{code}-{kind}")
    for code, entry in CODES.items()
    if not code.startswith(("AX0", "AX9"))
    for kind, text in EXAMPLE.findall(entry.explanation)
]


def whole(text: str) -> str:
    """The example as a file: by itself if it is one or builds on another, else over the base."""
    node = read(text, "example.yaml", Problems())
    if not isinstance(node, Mapping):
        return text
    return text if "extends" in node.entries else f"extends: {BASE.name}\n{text}"


@pytest.mark.parametrize(("code", "kind", "text"), EXAMPLES)
def test_example(code: str, kind: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(BASE, tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("example.yaml").write_text(whole(text), encoding="utf-8")
    found = set()
    try:
        architecture = axon_compose.load("example.yaml")
        if code.startswith("AX7"):  # advice, of which the base has some of its own
            found = {d.code for d in architecture.lint()} & {code}
    except ArchitectureError as error:
        found = {d.code for d in error.diagnostics}
    assert found == ({code} if kind == "wrong" else set())


def test_wrong_and_right_come_in_pairs() -> None:
    for code, entry in CODES.items():
        kinds = [kind for kind, _ in EXAMPLE.findall(entry.explanation)]
        assert kinds in ([], ["right"], ["wrong", "right"]), code


def test_all_advice_has_examples() -> None:
    assert all(EXAMPLE.search(entry.explanation) for code, entry in CODES.items() if code.startswith("AX7"))


def test_faults_of_files_have_examples() -> None:
    """Those of the description can all be shown, but for the command line's and one that takes a plugin's component."""
    bare = [code for code, entry in CODES.items() if code.startswith("AX1") and not EXAMPLE.search(entry.explanation)]
    assert bare == ["AX114", "AX149"]
