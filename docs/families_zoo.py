"""Sections of the page of families: what mlx-lm and transformers have, and what of it is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from axon_compose.checkpoints.huggingface import Family
from axon_compose.language.wrappers import TEXT_TYPES

__all__ = ["NOT_SERVED", "modules", "sections"]

#: Architectures of mlx-lm that are not served, and why; shown on the page.
NOT_SERVED: Final[dict[str, str]] = {
    "afm7": "later layers reuse keys of layers whose numbers follow from arithmetic on names, which rules cannot do",
    "bitnet": "ternary weights, packed four to a byte, that Metal kernels of its own multiply",
    "deepseek_v41": "engram tables, which mlx-lm refuses too, and shared compressed keys",
    "deepseek_v41_text": "as `deepseek_v41`",
    "iquestloopcoder": "two passes over the stack whose attentions are mixed by a learned gate",
    "phi3small": "block-sparse attention",
    "prism_hadamard_qwen35": "2-bit words that hold weights rotated by a signed Hadamard matrix",
}

_ZOO: Final = """\
## The zoo of mlx-lm

Every architecture of mlx-lm {version}, by the name of its module, and every other name that it takes for one: {served}
of {count} are read, {wrapped} of them as the text model of a model of images or sound.

| mlx-lm | read by |
|---|---|
"""

_OTHERS: Final = """\
## The zoo of transformers

transformers {version} has {count} model types with a class for causal language models, encoders and decoders of larger
models among them; {served} are read. The others: {names}.

"""

#: How cells begin.
_UNREAD: Final = "not read"
_WRAPPED: Final = "text model"


def sections(known: Sequence[Family], mlx_lm: str) -> list[str]:
    """Both sections, for the families that are shipped and the version of mlx-lm that is installed."""
    readers = {model_type: family.name for family in known for model_type in family.model_types}
    return [_of_mlx_lm(readers, mlx_lm), _of_transformers(readers)]


def modules() -> list[Path]:
    """The files of mlx-lm's architectures."""
    (package,) = find_spec("mlx_lm").submodule_search_locations  # type: ignore[union-attr, misc]
    return sorted(Path(package, "models").glob("*.py"))


def _of_mlx_lm(readers: Mapping[str, str], version: str) -> str:
    from mlx_lm.utils import MODEL_REMAPPING

    names = [path.stem for path in modules() if re.search(r"^class ModelArgs\b", path.read_text("utf-8"), re.M)]
    cells = {name: _served(name, readers) for name in sorted([*names, *MODEL_REMAPPING], key=str.lower)}
    unread, wrapped = (sum(cell.startswith(begin) for cell in cells.values()) for begin in (_UNREAD, _WRAPPED))
    text = _ZOO.format(version=version, served=len(cells) - unread, count=len(cells), wrapped=wrapped)
    return text + "\n".join(f"| `{name}` | {cell} |" for name, cell in cells.items()) + "\n"


def _of_transformers(readers: Mapping[str, str]) -> str:
    from transformers import __version__
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    left = [name for name in sorted(CAUSAL) if _served(name, readers).startswith(_UNREAD)]
    names = ", ".join(f"`{name}`" for name in left)
    return _OTHERS.format(version=__version__, count=len(CAUSAL), served=len(CAUSAL) - len(left), names=names)


def _served(name: str, readers: Mapping[str, str]) -> str:
    """The cell that says what reads an architecture."""
    for spelling in (name, name.replace("-", "_")):
        if spelling in readers:
            return f"`{readers[spelling]}`"
        if TEXT_TYPES.get(spelling) in readers:
            return f"{_WRAPPED}: `{readers[TEXT_TYPES[spelling]]}`"
    return f"{_UNREAD}: {NOT_SERVED.get(name, 'no family yet')}"
