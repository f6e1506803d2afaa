"""What can be proved about a model: `check` tries every truth of its caches and masks on a small copy."""

from axon_compose.analysis._check import TRUTHS, check, check_plan
from axon_compose.analysis._report import CheckReport, Truth
from axon_compose.analysis._shrink import shrink, small_architecture
from axon_compose.analysis._verify import PEERS, TOLERANCE, verify
from axon_compose.analysis._verify_report import LayerGaps, PeerReport, Verification

__all__ = [
    "PEERS",
    "TOLERANCE",
    "TRUTHS",
    "CheckReport",
    "LayerGaps",
    "PeerReport",
    "Truth",
    "Verification",
    "check",
    "check_plan",
    "shrink",
    "small_architecture",
    "verify",
]
