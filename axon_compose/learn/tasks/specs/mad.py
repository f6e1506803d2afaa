"""The six tasks of MAD: recall three times, selective copying, compression and memorisation."""

from typing import Final, Self

from pydantic import Field, model_validator

from axon_compose.learn.tasks.specs.recall import values_of
from axon_compose.registry import Options, TaskSpec

__all__ = [
    "SPECS",
    "CompressionOptions",
    "CopyingOptions",
    "FuzzyOptions",
    "MemorisationOptions",
    "NoisyOptions",
    "RecallOptions",
]

_CODE: Final = "axon_compose.learn.tasks.mad"
_SOURCE: Final = 'Poli et al. 2024, "Mechanistic Design and Scaling of Hybrid Architectures" (arXiv:2403.17844)'


class RecallOptions(Options):
    """How many keys there are, and how long a sequence is."""

    vocab: int = Field(16, ge=4, le=2**16, description="Tokens: the first half are keys, the others values.")
    length: int = Field(128, ge=4, le=2**14, multiple_of=2, description="Tokens of a sequence.")


class NoisyOptions(RecallOptions):
    """The same, and how much noise there is."""

    noise: float = Field(0.2, ge=0, lt=1, description="Share of pairs that are two tokens of noise instead.")
    noise_vocab: int = Field(16, ge=1, le=2**16, description="Further tokens, which are noise.")


class FuzzyOptions(RecallOptions):
    """The same, and how long keys and values are."""

    pairs: int = Field(8, ge=1, le=1024, description="Different pairs that a sequence is made of.")
    motif: int = Field(3, ge=1, le=8, description="Most tokens of a key, and of a value; each has 1 to this many.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.length < 4 * self.motif:
            raise ValueError("`length` is less than four times `motif`, so that a pair might not fit twice")
        return self


class CopyingOptions(Options):
    """How much is copied out of how much noise."""

    vocab: int = Field(16, ge=2, le=2**20, description="Tokens that may be copied; two more are blank and copy.")
    copies: int = Field(16, ge=1, le=2**16, description="Tokens of a sequence that are to be copied.")
    length: int = Field(256, ge=2, le=2**20, description="Tokens of a sequence; the last `copies` ask.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if 2 * self.copies > self.length:
            raise ValueError("`length` is less than twice `copies`: each is read once and asked for once")
        return self


class CompressionOptions(Options):
    """How much one vector has to hold."""

    vocab: int = Field(16, ge=2, le=2**20, description="Tokens that are compressed; one more says that it is time to.")
    length: int = Field(32, ge=2, le=512, description="Tokens of a sequence, that one included.")


class MemorisationOptions(Options):
    """How many facts there are to learn by heart."""

    vocab: int = Field(256, ge=4, le=2**20, description="Tokens: the first half are keys, the others values.")
    length: int = Field(32, ge=2, le=2**16, multiple_of=2, description="Tokens of a sequence, two for each fact.")
    table: int = Field(0, ge=0, lt=2**32, description="Seed of the facts, which are the same in all sequences.")


def _most_frequent(options: MemorisationOptions) -> float:
    """The share of keys that have the most frequent value: an answer to all of them."""
    from axon_compose.learn.tasks.mad import facts

    values: list[int] = facts(options).tolist()
    return max(map(values.count, set(values))) / len(values)


SPECS: Final = (
    TaskSpec(
        name="in-context-recall",
        options=RecallOptions,
        module=f"{_CODE}:recall",
        summary="keys, each followed by its value of this sequence: which value, where a key comes again?",
        source=_SOURCE,
        vocabulary=lambda o: o.vocab,
        length=lambda o: o.length,
        chance=lambda o: 1 / values_of(o.vocab),
        examples=({"vocab": 8, "length": 32},),
    ),
    TaskSpec(
        name="noisy-recall",
        options=NoisyOptions,
        module=f"{_CODE}:recall",
        summary="in-context recall with noise between the pairs",
        source=_SOURCE,
        vocabulary=lambda o: o.vocab + o.noise_vocab,
        length=lambda o: o.length,
        chance=lambda o: 1 / values_of(o.vocab),
        examples=({"vocab": 8, "length": 32, "noise": 0.4},),
    ),
    TaskSpec(
        name="fuzzy-recall",
        options=FuzzyOptions,
        module=f"{_CODE}:fuzzy",
        summary="in-context recall of keys and values that are several tokens long",
        source=_SOURCE,
        vocabulary=lambda o: o.vocab,
        length=lambda o: o.length,
        chance=lambda o: 1 / values_of(o.vocab),
        examples=({"vocab": 8, "length": 64, "pairs": 4},),
    ),
    TaskSpec(
        name="selective-copying",
        options=CopyingOptions,
        module=f"{_CODE}:copying",
        summary="tokens among blanks: repeat them in order when asked",
        source=_SOURCE,
        vocabulary=lambda o: o.vocab + 2,
        length=lambda o: o.length,
        chance=lambda o: 1 / o.vocab,
        examples=({"copies": 4, "length": 16},),
    ),
    TaskSpec(
        name="compression",
        options=CompressionOptions,
        module=f"{_CODE}:compression",
        head="axon_compose.learn.tasks.reconstruction:Reconstruction",
        summary="a random sequence, of which a small network reads only the last vector: what was it?",
        source=_SOURCE,
        vocabulary=lambda o: o.vocab + 1,
        length=lambda o: o.length,
        chance=lambda o: 1 / o.vocab,
        examples=({"length": 8},),
    ),
    TaskSpec(
        name="memorisation",
        options=MemorisationOptions,
        module=f"{_CODE}:memorisation",
        summary="facts that no sequence tells: which value belongs to this key, always?",
        source=_SOURCE,
        vocabulary=lambda o: o.vocab + 1,
        length=lambda o: o.length,
        chance=_most_frequent,
        examples=({"vocab": 32, "length": 16},),
    ),
)
