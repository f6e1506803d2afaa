"""Models of text and images or sound: what their text model is called where config.json leaves it out.

Source: the default `text_config` of transformers 5.24's configuration classes; a test reads them again. What
transformers does not know is listed apart.
"""

from __future__ import annotations

from typing import Final

__all__ = ["FOREIGN", "OTHER_PARTS", "TEXT_TYPES"]

#: Fields about other parts than the text model. Older models of images have them beside the fields of the text model.
OTHER_PARTS: Final = ("vision_config", "audio_config")
#: Wrappers that transformers does not know, or not by this name.
FOREIGN: Final = ("kimi_vl", "lfm2-vl", "pixtral")

_BY_TEXT_TYPE: Final = {
    "apertus1p5_text": "apertus1p5",
    "aria_text": "aria",
    "cohere_compass_text": "cohere_compass",
    "cohere2": "aya_vision cohere2_vision",
    "deepseek_v3": "kimi_k25 kimi_vl",
    "dots3_note_text": "dots3_note",
    "ernie4_5_vl_moe_text": "ernie4_5_vl_moe",
    "exaone4": "exaone4_5",
    "gemma": "paligemma",
    "gemma3_text": "gemma3 shieldgemma2",
    "gemma3n_text": "gemma3n",
    "gemma4_text": "gemma4",
    "gemma4_unified_text": "gemma4_unified gemma4_unified_assistant",
    "glm4v_moe_text": "glm4v_moe",
    "glm4v_text": "glm46v glm4v glmga",
    "glm5_next_text": "glm5_next",
    "glm_ocr_text": "glm_ocr",
    "granite": "granite_speech granite_speech_plus",
    "granite4_vision_text": "granite4_vision",
    "hunyuan_vl_text": "hunyuan_vl",
    "hy_v4_vl_text": "hy_v4_vl",
    "hyperclovax": "hyperclovax_vision_v2",
    "inkling2_loop_text": "inkling2_loop",
    "inkling2_text": "inkling2",
    "inkling_text": "inkling_mm_model",
    "lfm2": "lfm2_vl lfm2-vl",
    "lfm3": "lfm3_vl",
    "llama": "deepseek_vl deepseek_vl_hybrid glmasr idefics3 janus llava llava_next llava_next_video omniasr "
    "perception_lm smolvlm video_llava vipllava voxtral",
    "llama4_text": "llama4",
    "minimax_m3_vl_text": "minimax_m3_vl",
    "mistral": "idefics2 mistral3 pixtral",
    "mistral_large4_text": "mistral_large4",
    "muse_glimmer_text": "muse_glimmer",
    "muse_spark_text": "muse_spark",
    "nemotron_h": "nemo_speechlm nemotron_h_omni",
    "opt": "blip-2 instructblip instructblipvideo",
    "persimmon": "fuyu",
    "qwen2": "audioflamingo3 fast_vlm got_ocr2 internvl llava_onevision musicflamingo ovis2 pp_chart2table qwen2_audio "
    "vibevoice vibevoice_asr video_llama_3",
    "qwen2_5_vl_text": "qwen2_5_vl",
    "qwen2_vl_text": "qwen2_vl",
    "qwen3": "fun_asr_nano lighton_ocr moss_transcribe_diarize qianfan_ocr qwen3_asr",
    "qwen3_vl_moe_text": "qwen3_vl_moe",
    "qwen3_vl_text": "cosmos3_omni qwen3_vl",
    "qwen3_5_moe_text": "qwen3_5_moe",
    "qwen3_5_text": "jev minicpm_ocr minicpmv4_6 minicpmv4_7 qwen3_5",
    "qwen4_exp_text": "qwen4_exp",
    "step3p5": "step3p7",
}
#: `model_type` of the whole to that of its text model, unless it says another.
TEXT_TYPES: Final = {whole: text for text, wholes in _BY_TEXT_TYPE.items() for whole in wholes.split()}
