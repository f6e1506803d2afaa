"""Steps of `axon-compose train` and of `mlx_lm.lora --fine-tune-type full`, in turns: same weights, batches and length.

What is compared is the time of the processor, all threads together, so that other programs on the machine count less;
and the peak of MLX's memory. mlx_lm trains the layers alone and leaves embedding, head and final norm as they are.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.trainer import TrainingArgs, train
from mlx_lm.utils import load as load_folder

from axon_compose import Architecture, load, load_model
from axon_compose.checkpoints.folder import write_model
from axon_compose.learn import Batch, Budget, Recipe, Trainer


class Texts:
    """Random tokens, as both sides take them."""

    def __init__(self, batch: int, length: int, vocabulary: int) -> None:
        self.rows = np.random.default_rng(0).integers(0, vocabulary, (64 * batch, length + 1))
        self.batch, self.length = batch, length

    tokens_of_step = property(lambda self: self.batch * self.length)

    def at(self, step: int) -> Batch:
        rows = mx.array(np.take(self.rows, range(step * self.batch, (step + 1) * self.batch), 0, mode="wrap"))
        return Batch(rows[:, :-1].astype(mx.int32), rows[:, 1:].astype(mx.int32))

    def held_out(self) -> list[Batch]:
        return []


class Clock(TrainingCallback):
    """Processor time of each iteration but the first, in which mlx_lm traces its step."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.last: float | None = None

    def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
        now = time.process_time()
        if self.last is not None:
            self.times.append(now - self.last)
        self.last = now


def ours(trainer: Trainer, steps: int) -> tuple[list[float], int]:
    mx.reset_peak_memory()
    times = []
    for _ in range(steps):
        began = time.process_time()
        trainer.step()
        times.append(time.process_time() - began)
    return times, mx.get_peak_memory()


def theirs(model: Any, optimizer: Any, texts: Texts, steps: int, folder: Path) -> tuple[list[float], int]:
    mx.reset_peak_memory()
    clock = Clock()
    rows = [(row.tolist(), 0) for row in texts.rows]
    arguments = TrainingArgs(
        batch_size=texts.batch, iters=steps + 1, steps_per_report=1, steps_per_save=10**9,
        max_seq_length=texts.length + 1, adapter_file=str(folder / "adapters.safetensors"),
    )  # fmt: skip
    train(model, optimizer, rows, args=arguments, training_callback=clock)
    return clock.times, mx.get_peak_memory()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="a description")
    parser.add_argument("--batch", type=int, default=8, help="(default: 8)")
    parser.add_argument("--length", type=int, default=128, help="(default: 128)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--steps", type=int, default=2, help="of a round (default: 2)")
    given = parser.parse_args()
    architecture: Architecture = load(given.file)
    texts = Texts(given.batch, given.length, int(architecture.plan().dims.vocab_size))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        write_model(architecture, folder, tokenizer="bytes")
        trainer = Trainer(load_model(folder), texts, Recipe(batch=given.batch, compile="on"), Budget("steps", 1000))
        trainer.step()  # which traces it
        model, _ = load_folder(str(folder), trust_remote_code=True)
        model.freeze()
        for layer in model.layers:
            layer.unfreeze()
        optimizer = optim.AdamW(1e-5)
        found: dict[str, list[float]] = {"axon-compose": [], "mlx_lm": []}
        peaks: dict[str, int] = {}
        for _ in range(given.rounds):
            for name, (times, peak) in (
                ("axon-compose", ours(trainer, given.steps)),
                ("mlx_lm", theirs(model, optimizer, texts, given.steps, folder)),
            ):
                found[name] += times
                peaks[name] = peak
        for name, times in found.items():
            median = statistics.median(times)
            speed = texts.tokens_of_step / median
            memory = peaks[name] / 1e6
            print(f"{name:13} {median:7.3f} s of processor time a step, {speed:7,.0f} tokens/s, {memory:,.0f} MB")


if __name__ == "__main__":
    main()
