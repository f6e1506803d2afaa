"""Options of rotary position embedding (RoPE)."""

from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from axon_compose.registry import Options
from axon_core.specs._heads import switch

__all__ = ["Rope", "RopeOptions", "RopeScaling"]


#: What each type of scaling must have besides `factor`, and what it may have.
_NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "linear": (),
    "dynamic": ("original_max_position_embeddings",),
    "llama3": ("original_max_position_embeddings",),
    "yarn": ("original_max_position_embeddings",),
    "longrope": ("original_max_position_embeddings", "short_factor", "long_factor"),
    "proportional": (),
}
_TAKES: Final[dict[str, tuple[str, ...]]] = {
    "linear": (),
    "dynamic": ("max_position_embeddings",),
    "llama3": ("low_freq_factor", "high_freq_factor"),
    "yarn": ("beta_fast", "beta_slow", "truncate", "attention_factor", "mscale", "mscale_all_dim"),
    "longrope": ("max_position_embeddings", "attention_factor"),
    "proportional": (),
}


class RopeScaling(Options):
    """How the rotation is stretched for contexts longer than the model was first trained with."""

    type: Literal["linear", "dynamic", "llama3", "yarn", "longrope", "proportional"] = Field(
        description="linear: positions divided by `factor`; dynamic: a larger theta (NTK); llama3: low frequencies "
        "divided; yarn: a ramp between both, and sharper attention; longrope: a factor for every frequency; "
        "proportional: linear, but `dims` or `fraction` choose the fastest pairs of the whole head."
    )
    factor: float | None = Field(
        default=None,
        ge=1,
        description="New context length over the original one; `proportional` has 1 unless given, and `longrope` may "
        "have `max_position_embeddings` instead.",
    )
    original_max_position_embeddings: int | None = Field(
        default=None, gt=1, description="Context length, in tokens, before the stretch."
    )
    max_position_embeddings: int | None = Field(
        default=None,
        gt=1,
        description="dynamic, longrope: context length, in tokens, that the model is laid out for; "
        "`factor` times the original one unless given. The choice is made once, not anew for every call.",
    )
    low_freq_factor: float = Field(
        default=1.0, gt=0, description="llama3: wavelengths above original/this are stretched."
    )
    high_freq_factor: float = Field(default=4.0, gt=0, description="llama3: wavelengths below original/this are kept.")
    beta_fast: float = Field(default=32.0, gt=0, description="yarn: frequencies with more turns than this are kept.")
    beta_slow: float = Field(
        default=1.0, gt=0, description="yarn: frequencies with fewer turns than this are stretched."
    )
    truncate: bool = Field(default=True, description="yarn: round the ends of the ramp to whole dimensions.")
    mscale: float | None = Field(
        default=None, ge=0, description="yarn: with `mscale_all_dim`, weight of the gain on queries and keys."
    )
    mscale_all_dim: float | None = Field(
        default=None, ge=0, description="yarn: weight of the part of that gain that is divided out."
    )
    attention_factor: float | None = Field(
        default=None,
        gt=0,
        description="yarn, longrope: factor of queries and keys; follows from `factor` unless given.",
    )
    short_factor: list[float] | None = Field(
        default=None, description="longrope: a factor for every frequency, for contexts within the original length."
    )
    long_factor: list[float] | None = Field(default=None, description="longrope: the same for longer contexts.")

    @model_validator(mode="after")
    def _fits_type(self) -> Self:
        for name in _NEEDS[self.type]:
            if getattr(self, name) is None:
                raise ValueError(f"`{self.type}` scaling needs `{name}`")
        known = self.type == "proportional" or (self.type == "longrope" and self.max_position_embeddings is not None)
        if self.factor is None and not known:
            instead = " or `max_position_embeddings`" if self.type == "longrope" else ""
            raise ValueError(f"`{self.type}` scaling needs `factor`{instead}")
        allowed = {"type", "factor", *_NEEDS[self.type], *_TAKES[self.type]}
        for name in type(self).model_fields:
            if name in self.model_fields_set - allowed:
                raise ValueError(f"`{name}` does not apply to `{self.type}` scaling")
        if self.type == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"`high_freq_factor` ({self.high_freq_factor:g}) must be above "
                f"`low_freq_factor` ({self.low_freq_factor:g})"
            )
        return self

    @property
    def original_length(self) -> int:
        """Tokens before the stretch; every type but `linear` has it."""
        assert self.original_max_position_embeddings is not None
        return self.original_max_position_embeddings

    @property
    def stretch(self) -> float:
        """New length over the original one."""
        if self.factor is not None:
            return self.factor
        if self.type == "proportional":
            return 1.0
        assert self.max_position_embeddings is not None
        return max(1.0, self.max_position_embeddings / self.original_length)

    @property
    def length(self) -> float:
        """Tokens that the model is laid out for."""
        return self.max_position_embeddings or self.stretch * self.original_length

    @property
    def factors(self) -> list[float]:
        """The factors of `longrope` for that length."""
        factors = self.long_factor if self.length > self.original_length else self.short_factor
        assert factors is not None
        return factors


class RopeOptions(Options):
    """Rotary position embedding: pairs of a head's dimensions are turned by an angle that grows with the position."""

    theta: float = Field(default=10000.0, gt=1, description="Base of the frequencies; larger for longer contexts.")
    dims: int | None = Field(
        default=None, gt=0, multiple_of=2, description="Dimensions of a head that are rotated; all unless given."
    )
    fraction: float | None = Field(default=None, gt=0, le=1, description="The same as a part of `head_dim`, e.g. 0.5.")
    traditional: bool = Field(default=False, description="Pair neighbours (0,1), (2,3) … instead of the two halves.")
    reverse: bool = Field(default=False, description="Rotate by the negative angle, as nanochat does.")
    scaling: RopeScaling | None = Field(default=None, description="Stretch for contexts longer than the original ones.")

    @model_validator(mode="after")
    def _one_width(self) -> Self:
        if self.dims is not None and self.fraction is not None:
            raise ValueError("give `dims` or `fraction`, not both")
        return self

    def with_dims(self, head_dim: int) -> Self:
        """The same with the number of dimensions that are rotated of a head so wide, for heads of another width."""
        return self.model_copy(update={"dims": self.rotated(head_dim), "fraction": None})

    def rotated(self, head_dim: int) -> int:
        """Number of rotated dimensions of a head.

        Raises:
            ValueError: They are odd, more than `head_dim`, or do not fit the lists of `longrope`.
        """
        if self.dims is not None:
            dims = self.dims
        else:
            dims = head_dim if self.fraction is None else int(head_dim * self.fraction)
            if self.scaling is not None and self.scaling.type == "proportional":
                dims -= dims % 2  # whole pairs, as Hugging Face counts them
        if dims > head_dim:
            raise ValueError(f"`rope.dims` ({dims}) is more than `head_dim` ({head_dim})")
        if dims == 0 or dims % 2:
            raise ValueError(f"rope needs an even number of dimensions to rotate, not {dims} of `head_dim` {head_dim}")
        for name in ("short_factor", "long_factor"):
            factors = getattr(self.scaling, name, None)
            if factors is not None and len(factors) != dims // 2:
                raise ValueError(f"`{name}` has {len(factors)} entries; {dims} rotated dimensions need {dims // 2}")
        return dims


#: `true` is short for a mapping, `false` for none.
Rope = Annotated[RopeOptions | None, BeforeValidator(switch, json_schema_input_type=bool | RopeOptions | None)]
