"""Configurations of published checkpoints: every field is accounted for, and the model has the published size.

The files in `configs/` have the fields and values of the files on the hub. Long lists of factors and the parts about
images and sound are shortened, since nothing depends on them here. They were written down from memory, except where the
table below says that a public copy of the file was read.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from axon_compose import Architecture, ArchitectureError, load
from axon_compose.checkpoints.huggingface._harmless import NEUTRAL, is_harmless
from axon_compose.language.layout import to_text
from axon_compose.plan import total_parameters
from axon_compose.plan.concrete import unroll
from axon_compose.registry import Registry

CONFIGS: Final = Path(__file__).parent / "configs"


class Published(NamedTuple):
    """What is known of a checkpoint besides its config.json.

    Attributes:
        family: What reads it.
        parameters: Of the text model, a tied head counted once and predictors of further tokens not at all: the number
            that the hub shows or that follows from the sizes, or as a text what the authors say, in billions.
        read: Whether a copy of the file was read; else it is from memory.
    """

    family: str
    parameters: int | str
    read: bool = False


PUBLISHED: Final = {
    "Mistral-Large-4-1T-A52B": Published("mistral_large4", 1_050_118_202_912),  # as many as transformers makes of it
    "Muse-Spark-Open-816B-A42B": Published("muse_spark", 819_990_552_064),
    "talkie-13b": Published("talkie", 13_280_257_721),
    "Zamba2-2.7B": Published("zamba2", 2_662_214_560),
    "Olmo-Hybrid-7B": Published("olmo_hybrid", 7_430_870_688),
    "Ling-3.0-Flash": Published("bailing_moe_v3", 124_414_211_552),
    "Mistral-Small-4-119B-2603": Published("mistral4", 118_972_826_624),
    "LongCat-Flash-Chat": Published("longcat_flash", 560_664_980_480),
    "Llama-3.2-1B": Published("llama", 1_235_814_400),
    "Mistral-7B-v0.1": Published("llama", 7_241_732_096),
    "Mistral-7B-v0.3": Published("llama", 7_248_023_552),
    "Qwen2.5-0.5B": Published("qwen2", 494_032_768),
    "Qwen3-0.6B": Published("qwen3", 596_049_920),
    "Qwen3-30B-A3B": Published("qwen3_moe", 30_532_122_624),
    "gemma-2-2b": Published("gemma2", 2_614_341_888),
    "gemma-3-1b-it": Published("gemma3_text", 999_885_952),
    "gemma-3-4b-it": Published("gemma3_text", 3_880_263_168),
    "Klear-46B-A2.5B-Instruct": Published("klear", 46_214_690_880, read=True),  # as many as mlx-lm makes of it
    "gemma-3n-E2B-it": Published("gemma3n_text", 4_435_182_688),  # as many as transformers makes of it
    "gemma-4-31B-it": Published("gemma4_text", "30.7", read=True),
    "gemma-4-26B-A4B-it": Published("gemma4_text", "25.2"),
    "gemma-4-E2B-it": Published("gemma4_text", "4.6"),  # 5.1 with the parts for images and sound
    "gpt-oss-20b": Published("gpt_oss", 20_914_757_184),
    "c4ai-command-r7b-12-2024": Published("cohere2", 8_028_033_024),
    "DeepSeek-V3": Published("deepseek_v3", 671_026_419_200),
    "DeepSeek-V3.2": Published("deepseek_v32", 671_877_944_064),
    "DeepSeek-V4-Flash": Published("deepseek_v4", 284_334_567_511, read=True),
    "GLM-5": Published("glm_moe_dsa", 743_911_218_432),
    "GLM-5.2": Published("glm_moe_dsa", 743_377_019_904),
    "Kimi-K2-Instruct": Published("deepseek_v3", 1_026_408_232_448),
    "Qwen3-Next-80B-A3B-Instruct": Published("qwen3_next", 79_674_391_296),
    "Qwen3.5-27B": Published("qwen3_5", 26_895_998_464),
    "Qwen3.5-35B-A3B": Published("qwen3_5_moe", 34_660_610_688),
    "Qwen3-VL-4B-Instruct": Published("qwen3_vl", 4_022_468_096),
    "Qwen3-VL-30B-A3B-Instruct": Published("qwen3_vl_moe", 30_532_122_624),
    "Muse-Glimmer-30B": Published("muse_glimmer", 27_854_780_928),  # the defaults of its class
    "GLM-4.5-Air": Published("glm4_moe", 106_852_251_264),
    "GLM-4.7-Flash": Published("glm4_moe_lite", 29_943_393_920),
    "MiniMax-M2": Published("minimax_m2", 228_689_764_864),
    "Kimi-Linear-48B-A3B-Instruct": Published("kimi_linear", 49_122_681_728),
    "Hy3-preview": Published("hy_v3", 295_033_543_488),  # the defaults of its class
    "Seed-OSS-36B-Instruct": Published("seed_oss", 36_151_104_512),
    "dots.llm1.inst": Published("dots1", 142_774_381_696),
    "K-EXAONE-236B-A23B": Published("exaone_moe", 236_571_156_352),
    "Ling-mini-2.0": Published("bailing_moe", 16_255_643_392),
    "HyperCLOVAX-SEED-Think-14B": Published("hyperclovax", 14_748_112_896),
    "vaultgemma-1b": Published("vaultgemma", 1_038_741_120),
    # The defaults of their classes, which are mostly those of the checkpoints that they name.
    "Hy4-preview": Published("hy_v4", 58_278_201_581),
    "Laguna-XS.2": Published("laguna", 33_189_975_808),
    "MiniMax-M3": Published("minimax_m3", 447_186_448_896),
    "granitemoe_swa": Published("granitemoe_swa", 37_039_117_312),
    "cwm": Published("cwm", 32_581_097_472),
    "FlexOlmo-7x7B-1T": Published("flex_olmo", 33_270_665_216),
    "sarvam-30b": Published("sarvam_moe", 32_152_650_368),
    "sarvam-105b": Published("sarvam_mla", 106_031_767_424),
    "flint": Published("flint", 39_785_287_456),
    "A.X-K1": Published("axk1", 518_983_052_288),
    "Kolibri-1": Published("kolibri1", 78_103_074_560),
    "Lara-4-Mini-Base": Published("lara_mini", 7_281_684_672),
    "Hunyuan-A13B-Instruct": Published("hunyuan_v1_moe", 80_393_183_232),
    "openai-gpt": Published("openai_gpt", 116_534_784),
    "gpt-neox-japanese-2.7b": Published("gpt_neox_japanese", 2_598_837_760),
    "MiniMax-Text-01-hf": Published("minimax", 456_089_655_296),
    "LFM2-8B-A1B": Published("lfm2_moe", 8_339_930_560),
    "LFM3-1.7B": Published("lfm3", 1_728_801_536),  # the defaults of its class
    "SmolLM3-3B": Published("smollm3", 3_075_098_624),
    "Olmo-3-1025-7B": Published("olmo3", 7_298_011_136),
    "OLMoE-1B-7B-0924": Published("olmoe", 6_919_161_856),
    "ERNIE-4.5-0.3B-PT": Published("ernie4_5", 360_748_032),
    "ERNIE-4.5-21B-A3B-PT": Published("ernie4_5_moe", 21_825_437_888),
    "granite-3.3-2b-instruct": Published("granite", 2_533_539_840),
    "granite-3.1-3b-a800m-instruct": Published("granitemoe", 3_298_793_472),
    "granite-swash-2b": Published("granite_swa", 2_144_463_840),  # the defaults of its class
    "Nemotron-H-8B-Base-8K": Published("nemotron_h", "8.1", read=True),
    "NVIDIA-Nemotron-3-Nano-30B-A3B": Published("nemotron_h", 31_577_940_288),
    "Falcon-H1-0.5B-Base": Published("falcon_h1", 521_411_104, read=True),
    "rwkv7-168M-pile": Published("rwkv7", "0.168"),
    "Mixtral-8x7B-v0.1": Published("mixtral", 46_702_792_704),
    "Qwen1.5-MoE-A2.7B": Published("qwen2_moe", 14_315_784_192),
    "Phi-3-mini-4k-instruct": Published("phi3", 3_821_079_552),
    "Phi-3-mini-128k-instruct": Published("phi3", 3_821_079_552),
    "Phi-4-mini-instruct": Published("phi3", 3_836_021_760),
    "OLMo-2-1124-7B": Published("olmo2", 7_298_617_344),
    "mamba-130m-hf": Published("mamba", 129_135_360),
    "falcon-mamba-7b": Published("falcon_mamba", 7_272_665_088),
    "mamba2-130m-hf": Published("mamba2", 128_989_632),
    "Mamba-Codestral-7B-v0.1": Published("mamba2", 7_285_403_648),
    "Jamba-v0.1": Published("jamba", 51_570_323_328),
    "granite-4.0-h-tiny": Published("granitemoehybrid", 6_939_037_248),
    "granite-4.0-micro": Published("granitemoehybrid", 3_402_836_480),
    "LFM2-350M": Published("lfm2", 354_483_968),
    "gpt2": Published("gpt2", 124_439_808),
    "pythia-70m": Published("gpt_neox", 70_426_624),
    "gpt-neox-20b": Published("gpt_neox", 20_554_567_680),
    "gemma-2b": Published("gemma", 2_506_172_416),
    "c4ai-command-r-v01": Published("cohere", 34_980_831_232),
    "starcoder2-3b": Published("starcoder2", 3_030_371_328),
    "phi-2": Published("phi", 2_779_683_840),
    "glm-4-9b-chat-hf": Published("glm", 9_399_951_360),
    "GLM-4-9B-0414": Published("glm4", 9_400_279_040),
    "helium-1-preview-2b": Published("helium", 2_172_643_840),
    "Nemotron-Mini-4B-Instruct": Published("nemotron", 4_190_509_056),
    "OLMo-7B-hf": Published("olmo", 6_888_095_744),
    "gpt-j-6b": Published("gptj", 6_050_882_784),
    "AFM-4.5B": Published("arcee", 4_619_184_640),
    "Jais-2-8B-Chat": Published("jais2", 8_090_401_280),
    "stablelm-3b-4e1t": Published("stablelm", 2_795_443_200),
    "stablelm-2-12b": Published("stablelm", 12_143_185_920),
    "starcoder": Published("gpt_bigcode", 15_517_456_384),
    "Trinity-Mini": Published("afmoe", 26_123_974_400),
    "recurrentgemma-2b": Published("recurrent_gemma", 2_682_862_080),
    "MiniCPM3-4B": Published("minicpm3", 4_073_875_968),
    "dbrx-base": Published("dbrx", 131_596_523_520),
    "nemotron-nas-mini": Published("nemotron_nas", 416_860_160, read=True),  # of TensorRT-LLM, counted by mlx-lm
    "Nanbeige4-3B": Published("nanbeige", 3_933_637_120),
    "Ministral-3-8B-Instruct-2512": Published("ministral3", 8_489_553_920),
    "Qwen2.5-VL-3B-Instruct": Published("qwen2_vl", 3_085_938_688),
    "Kimi-VL-A3B-Instruct": Published("deepseek_v3", 15_960_110_208),
    "pixtral-12b": Published("llama", 12_247_782_400),
    "gemma-4-12B-it": Published("gemma4_unified", 11_907_350_320),
    "TeleChat3-36B-Thinking": Published("telechat3", "36"),
    "Aria": Published("aria_text", 24_869_091_840),
    "Baichuan-M1-14B-Instruct": Published("baichuan_m1", 14_470_764_320),
    "Hunyuan-Large": Published("hunyuan", 388_701_405_440),
    "Hunyuan-0.5B-Instruct": Published("hunyuan_v1_dense", 539_010_048),
    "MiniCPM-2B-sft-bf16": Published("minicpm", 2_724_880_896),
    "OpenELM-270M": Published("openelm", 271_527_168),
    "phixtral-2x2_8": Published("phixtral", 4_457_978_880),
    "Ring-mini-linear-2.0": Published("bailing_moe_linear", 16_423_448_320),
    "Step-3.5-Flash": Published("step3p5", 196_956_130_368),
    "Apertus-8B-2509": Published("apertus", 8_053_338_240),
    "MiMo-V2-Flash": Published("mimo_v2_flash", 308_778_780_864),
    "nanochat-d32": Published("nanochat", 1_879_048_192),
    "DeepSeek-V2-Lite": Published("deepseek_v2", 15_706_484_224),
    "DeepSeek-V2": Published("deepseek_v2", 235_741_434_880),
    "Bamba-9B": Published("bamba", 9_780_235_392),
    "Youtu-LLM-2B": Published("youtu", 1_961_560_064),
    "Mellum2-12B-A2.5B-Base": Published("mellum", 12_149_923_072, read=True),
    "North-Mini-Code-1.0": Published("cohere2_moe", 30_484_303_872),
    "internlm2_5-7b": Published("internlm2", 7_737_708_544),
    "Spark2.5-4B": Published("spark2_5", 4_112_079_360, read=True),
    "EXAONE-4.0-1.2B": Published("exaone4", 1_279_391_488),
    "EXAONE-4.0-32B": Published("exaone4", 32_003_216_384),
    "Solar-Open-100B": Published("solar_open", 102_651_799_552),
    "internlm3-8b-instruct": Published("internlm3", 8_804_241_408),
    "IQuest-Coder-V1-40B-Instruct": Published("iquestcoder", 39_794_283_520),
    "EXAONE-3.5-2.4B-Instruct": Published("exaone", 2_405_327_360),
    "MiMo-7B-Base": Published("mimo", 7_622_619_136),
    "deepseek-moe-16b-base": Published("deepseek", 16_375_728_128),
    "Qwen-7B": Published("qwen", 7_721_324_544),
    "lille-130m-instruct": Published("lille_130m", 127_171_200),
    "Llama-4-Scout-17B-16E-Instruct": Published("llama4_text", 107_769_861_120),
    "MobileLLM-R1-950M": Published("llama4_text", 949_685_760),
    "opt-125m": Published("opt", 125_239_296),
    "biogpt": Published("biogpt", 346_763_264),
    "gpt-neo-1.3B": Published("gpt_neo", 1_315_575_808),
    "codegen-350M-mono": Published("codegen", 356_712_448),
    "persimmon-8b-base": Published("persimmon", 9_397_175_296),
    "falcon-7b": Published("falcon", 6_921_720_704),
    "falcon-40b": Published("falcon", 41_303_293_952),
    "Phi-3.5-MoE-instruct": Published("phimoe", 41_873_153_344),
    "bloom-560m": Published("bloom", 559_214_592),
    "mpt-7b": Published("mpt", 6_649_286_656),
    "xglm-564M": Published("xglm", 564_463_616),
    "falcon-rw-1b": Published("falcon", 1_311_625_216),
    "plamo-2-1b": Published("plamo2", 1_291_441_920, read=True),
    "plamo-13b": Published("plamo", 13_099_545_600, read=True),
    # Names and paths left out, counted by transformers; each has fields that change nothing.
    "allam-7b": Published("llama", 7_000_559_616, read=True),
    "gemma-2-a": Published("gemma2", 9_241_705_984, read=True),
    "gemma-2-b": Published("gemma2", 27_227_128_320, read=True),
    "gpt2-medium": Published("gpt2", 354_823_168, read=True),
    "kimi-k2.5": Published("deepseek_v3", 1_026_408_232_448, read=True),
    "llama-1-7b": Published("llama", 6_738_415_616, read=True),
    "qwen3-coder-480b": Published("qwen3_moe", 480_154_875_392, read=True),
    "smollm-a": Published("llama", 134_515_008, read=True),
    "smollm-b": Published("llama", 361_821_120, read=True),
}


#: Families without a file, and why. A class with the sizes of a published model as defaults has one in the table.
UNSEEN: Final = {
    "axk2": "no copy was at hand; as many parameters as transformers makes of its defaults, 20,314,500,992",
    "dots3_note_text": "no copy was at hand; as many parameters as transformers makes of its defaults, 279,551,729,536",
    "glm5_next": "no copy was at hand; as many parameters as transformers makes of its defaults, 313,326,828,862",
    "gear": "no copy was at hand, and transformers has no class of it",
    "inkling": "no copy was at hand; as many parameters as transformers makes of its defaults, 975,340,287,042",
    "kimi_k3": "no copy was at hand, and transformers has no class of it",
    "ling2_5": "no copy was at hand, and transformers has no class of it",
    "longcat_flash_ngram": "no copy was at hand, and transformers has no class of it",
    "qwen4_exp": "no copy was at hand; as many parameters as transformers makes of its defaults with `ple_layer_ids` "
    "[2, 7] and an indexer of 16 heads of 256, 149,373,673,088",
    "plamo3": "the file is behind an agreement",
}


def architecture(name: str, folder: Path) -> Architecture:
    (folder / "config.json").write_bytes((CONFIGS / f"{name}.json").read_bytes())
    return load(checkpoint=folder)


def test_every_file_is_in_the_table_and_every_family_has_one() -> None:
    from axon_compose.checkpoints.huggingface import families

    assert PUBLISHED.keys() == {path.stem for path in CONFIGS.glob("*.json")}
    seen = {known.family for known in PUBLISHED.values()}
    assert seen.isdisjoint(UNSEEN)
    assert seen | UNSEEN.keys() == {family.name for family in families(Registry.installed())}


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_plans_with_the_published_size(name: str, tmp_path: Path) -> None:
    known = PUBLISHED[name]
    found = architecture(name, tmp_path)
    assert (found.name, found.warnings) == (known.family, ())
    count = total_parameters(found.plan())
    if isinstance(known.parameters, int):
        assert count == known.parameters
    else:
        digits = len(known.parameters.partition(".")[2])
        assert f"{count / 1e9:.{digits}f}" == known.parameters


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_imported_file_has_the_same_parameters(name: str, tmp_path: Path) -> None:
    found = architecture(name, tmp_path)
    (tmp_path / "imported.yaml").write_text(to_text(unroll(found.document, found.plan(), Registry.installed())))
    imported = load(tmp_path / "imported.yaml")
    assert list(imported.plan().parameters()) == list(found.plan().parameters())


#: One field of a published file changed so that it means something, and what is said then.
MEANING: Final[dict[str, tuple[str, dict[str, Any], str]]] = {
    "pairs of neighbours": ("smollm-a", {"rope_interleaved": True}, "AX603"),
    "biases": ("qwen3-coder-480b", {"qkv_bias": True}, "AX603"),
    "a shared expert": ("qwen3-coder-480b", {"shared_expert_intermediate_size": 512}, "AX603"),
    "no norms of queries and keys": ("qwen3-coder-480b", {"use_qk_norm": False}, "AX603"),
    "another activation of a recurrence": ("Qwen3-Next-80B-A3B-Instruct", {"hidden_act": "gelu"}, "AX603"),
    "another kind of attention": ("MiniMax-M2", {"attn_type_list": [0] * 62}, "AX603"),
    "two windows": ("gemma-2-a", {"sliding_window_size": 2048}, "AX603"),
    "another window": ("gemma-2-b", {"sliding_window": 2048}, "AX603"),
    "special tokens": ("gpt2-medium", {"n_special": 2}, "AX603"),
    "an encoder": ("gpt2-medium", {"add_cross_attention": True}, "AX603"),
    "heads taken out": ("gpt2-medium", {"pruned_heads": {"0": [1]}}, "AX603"),
    "layers of their own": ("allam-7b", {"per_layer_config": {"0": {"head_dim": 64}}}, "AX602"),
    "attention in both directions": ("refused/embeddinggemma-300m", {}, "AX603"),
}


@pytest.mark.parametrize(("name", "change", "code"), MEANING.values(), ids=MEANING)
def test_a_field_that_means_something_is_refused(name: str, change: dict[str, Any], code: str, tmp_path: Path) -> None:
    config = json.loads((CONFIGS / f"{name}.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArchitectureError) as caught:
        load(checkpoint=tmp_path)
    assert [d.code for d in caught.value.diagnostics] == [code]


@pytest.mark.parametrize(
    ("family", "model_type", "fields"),
    [
        ("deepseek_v3", "deepseek_v32", {"index_topk": 2048, "index_n_heads": 64, "index_head_dim": 128}),
        ("deepseek_v3", "deepseek_v2", {"topk_method": "greedy", "scoring_func": "softmax"}),
        ("llama", "llama4_text", {"interleave_moe_layer_step": 1, "use_qk_norm": True, "no_rope_layers": [1]}),
        ("qwen2", "mimo", {"num_nextn_predict_layers": 1}),
        ("gpt_neox", "gpt_neox_reward_model", {"is_reward_model": True}),
    ],
)
def test_a_near_relative_is_refused(family: str, model_type: str, fields: dict[str, Any], tmp_path: Path) -> None:
    """Also when the family is asked for by name, which otherwise only warns of another model type."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, **fields}))
    with pytest.raises(ArchitectureError) as caught:
        load(family, checkpoint=tmp_path)
    codes = [d.code for d in caught.value.diagnostics if d.severity == "error"]
    assert codes
    assert set(codes) <= {"AX602", "AX603"}


def test_the_base_classes_of_transformers_change_nothing(tmp_path: Path) -> None:
    """Every field of the class of all configurations, and every default for generation that is taken out of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import GenerationConfig, PreTrainedConfig

        fields = {**PreTrainedConfig().to_dict(), **GenerationConfig._get_default_generation_params()}
    assert [name for name in fields if not is_harmless(name) and name not in NEUTRAL] == []
    assert len(fields) > 40


@pytest.mark.parametrize("name", ["resid_dropout", "moe_dropout_rate", "embedding_dropout", "hidden_dropout_prob"])
def test_dropout_is_of_training(name: str, tmp_path: Path) -> None:
    config = json.loads((CONFIGS / "allam-7b.json").read_text()) | {name: 0.1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load(checkpoint=tmp_path)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_field_that_nobody_knows_is_refused(name: str, tmp_path: Path) -> None:
    """What was let pass above was let pass by name."""
    config = json.loads((CONFIGS / f"{name}.json").read_text())
    part = config.get("text_config", config)
    part["attention_novelty"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArchitectureError) as caught:
        load(checkpoint=tmp_path)
    assert [d.code for d in caught.value.diagnostics] == ["AX602"]
