"""Published weights and model folders to models, and back.

What comes in: folders of safetensors with a config.json, and a `Compiled`. What goes out: weights in a model, a folder
that the `mlx_lm` commands run, an export that stock loaders read. It never
unpickles, and never runs code of a checkpoint.
"""
