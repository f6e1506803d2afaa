"""Every YAML on every page is what it claims: a file that compiles and runs, or one with faults."""

from __future__ import annotations

from pathlib import Path

import pytest
import refresh
import yaml

import axon_compose
from axon_compose.model import try_out
from axon_compose.plan import total_parameters
from axon_compose.surgery import plan_edit

#: Its files need plugins that only its own commands install; `test_pages` runs those.
PLUGINS = "docs/plugins.md"
FENCED = [(page, block) for page in refresh.PAGES for block in refresh.blocks((refresh.ROOT / page).read_text("utf-8"))]
YAML = [
    pytest.param(page, block, id=f"{page}-{block.text.splitlines()[0].strip('# ')}-{block.start}")
    for page, block in FENCED
    if block.language == "yaml" and page != PLUGINS
]
#: Larger examples are planned, not built.
SMALL = 3_000_000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_files(page: str, folder: Path) -> None:
    """The named files of a page."""
    for where, block in FENCED:
        named = refresh.yaml_file(block)
        if where == page and named:
            (folder / named[0]).write_text(block.text, "utf-8")


@pytest.mark.parametrize(("page", "block"), YAML)
def test_yaml(page: str, block: refresh.Block, folder: Path) -> None:
    write_files(page, folder)
    named, base = refresh.yaml_file(block), refresh.fragment_of(block)
    assert bool(named) != bool(base), f"say in the first line which file this is:\n{block.text}"
    if named and not named[1]:
        with pytest.raises(axon_compose.ArchitectureError):
            axon_compose.load(named[0])
        return
    if "\nedits:" in block.text:
        edit = yaml.safe_load(block.text)
        described = f"{edit['source']}.yaml"  # of which the page's commands build the folder that it names
        assert plan_edit(edit | {"source": described}).steps
        return
    if base:
        Path("fragment.yaml").write_text(f"extends: {base}\n{block.text}", "utf-8")
    architecture = axon_compose.load(named[0] if named else "fragment.yaml")
    assert not architecture.warnings
    if total_parameters(architecture.plan()) < SMALL:
        trial = try_out(architecture.build(), tokens=24, steps=4)
        assert trial.difference < 1e-4  # float32 on small sizes: the cached way is the plain one


def test_every_page_has_its_files_once() -> None:
    for page in refresh.PAGES:
        names = [named[0] for where, block in FENCED if where == page and (named := refresh.yaml_file(block))]
        assert len(names) == len(set(names)), page


def test_every_file_on_the_page_of_plugins_is_used_by_a_command() -> None:
    commands = "".join(block.text for page, block in FENCED if page == PLUGINS and block.language == "console")
    for page, block in FENCED:
        if page == PLUGINS and block.language == "yaml":
            named = refresh.yaml_file(block)
            assert named, block.text
            assert f"validate {named[0]}" in commands
