"""The reporting callbacks of mlx_lm (Weights & Biases, SwanLab), called with our runs as with those of mlx_lm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import mlx.core as mx

from axon_compose.learn.metrics import Metrics
from axon_compose.machine.libraries import require_library

__all__ = ["SERVICES", "CallbackListener", "reporting_callback"]

#: What `mlx_lm.tuner.callbacks` reports to.
SERVICES: Final = ("wandb", "swanlab")


def reporting_callback(services: str, project: str, folder: Path, config: Mapping[str, Any]) -> Any:
    """The callback of mlx_lm for some services.

    What they write goes into `FOLDER.log`, since a folder of a model holds nothing else.

    Args:
        services: Names between commas.
        project: What the run belongs to there.
        folder: Of the model; the run is called as it is.
        config: What is said of the run.

    Raises:
        Refusal: AX506 the package of a service is not installed.
        ValueError: There is no such service.
    """
    for name in services.split(","):
        if name not in SERVICES:
            raise ValueError(f"{name!r} is none of {', '.join(SERVICES)}")
        require_library(name, name, f"reporting to {name}")
    from mlx_lm.tuner.callbacks import get_reporting_callbacks

    log = folder.with_name(f"{folder.name}.log") / folder.name
    log.mkdir(parents=True, exist_ok=True)
    return get_reporting_callbacks(services, project_name=project, log_dir=str(log), config=dict(config))


class CallbackListener:
    """Hands what happens in a run to a `mlx_lm.tuner.callbacks.TrainingCallback`, with the keys of mlx_lm's trainer.

    Args:
        callback: Such a callback; Weights & Biases and SwanLab are examples of what one does.
    """

    def __init__(self, callback: Any) -> None:
        self._callback = callback

    def step(self, metrics: Metrics, part: float) -> None:
        """Report a step as `on_train_loss_report`."""
        spent = metrics.spent
        seconds = max(spent.seconds, 1e-9)
        self._callback.on_train_loss_report(
            {
                "iteration": spent.steps,
                "train_loss": metrics.loss,
                "learning_rate": metrics.learning_rate,
                "iterations_per_second": spent.steps / seconds,
                "tokens_per_second": spent.tokens / seconds,
                "trained_tokens": spent.tokens,
                "peak_memory": mx.get_peak_memory() / 1e9,
                "gradient_norm": metrics.gradient_norm,
                **metrics.more,
            }
        )

    def evaluation(self, line: Mapping[str, Any]) -> None:
        """Report an evaluation as `on_val_loss_report`."""
        report = {"iteration": line["step"], "val_loss": line["loss"], "val_time": line["duration"]}
        report |= {name: line[name] for name in ("bits_per_byte", "accuracy") if name in line}
        self._callback.on_val_loss_report(report)

    def sample(self, line: Mapping[str, Any]) -> None:
        """Nothing: these services take numbers."""

    def checkpoint(self, folder: Path, steps: int) -> None:
        """Nothing."""
