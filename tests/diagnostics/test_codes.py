"""The table of codes says what the program says, no more and no less; its examples do what they claim."""

import re
from pathlib import Path

import pytest

import axon_compose
from axon_compose.diagnostics import Problems
from axon_compose.diagnostics.codes import CODES, explain
from axon_compose.language.source import read

PACKAGE = Path(axon_compose.__file__).parent
LITERAL = re.compile(r"[\"'](AX\d{3})[\"']")
EXAMPLE = re.compile(r"^```yaml\n# (wrong|right)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def used() -> dict[str, list[str]]:
    """Code to the files that say it."""
    found: dict[str, list[str]] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        for code in set(LITERAL.findall(file.read_text(encoding="utf-8"))):
            found.setdefault(code, []).append(str(file.relative_to(PACKAGE)))
    return found


def test_every_code_in_use_is_explained() -> None:
    missing = {code: files for code, files in sorted(used().items()) if code not in CODES}
    assert not missing, f"add these to axon_compose/diagnostics/explanations: {missing}"


def test_every_explained_code_is_in_use() -> None:
    idle = sorted(CODES.keys() - used().keys())
    assert not idle, f"nothing says these: {idle}"


def test_each_code_is_explained_once() -> None:
    texts = [file.read_text(encoding="utf-8") for file in (PACKAGE / "diagnostics" / "explanations").glob("*.md")]
    headings = [code for text in texts for code in re.findall(r"^## (\S+)", text, re.MULTILINE)]
    assert sorted(headings) == sorted(CODES)


@pytest.mark.parametrize("code", CODES)
def test_an_explanation_is_short_and_whole(code: str) -> None:
    entry = CODES[code]
    assert entry.title
    assert not entry.title.endswith(".")
    prose = EXAMPLE.sub("", entry.explanation).strip()
    assert 30 <= len(prose) <= 800
    assert entry.explanation.count("```") == 2 * len(EXAMPLE.findall(entry.explanation)), (
        "examples are marked wrong or right"
    )


@pytest.mark.parametrize("code", [code for code in CODES if code.startswith("AX0")])
def test_the_examples_of_the_text_stage(code: str) -> None:
    for kind, text in EXAMPLE.findall(CODES[code].explanation):
        problems = Problems()
        read(text, "example", problems)
        assert {d.code for d in problems} == ({code} if kind == "wrong" else set()), text


def test_explain() -> None:
    text = explain(" ax007 ")
    assert text.startswith("AX007: duplicate key\n\nA mapping has the same key twice.")
    assert text.endswith("```\n")
    with pytest.raises(LookupError, match="no code `AX0007`; did you mean `AX007`"):
        explain("AX0007")
    with pytest.raises(LookupError, match=r"no code `nonsense`$"):
        explain("nonsense")
