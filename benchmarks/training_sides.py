"""One side of `bench_training.py`: a process that makes a step for each line that it reads, and says what it took.

It runs in other environments too, beside an older axon-compose or without any: nothing is imported before it is used.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

#: Of AdamW, the same for all.
BETAS: Final = (0.9, 0.95)
EPSILON: Final = 1e-8


class Clock:
    """Waits for a line, and writes one with what there is to say of the step that followed it."""

    def __init__(self) -> None:
        self.out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what a library prints is no answer
        self.began = (0.0, 0.0)

    def wait(self) -> None:
        if not sys.stdin.readline():
            os._exit(0)  # in the middle of somebody else's loop
        self.began = time.perf_counter(), time.process_time()

    def say(self, loss: float, peak: int | None = None) -> None:
        spent = time.perf_counter() - self.began[0], time.process_time() - self.began[1]
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        line = {"loss": loss, "clock": spent[0], "processor": spent[1], "peak": peak, "resident": resident}
        self.out.write(json.dumps(line) + "\n")
        self.out.flush()


class Rows:
    """The batches as an axon-compose trainer asks for them."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    @property
    def tokens_of_step(self) -> int:
        return int(self.rows.shape[1] * (self.rows.shape[2] - 1))

    def at(self, step: int) -> Any:
        import mlx.core as mx

        from axon_compose.learn import Batch

        row = mx.array(self.rows[step % len(self.rows)].astype(np.int32))
        return Batch(row[:, :-1], row[:, 1:])

    def held_out(self) -> list[Any]:
        return []


def axon(given: argparse.Namespace, rows: Any, clock: Clock) -> None:
    """`axon-compose train`, its step compiled as in a run of 500 steps."""
    import mlx.core as mx

    from axon_compose import load_model
    from axon_compose.learn import Budget, Recipe, Trainer

    recipe = Recipe(
        batch=rows.shape[1], length=rows.shape[2] - 1, learning_rate=given.rate, schedule="constant", warmup=0.0,
        weight_decay=0.0, beta1=BETAS[0], beta2=BETAS[1], epsilon=EPSILON, segment=int(given.checkpoint), compile="on",
    )  # fmt: skip
    trainer = Trainer(load_model(given.folder), Rows(rows), recipe, Budget("steps", 10**6))
    while True:
        clock.wait()
        mx.reset_peak_memory()
        loss = trainer.step().loss
        clock.say(loss, mx.get_peak_memory())


def mlx_lm(given: argparse.Namespace, rows: Any, clock: Clock) -> None:
    """The loop of `mlx_lm.lora --fine-tune-type full`, which leaves embedding, head and final norm as they are."""
    import mlx.core as mx
    import mlx.optimizers as optim
    from mlx_lm.tuner.callbacks import TrainingCallback
    from mlx_lm.tuner.trainer import TrainingArgs, train
    from mlx_lm.utils import load

    class Report(TrainingCallback):
        def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
            clock.say(train_info["train_loss"], mx.get_peak_memory())

    def batches(**_: Any) -> Iterator[tuple[Any, Any]]:
        """The same rows in the same order, in place of those that it sorts by length and draws."""
        lengths = mx.array([[0, rows.shape[2]]] * rows.shape[1])
        for step in range(10**6):
            clock.wait()
            mx.reset_peak_memory()
            yield mx.array(rows[step % len(rows)].astype(np.int32)), lengths

    model = load(str(given.folder), trust_remote_code=True)[0]
    model.freeze()
    for layer in model.layers:
        layer.unfreeze()
    optimizer = optim.AdamW(given.rate, BETAS, EPSILON, 0.0, bias_correction=True)
    options = TrainingArgs(
        batch_size=rows.shape[1], iters=10**6, steps_per_report=1, steps_per_save=10**9,
        max_seq_length=rows.shape[2], adapter_file=os.devnull, grad_checkpoint=given.checkpoint,
    )  # fmt: skip
    train(model, optimizer, [], args=options, iterate_batches=batches, training_callback=Report())


def torch(given: argparse.Namespace, rows: Any, clock: Clock) -> None:
    """The same stack of transformers in torch, eager, on all processors."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(given.folder, dtype=torch.float32).train()
    if given.checkpoint:
        model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW(model.parameters(), given.rate, BETAS, EPSILON, weight_decay=0.0)
    for step in range(10**6):
        clock.wait()
        row = torch.from_numpy(rows[step % len(rows)].astype(np.int64))
        logits = model(input_ids=row[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), row[:, 1:].flatten())
        del logits
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        clock.say(float(loss.detach()))


def hybrid() -> Any:
    """Granite 4, six Mamba-2 layers and two of attention: 19.4M parameters."""
    from transformers import GraniteMoeHybridConfig, GraniteMoeHybridForCausalLM

    config = GraniteMoeHybridConfig(
        vocab_size=8192, hidden_size=384, shared_intermediate_size=1024, intermediate_size=1024, num_hidden_layers=8,
        layer_types=[*["mamba"] * 3, "attention"] * 2, num_attention_heads=6, num_key_value_heads=6,
        attention_multiplier=0.125, embedding_multiplier=1.0, residual_multiplier=1.0, logits_scaling=1.0,
        position_embedding_type="rope", num_local_experts=0, num_experts_per_tok=0, mamba_n_heads=12, mamba_d_head=64,
        mamba_d_state=64, mamba_n_groups=1, mamba_chunk_size=64, tie_word_embeddings=True, max_position_embeddings=2048,
    )  # fmt: skip
    return GraniteMoeHybridForCausalLM(config)


def llama() -> Any:
    """Ten layers of the same sizes: 20.8M parameters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=8192, hidden_size=384, intermediate_size=1024, num_hidden_layers=10, num_attention_heads=6,
        num_key_value_heads=6, tie_word_embeddings=True, max_position_embeddings=2048,
    )  # fmt: skip
    return LlamaForCausalLM(config)


MODELS: Final[dict[str, Callable[[], Any]]] = {"hybrid": hybrid, "llama": llama}


def checkpoint(folder: Path, name: str) -> None:
    """Write a model of 20M parameters, of `MODELS`, as transformers draws it."""
    import torch

    torch.manual_seed(0)
    MODELS[name]().save_pretrained(folder)


SIDES: Final[dict[str, Callable[[argparse.Namespace, Any, Clock], None]]] = {
    "axon": axon,
    "mlx_lm": mlx_lm,
    "torch": torch,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=[*SIDES, "checkpoint"])
    parser.add_argument("folder", type=Path, help="the model")
    parser.add_argument("rows", nargs="?", type=Path, help="token ids of (steps, batch, length + 1)")
    parser.add_argument("--model", choices=MODELS, default="hybrid", help="of a checkpoint (default: hybrid)")
    parser.add_argument("--sequences", type=int, help="of a step (default: all)")
    parser.add_argument("--rate", type=float, default=1e-3, help="of learning (default: 1e-3)")
    parser.add_argument("--checkpoint", action="store_true", help="compute each layer again in the backward pass")
    given = parser.parse_args()
    if given.side == "checkpoint":
        checkpoint(given.folder, given.model)
    else:
        SIDES[given.side](given, np.load(given.rows)[:, : given.sequences], Clock())


if __name__ == "__main__":
    main()
