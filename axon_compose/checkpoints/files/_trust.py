"""JSON of a checkpoint without what names code.

A built folder is opened with `--trust-remote-code`, since its model file is Python. transformers then also runs code
that the JSON files beside it name, from the folder or from a repository of the Hub: none of those names may travel.
Source: transformers 5.24, `AutoTokenizer.from_pretrained`, `AutoConfig.from_pretrained`, `pipeline`, and
`modeling_utils` for attention kernels of the Hub; mlx-lm 0.32.2, `utils._get_classes` and `tokenizer_utils.load`.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["without_code"]

#: Fields whose value names classes, files or repositories of code, wherever they are.
_NAME_CODE: Final = {"auto_map", "custom_generate", "custom_pipelines", "model_file", "trust_remote_code"}
#: Fields that name a module of an installed package by a word, or a kernel of the Hub by a path.
_ONE_WORD: Final = ("attn_implementation", "experts_implementation", "chat_template_type", "tool_parser_type")


def without_code(value: Any) -> tuple[Any, list[str]]:
    """The same JSON without fields that name code, and the paths of those that were left out."""
    left_out: list[str] = []

    def cleaned(value: Any, path: str) -> Any:
        if isinstance(value, list):
            return [cleaned(item, f"{path}{index}.") for index, item in enumerate(value)]
        if not isinstance(value, dict):
            return value
        left_out.extend(path + key for key in value if _names_code(key, value[key]))
        return {key: cleaned(item, f"{path}{key}.") for key, item in value.items() if not _names_code(key, item)}

    return cleaned(value, ""), left_out


def _names_code(key: str, value: Any) -> bool:
    """Whether a field's value says which code to run."""
    if key.removeprefix("_") in _ONE_WORD:
        words = value.values() if isinstance(value, dict) else [value]
        return not all(word is None or (isinstance(word, str) and word.isidentifier()) for word in words)
    return key in _NAME_CODE
