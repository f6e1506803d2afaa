"""The class of a copied tokenizer, which transformers chooses by the model type that stands beside it.

transformers 5 takes vocabulary and merges out of a `tokenizer.json`, and splits text as the class does that
`tokenizer_config.json` names, with a table of model types whose files name a wrong class: OLMo 2 and Granite name
`GPT2Tokenizer` and split otherwise. In a folder of ours `model_type` is another, and the name has to be right.

Source: transformers 5.24, `models/auto/tokenization_auto.py`; `findings/transformers-tokenizer-model-type.sh`.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["forced_class", "with_own_class"]

#: Classes that take a `tokenizer.json` as it is; the first is known to older versions too.
_AS_IT_IS: Final = ("PreTrainedTokenizerFast", "TokenizersBackend", "PythonBackend", "MistralCommonBackend")


def with_own_class(described: dict[str, Any], model_type: Any) -> dict[str, Any]:
    """A `tokenizer_config.json` that names the class which transformers takes where the tokenizer comes from.

    Args:
        described: The file's fields.
        model_type: That of the `config.json` beside it, if there is one.

    Returns:
        The same object where the class is right for any model type, or none is named.
    """
    named = described.get("tokenizer_class")
    if not isinstance(named, str) or not isinstance(model_type, str) or named in _AS_IT_IS:
        return described
    from transformers.models.auto import tokenization_auto as known

    plain = named.removesuffix("Fast")
    registered = (known.TOKENIZER_MAPPING_NAMES.get(model_type) or plain).removesuffix("Fast")
    if registered == plain:
        return described
    if registered in _AS_IT_IS:
        return described | {"tokenizer_class": _AS_IT_IS[0]}
    if model_type in known.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS:
        return described | {"tokenizer_class": registered}
    return described


def forced_class(described: dict[str, Any], model_type: str) -> str | None:
    """The class that transformers takes beside this model type, if that is not the file's and splits text in its way.

    Args:
        described: The fields of a `tokenizer_config.json`.
        model_type: That of the `config.json` beside it.
    """
    from transformers.models.auto import tokenization_auto as known

    registered = (known.TOKENIZER_MAPPING_NAMES.get(model_type) or "").removesuffix("Fast")
    named = str(described.get("tokenizer_class")).removesuffix("Fast")
    forced = model_type in known.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS and registered not in ("", named, *_AS_IT_IS)
    return registered if forced else None
