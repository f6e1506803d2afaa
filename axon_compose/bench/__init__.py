"""Speed and memory on this machine: what is measured runs in a process of its own, so that this one imports no mlx."""

from axon_compose.bench._ours import subject
from axon_compose.bench._record import Measurement, Spread, Subject, Workload
from axon_compose.bench._rounds import Progress, measure

__all__ = ["Measurement", "Progress", "Spread", "Subject", "Workload", "measure", "subject"]
