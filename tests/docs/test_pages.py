"""README and docs show what the program does today.

A page that fails here is written anew by `make readme`; read the difference before it is committed.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import fields
from pathlib import Path

import pytest
import refresh

from axon_compose.checkpoints.huggingface import families
from axon_compose.cli._parser import make_parser
from axon_compose.language.document import BranchItem, CheckpointEnvelope, Item
from axon_compose.language.document.formula import FUNCTIONS
from axon_compose.registry import ComponentSpec, Registry
from tests import processors

ROOT = refresh.ROOT
MARKDOWN = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def text(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


@pytest.mark.usefixtures("forked_commands")
@pytest.mark.parametrize("page", [*refresh.PAGES, *refresh.GENERATED])
def test_page_shows_what_the_program_does(page: str) -> None:
    ranks = "$ mlx.launch" in text(page)  # which wait for each other in busy loops
    with processors.shared() if ranks else contextlib.nullcontext():
        made = refresh.make(page)
    assert refresh.mask(made) == refresh.mask(text(page)), "run `make readme`"


@pytest.mark.parametrize("page", refresh.PAGES)
def test_nothing_is_left_without_output(page: str) -> None:
    for block in refresh.blocks(text(page)):
        assert block.text.strip(), f"an empty block on {page}"
        assert block.language in ("console", "python", "text", "yaml", "toml", "sh"), block.language


def test_masks_hide_no_more_than_they_say() -> None:
    shown = "  ok  steps  2.9e-07  ≤ 2.0e-05  token by token\nat most 1.9e-06 from\n5 layers, 1.04M, 4.14 MB\n"
    expected = "  ok  steps  N  ≤ 2.0e-05  token by token\nat most SMALL from\n5 layers, 1.04M, 4.14 MB\n"
    assert refresh.mask(shown) == expected
    assert refresh.mask("  FAIL  steps  2.9e-02  ≤ 2.0e-05  x\n") == "  FAIL  steps  2.9e-02  ≤ 2.0e-05  x\n"
    older = "  -o FILE, --output FILE\n                        write it\n"
    assert refresh.mask(older) == refresh.mask("  -o, --output FILE     write it\n")
    page = "wrote a.svg: a, 10.7 kB\nwrote a.html: a, 10.7 kB\n"
    assert refresh.mask(page) == "wrote a.svg: a, 10.7 kB\nwrote a.html: a, N kB\n"
    speed = "==========\nnoise\n==========\nPrompt: 35 tokens, 572.003 tokens-per-sec\n"
    assert refresh.mask(speed) == ("==========\ngenerated text\n==========\nPrompt: 35 tokens, N tokens-per-sec\n")


def test_a_page_that_drifted_is_written_anew() -> None:
    page = "```console\n$ echo one\ntwo\n```\n\n```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n"
    assert refresh.refreshed(page) == page.replace("two", "one").replace("3", "2")


def test_a_traceback_is_never_shown() -> None:
    with pytest.raises(SystemExit, match="ZeroDivisionError"):
        refresh.refreshed("```python\n1 / 0\n```\n")


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    return {anchor(line.lstrip("#")) for line in FENCE.sub("", path.read_text("utf-8")).splitlines() if line[:1] == "#"}


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in LINK.findall(FENCE.sub("", path.read_text("utf-8"))):
        if target.startswith("https://"):
            continue
        file, _, section = target.partition("#")
        led = (path.parent / file).resolve() if file else path
        assert led.exists(), target
        assert led.is_relative_to(ROOT), target
        assert not section or section in anchors(led), target


def test_readme_names_every_architecture_and_counts_the_families() -> None:
    known = {family.name for family in families(Registry.installed())}
    for file in (ROOT / "architectures").glob("*.yaml"):
        page = "docs/families.md" if file.stem in known else "README.md"
        assert f"| `{file.stem}` |" in text(page), file.stem
    assert f"published checkpoints of {len(known)} families" in text("README.md")


def test_readme_leads_to_every_page() -> None:
    for path in (ROOT / "docs").glob("*.md"):
        assert f"(docs/{path.name})" in text("README.md"), path.name


def test_commands_that_are_not_run_exist() -> None:
    """In `sh` blocks: targets of make, extras of the package, and our own commands."""
    makefile, project = text("Makefile"), text("pyproject.toml")
    (commands,) = (action for action in make_parser()._actions if action.dest == "command")
    for page in refresh.PAGES:
        for block in refresh.blocks(text(page)):
            for line in block.text.splitlines() if block.language == "sh" else ():
                command = line.partition("#")[0].split()
                if not command:
                    continue
                if command[0] == "make":
                    assert re.search(rf"^{command[1]}:", makefile, re.MULTILINE), line
                elif ours := re.findall(r"axon-compose (\w[\w-]*)", line):
                    assert set(ours) <= set(commands.choices or ()), line
                elif command[0] not in ("mlx_lm.generate", "mlx.launch", "mlx.distributed_config"):
                    assert command[:2] in (["pip", "install"], ["pip", "wheel"]), line
                    extra = re.search(r"\[(\w+)\]", line)
                    assert not extra or re.search(rf"^{extra[1]} = \[", project, re.MULTILINE), line


def test_make_readme_writes_the_pages() -> None:
    assert "docs/refresh.py" in text("Makefile")


def test_the_language_page_names_every_section_and_function() -> None:
    page = text("docs/language.md")
    for section in CheckpointEnvelope.model_fields:
        assert f"| `{section}` |" in page, section
    for model in (BranchItem, Item):
        for name, field in model.model_fields.items():
            assert f"`{field.alias or name}" in page, name
    for function in FUNCTIONS:
        assert f"`{function}`" in page, function


def test_the_page_of_plugins_names_every_field_of_a_record() -> None:
    page = text("docs/plugins.md")
    for field in fields(ComponentSpec):
        assert f"`{field.name}`" in page or field.name == "default", field.name  # only `core` has defaults


def test_the_page_of_commands_has_every_command() -> None:
    page = text("docs/cli.md")
    (commands,) = (action for action in make_parser()._actions if action.dest == "command")
    for command in commands.choices or ():
        assert f"## {command}\n" in page, command


def test_the_page_of_commands_has_every_variable() -> None:
    for file in (ROOT / "axon_compose").rglob("*.py"):
        for variable in re.findall(r"AXON_COMPOSE_[A-Z_]+|\w+_COLOR\b", file.read_text("utf-8")):
            assert f"`{variable}`" in text("docs/cli.md"), f"{file.name}: {variable}"
