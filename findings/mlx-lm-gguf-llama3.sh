#!/bin/sh
# mlx-lm 0.32.2: `mlx_lm.fuse --export-gguf` of a Llama 3 leaves out its RoPE scaling and the merges of its tokenizer.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check mlx-lm==0.32.2 'mlx[cpu]==0.32.4' transformers==5.24.0 \
    tokenizers==0.23.2 gguf==0.19.0 sentencepiece==0.2.1 protobuf==6.33.1 >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 1; }

cd "$work"
mkdir model adapter
cat >make.py <<'PY'
import json

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

scaling = {
    "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
config = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1, "intermediate_size": 96, "num_attention_heads": 4,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 300, "max_position_embeddings": 131072,
    "rope_theta": 500000.0, "rope_scaling": scaling, "tie_word_embeddings": False, "eos_token_id": 0,
}  # fmt: skip
json.dump(config, open("model/config.json", "w"))
weights = dict(tree_flatten(llama.Model(llama.ModelArgs.from_dict(config)).parameters()))
mx.save_safetensors("model/model.safetensors", weights, {"format": "mlx"})
tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
trainer = trainers.BpeTrainer(
    vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|end_of_text|>"], show_progress=False
)
tokenizer.train_from_iterator(["hello world, the words of a world that is read again"] * 20, trainer)
tokenizer.save("model/tokenizer.json")
described = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end_of_text|>"}
json.dump(described, open("model/tokenizer_config.json", "w"))
json.dump({"fine_tune_type": "full", "num_layers": 1}, open("adapter/adapter_config.json", "w"))
mx.save_safetensors("adapter/adapters.safetensors", {"model.norm.weight": weights["model.norm.weight"]})
PY
venv/bin/python make.py >log 2>&1 || { cat log >&2; exit 1; }
venv/bin/python -m mlx_lm fuse --model model --adapter-path adapter --save-path fused --export-gguf >log 2>&1 ||
    { cat log >&2; exit 1; }
venv/bin/python - 2>log <<'PY' || { cat log >&2; exit 1; }
import json

import gguf
import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as proto
from tokenizers import Tokenizer

fields = {name: field.contents() for name, field in gguf.GGUFReader("fused/ggml-model-f16.gguf").fields.items()}
names = [tensor.name for tensor in gguf.GGUFReader("fused/ggml-model-f16.gguf").tensors]
config = json.load(open("fused/config.json"))
scaled = [name for name in (*fields, *names) if "rope.scaling" in name or "rope_freqs" in name]
print("mlx-lm 0.32.2: a Llama with the RoPE and the tokenizer of Llama 3, exported without a warning.")
print("  RoPE in config.json:", config["rope_theta"], config["rope_scaling"])
print("  RoPE in the GGUF file:", {name: value for name, value in fields.items() if "rope" in name})
kind, merges = fields["tokenizer.ggml.model"], "tokenizer.ggml.merges" in fields
scores = sorted(set(fields["tokenizer.ggml.scores"]))
print(f"  tokenizer in the GGUF file: {kind!r}, which is SentencePiece (byte-level BPE is 'gpt2'), merges: {merges}, all "
      f"scores: {scores}")

model = proto.ModelProto()
model.trainer_spec.model_type = proto.TrainerSpec.BPE
model.normalizer_spec.add_dummy_prefix = True
for number, (token, score) in enumerate(zip(fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.scores"])):
    piece = model.pieces.add()
    piece.piece, piece.score, piece.type = token, score, 2 if number == 0 else 1
reader = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
text = "hello world"
right, read = Tokenizer.from_file("fused/tokenizer.json").encode(text).ids, reader.encode(text)
print(f"  {text!r} by tokenizer.json: {right}, by SentencePiece with what the GGUF file says: {read}")
print("Only a scaling whose field is called `type` and whose value is `linear` is written, and every tokenizer as a")
print("SentencePiece model whose merges all have the same rank. The documentation names \"Mistral, Mixtral, and Llama style")
print("models in fp16 precision\" as what can be exported.")
lost = not scaled and config["rope_scaling"]["rope_type"] == "llama3"
raise SystemExit(0 if lost and (kind, merges, scores) == ("llama", False, [-1000.0]) and read != right else 1)
PY
