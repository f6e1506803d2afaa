"""Nodes to a validated document: dims, components, blocks and stack, bases merged in; imports no mlx."""

from axon_compose.document._blocks import report_no_component, written_norms
from axon_compose.document._document import Document, Path, place, within
from axon_compose.document._formulas import Unresolved, resolve
from axon_compose.document._huggingface import HuggingFace, SplitPart, WeightRule
from axon_compose.document._merge import FindArchitecture, merge
from axon_compose.document._read import VERSION, read_document
from axon_compose.document._sections import (
    Block,
    BranchItem,
    Component,
    Envelope,
    InlineBlock,
    Item,
    NormChoice,
    Stack,
)
from axon_compose.document.formula import is_formula

__all__ = [
    "VERSION",
    "Block",
    "BranchItem",
    "Component",
    "Document",
    "Envelope",
    "FindArchitecture",
    "HuggingFace",
    "InlineBlock",
    "Item",
    "NormChoice",
    "Path",
    "SplitPart",
    "Stack",
    "Unresolved",
    "WeightRule",
    "is_formula",
    "merge",
    "place",
    "read_document",
    "report_no_component",
    "resolve",
    "within",
    "written_norms",
]
