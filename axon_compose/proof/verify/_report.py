"""What a comparison with other implementations found, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from axon_compose.checkpoints.upstream import UpstreamFault
from axon_compose.notebook import Shown

__all__ = ["LayerGaps", "PeerReport", "Status", "Verification"]

Status = Literal["ok", "known fault", "FAIL", "error", "not installed"]


@dataclass(frozen=True)
class LayerGaps:
    """Differences of hidden states, each relative to the largest value.

    Attributes:
        embedding: Of what goes into the first layer.
        layers: Of what each layer gives.
    """

    embedding: float
    layers: tuple[float, ...]

    def first(self, tolerance: float) -> int | None:
        """The first layer that makes a difference; -1 if it is there before, None if all agree.

        Where the first layer agrees all the same, the implementations only divide the model at another place.
        """
        gaps = [self.embedding, *self.layers]
        if self.layers and self.layers[0] <= tolerance:
            gaps[0] = 0.0
        return next((at for at, gap in enumerate(gaps, -1) if not gap <= tolerance), None)


@dataclass(frozen=True)
class PeerReport:
    """The comparison with one implementation.

    Attributes:
        name: `mlx-lm` or `transformers`.
        version: Of its package; empty if it is not installed.
        status: `ok`; `known fault`, where the faults explain the difference or the error; `FAIL` where nothing does;
            `error` if it cannot run the checkpoint; `not installed`.
        forward: Largest difference of a logit in one forward pass, relative to the largest logit.
        cached: The same through the caches of both, a prompt and then token by token; None where not tried.
        same: Share of positions with the same most likely token.
        layers: Where the difference begins, if there is one; without the faults, where the status is `FAIL`.
        faults: Known faults that explain it; part of it, where the status is `FAIL`.
        left: The largest difference that is left without the faults.
        error: What the implementation raised.
    """

    name: str
    version: str
    status: Status
    forward: float | None = None
    cached: float | None = None
    same: float | None = None
    layers: LayerGaps | None = None
    faults: tuple[UpstreamFault, ...] = ()
    left: float | None = None
    error: str = ""

    @property
    def compared(self) -> bool:
        """Whether logits were compared, with a verdict."""
        return self.status in ("ok", "FAIL") or self.left is not None

    def to_dict(self, tolerance: float) -> dict[str, Any]:
        """The report as JSON-ready data; a figure that is no finite number becomes a string."""
        layers = self.layers
        return {
            "name": self.name,
            "version": self.version,
            "status": self.status,
            "forward": _finite(self.forward),
            "cached": _finite(self.cached),
            "same_token": self.same,
            "embedding": _finite(layers.embedding) if layers else None,
            "layers": [_finite(gap) for gap in layers.layers] if layers else None,
            "first_layer": layers.first(tolerance) if layers else None,
            "known_faults": [fault.to_dict() for fault in self.faults],
            "left": _finite(self.left),
            "error": self.error or None,
        }


@dataclass(frozen=True)
class Verification(Shown):
    """What `verify` found out about a checkpoint.

    Attributes:
        folder: Of the checkpoint, as it was given.
        family: Name of the file that read it.
        tokens: Number of random tokens.
        seed: Of the tokens.
        tolerance: Largest difference that counts as none.
        layers: The components of each layer, in a few words.
        peers: The comparisons, in order.
    """

    folder: str
    family: str
    tokens: int
    seed: int
    tolerance: float
    layers: tuple[str, ...]
    peers: tuple[PeerReport, ...]

    def __repr__(self) -> str:
        found = ", ".join(f"{peer.name} {peer.status}" for peer in self.peers)
        return f"<Verification of {self.folder} as {self.family}: {found or 'nothing compared'}>"

    @property
    def passed(self) -> bool:
        """Whether something was compared, and nothing differs that is not explained."""
        return any(peer.compared for peer in self.peers) and all(peer.status != "FAIL" for peer in self.peers)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready data."""
        return {
            "folder": self.folder,
            "family": self.family,
            "tokens": self.tokens,
            "seed": self.seed,
            "tolerance": self.tolerance,
            "passed": self.passed,
            "layers": list(self.layers),
            "peers": [peer.to_dict(self.tolerance) for peer in self.peers],
        }


def _finite(figure: float | None) -> float | str | None:
    return figure if figure is None or abs(figure) < float("inf") else str(figure)
