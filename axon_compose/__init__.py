"""axon-compose: a compiler from a YAML file to a working MLX language model."""

__version__ = "0.1.0"
