"""The flags of the commands between files, checkpoints and folders."""

from __future__ import annotations

from axon_compose.cli._arguments import as_json, checkpoint, common, dtypes, output, quantize, seed
from axon_compose.cli._commands import Command, lazily

__all__ = ["KINDS", "add_building"]

#: What `export` writes; `axon_compose.checkpoints.export.KINDS`, which imports mlx.
KINDS = ("mlx-lm", "huggingface")


def add_building(command: Command) -> None:
    """Add `build`, `import` and `export`."""
    build = command("build", lazily("_build", "build"), "build a model, in memory or as a folder that mlx_lm runs")
    build.add_argument("file", metavar="FILE", help="of a folder, the weights are taken too")
    output(build, "DIR", "write a folder; without it the model is built in memory and tried", dest="out")
    build.add_argument(
        "--weights",
        type=checkpoint,
        metavar="DIR",
        help="take the weights of a folder, checkpoint or GGUF file (default: random)",
    )
    build.add_argument("--layout", choices=("huggingface", "mlx"), help="who wrote it (default: the mark in its files)")
    dtypes(build, "of the weights (default: float32, or as in the checkpoint)")
    build.add_argument("--seed", type=seed, default=0, metavar="N", help="of the random weights (default: 0)")
    quantize(build)
    build.add_argument("--unpack", action="store_true", help="write quantised weights as the numbers they stand for")
    build.add_argument(
        "--tokenizer",
        metavar="bytes|bytes-chat|none|DIR",
        help="of bytes, the same with a chat template, none, or that of a folder (default: that of the weights if they "
        "come from a folder, else bytes)",
    )
    build.add_argument(
        "--no-model-file",
        action="store_true",
        help="for tools without --trust-remote-code, where axon-compose is installed",
    )
    build.add_argument("--dry-run", action="store_true", help="say what would be built and write nothing")
    build.add_argument("--force", action="store_true", help="replace a folder that an earlier build wrote")
    build.add_argument("--allow-large", action="store_true", help="build even if memory seems too small")
    common(build)
    imported = command(
        "import", lazily("_import", "import_checkpoint"), "write the architecture of a checkpoint as a file"
    )
    imported.add_argument(
        "checkpoint",
        nargs="?",
        type=checkpoint,
        metavar="DIR",
        help="a folder with config.json and safetensors, or a GGUF file",
    )
    output(imported, "FILE", "write it to a file (default: print it)")
    imported.add_argument(
        "--family", dest="file", metavar="FILE", help="read it as this family file instead of its own"
    )
    imported.add_argument(
        "--draft", metavar="FILE", help="write a family file to start from, over the nearest family or that of --family"
    )
    imported.add_argument(
        "--families", nargs="?", const="", metavar="SEARCH", help="list the families that are known, and read nothing"
    )
    imported.add_argument("--force", action="store_true", help="replace the file")
    common(imported)
    exported = command(
        "export", lazily("_export", "export_folder"), "write a built folder as stock loaders read it, without own code"
    )
    exported.add_argument("folder", metavar="DIR", help="a folder that `build --out` wrote, fine-tuned since or not")
    exported.add_argument("--to", required=True, choices=KINDS, help="who shall read it")
    output(exported, "DIR", "the new folder (default: beside DIR)")
    exported.add_argument("--force", action="store_true", help="replace an earlier export")
    as_json(exported)
