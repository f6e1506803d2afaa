"""The shipped architectures, and a part of them that has everything once."""

from __future__ import annotations

from functools import cache
from typing import Final

from axon_compose import Architecture, load
from axon_compose.registry._data_files import data_dir

__all__ = ["ALL", "VARIED", "shipped"]

#: Every file in `architectures`.
ALL: Final = sorted(path.stem for path in data_dir("architectures").glob("*.yaml"))
#: Architectures that between them use every component and every option that any shipped one uses: for tests of what is
#: done with components, which two families of the same components have in common. `test_shipped.py` holds it; a family
#: that brings something new is added.
VARIED: Final = [
    "apertus",
    "axk2",
    "baichuan_m1",
    "bailing_moe_linear",
    "bailing_moe_v3",
    "bit-axon-small",
    "cohere2_moe",
    "deepseek_v2",
    "deepseek_v4",
    "dots3_note_text",
    "exaone4",
    "falcon_h1",
    "falcon_mamba",
    "gemma3n_text",
    "gemma4_text",
    "gpt_oss",
    "hunyuan",
    "glm5_next",
    "hy_v4",
    "hybrid-demo",
    "inkling",
    "jamba",
    "kimi_k3",
    "klear",
    "kolibri1",
    "laguna",
    "lfm3",
    "ling2_5",
    "llama",
    "llama4_text",
    "longcat_flash_ngram",
    "mimo_v2_flash",
    "minimax",
    "minimax_m3",
    "ministral3",
    "mistral4",
    "mistral_large4",
    "mpt",
    "muse_spark",
    "nemotron",
    "olmo_hybrid",
    "openai_gpt",
    "openelm",
    "opt",
    "persimmon",
    "phimoe",
    "phixtral",
    "plamo2",
    "qwen3_next",
    "qwen4_exp",
    "recurrent_gemma",
    "rwkv7",
    "shared-kv",
    "step3p5",
    "talkie",
    "xglm",
    "zamba2",
]


@cache
def shipped(name: str) -> Architecture:
    """A shipped architecture, compiled once in a process, for tests of what is done with it."""
    return load(name)
