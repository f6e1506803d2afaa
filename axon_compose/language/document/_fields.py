"""Names of dims in the sections `huggingface` and `gguf`: each must be one of the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axon_compose.diagnostics import Problems
from axon_compose.language.document._document import Document, Path
from axon_compose.language.document._formulas import cached_parse, formulas_in

__all__ = ["check_fields"]


def check_fields(document: Document, problems: Problems) -> None:
    """Report dims that these sections name and the file does not have, in formulas of `only` too."""
    section, gguf = document.envelope.huggingface, document.envelope.gguf
    known = document.envelope.dims
    if ("dims",) in document.broken:
        return
    named: list[Path] = [("gguf", "fields", name) for name in (gguf.fields if gguf else ())]
    if section is not None:
        named += [("huggingface", key, name) for key in ("fields", "tensors") for name in getattr(section, key)]
        types = section.per_type.items()
        named += [("huggingface", "per_type", kind, "defaults", name) for kind, of in types for name in of.defaults]
    for path in named:
        name = str(path[-1])
        if name not in known and ("dims", name) not in document.broken:
            near = problems.nearest(name, known)
            problems.error(
                "AX607",
                f"`{name}` is not a dim of this file",
                document.place(*path, key=True),
                help=f"did you mean `{near}`?" if near else "give it a default in `dims`",
            )
    for key, of in (("huggingface", section), ("gguf", gguf)):
        if of is not None and (f"{key}.formula",) not in document.broken:
            _check_values(document, key, of.only, problems)


def _check_values(document: Document, section: str, only: Mapping[str, Any], problems: Problems) -> None:
    """Formulas of `only`, which know the dims."""
    dims = document.envelope.dims
    for path, text in formulas_in(only):
        for name in sorted(cached_parse(text).names - dims.keys()):
            if ("dims", name) not in document.broken:
                near = problems.nearest(name, dims)
                hint = f"did you mean `{near}`?" if near else "these formulas know the dims"
                place = document.place(section, "only", *path)
                problems.error("AX120", f"unknown name `{name}`", place, help=hint)
