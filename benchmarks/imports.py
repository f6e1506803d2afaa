"""What the imports of a command take: milliseconds of the processor by package, which a busy machine changes little.

    python benchmarks/imports.py validate hybrid-demo

Run it twice: the first time compiles. What a package takes is that of its modules, without what they import in turn.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader, ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import Any

#: Packages that are listed by their parts.
PARTED = ("axon_compose",)
spent: Counter[str] = Counter()
inside: list[float] = []


def timed(load: Callable[..., Any]) -> Callable[..., Any]:
    """The same step of an import, whose time is counted."""

    def run(loader: Any, module: ModuleType | ModuleSpec) -> Any:
        name = module.name if isinstance(module, ModuleSpec) else module.__name__
        inside.append(0.0)
        begin = time.process_time()
        try:
            return load(loader, module)
        finally:
            whole = time.process_time() - begin
            first, *rest = name.split(".")
            spent[".".join([first, *rest[:1]]) if first in PARTED else first] += whole - inside.pop()
            if inside:
                inside[-1] += whole

    return run


def main(command: list[str]) -> None:
    start = time.process_time()
    SourceFileLoader.exec_module = timed(SourceFileLoader.exec_module)  # type: ignore[method-assign]
    ExtensionFileLoader.create_module = timed(ExtensionFileLoader.create_module)  # type: ignore[method-assign]
    from axon_compose.cli import main as run

    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        run(command)
    whole, imports = time.process_time() - start, sum(spent.values())
    print(f"{whole * 1e3:7.1f} ms, of which {imports * 1e3:.1f} are imports")
    for name, seconds in spent.most_common(25):
        print(f"{seconds * 1e3:7.1f} {name}")


if __name__ == "__main__":
    main(sys.argv[1:])
