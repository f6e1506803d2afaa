"""`vocabulary`: other tokens, and rows for them wherever the model has some."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from axon_compose.diagnostics import Span
from axon_compose.registry import Dims
from axon_compose.surgery._component import Faulty
from axon_compose.surgery._draft import Draft
from axon_compose.surgery._editing import Editing
from axon_compose.surgery._rows import NoRows, with_rows

if TYPE_CHECKING:
    from axon_compose.surgery._tokens import NewTokens

__all__ = ["change_vocabulary", "give_tokens"]


def change_vocabulary(editing: Editing) -> None:
    """Give the model other tokens.

    Raises:
        Faulty: It cannot be done; reported.
    """
    vocabulary = editing.edit.vocabulary
    assert vocabulary is not None
    at = editing.place("vocabulary", key=True)
    if (vocabulary.corpus is None) == (vocabulary.tokenizer is None):
        hint = "such as `vocabulary: {corpus: texts}`"
        _uncut(editing, "a vocabulary is that of a `corpus`, or of a `tokenizer`", at, hint)
    if editing.home is None:
        _uncut(editing, "the tokenizer beside the weights is needed", at, "give their folder with `--weights DIR`")
    if editing.draft.tokens is not None:
        _uncut(editing, "the vocabulary changes twice", at, "write the second one as an edit of its own")
    from axon_compose.learn.data import Sources
    from axon_compose.surgery._tokens import Uncut, cut, replaced  # which take a tokenizer apart

    count = int(editing.dims.vocab_size)
    try:
        if vocabulary.tokenizer is not None:
            tokens = replaced(editing.home, Path(editing.text.beside(vocabulary.tokenizer)), count)
        else:
            names = vocabulary.corpus if isinstance(vocabulary.corpus, list) else [str(vocabulary.corpus)]
            tokens = cut(editing.home, Sources(tuple(str(editing.text.beside(name)) for name in names)), count)
        give_tokens(editing.draft, tokens)
    except (Uncut, NoRows) as fault:
        _uncut(editing, str(fault), at, "leave the vocabulary as it is")


def give_tokens(draft: Draft, tokens: NewTokens) -> None:
    """Rows for other tokens, wherever there are some.

    Raises:
        NoRows: A part depends on the tokens, and not by rows alone.
    """
    before, after = draft.dims, Dims({**draft.dims, "vocab_size": len(tokens.rows)})
    places = [branch.made for layer in draft.layers for branch in layer.branches]
    for made in (draft.ends, *places):
        for name, making in made.items():
            made[name] = with_rows(making, tokens.rows, before, after)
    draft.tokens, draft.dims = tokens, after
    draft.data["dims"]["vocab_size"] = len(tokens.rows)


def _uncut(editing: Editing, message: str, span: Span, hint: str) -> NoReturn:
    editing.problems.error("AX932", message, span, help=hint)
    raise Faulty
