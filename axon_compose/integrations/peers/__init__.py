"""Other implementations of the same checkpoint, run to be compared with ours."""

from axon_compose.integrations.peers._fault import UpstreamFault
from axon_compose.integrations.peers._faults import FAULTS, faults_of
from axon_compose.integrations.peers._mlx_lm import run_mlx_lm
from axon_compose.integrations.peers._trace import Trace, trace
from axon_compose.integrations.peers._transformers import run_transformers

__all__ = ["FAULTS", "Trace", "UpstreamFault", "faults_of", "run_mlx_lm", "run_transformers", "trace"]
