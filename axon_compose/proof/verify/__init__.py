"""A checkpoint run in our model and in others, compared; known faults of theirs are tried as explanations."""

from axon_compose.proof.verify._report import LayerGaps, PeerReport, Verification
from axon_compose.proof.verify._trace import Trace, layer_outputs, trace
from axon_compose.proof.verify._verify import PEERS, TOLERANCE, verify

__all__ = ["PEERS", "TOLERANCE", "LayerGaps", "PeerReport", "Trace", "Verification", "layer_outputs", "trace", "verify"]
