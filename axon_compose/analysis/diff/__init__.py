"""The difference between two plans in what they compute, whatever the files call it; imports no mlx."""

from axon_compose.analysis.diff._change import Change, Difference, Total
from axon_compose.analysis.diff._compare import compare

__all__ = ["Change", "Difference", "Total", "compare"]
