"""Nodes to a validated document: dims, components, blocks and stack, bases merged in; imports no mlx."""

from typing import TYPE_CHECKING

from axon_compose.language.document._blocks import report_no_component, written_norms
from axon_compose.language.document._document import Document, Path, place, within
from axon_compose.language.document._formulas import (
    MAX_WORK,
    Unresolved,
    allowed_values,
    cached_parse,
    dim_values,
    resolve,
)
from axon_compose.language.document._merge import FindArchitecture, merge, with_base
from axon_compose.language.document._models import MODEL_NAME
from axon_compose.language.document._read import VERSION, read_document
from axon_compose.language.document._sections import (
    Block,
    BranchItem,
    Component,
    Envelope,
    InlineBlock,
    Item,
    NormChoice,
    PartComponent,
    Stack,
)
from axon_compose.language.document.formula import FormulaError, Meter, is_formula
from axon_compose.machine.lazy import importing

if TYPE_CHECKING:
    from axon_compose.language.document._checkpoints import CheckpointEnvelope
    from axon_compose.language.document._gguf import Gguf
    from axon_compose.language.document._huggingface import (
        HuggingFace,
        KnownFault,
        Layout,
        ModelType,
        SplitPart,
        WeightRule,
    )
    from axon_compose.language.document._patterns import Pattern, PatternError, Target, parse_pattern, parse_target

__all__ = [
    "MAX_WORK",
    "MODEL_NAME",
    "VERSION",
    "Block",
    "BranchItem",
    "CheckpointEnvelope",
    "Component",
    "Document",
    "Envelope",
    "FindArchitecture",
    "FormulaError",
    "Gguf",
    "HuggingFace",
    "InlineBlock",
    "Item",
    "KnownFault",
    "Layout",
    "Meter",
    "ModelType",
    "NormChoice",
    "PartComponent",
    "Path",
    "Pattern",
    "PatternError",
    "SplitPart",
    "Stack",
    "Target",
    "Unresolved",
    "WeightRule",
    "allowed_values",
    "cached_parse",
    "dim_values",
    "is_formula",
    "merge",
    "parse_pattern",
    "parse_target",
    "place",
    "read_document",
    "report_no_component",
    "resolve",
    "with_base",
    "within",
    "written_norms",
]

# What only files that read checkpoints have is imported when it is asked for.
__getattr__ = importing(
    __name__,
    {
        "CheckpointEnvelope": "_checkpoints",
        "Gguf": "_gguf",
        "HuggingFace": "_huggingface",
        "KnownFault": "_huggingface",
        "Layout": "_huggingface",
        "ModelType": "_huggingface",
        "Pattern": "_patterns",
        "PatternError": "_patterns",
        "SplitPart": "_huggingface",
        "Target": "_patterns",
        "WeightRule": "_huggingface",
        "parse_pattern": "_patterns",
        "parse_target": "_patterns",
    },
)
