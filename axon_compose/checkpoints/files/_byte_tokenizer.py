"""A tokenizer without training: one token for each byte, then three special tokens."""

from __future__ import annotations

from typing import Any, Final

from axon_compose.checkpoints.files._record import dump_json
from axon_compose.checkpoints.files._tokenizer_files import TokenizerFiles

__all__ = ["byte_tokenizer"]

#: Token ids follow the 256 bytes in this order.
SPECIAL_TOKENS: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

CHAT_TEMPLATE: Final = (
    "{%- for message in messages -%}\n"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}\n"
    "{{ '<|im_start|>assistant\\n' }}\n"
    "{%- endif -%}\n"
)


def byte_tokenizer(*, chat: bool = False) -> TokenizerFiles:
    """A tokenizer without training: token id b is the byte b, then three special tokens; every text comes back.

    Args:
        chat: With a template that wraps the turns of a chat in special tokens, as a model expects that was trained on
            them. A base model's prompt is left as it is.
    """
    letters = _byte_letters()
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    specials = {token: 256 + i for i, token in enumerate(SPECIAL_TOKENS)}
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": token, **flags} for token, number in specials.items()],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {letters[byte]: byte for byte in range(256)},
            "merges": [],
        },
    }
    end = SPECIAL_TOKENS[0]
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "bos_token": end,
        "eos_token": end,
        "pad_token": end,
    }
    first = specials[end]
    ids: dict[str, Any] = {"bos_token_id": first, "eos_token_id": first, "pad_token_id": first}
    ids["vocab_size"] = 256 + len(specials)
    if chat:
        config["chat_template"] = CHAT_TEMPLATE
        ids["eos_token_id"] = [first, specials["<|im_end|>"]]  # the end of a text, and of a turn
    return TokenizerFiles({"tokenizer.json": dump_json(tokenizer), "tokenizer_config.json": dump_json(config)}, ids)


def _byte_letters() -> list[str]:
    """The visible letter that stands for each byte: itself in Latin-1 where visible, else one from U+0100 on.

    Source: Radford et al. 2019, the byte-level BPE of GPT-2.
    """
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    rest = (chr(0x100 + i) for i in range(256))
    return [chr(byte) if byte in visible else next(rest) for byte in range(256)]
