"""How far a skill reaches: a needle at a distance, and sequences longer than those of training."""

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from axon_compose.learn.tasks.specs.recall import keys_of, values_of
from axon_compose.learn.tasks.specs.states import ORDERS
from axon_compose.registry import Options, TaskSpec

__all__ = ["SKILLS", "SPECS", "ExtrapolationOptions", "NeedleOptions"]

_CODE: Final = "axon_compose.learn.tasks.reach"
#: What can be learned short and asked long, and how many tokens it has.
SKILLS: Final = {**ORDERS, "induction": None}


class NeedleOptions(Options):
    """How far a fact is from the question."""

    distance: int = Field(
        64, ge=1, le=2**20, description="Fewest tokens from a value to its query: inside a window if they are fewer."
    )
    facts: int = Field(4, ge=1, le=2**12, description="Key-value pairs, all of which are asked for at the end.")
    vocab: int = Field(32, ge=4, le=2**17, description="Tokens: the first half are keys, the others values.")
    filler: int = Field(16, ge=1, le=2**20, description="Further tokens, of which the text between is made.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.facts > keys_of(self.vocab):
            raise ValueError(f"`facts` is more than the {keys_of(self.vocab)} keys of `vocab`")
        return self


class ExtrapolationOptions(Options):
    """Which skill, and how much longer it is asked for than it was learned."""

    skill: Literal["parity", "s3", "s5", "induction"] = Field("induction", description="The task that is learned.")
    length: int = Field(32, ge=8, le=2**14, description="Tokens of a sequence in training.")
    factor: int = Field(4, ge=2, le=64, description="How many times as long those are that are asked for.")

    @property
    def vocab(self) -> int:
        """Of the skill; for induction a token for each place of the longest period."""
        return SKILLS[self.skill] or -(-self.length * self.factor // 2)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.length * self.factor > 2**16:
            raise ValueError(f"`length` times `factor` is more than {2**16} tokens")
        return self


SPECS: Final = (
    TaskSpec(
        name="needle",
        options=NeedleOptions,
        module=f"{_CODE}:needle",
        summary="facts, a long filler, then questions: what a window or a decaying state has forgotten",
        source='Mohtashami and Jaggi 2023, "Landmark Attention: Random-Access Infinite Context Length for '
        'Transformers" (arXiv:2305.16300)',
        vocabulary=lambda o: o.vocab + o.filler,
        length=lambda o: 3 * o.facts + o.distance - 1,
        chance=lambda o: 1 / values_of(o.vocab),
        examples=({"distance": 8, "facts": 2}, {"distance": 200}),
    ),
    TaskSpec(
        name="extrapolation",
        options=ExtrapolationOptions,
        module=f"{_CODE}:extrapolation",
        summary="a skill that is learned on short sequences and asked for beyond their length",
        source='Anil et al. 2022, "Exploring Length Generalization in Large Language Models" (arXiv:2207.04901)',
        vocabulary=lambda o: o.vocab,
        length=lambda o: o.length,
        chance=lambda o: 1 / o.vocab,
        examples=({"skill": "parity", "length": 8, "factor": 2}, {"length": 16}),
    ),
)
