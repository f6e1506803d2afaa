"""A model of transformers that runs on torch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM, logging
from transformers.utils.logging import disable_progress_bar

from axon_compose.analysis.measurement import Workload
from axon_compose.machine.memory import held

__all__ = ["make"]

_CACHES: Final = ("cache", "past_key_values", "cache_params")


def make(arguments: Mapping[str, Any]) -> TorchModel:
    """Load a folder."""
    logging.set_verbosity_error()
    disable_progress_bar()
    dtype = getattr(torch, arguments["dtype"])
    model = AutoModelForCausalLM.from_pretrained(arguments["folder"], dtype=dtype, local_files_only=True)
    return TorchModel(model, arguments["vocabulary"])


class TorchModel:
    """Runs a model with caches of transformers, greedily, on random tokens.

    Args:
        model: Of transformers.
        vocabulary: Tokens that there are.
    """

    def __init__(self, model: Any, vocabulary: int) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model, self.vocabulary = model.to(self.device).eval(), vocabulary
        self.prompt = torch.zeros((1, 1), dtype=torch.long)
        self.token = self.prompt
        self.cache: dict[str, Any] = {}
        self.optimizer: Any = None
        self.program = held(self.weights()) - sum(self.weights().values())

    def begin(self, workload: Workload) -> None:
        torch.manual_seed(0)
        shape = (workload.batch, workload.prompt + workload.training)
        self.prompt = torch.randint(self.vocabulary, shape, device=self.device)
        self.model.train(workload.training)
        if workload.training and self.optimizer is None:
            self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-5)

    def prefill(self) -> None:
        self.cache, self.token = {}, self.prompt
        self.decode(1)

    @torch.inference_mode()  # type: ignore[untyped-decorator, unused-ignore]
    def decode(self, steps: int) -> None:
        for _ in range(steps):
            found = self.model(self.token, use_cache=True, logits_to_keep=1, **self.cache)
            # Its name has changed from release to release.
            self.cache = {name: found[name] for name in _CACHES if found.get(name) is not None}
            self.token = found.logits[:, -1:].argmax(-1)
        self._wait()

    def train(self) -> None:
        self.model(self.prompt, labels=self.prompt, use_cache=False).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._wait()

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def reset_peak(self) -> None:
        self.cache = {}
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    def peak_bytes(self) -> int:
        """On the CPU torch keeps no account: what the process held beyond what it needs to run at all.

        Weights are part of it, also where transformers maps their file and few of its pages are resident.
        """
        if self.device == "cuda":
            return int(torch.cuda.max_memory_allocated())
        return held(self.weights(), most=True) - self.program

    def weights(self) -> dict[int, int]:
        """Bytes of each by its address; those that are tied have one."""
        tensors = chain(self.model.parameters(), self.model.buffers())
        return {tensor.data_ptr(): tensor.nbytes for tensor in tensors}
