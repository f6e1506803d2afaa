"""The pages of imports and of families: their files are whole ones, their figures are what is measured."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import conformance_page
import devices_page
import families_page
import families_zoo
import imports_page
import pytest
import refresh

from axon_compose import load
from axon_compose.proof.check import TRUTHS
from tests.plan.concrete.test_unroll import everything

FIXTURES = refresh.ROOT / refresh.CHECKPOINTS
FAMILIES = {family.name: family for family in families_page.known()}


def test_the_files_on_the_page_of_imports_are_the_models_of_their_checkpoints(tmp_path: Path) -> None:
    page = (refresh.ROOT / "docs/imports.md").read_text("utf-8")
    files = [block for block in refresh.blocks(page) if block.language == "yaml"]
    assert len(files) == len(imports_page.SHOWN)
    for name, block in zip(imports_page.SHOWN, files, strict=True):
        path = tmp_path / f"{name}.yaml"
        path.write_text(block.text, "utf-8")
        assert everything(load(path).plan()) == everything(load(checkpoint=FIXTURES / name).plan())


def test_nothing_on_the_page_of_families_is_bad() -> None:
    figures = families_page.on_page()
    assert figures.keys() == FAMILIES.keys()
    for name, found in figures.items():
        assert found.reference.startswith("< "), name
        assert "unexplained" not in found.peer, name
        passed, _, tried = found.truths.partition(" of ")
        assert passed == tried == str(len(TRUTHS)), name


def test_nothing_on_the_page_of_families_on_devices_is_bad() -> None:
    figures = devices_page.on_page()
    assert figures.keys() == FAMILIES.keys()
    for name, found in figures.items():
        assert found.pipeline == devices_page.EQUAL, name
        allowed = 2.5 * max(2e-6, 4 * figure(found.rounding))  # cells are rounded up
        assert figure(found.tensor) <= allowed, name
        assert figure(found.more.partition(": ")[2]) <= allowed, name


def test_what_is_not_read_has_its_reason() -> None:
    rows = re.findall(r"^\| `(.+)` \| not read: (.+) \|$", families_page.PAGE.read_text("utf-8"), re.MULTILINE)
    assert dict(rows) == families_zoo.NOT_SERVED


def test_every_fault_and_truth_is_on_the_page_of_conformance() -> None:
    """The marks are measured on demand; that the demanded truths fail, `tests/proof/check/test_mutations.py` holds."""
    marks = conformance_page.on_page()
    assert list(marks) == [fault.name for fault in conformance_page.FOUND]
    assert conformance_page.MEASURED.keys() == conformance_page.TRUTHS.keys()
    for fault in conformance_page.FOUND:
        noticed = {name for name, mark in zip(conformance_page.TRUTHS, marks[fault.name], strict=True) if mark != "·"}
        demanded = {n for n, mark in zip(conformance_page.TRUTHS, marks[fault.name], strict=True) if mark == "●"}
        assert noticed, f"nothing notices {fault.name}"
        assert demanded == set(fault.noticed_by), f"python docs/conformance_page.py {fault.name}"
    assert all("●" in column for column in zip(*marks.values(), strict=True)), "a truth that no fault is held against"


def test_a_row_of_the_page_of_conformance_is_what_is_measured() -> None:
    fault = next(fault for fault in conformance_page.FOUND if fault.name == "head_keeps_a_copy_of_the_table")
    assert conformance_page.measure(fault) == conformance_page.on_page()[fault.name]


def test_figures_are_rounded() -> None:
    assert [families_page._bound(x) for x in (3e-7, 1.1e-6, 6e-6, 0.02)] == ["< 1e-6", "< 2e-6", "< 1e-5", "2.0e-02"]


@pytest.mark.slow
@pytest.mark.skipif(version("mlx-lm") != families_page.MLX_LM, reason="the page tells of another mlx-lm")
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_page_of_families_shows_what_is_measured(name: str) -> None:
    """The truths are measured by `tests/families/test_equality.py`."""
    shown, found = families_page.on_page()[name], families_page.compared(FAMILIES[name])
    assert found.lines == shown.lines
    for one, other in ((found.reference, shown.reference), (found.peer, shown.peer)):
        assert words(one) == words(other)
        assert figure(one) <= 2.5 * figure(other)  # roundings differ from machine to machine
        assert one.startswith("<") or figure(one) >= 0.8 * figure(other)


def words(cell: str) -> str:
    """A cell without its figure."""
    return re.sub(r"[\d.]+e-\d+", "", cell)


def figure(cell: str) -> float:
    """The figure of a cell; 0 if it has none."""
    found = re.search(r"[\d.]+e-\d+|\d+\.\d+", cell)
    return float(found[0]) if found else 0.0
