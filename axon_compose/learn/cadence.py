"""How often a run does something beside its steps. Imports no mlx."""

from __future__ import annotations

from dataclasses import dataclass

from axon_compose.learn._options import check, option

__all__ = ["Cadence"]


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """What comes between the steps, in equal parts of the budget; at the end all of it comes once more.

    Attributes:
        evaluations: How often the loss of what is held out is measured.
        samples: How often a text is written.
        checkpoints: How often the folder is written anew.
        prompt: What samples begin with.
        sample_tokens: Tokens of a sample.
    """

    evaluations: int = option(10, "how often the held-out loss is measured, in equal parts of the budget", least=0)
    samples: int = option(4, "how often a text of the model is shown", least=0)
    checkpoints: int = option(8, "how often the folder is written anew", least=0)
    prompt: str = option("", "what samples begin with", choices=None)
    sample_tokens: int = option(200, "tokens of a sample", least=1)

    def __post_init__(self) -> None:
        """Refuse what is out of range.

        Raises:
            ValueError: Naming the option.
        """
        check(self)

    @staticmethod
    def due(times: int, before: float, after: float) -> bool:
        """Whether something that comes so often comes now.

        Args:
            times: How often.
            before: The part of the budget that was spent before the step.
            after: The part that is spent now.
        """
        return int(before * times) < int(min(after, 1) * times)
