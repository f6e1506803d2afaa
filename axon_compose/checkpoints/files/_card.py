"""The model card of a folder: what a hub shows, and what `mlx_lm.upload` fills in."""

from __future__ import annotations

from typing import Final

__all__ = ["CARD_FILE", "model_card"]

CARD_FILE: Final = "README.md"

_CARD: Final = """\
---
library_name: mlx
pipeline_tag: text-generation
tags:
- mlx
- axon-compose
---

# {name}

A language model that axon-compose has built; the description that it was built from is in `config.json`. Where
axon-compose and the plugins named in `build.json` are installed, the commands of mlx-lm run it:

```text
mlx_lm.generate --model .{flag} --prompt Hello
```

In Python: `mlx_lm.load(folder{argument})`.
"""


def model_card(name: str, *, model_file: bool = True) -> bytes:
    """The card of a model.

    Args:
        name: The `name` of the description.
        model_file: Whether config.json names a Python file, which has to be trusted.
    """
    flag, argument = (" --trust-remote-code", ", trust_remote_code=True") if model_file else ("", "")
    return _CARD.format(name=" ".join(name.split()), flag=flag, argument=argument).encode()
