"""N-gram embeddings, of the last few tokens together: options and record."""

from typing import Any, Final

from pydantic import Field

from axon_compose.registry import Array, ComponentSpec, Dims, Options, State, written
from axon_core.specs._flops import product_flops
from axon_core.specs._hashing import check_token
from axon_core.specs._learning import learned
from axon_core.specs._saved import each, in_float32
from axon_core.specs._small import limited
from axon_core.specs.splits.ngrams import ngram_split

__all__ = ["SPECS", "NGramEmbeddingOptions"]


class NGramEmbeddingOptions(Options):
    """Vectors of the last 2, 3, … tokens, looked up in hash tables, and averaged with that of the token."""

    longest: int = Field(default=4, gt=1, description="Length of the longest n-gram.")
    tables: int = Field(default=4, gt=0, description="Hash tables for n-grams of each length, all of different sizes.")
    eos: int | None = Field(default=None, ge=0, description="Token that ends a text; n-grams do not reach over it.")
    rows: int = Field(gt=0, description="One less than the rows of the first table; every further table has two more.")
    width: int | None = Field(
        default=None, gt=0, description="Numbers of a row; `hidden_size // number of tables` unless given."
    )

    @property
    def sizes(self) -> list[int]:
        """Rows of the tables, those of the shortest n-grams first."""
        return [self.rows + 2 * index + 1 for index in range((self.longest - 1) * self.tables)]

    def row(self, hidden_size: int) -> int:
        """Numbers of a row.

        Raises:
            ValueError: The tables are too many to share the hidden size.
        """
        count = len(self.sizes)
        if self.width is None and hidden_size < count:
            raise ValueError(f"`hidden_size` ({hidden_size}) is less than the number of tables ({count})")
        return self.width or hidden_size // count


def _params(options: NGramEmbeddingOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    check_token(options.eos, dims.vocab_size)
    width = options.row(dims.hidden_size)
    found: dict[str, tuple[int, ...]] = {}
    for index, rows in enumerate(options.sizes):
        found[f"embedders.{index}.weight"] = (rows, width)
        found[f"post_projs.{index}.weight"] = (dims.hidden_size, width)
    return found


def _projections(options: NGramEmbeddingOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in _params(options, dims).items() if name.startswith("post_projs.")}


def _active(options: NGramEmbeddingOptions, dims: Dims) -> int:
    """The projections, and a row of every table."""
    return sum(rows * width + width for rows, width in _projections(options, dims).values())


def _saved(options: NGramEmbeddingOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    """What is looked up, and where: indices of eight bytes."""
    count = len(options.sizes)
    return each(tokens, looked_up=options.row(dims.hidden_size) * count) + in_float32(tokens, rows=2 * count)


def _shrink(options: NGramEmbeddingOptions, dims: Dims) -> dict[str, Any]:
    return written(options) | limited(options, {"longest": 3, "tables": 2, "rows": 53, "width": 8, "eos": 2})


SPECS: Final = (
    ComponentSpec(
        name="ngram_embedding",
        kind="block",
        options=NGramEmbeddingOptions,
        module="axon_core.ngram_embedding:NGramEmbedding.from_options",
        learning=learned(undecayed=("embedders.*",), adamw=("embedders.*",)),
        summary="N-gram embeddings: the mean of the stream and of vectors of the last few tokens, from hash tables.",
        source='Meituan 2026, "LongCat-Flash-Lite"',
        cache=lambda options, dims: State((Array("tokens", (options.longest - 1, 1), "float32"),)),
        params=_params,
        active=_active,
        flops=lambda options, dims, tokens, context: product_flops(_projections(options, dims), tokens),
        touched=lambda options, dims, tokens: {
            f"embedders.{index}.weight": min(tokens, rows) for index, rows in enumerate(options.sizes)
        },
        saved=_saved,
        reads={"tokens": None},
        split=ngram_split,
        shrink=_shrink,
        examples=({"rows": 101}, {"rows": 50, "longest": 3, "tables": 2, "eos": 2}, {"rows": 50, "width": 8}),
    ),
)
