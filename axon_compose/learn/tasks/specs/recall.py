"""Recall of what stood next to a token earlier: multi-query associative recall, and induction."""

from typing import Final, Self

from pydantic import Field, model_validator

from axon_compose.registry import Options, TaskSpec

__all__ = ["SPECS", "InductionOptions", "MqarOptions", "keys_of", "values_of"]

_CODE: Final = "axon_compose.learn.tasks.recall"


def keys_of(vocab: int) -> int:
    """How many tokens of a vocabulary are keys: the first half of them."""
    return vocab // 2


def values_of(vocab: int) -> int:
    """How many tokens of a vocabulary are values: the rest."""
    return vocab - vocab // 2


class MqarOptions(Options):
    """How much is to be remembered, and over which distance."""

    pairs: int = Field(8, ge=1, le=4096, description="Key-value pairs in a sequence, all of which are asked for.")
    vocab: int = Field(64, ge=4, le=2**17, description="Tokens: the first half are keys, the others values.")
    length: int | None = Field(
        None, ge=4, le=2**20, description="Tokens of a sequence, at least four for a pair, which is the default."
    )
    power: float = Field(
        0.1, gt=0, le=1, description="Exponent of the distances between pair and query: small ones are short."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.pairs > keys_of(self.vocab):
            raise ValueError(f"`pairs` is more than the {keys_of(self.vocab)} keys of `vocab`")
        if self.tokens < 4 * self.pairs:
            raise ValueError(f"`length` is less than four tokens for each of {self.pairs} pairs")
        return self

    @property
    def tokens(self) -> int:
        """Of a sequence."""
        return 4 * self.pairs if self.length is None else self.length


class InductionOptions(Options):
    """How long what repeats is."""

    length: int = Field(64, ge=8, le=2**20, description="Tokens of a sequence.")
    vocab: int = Field(64, ge=8, le=2**17, description="Tokens; at least half as many as a sequence has.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if 2 * self.vocab < self.length:
            raise ValueError("`vocab` is less than half of `length`, so that a period would hold a token twice")
        return self


SPECS: Final = (
    TaskSpec(
        name="mqar",
        options=MqarOptions,
        module=f"{_CODE}:mqar",
        summary="multi-query associative recall: pairs of keys and values, then every key again; which value was it?",
        source='Arora et al. 2023, "Zoology: Measuring and Improving Recall in Efficient Language Models" '
        "(arXiv:2312.04927)",
        vocabulary=lambda o: o.vocab,
        length=lambda o: o.tokens,
        chance=lambda o: 1 / values_of(o.vocab),
        examples=({"pairs": 4, "vocab": 16}, {"pairs": 32, "vocab": 128, "length": 256}),
    ),
    TaskSpec(
        name="induction",
        options=InductionOptions,
        module=f"{_CODE}:induction",
        summary="a random sequence that repeats with a period of its own: what came after this token before?",
        source='Olsson et al. 2022, "In-context Learning and Induction Heads" (arXiv:2209.11895)',
        vocabulary=lambda o: o.vocab,
        length=lambda o: o.length,
        chance=lambda o: 1 / o.vocab,
        examples=({"length": 16, "vocab": 12},),
    ),
)
