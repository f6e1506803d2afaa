"""The process in which something is measured; see `axon_compose.proof.bench._process`."""

import sys

from axon_compose.machine.output import results_alone
from axon_compose.proof.bench._process import answer

with results_alone(to_the_end=True):
    answer(sys.stdin, sys.stdout)
