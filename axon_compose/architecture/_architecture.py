"""A description that was loaded: what can be asked of it, and the model that it makes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from axon_compose.notebook import Shown
from axon_compose.plan import Compiled

if TYPE_CHECKING:
    from axon_compose.analysis.cost import CostSheet
    from axon_compose.analysis.devices import DevicesSheet, Hardware, Schedule, SimulationSheet
    from axon_compose.analysis.devices import Layout as Division
    from axon_compose.analysis.diff import Difference
    from axon_compose.analysis.lint import Advice
    from axon_compose.checkpoints.weights import LoadPlan, Progress
    from axon_compose.devices import TensorPlan
    from axon_compose.language.document import Layout
    from axon_compose.model import LanguageModel
    from axon_compose.proof.check import CheckReport

__all__ = ["Architecture"]


class Architecture(Shown, Compiled):
    """A description without errors: read, validated and planned.

    Attributes:
        document: The file with its bases merged in.
        warnings: What was noticed and does not stop a build.
        config: The config.json that the sizes come from, or None.
        sources: Name to text of the files that diagnostics point into.
    """

    @classmethod
    def of(cls, compiled: Compiled) -> Architecture:
        """The front door to what was compiled."""
        return cls(**{part.name: getattr(compiled, part.name) for part in fields(compiled)})

    def cost(
        self,
        *,
        context: int | Iterable[int] | None = None,
        dtype: str = "bfloat16",
        batch: int = 1,
        quantize: int | None = None,
        training: bool = False,
        segment: int | None = None,
        memory: int | None = None,
        bandwidth: float | None = None,
    ) -> CostSheet:
        """What the model costs, counted from the plan; builds nothing and imports no mlx. See `analysis.cost`.

        Args:
            context: Tokens of each sequence, one number or several; 4096 and 65536 unless given.
            dtype: Of weights and caches: `float32`, `bfloat16` or `float16`.
            batch: Sequences that run together.
            quantize: Bits of quantised weights; not quantised unless given.
            training: Count the memory of a training step too.
            segment: Layers that the step of `axon-compose train` computes again at a time (gradient checkpointing);
                0 saves all.
            memory: Bytes that there are: does it fit, and how far?
            bandwidth: Bytes that memory moves in a second.

        Raises:
            ValueError: If a number is out of its range.
        """
        from axon_compose.analysis.cost import CONTEXTS, cost

        return cost(
            self._plan,
            context=CONTEXTS if context is None else context,
            dtype=dtype,
            batch=batch,
            quantize=quantize,
            training=training,
            segment=segment,
            memory=memory,
            bandwidth=bandwidth,
        )

    def spread(
        self,
        devices: int,
        *,
        hardware: Hardware | None = None,
        context: int | None = None,
        dtype: str = "bfloat16",
        batch: int = 1,
        quantize: int | None = None,
        training: bool = False,
        segment: int | None = None,
    ) -> DevicesSheet:
        """What the model needs on several devices, by every strategy, and which to take; imports no mlx.

        Args:
            devices: How many there are, all alike.
            hardware: What is assumed of each; `analysis.devices.Hardware()` unless given.
            context: Tokens of each sequence; 4096 unless given.
            dtype: Of weights, caches and what is sent: `float32`, `bfloat16` or `float16`.
            batch: Sequences, all devices together.
            quantize: Bits of quantised weights; not quantised unless given.
            training: Count the memory of a training step too.
            segment: Layers that a training step computes again at a time; 0 saves all.

        Raises:
            Refusal: `AX403`, the number of devices is out of its range.
            ValueError: If another number is out of its range.
        """
        from axon_compose.analysis.devices import CONTEXT, spread

        return spread(
            self._plan,
            devices,
            hardware=hardware,
            context=CONTEXT if context is None else context,
            dtype=dtype,
            batch=batch,
            quantize=quantize,
            training=training,
            segment=segment,
        )

    def split(self, devices: int, rank: int = 0, *, quantize: int | None = None) -> TensorPlan:
        """The plan of one of several devices that share the components of every layer; imports no mlx.

        Args:
            devices: How many there are.
            rank: The device, from 0.
            quantize: Bits of quantised weights, which are cut between their groups; not quantised unless given.

        Returns:
            The device's plan, which `cost` and other functions of plans take, what is split and what is whole and why.

        Raises:
            Refusal: `AX980`, no layer can be split over this number of devices.
            ValueError: Weights are not quantised to this number of bits.
            PluginFault: `AX212`, the record of a component raises, or gives something else than was agreed.
        """
        from axon_compose.analysis.cost import Storage
        from axon_compose.devices import split_plan

        return split_plan(self._plan, devices, rank, groups=Storage("bfloat16", quantize).groups(self._plan))

    def simulate(
        self,
        devices: int,
        *,
        hardware: Hardware | None = None,
        context: int | None = None,
        dtype: str = "bfloat16",
        batch: int = 1,
        quantize: int | None = None,
        training: bool = False,
        segment: int | None = None,
        layout: Division | None = None,
        schedule: Schedule = "1f1b",
        micro: int | None = None,
        overlap: bool = True,
    ) -> SimulationSheet:
        """Schedules of a cluster, simulated job by job from the figures of the plan; see `analysis.devices.simulate`.

        Args:
            devices: How many there are, all alike.
            hardware: What is assumed of each; `analysis.devices.Hardware()` unless given.
            context: Tokens of each sequence; 4096 unless given.
            dtype: Of weights, caches, gradients and what is sent: `float32`, `bfloat16` or `float16`.
            batch: Sequences, all devices together.
            quantize: Bits of quantised weights, for decoding alone.
            training: Simulate a training step, else decoding.
            segment: Layers that a training step computes again at a time; saves all unless given.
            layout: Look at this division alone, at all unless given.
            schedule: Of a training step: `1f1b` or `gpipe`.
            micro: Micro-batches of each replica, or groups of its sequences under way; what is fastest unless given.
            overlap: Whether gradients are summed while others are still computed.

        Raises:
            Refusal: `AX403`, no such number of devices or layout; `AX980` or `AX990`, the model cannot be
                divided so.
            ValueError: If another number is out of its range.
        """
        from axon_compose.analysis.devices import CONTEXT, simulate

        return simulate(
            self._plan,
            devices,
            hardware=hardware,
            context=CONTEXT if context is None else context,
            dtype=dtype,
            batch=batch,
            quantize=quantize,
            training=training,
            segment=segment,
            layout=layout,
            schedule=schedule,
            micro=micro,
            overlap=overlap,
        )

    def build(
        self,
        *,
        weights: str | Path | None = None,
        dtype: str | None = None,
        seed: int = 0,
        allow_large: bool = False,
        layout: Layout | None = None,
        unpack: bool = False,
        progress: Progress | None = None,
    ) -> LanguageModel:
        """The model, with random weights or with those of a checkpoint; see `axon_compose.model.build`.

        Args:
            weights: Folder that `build` or `save` wrote, or a checkpoint that the file's rules can read, a folder or a
                GGUF file; random weights unless given.
            dtype: `float32`, `bfloat16` or `float16`; random weights are float32 unless given, those of a checkpoint as
                they come.
            seed: Of the random weights.
            allow_large: Do not compare the size with the memory that is free.
            layout: Who wrote the checkpoint, `huggingface` or `mlx`; the mark in its files unless given.
            unpack: Make plain numbers of quantised weights.
            progress: Called with the bytes read so far and in all.

        Raises:
            CheckpointError: If the weights do not fit into memory, or are not those of this model.
        """
        from axon_compose.model import build

        if weights is None:
            model = build(self._plan, dtype=dtype or "float32", seed=seed, allow_large=allow_large)
            model.compiled = self
            return model
        from axon_compose.checkpoints.trained import build_trained

        return build_trained(
            self,
            weights,
            dtype=dtype,
            seed=seed,
            allow_large=allow_large,
            layout=layout,
            unpack=unpack,
            progress=progress,
        )

    def load_plan(self, weights: str | Path, *, layout: Layout | None = None) -> LoadPlan:
        """Which tensor of a checkpoint becomes which weight; reads headers alone and imports no mlx.

        Args:
            weights: Folder of the checkpoint.
            layout: Who wrote it, `huggingface` or `mlx`; the mark in its files unless given.

        Raises:
            CheckpointError: With what is missing, unexpected or of another shape, and the rules to blame.
        """
        from axon_compose.checkpoints.weights import checkpoint_plan

        return checkpoint_plan(self._plan, self.document, Path(weights), layout)

    def diff(self, other: Architecture) -> Difference:
        """How another model differs from this one, in what it computes rather than how it is written."""
        from axon_compose.analysis.diff import compare

        return compare(self._plan, other.plan())

    def lint(self) -> Advice:
        """Advice: what is valid but suspicious, as warnings with codes AX7xx."""
        from axon_compose.analysis.lint import Advice, advise

        return Advice(advise(self.document, self._plan), sources=self.sources)

    def check(self, *, seed: int = 0, truths: Iterable[str] | None = None, devices: int | None = None) -> CheckReport:
        """Prove caches, masks and gradients on a small copy with random weights in float32.

        Args:
            seed: Of weights and tokens.
            truths: Names out of `axon_compose.proof.check.TRUTHS`; all unless given.
            devices: Also split the components over this number of devices, threads of this process, and compare.

        Raises:
            ArchitectureError: If a component cannot be made small.
            ValueError: If a name is not that of a check.
        """
        from axon_compose.proof.check import check

        return check(self, seed=seed, truths=truths, devices=devices)
