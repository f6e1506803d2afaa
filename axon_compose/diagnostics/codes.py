"""Every code that a diagnostic can carry, with an explanation.

The texts live in `explanations/*.md`, one file per hundred. An entry is a heading and what follows it:

    ## AX007 duplicate key

    Why it is a fault, and a wrong and a right example in fenced `yaml` blocks that begin with `# wrong` and `# right`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from axon_compose.diagnostics import nearest
from axon_compose.record import record

__all__ = ["CODES", "Code", "explain"]

_FOLDER: Final = Path(__file__).parent / "explanations"
_HEADING: Final = re.compile(r"^## (AX\d{3}) (.+)$", re.MULTILINE)


@record
class Code:
    """One kind of fault.

    Attributes:
        code: `AX` and three digits.
        title: What is wrong, in a few words.
        explanation: Why, and how to put it right; Markdown.
    """

    code: str
    title: str
    explanation: str


def _parse(text: str) -> list[Code]:
    """The entries of one Markdown file, in order."""
    _, *parts = _HEADING.split(text)
    return [Code(code, title, body.strip()) for code, title, body in zip(*[iter(parts)] * 3, strict=True)]


def _load() -> dict[str, Code]:
    files = sorted(_FOLDER.glob("*.md"))
    return {entry.code: entry for file in files for entry in _parse(file.read_text(encoding="utf-8"))}


#: Code to its entry, in the order of the files.
CODES: Final[dict[str, Code]] = _load()


def explain(code: str) -> str:
    """Return title and explanation of a code as Markdown.

    Args:
        code: Such as `AX007`; upper or lower case.

    Raises:
        LookupError: There is no such code; the message names the nearest one.
    """
    entry = CODES.get(code.strip().upper())
    if entry is None:
        guess = nearest(code.strip().upper(), CODES)
        raise LookupError(f"there is no code `{code}`" + (f"; did you mean `{guess}`?" if guess else ""))
    return f"{entry.code}: {entry.title}\n\n{entry.explanation}\n"
