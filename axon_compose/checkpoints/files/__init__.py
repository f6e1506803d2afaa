"""Model folders: written whole or not at all, read only after every byte of their headers is checked.

Importing this package does not import mlx; `load_weights` and the writing functions do when called.
"""

from axon_compose.checkpoints.files._atomic import atomic_folder, check_target
from axon_compose.checkpoints.files._disk import FileRecord
from axon_compose.checkpoints.files._folder import MODEL_FILE, check_space, require_plain_name, write_folder
from axon_compose.checkpoints.files._ranges import FolderParts
from axon_compose.checkpoints.files._record import BUILD_FILE, read_build, verify
from axon_compose.checkpoints.files._safetensors import Entry, Header, load_weights, read_header, read_safetensors
from axon_compose.checkpoints.files._shards import (
    MAX_SHARD_BYTES,
    TensorSpec,
    drain,
    plan_shards,
    tensor_specs,
    write_shards,
)
from axon_compose.checkpoints.files._tokenizer import write_tokenizer
from axon_compose.checkpoints.files._unchanged import Unchanged
from axon_compose.diagnostics import CheckpointError
from axon_compose.machine.memory import require

__all__ = [
    "BUILD_FILE",
    "MAX_SHARD_BYTES",
    "MODEL_FILE",
    "CheckpointError",
    "Entry",
    "FileRecord",
    "FolderParts",
    "Header",
    "TensorSpec",
    "Unchanged",
    "atomic_folder",
    "check_space",
    "check_target",
    "drain",
    "load_weights",
    "plan_shards",
    "read_build",
    "read_header",
    "read_safetensors",
    "require",
    "require_plain_name",
    "tensor_specs",
    "verify",
    "write_folder",
    "write_shards",
    "write_tokenizer",
]
