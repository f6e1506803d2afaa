"""Names in the sections `huggingface` and `gguf`: dims must be those of the file, and formulas know what they use."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from axon_compose.diagnostics import Problems
from axon_compose.language.document._document import Document, Path
from axon_compose.language.document._formulas import cached_parse, formulas_in

__all__ = ["check_fields"]

#: What a formula over the metadata of a GGUF file knows.
_METADATA: Final = ("keys", "tensors")


def check_fields(document: Document, problems: Problems) -> None:
    """Report dims that these sections name and the file does not have, in formulas too."""
    section, gguf = document.huggingface, document.gguf
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
            _check_names(document, (key, "only"), of.only, known, "these formulas know the dims", problems)
    if gguf is not None and ("gguf.formula",) not in document.broken:
        _check_names(document, ("gguf", "when"), gguf.when, _METADATA, "it knows `keys` and `tensors`", problems)


def _check_names(
    document: Document, section: Path, data: Any, known: Collection[str], hint: str, problems: Problems
) -> None:
    """Report names in formulas that these do not know."""
    for path, text in formulas_in(data):
        for name in sorted(cached_parse(text).names.difference(known)):
            if ("dims", name) not in document.broken:
                near = problems.nearest(name, known)
                place = document.place(*section, *path)
                problems.error(
                    "AX120", f"unknown name `{name}`", place, help=f"did you mean `{near}`?" if near else hint
                )
