"""What can be proved about a model: `check` tries every truth of its caches and masks on a small copy."""

from axon_compose.analysis._check import TRUTHS, check, check_plan
from axon_compose.analysis._report import CheckReport, Truth
from axon_compose.analysis._shrink import shrink, small_architecture

__all__ = ["TRUTHS", "CheckReport", "Truth", "check", "check_plan", "shrink", "small_architecture"]
