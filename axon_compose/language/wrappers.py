"""Models of text and images or sound: what their text model is called where config.json leaves it out.

Source: the default `text_config` of transformers 5.24's configuration classes; a test reads them again.
"""

from __future__ import annotations

from typing import Final

__all__ = ["TEXT_TYPES"]

_BY_TEXT_TYPE: Final = {
    "apertus1p5_text": "apertus1p5",
    "cohere2": "aya_vision cohere2_vision",
    "deepseek_v3": "kimi_k25",
    "gemma": "paligemma",
    "gemma3_text": "gemma3 shieldgemma2",
    "gemma3n_text": "gemma3n",
    "gemma4_text": "gemma4",
    "granite": "granite_speech granite_speech_plus",
    "lfm2": "lfm2_vl",
    "lfm3": "lfm3_vl",
    "llama": "deepseek_vl deepseek_vl_hybrid glmasr idefics3 janus llava llava_next llava_next_video omniasr "
    "perception_lm smolvlm video_llava vipllava voxtral",
    "mistral": "idefics2 mistral3",
    "muse_glimmer_text": "muse_glimmer",
    "nemotron_h": "nemo_speechlm nemotron_h_omni",
    "qwen2": "audioflamingo3 fast_vlm got_ocr2 internvl llava_onevision musicflamingo ovis2 pp_chart2table qwen2_audio "
    "vibevoice vibevoice_asr video_llama_3",
    "qwen3": "fun_asr_nano lighton_ocr moss_transcribe_diarize qianfan_ocr qwen3_asr",
    "qwen3_vl_moe_text": "qwen3_vl_moe",
    "qwen3_vl_text": "cosmos3_omni qwen3_vl",
    "qwen3_5_moe_text": "qwen3_5_moe",
    "qwen3_5_text": "jev minicpm_ocr minicpmv4_6 minicpmv4_7 qwen3_5",
    "step3p5": "step3p7",
}
#: `model_type` of the whole to that of its text model, unless it says another.
TEXT_TYPES: Final = {whole: text for text, wholes in _BY_TEXT_TYPE.items() for whole in wholes.split()}
