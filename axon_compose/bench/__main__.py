"""The process in which something is measured; see `axon_compose.bench._process`."""

from axon_compose.bench._process import answer

answer()
