"""GGUF files of llama.cpp: metadata to dims of a family file, tensors to packed weights of MLX, and the tokenizer.

Bytes come in, nothing of them is believed before it is compared with the size of the file. MLX's own reader is not
used: 0.32 decodes Q4_K wrongly, leaves tensors of some types out without a word, and narrows bfloat16 to float16.
"""
