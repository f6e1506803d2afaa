"""Engram, a memory that is looked up by the last few tokens: options and record."""

from itertools import accumulate
from typing import Any, Final

from pydantic import Field

from axon_compose.registry import Array, ComponentSpec, Constant, Dims, Learning, Normal, Options, State, written
from axon_core.specs._flops import convolution_flops, product_flops
from axon_core.specs._hashing import check_token, multipliers, primes
from axon_core.specs._saved import convolution_saved, each, in_float32, norm_saved
from axon_core.specs._small import limited
from axon_core.specs.splits.ngrams import engram_split

__all__ = ["SPECS", "EngramOptions"]

Shapes = dict[str, tuple[int, ...]]


class EngramOptions(Options):
    """Vectors of the last 2, 3, … tokens from hash tables, gated by the stream that they are added to (Engram)."""

    longest: int = Field(default=3, gt=1, description="Length of the longest n-gram.")
    tables: int = Field(default=8, gt=0, description="Hash tables for n-grams of each length.")
    rows: int = Field(
        gt=1, lt=2**31, description="Least rows of a table; each has as many as the next prime that none has yet."
    )
    multiple: int = Field(
        default=1, gt=0, description="The rows of all tables together are filled up to a multiple of this."
    )
    width: int | None = Field(
        default=None,
        gt=0,
        description="Numbers of a row; unless given those of all tables together are as many as the hidden size.",
    )
    index: int = Field(
        default=0, ge=0, description="Which of the model's layers of this kind it is, from 0: their tables differ."
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="What the multipliers of the hashes are made of.")
    eos: int | None = Field(
        default=None,
        ge=0,
        description="Token that ends a text; n-grams do not reach over it, and it stands for what is before a text.",
    )
    d_conv: int = Field(
        default=4, gt=0, description="Taps of the convolution over what is looked up, the current token's included."
    )
    dilation: int | None = Field(
        default=None, gt=0, description="Tokens from one tap to the next; `longest` unless given."
    )
    norm_eps: float = Field(default=1e-6, gt=0, description="Added to the mean square in its norms.")
    norm_offset: float = Field(default=0.0, description="Added to the learned scales of its norms.")

    @property
    def count(self) -> int:
        """Number of all tables."""
        return (self.longest - 1) * self.tables

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of the tables, those of the shortest n-grams first."""
        return primes(self.rows, (self.index + 1) * self.count)[-self.count :]

    @property
    def starts(self) -> tuple[int, ...]:
        """The first row of each table, where they lie one after the other."""
        return (0, *accumulate(self.sizes[:-1]))

    def multipliers(self, vocab_size: int) -> tuple[int, ...]:
        """What the last tokens are multiplied by, the newest first."""
        return multipliers(self.longest, vocab_size, self.seed, self.index)

    @property
    def stride(self) -> int:
        """Tokens from one tap of the convolution to the next."""
        return self.dilation or self.longest

    def row(self, hidden_size: int) -> int:
        """Numbers of a row.

        Raises:
            ValueError: The tables are too many to share the hidden size.
        """
        if self.width is None and hidden_size < self.count:
            raise ValueError(f"`hidden_size` ({hidden_size}) is less than the number of tables ({self.count})")
        return self.width or hidden_size // self.count


def _params(options: EngramOptions, dims: Dims) -> Shapes:
    check_token(options.eos, dims.vocab_size)
    wide, hidden = dims.hidden_size, dims.hidden_size // dims.streams
    width = options.row(hidden)
    rows, read = sum(options.sizes), options.count * width
    return {
        "embedder.weight": (rows + -rows % options.multiple, width),
        "key_proj.weight": (wide, read),
        "value_proj.weight": (hidden, read),
        "key_norm.weight": (wide,),
        "query_norm.weight": (wide,),
        "conv_norm.weight": (wide,),
        "conv1d.weight": (wide, options.d_conv, 1),
    }


def _buffers(options: EngramOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    return {
        "multipliers": options.multipliers(dims.vocab_size),
        "sizes": options.sizes,
        "starts": options.starts,
    }


def _looked_up(options: EngramOptions, dims: Dims) -> int:
    """Numbers of all rows of a token."""
    return options.count * options.row(dims.hidden_size // dims.streams)


def _active(options: EngramOptions, dims: Dims) -> int:
    """All but the table, and a row of every table in it."""
    shapes = {name: shape for name, shape in _params(options, dims).items() if name != "embedder.weight"}
    sizes = (shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in shapes.values())
    return sum(sizes) + _looked_up(options, dims)


def _flops(options: EngramOptions, dims: Dims, tokens: int, context: int) -> int:
    shapes = {name: shape for name, shape in _params(options, dims).items() if name.endswith("proj.weight")}
    return product_flops(shapes, tokens) + convolution_flops(dims.hidden_size, options.d_conv, tokens)


def _saved(options: EngramOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    """What is looked up and where (indices of eight bytes), three norms, both sides of the gates, the convolution."""
    wide, streams = dims.hidden_size, dims.streams
    found = each(tokens, looked_up=_looked_up(options, dims), value=wide // streams)
    found += in_float32(tokens, rows=2 * options.count, gates=5 * streams)
    for name in ("key", "query", "conv"):
        found += norm_saved(tokens, wide, streams, name=name, offset=options.norm_offset)
    found += in_float32(tokens, keys=wide, queries=wide, sigmoid=wide)
    return found + convolution_saved(tokens, wide, options.d_conv, dtype)


def _cache(options: EngramOptions, dims: Dims) -> State:
    before = (options.d_conv - 1) * options.stride
    return State((Array("tokens", (options.longest - 1, 1), "float32"), Array("conv", (before, dims.hidden_size))))


def _shrink(options: EngramOptions, dims: Dims) -> dict[str, Any]:
    limits = {"longest": 3, "tables": 2, "rows": 53, "multiple": 4, "width": 8, "index": 1, "eos": 2, "d_conv": 4}
    return written(options) | limited(options, limits)


_LEARNING: Final = Learning(
    undecayed=("embedder.weight",),
    adamw=("embedder.weight",),
    initial=lambda options, dims: {
        "*norm.weight": None,
        "conv1d.weight": Constant(0.0),
        "value_proj.weight": Normal(residual=True),
        "*": Normal(),
    },
)

SPECS: Final = (
    ComponentSpec(
        name="engram",
        kind="layer",
        options=EngramOptions,
        module="axon_core.engram:Engram.from_options",
        learning=_LEARNING,
        summary="A memory looked up by hashes of the last few tokens, gated by the stream, and convolved (Engram).",
        source='Cheng et al. 2026, "Conditional Memory via Scalable Lookup" (arXiv:2601.07372)',
        cache=_cache,
        params=_params,
        buffers=_buffers,
        active=_active,
        flops=_flops,
        touched=lambda options, dims, tokens: {"embedder.weight": tokens * options.count},
        saved=_saved,
        reads={"tokens": None},
        split=engram_split,
        shrink=_shrink,
        examples=(
            {"rows": 101},
            {"rows": 50, "longest": 2, "tables": 2, "eos": 2, "multiple": 16, "norm_offset": 1.0},
            {"rows": 31, "tables": 2, "width": 8, "index": 1, "seed": 7, "d_conv": 2, "dilation": 1},
        ),
    ),
)
