"""A model that learns: data and a recipe to trained weights, with what was measured on the way.

What comes in: a model (or what it is compiled from), `Batches` of tokens, a `Recipe` and a `Budget`. What goes out: the
model with other weights, `Metrics` of every step, and files to continue from. It never draws, and no order of its data
depends on anything but a seed and the number of the step. mlx is imported when something is trained.
"""
