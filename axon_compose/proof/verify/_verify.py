"""A checkpoint in our model and in other implementations: the same tokens in, the same logits out?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import mlx.core as mx

from axon_compose.checkpoints.compile import compile_checkpoint
from axon_compose.checkpoints.gguf._compile import compile_gguf
from axon_compose.checkpoints.gguf._path import is_gguf
from axon_compose.checkpoints.trained import build_trained
from axon_compose.checkpoints.upstream import OWN_HEAD, UpstreamFault, faults_of, written_faults
from axon_compose.diagnostics import CheckpointError
from axon_compose.machine.files import read_regular
from axon_compose.model import blamed
from axon_compose.plan import Compiled
from axon_compose.proof.check._compare import distance, number
from axon_compose.proof.verify._gguf import write_published
from axon_compose.proof.verify._mlx_lm import run_mlx_lm
from axon_compose.proof.verify._report import LayerGaps, PeerReport, Verification
from axon_compose.proof.verify._trace import Trace, trace
from axon_compose.proof.verify._transformers import run_transformers

__all__ = ["PEERS", "TOLERANCE", "verify"]

#: Implementations to compare with.
PEERS: Final = ("mlx-lm", "transformers")
#: Largest difference relative to the largest logit. Two float32 runs of a right model stay below 1e-5.
TOLERANCE: Final = 1e-4
#: It is their code: whatever it raises is reported, and the next is tried. One in mlx-lm ends the process on import.
_RAISED: Final = (Exception, SystemExit)


def verify(
    folder: str | Path,
    *,
    family: str | Path | None = None,
    tokens: int = 64,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    against: Sequence[str] = PEERS,
    settings: Iterable[str] = (),
    allow_large: bool = False,
) -> Verification:
    """Run a checkpoint in float32 in our model and in others, on the same random tokens.

    A peer that disagrees is run again without known faults that can matter; the fewest that explain it are reported.

    Args:
        folder: Of the checkpoint, or a GGUF file: the others then get its decoded weights in a folder of their own.
        family: The file that reads it; its own family unless given.
        tokens: Length of the sequence; the last of them also go one by one through the caches.
        seed: Of the tokens.
        tolerance: Largest difference of logits, relative to the largest.
        against: Names out of `PEERS`.
        settings: Texts of `--set`.
        allow_large: Do not compare the size with the memory that is free.

    Raises:
        ArchitectureError: If the checkpoint's config.json cannot be read as its family.
        CheckpointError: If its weights are not those of the model, or do not fit into memory.
    """
    with TemporaryDirectory(prefix="axon-compose-verify-") as place:
        subject = _Subject(Path(folder), family, tuple(settings), tokens, seed, allow_large, Path(place))
        ours = subject.ours()
        peers = [subject.compared(peer, ours, tolerance) for peer in against]
    plan = subject.architecture.plan()
    names = (", ".join(m.use.name for branch in layer.branches for m in branch.members) for layer in plan.layers)
    return Verification(str(folder), plan.name, tokens, seed, tolerance, tuple(names), tuple(peers))


def _config(path: Path) -> dict[str, Any]:
    """config.json as the other implementations read it.

    Raises:
        CheckpointError: AX601 it is YAML that is not JSON, or has been changed.
    """
    try:
        return dict(json.loads(read_regular(path)))
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError("AX601", f"`{path}` is not JSON, so only axon-compose can read it: {error}") from error


class _Subject:
    """A checkpoint and the tokens that it is tried on.

    Attributes:
        weights: What we read.
        folder: What the others read: the same, or of a GGUF file its model as a checkpoint.
    """

    def __init__(
        self,
        weights: Path,
        family: str | Path | None,
        settings: tuple[str, ...],
        length: int,
        seed: int,
        large: bool,
        place: Path,
    ) -> None:
        self.weights, self.family, self.settings, self.large = weights, family, settings, large
        self.architecture = self.load(())
        self.folder = folder = place if is_gguf(weights) else weights
        if is_gguf(weights):
            write_published(self.architecture, weights, place, allow_large=large)
        self.config = _config(folder / "config.json")
        width = self.architecture.plan().dims.vocab_size
        self.tokens = mx.random.randint(0, width, (1, length), key=mx.random.key(seed))
        self.steps = min(8, length)

    def load(self, settings: tuple[str, ...]) -> Compiled:
        compiled = compile_gguf if is_gguf(self.weights) else compile_checkpoint
        return compiled(self.weights, self.family, settings=(*self.settings, *settings))

    def ours(self, settings: tuple[str, ...] = ()) -> Trace:
        architecture = self.load(settings) if settings else self.architecture
        model = build_trained(architecture, self.weights, dtype="float32", allow_large=self.large)
        with blamed(architecture.plan(), lambda: model(self.tokens)):
            found = trace(model, self.tokens, self.steps)
            mx.eval(found.cached)
        return found

    def theirs(self, peer: str, faults: Sequence[UpstreamFault] = ()) -> Trace:
        if peer == "transformers":
            return run_transformers(self.folder, self.tokens)
        fields: dict[str, Any] = {}
        for fault in faults:
            fields |= fault.fields(self.config) if fault.fields else {}
        repairs = tuple(partial(fault.repair, config=self.inner) for fault in faults if fault.repair)
        found = run_mlx_lm(self.folder, self.tokens, self.steps, fields=fields, repairs=repairs)
        mx.eval(found.cached)
        return found

    def compared(self, peer: str, ours: Trace, tolerance: float) -> PeerReport:
        """Compare with one implementation, and look for what explains a difference."""
        report = PeerReport(peer, _version(peer), "ok")
        theirs = None
        try:
            theirs = self.theirs(peer)
            report = _judged(report, ours, theirs, tolerance)
        except _RAISED as error:
            if isinstance(error, ModuleNotFoundError) and error.name == "torch":
                return replace(report, status="not installed")
            report = replace(report, status="error", error=_one_line(error))
        if report.status == "ok":
            return report
        if theirs is not None:
            report = replace(report, layers=_gaps(ours, theirs))
        return self.explained(report, ours, tolerance)

    def explained(self, report: PeerReport, ours: Trace, tolerance: float) -> PeerReport:
        """The report with the known faults that explain it, none that could be left out; or with what they leave."""
        length, written = self.tokens.shape[1], written_faults(self.architecture)
        own_head = report.name == OWN_HEAD.peer and any(found.code == "AX611" for found in self.architecture.warnings)
        known = (*faults_of(report.name, self.config, length, written), *((OWN_HEAD,) if own_head else ()))
        removable = tuple(fault for fault in known if not fault.error)
        again = self.without(removable, report, ours, tolerance) if removable else report
        if again.status == "error":
            named = tuple(fault for fault in known if fault.error and fault.error in again.error)
            return replace(again, status="known fault", faults=named) if named else again
        if again.status == "FAIL":
            return again
        for fault in removable:
            fewer = tuple(other for other in again.faults if other is not fault)
            tried = self.without(fewer, report, ours, tolerance) if fewer else report
            again = tried if tried.status == "known fault" else again
        return again

    def without(
        self, faults: tuple[UpstreamFault, ...], report: PeerReport, ours: Trace, tolerance: float
    ) -> PeerReport:
        """The same report, and what is left of the difference when some faults are out of the way."""
        wanted = tuple(text for fault in faults if fault.settings for text in fault.settings(self.inner))
        mine = self.ours(wanted) if wanted else ours
        try:
            theirs = self.theirs(report.name, faults)
        except _RAISED as error:
            return replace(report, error=_one_line(error)) if report.status == "error" else report
        again = _judged(report, mine, theirs, tolerance)
        left = max(again.forward or 0.0, again.cached or 0.0)
        if again.status == "ok":
            return replace(report, status="known fault", faults=faults, left=left)
        return replace(report, status="FAIL", faults=faults, left=left, layers=_gaps(mine, theirs))

    @property
    def inner(self) -> dict[str, Any]:
        """config.json with the fields of the text model on top."""
        return {**self.config, **(self.config.get("text_config") or {})}


def _judged(report: PeerReport, ours: Trace, theirs: Trace, tolerance: float) -> PeerReport:
    forward = distance(ours.logits, theirs.logits)
    cached = None
    if ours.cached is not None and theirs.cached is not None:
        cached = distance(ours.cached, theirs.cached)
    fine = forward <= tolerance and (cached is None or cached <= tolerance)
    same = None
    if ours.logits.shape == theirs.logits.shape:
        same = number(mx.mean(mx.argmax(ours.logits, -1) == mx.argmax(theirs.logits, -1)))
    return replace(report, status="ok" if fine else "FAIL", forward=forward, cached=cached, same=same)


def _gaps(ours: Trace, theirs: Trace) -> LayerGaps | None:
    """How far apart the hidden states are after each layer, if both have the same number of layers."""
    if not ours.hidden or len(ours.hidden) != len(theirs.hidden):
        return None
    first, *rest = (distance(mine, other) for mine, other in zip(ours.hidden, theirs.hidden, strict=True))
    return LayerGaps(first, tuple(rest))


def _version(peer: str) -> str:
    try:
        return version(peer)
    except PackageNotFoundError:
        return ""


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
