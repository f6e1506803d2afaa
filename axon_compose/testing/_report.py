"""The cases of a component for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from axon_compose.language.layout import flow_text
from axon_compose.report import Style
from axon_compose.report._check import failures
from axon_compose.testing._cases import Case

__all__ = ["case_text", "cases_verdict"]


def case_text(case: Case, style: Style) -> str:
    """One case of a component: its seed, its options and, if it fails, where and a file that shows it."""
    word = style.paint("ok", "good") + "  " if case.report.passed else style.paint("FAIL", "error")
    lines = [f"  {word}  seed {case.seed}  {flow_text(case.options)}"]
    lines += [f"        {style.bold(names)}: {text}" for names, text in failures(case.report, figures=True)]
    if case.file is not None:
        command = f"axon-compose check {case.report.name}.yaml --as-is --seed {case.seed}"
        lines += ["", style.dim(f"# {case.report.name}.yaml, for `{command}`"), case.file]
    return "\n".join(lines) + "\n"


def cases_verdict(type_name: str, cases: Sequence[Case]) -> str:
    """How many cases of a component passed every check that was run, and which checks others failed."""
    total = len(cases)
    failed = Counter(truth.name for case in cases for truth in case.report.failed)
    if failed:
        wrong = sum(not case.report.passed for case in cases)
        counted = (f"{name} in {count}" if total > 1 else name for name, count in failed.items())
        return f"{type_name}: {wrong} of {total} cases failed: {', '.join(counted)}\n"
    truths = len(cases[0].report.truths)
    held = f"{truths} checks passed" if truths != 1 else "1 check passed"
    return f"{type_name}: {held} in {total} of {total} cases\n"
