"""The process in which something is measured; see `axon_compose.proof.bench._process`."""

import sys

from axon_compose.proof.bench._process import answer

answer(sys.stdin, sys.stdout)
