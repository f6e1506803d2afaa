"""What can be checked of a model by itself: caches, masks and gradients on a small copy with random weights."""

from axon_compose.proof.check._check import TRUTHS, check, check_plan
from axon_compose.proof.check._report import CheckReport, Truth
from axon_compose.proof.check._shrink import shrink, small_architecture

__all__ = ["TRUTHS", "CheckReport", "Truth", "check", "check_plan", "shrink", "small_architecture"]
