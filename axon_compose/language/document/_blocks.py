"""What can be checked of blocks from the file alone: components that do not exist, outputs kept and never added."""

from __future__ import annotations

from collections.abc import Iterator

from axon_compose.diagnostics import Problems, Span
from axon_compose.language.document._document import Document, Path
from axon_compose.language.document._sections import BranchItem, NormChoice
from axon_compose.language.document.formula import is_formula

__all__ = ["check_blocks", "report_no_component", "written_blocks", "written_norms"]


def check_blocks(document: Document, problems: Problems) -> None:
    """Report the faults of every block, used or not."""
    reported: set[str] = set()
    for path, branches in written_blocks(document):
        _check_components(document, path, branches, reported, problems)
        _check_kept(document, path, branches, problems)


def written_blocks(document: Document) -> Iterator[tuple[Path, list[BranchItem]]]:
    """Place and branches of every block, also of those that are written in the stack."""
    envelope = document.envelope
    for name, block in envelope.blocks.items():
        yield ("blocks", name, "branches"), block.branches
    if ("stack",) in document.broken:
        return
    for index, item in enumerate(envelope.stack.items or ()):
        if item.block and item.block.branches:
            yield ("stack", index, "block"), item.block.branches
    generated = envelope.stack.generated
    if generated and generated.block.branches:
        yield ("stack", "block"), generated.block.branches


def written_norms(document: Document) -> Iterator[tuple[NormChoice, Path]]:
    """The norm of every branch and of every component in one, with its place."""
    for path, branches in written_blocks(document):
        for number, branch in enumerate(branches):
            yield branch.norm, (*path, number, "norm")
            for index, item in enumerate(branch.parallel or ()):
                yield item.norm, (*path, number, "parallel", index, "norm")


def report_no_component(document: Document, name: str, place: Span, problems: Problems) -> None:
    """Report a name that no component has, unless the component is there and faulty itself."""
    if document.broken & {("components", name), ("components",)}:
        return
    known = document.envelope.components
    near = problems.nearest(name, known)
    hint = f"did you mean `{near}`?" if near else f"components are {', '.join(known) or 'missing'}"
    problems.error("AX140", f"there is no component `{name}`", place, label="not in `components`", help=hint)


def _uses(branch: BranchItem, path: Path) -> Iterator[tuple[str, str | None, Path]]:
    """Component, name under which its output is kept, and place, in the order of computation."""
    if branch.use is not None:
        yield branch.use, branch.keep, path
    for number, item in enumerate(branch.parallel or ()):
        yield item.use, item.keep, (*path, "parallel", number)


def _check_components(
    document: Document, path: Path, branches: list[BranchItem], reported: set[str], problems: Problems
) -> None:
    for number, branch in enumerate(branches):
        for name, _, place in _uses(branch, (*path, number)):
            if not is_formula(name) and name not in document.envelope.components and name not in reported:
                reported.add(name)
                report_no_component(document, name, document.place(*place, "use"), problems)


def _check_kept(document: Document, path: Path, branches: list[BranchItem], problems: Problems) -> None:
    kept: dict[str, Path] = {}
    added: set[str] = set()
    for number, branch in enumerate(branches):
        for _, name, place in _uses(branch, (*path, number)):
            if name in kept:
                message = f"two outputs of this block are kept as `{name}`"
                problems.error("AX144", message, document.place(*place, "as"))
            elif name is not None:
                kept[name] = place
        if branch.add is None:
            continue
        if branch.add not in kept:
            near = problems.nearest(branch.add, kept)
            hint = f"did you mean `{near}`?" if near else "keep an output first: `{use: moe, as: shortcut}`"
            message = f"nothing is kept as `{branch.add}` before this branch"
            problems.error("AX144", message, document.place(*path, number, "add"), help=hint)
        added.add(branch.add)
    for name in kept.keys() - added:
        message = f"the output kept as `{name}` is never added"
        hint = f"add `{{add: {name}}}` to the block"
        problems.error("AX144", message, document.place(*kept[name], "as"), help=hint)
