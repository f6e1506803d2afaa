"""Names of dims in the section `huggingface`: each must be one of the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axon_compose.diagnostics import Problems
from axon_compose.language.document._document import Document, Path
from axon_compose.language.document._formulas import cached_parse, formulas_in

__all__ = ["check_fields"]


def check_fields(document: Document, problems: Problems) -> None:
    """Report dims that the section `huggingface` names and the file does not have, in formulas of `only` too."""
    section = document.envelope.huggingface
    known = document.envelope.dims
    if section is None or ("dims",) in document.broken:
        return
    named: list[Path] = [(key, name) for key in ("fields", "tensors") for name in getattr(section, key)]
    named += [("per_type", kind, "defaults", name) for kind, of in section.per_type.items() for name in of.defaults]
    for path in named:
        name = str(path[-1])
        if name not in known and ("dims", name) not in document.broken:
            near = problems.nearest(name, known)
            problems.error(
                "AX607",
                f"`{name}` is not a dim of this file",
                document.place("huggingface", *path, key=True),
                help=f"did you mean `{near}`?" if near else "give it a default in `dims`",
            )
    if ("huggingface.formula",) not in document.broken:
        _check_values(document, section.only, problems)


def _check_values(document: Document, only: Mapping[str, Any], problems: Problems) -> None:
    """Formulas of `huggingface.only`, which know the dims."""
    dims = document.envelope.dims
    for path, text in formulas_in(only):
        for name in sorted(cached_parse(text).names - dims.keys()):
            if ("dims", name) not in document.broken:
                near = problems.nearest(name, dims)
                hint = f"did you mean `{near}`?" if near else "these formulas know the dims"
                place = document.place("huggingface", "only", *path)
                problems.error("AX120", f"unknown name `{name}`", place, help=hint)
