"""Speed and memory on this machine: what is measured runs in a process of its own, so that this one imports no mlx."""

from axon_compose.analysis.measurement import Measurement, Spread, Workload
from axon_compose.proof.bench._contest import Contest, Line, workloads
from axon_compose.proof.bench._folders import Peer, same_weights
from axon_compose.proof.bench._ours import subject
from axon_compose.proof.bench._process import Failed
from axon_compose.proof.bench._record import Subject
from axon_compose.proof.bench._rounds import Progress, contest, measure

__all__ = [
    "Contest",
    "Failed",
    "Line",
    "Measurement",
    "Peer",
    "Progress",
    "Spread",
    "Subject",
    "Workload",
    "contest",
    "measure",
    "same_weights",
    "subject",
    "workloads",
]
