"""Descriptions that are made to hurt, too large to be stored: a name to the text and the codes that it must be told.

Every text is sound YAML within the limits of the reader: what they try is the stages behind it.
"""
# ruff: noqa: E501 (a text made to hurt is read more easily on one line)

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

from axon_compose import ArchitectureError
from axon_compose.diagnostics import Problems
from axon_compose.plan import compile_text
from axon_compose.registry import Registry
from axon_compose.report import FORMS, render

DIMS: Final = "dims: {hidden_size: 32, vocab_size: 64}"
MLP: Final = "mlp: {type: mlp, intermediate_size: 48}"


def _file(stack: str = "a", blocks: str = "a: [mlp]", components: str = MLP, dims: str = DIMS, more: str = "") -> str:
    head = f"version: 1\n{dims}\ncomponents: {{{components}}}\nblocks: {{{blocks}}}\n"
    return f"{head}{f'stack: {stack}' if stack else ''}\n{more}\n"


def _dims(text: str) -> str:
    return f"dims: {{hidden_size: 32, vocab_size: 64, {text}}}"


def _many(count: int, item: str, gap: str = ", ") -> str:
    return gap.join(item.format(n=n, m=n + 1) for n in range(count))


def _per_layer() -> str:
    """4096 layers, 50 components, and in each an option that differs from layer to layer."""
    parts = _many(50, 'c{n}: {{type: mlp, intermediate_size: "=16 + (i + {n}) % 64"}}')
    return _file(
        "{layers: 4096, block: \"=['b' + 'x', a][1] if i < 0 else a\"}", "a: [" + _many(4, "c{n}") + "]", parts
    )


def _all_different() -> str:
    parts = _many(50, 'c{n}: {{type: mlp, intermediate_size: "=16 + i"}}')
    blocks = _many(50, "b{n}: [c{n}]")
    return _file(" ".join(f"b{n % 50}" for n in range(4096)), blocks, parts)


def _doubling() -> str:
    """Each dim is a list of two of the one before."""
    return _file(dims=_dims("d0: [1, 1], " + _many(60, 'd{m}: "=[d{n}, d{n}]"')))


def _powers() -> str:
    """Each dim is the square of the one before."""
    return _file(dims=_dims("d0: 10, " + _many(60, 'd{m}: "=d{n} ** 2"')))


FLOOD: Final = 10_000

#: Accepted: no code. Else one of the codes that has to be among those that are told.
DESCRIPTIONS: Final[dict[str, tuple[Callable[[], str], str]]] = {
    "plain": (_file, ""),
    # Layers.
    "10^12 layers": (lambda: _file("a*1000000000000"), "AX135"),
    "10^18 layers in groups": (lambda: _file("(((((((a*999)*999)*999)*999)*999)*999)*999)*999"), "AX135"),
    "10^12 layers by repeat": (lambda: _file("[{block: a, repeat: 1000000000000}]"), "AX135"),
    "10^40 layers by formula": (lambda: _file('[{block: a, repeat: "=10 ** 40"}]'), "AX135"),
    "10^12 layers generated": (lambda: _file("{layers: 1000000000000, block: a}"), "AX135"),
    "full stacks in a list": (lambda: _file("[" + _many(2000, "a*4096") + "]"), "AX135"),
    "full runs in a list": (lambda: _file("[" + _many(9000, "{{block: a, repeat: 4096}}") + "]"), "AX135"),
    "terms": (lambda: _file(" ".join(["a"] * 60_000)), "AX135"),
    "as many as may be": (lambda: _file("a*4096"), ""),
    "stack text by formula": (lambda: _file('"=[a] * 4000"'), ""),
    "too much stack text by formula": (lambda: _file('"=[a] * 90000"'), "AX135"),
    "unknown blocks": (lambda: _file(" ".join(f"unknown_{n}" for n in range(4000))), "AX132"),
    "unknown blocks beside many": (
        lambda: _file(" ".join(f"unknown_{n}" for n in range(4000)), _many(10_000, "known_{n}: [mlp]")),
        "AX132",
    ),
    "layers at the end of integers": (lambda: _file(more=f"layers: {'9' * 40}"), "AX133"),
    # Sizes.
    "hidden size of 2^31": (lambda: _file(dims="dims: {hidden_size: 2147483648, vocab_size: 8}"), "AX146"),
    "vocabulary of 10^40": (lambda: _file(dims=f"dims: {{hidden_size: 32, vocab_size: {10**39}}}"), "AX146"),
    "intermediate size of 10^39": (
        lambda: _file(components=f"mlp: {{type: mlp, intermediate_size: {10**39}}}"),
        "AX146",
    ),
    "hidden size of 10^10000": (
        lambda: _file(dims='dims: {hidden_size: "=(10 ** 100) ** 100", vocab_size: 64}'),
        "AX120",
    ),
    "scale beyond floats": (
        lambda: _file(blocks='a: [{use: mlp, scale: "=large"}]', dims=_dims("large: .inf")),
        "AX120",
    ),
    "scale of many digits": (lambda: _file(blocks=f"a: [{{use: mlp, scale: {'9' * 40}}}]"), ""),
    "vocabulary that is a list": (lambda: _file(dims='dims: {hidden_size: 32, vocab_size: "=[1] * 90000"}'), "AX102"),
    "vocabulary of infinity": (lambda: _file(dims="dims: {hidden_size: 32, vocab_size: .inf}"), "AX102"),
    # Formulas.
    "dims in a row": (lambda: _file(dims=_dims("d0: 1, " + _many(FLOOD, 'd{m}: "=d{n}"'))), ""),
    "dims in a row, backwards": (
        lambda: _file(dims=_dims(", ".join(f'd{n}: "=d{n + 1}"' for n in range(FLOOD)) + f", d{FLOOD}: 1")),
        "",
    ),
    "a long circle": (lambda: _file(dims=_dims(_many(FLOOD, 'd{n}: "=d{m}"') + f', d{FLOOD}: "=d0"')), "AX121"),
    "circles": (lambda: _file(dims=_dims(_many(FLOOD, 'd{n}: "=d{n}"'))), "AX121"),
    "dims that use all others": (
        lambda: _file(
            dims=_dims(
                "d0: 1, " + ", ".join(f'd{n}: "={" + ".join(f"d{k}" for k in range(n))}"' for n in range(1, 120))
            )
        ),
        "",
    ),
    "unknown names in dims": (lambda: _file(dims=_dims(_many(FLOOD, 'd{n}: "=unknown_{n}"'))), "AX120"),
    "doubling lists": (_doubling, "AX120"),
    "squares": (_powers, "AX120"),
    "formulas that fail": (lambda: _file(dims=_dims(_many(FLOOD, 'd{n}: "=1 / 0"'))), "AX120"),
    "formulas that do not parse": (lambda: _file(dims=_dims(_many(FLOOD, 'd{n}: "=1 +"'))), "AX120"),
    "heavy dims": (lambda: _file(dims=_dims(_many(8000, 'd{n}: "=len([0] * 90000)"'))), "AX120"),
    "heavy layers": (lambda: _file('{layers: 4096, block: "=a if len([0] * 90000) else a"}'), "AX120"),
    "heavy options": (
        lambda: _file("a*4096", components='mlp: {type: mlp, intermediate_size: "=16 + len([0] * 90000) + i"}'),
        "AX120",
    ),
    "large lists as options": (
        lambda: _file(
            "a*4096",
            components='mlp: {type: mlp, intermediate_size: "=sizes[i]"}',
            dims=_dims('sizes: "=[48] * 90000"'),
        ),
        "",
    ),
    "large lists of options": (
        lambda: _file(
            "a*4096", components='mlp: {type: mlp, intermediate_size: "=big"}', dims=_dims('big: "=[1] * 90000"')
        ),
        "AX102",
    ),
    "options by layer": (_per_layer, ""),
    "as many components by layer": (_all_different, ""),
    # Many parts.
    "components": (
        lambda: _file(components=MLP + ", " + _many(FLOOD // 2, "c{n}: {{type: mlp, intermediate_size: {m}}}")),
        "",
    ),
    "components of unknown types": (lambda: _file(components=MLP + ", " + _many(FLOOD, "c{n}: nothing_{n}")), "AX202"),
    "components of unknown plugins": (lambda: _file(components=MLP + ", " + _many(FLOOD, "c{n}: none{n}/x")), "AX201"),
    "components with unknown options": (
        lambda: _file(components=MLP + ", " + _many(FLOOD // 2, "c{n}: {{type: mlp, intermediate_siz: {m}}}")),
        "AX101",
    ),
    "options": (
        lambda: _file(components="mlp: {type: mlp, intermediate_size: 48, " + _many(FLOOD, "o{n}: 1") + "}"),
        "AX101",
    ),
    "options like the right one": (
        lambda: _file(components="mlp: {type: mlp, " + _many(FLOOD, "intermediate_size{n}: 1") + "}"),
        "AX101",
    ),
    "sections": (lambda: _file(more=_many(FLOOD, "component{n}: 1", "\n")), "AX101"),
    "free sections": (lambda: _file(more=_many(FLOOD, "x-{n}: 1", "\n")), ""),
    "names that cannot be": (lambda: _file(components=MLP + ", " + _many(FLOOD, "C-{n}: mlp")), "AX104"),
    "blocks": (lambda: _file(blocks="a: [mlp], " + _many(FLOOD, "b{n}: [mlp]")), ""),
    "blocks of unknown components": (lambda: _file(blocks="a: [mlp], " + _many(FLOOD, "b{n}: [nothing_{n}]")), "AX140"),
    "unknown components beside many": (
        lambda: _file(
            blocks="a: [mlp], " + _many(9000, "b{n}: [nothing_{n}]"),
            components=MLP + ", " + _many(9000, "something_{n}: rms_norm"),
        ),
        "AX140",
    ),
    "faulty blocks": (lambda: _file(blocks="a: [mlp], " + _many(FLOOD, "b{n}: [1]")), "AX102"),
    "names with two meanings": (
        lambda: _file(dims=_dims(_many(9000, "b{n}: 1")), blocks="a: [mlp], " + _many(9000, "b{n}: [mlp]")),
        "AX122",
    ),
    "branches": (lambda: _file(blocks="a: [" + _many(30_000, "mlp") + "]"), "AX135"),
    "branches in every layer": (lambda: _file("a*4096", "a: [" + _many(2000, "mlp") + "]"), "AX135"),
    "members": (lambda: _file(blocks="a: [{parallel: [" + _many(30_000, "mlp") + "]}]"), "AX135"),
    "members in every layer": (lambda: _file("a*4096", "a: [{parallel: [" + _many(2000, "mlp") + "]}]"), "AX135"),
    "outputs kept": (lambda: _file(blocks="a: [" + _many(9000, "{{use: mlp, as: k{n}}}") + "]"), "AX144"),
    "outputs added": (lambda: _file(blocks="a: [mlp, " + _many(9000, "{{add: k{n}}}") + "]"), "AX144"),
    # Names.
    "a long name": (
        lambda: _file(blocks=f"a: [{'m' * 900}]", components=f"{'m' * 900}: {{type: mlp, intermediate_size: 8}}"),
        "AX104",
    ),
    "a name of half a MiB": (
        lambda: _file(
            "", "? " + "b" * 300_000 + " : [mlp]", more="stack: [{block: " + "b" * 300_000 + ", repeat: 4096}]"
        ),
        "AX104",
    ),
    "a type of half a MiB": (
        lambda: _file(components=f"mlp: {{type: {'m' * 900_000}, intermediate_size: 48}}"),
        "AX202",
    ),
    "a base of half a MiB": (lambda: _file(more=f"extends: {'m' * 900_000}.yaml"), "AX111"),
    # Overrides.
    "overrides": (
        lambda: _file(
            "a*4096",
            more="overrides:\n" + _many(9000, "- {{layers: 0..4095, set: {{mlp.intermediate_size: {m}}}}}", "\n"),
        ),
        "AX136",
    ),
    "overrides of one layer each": (
        lambda: _file(
            "a*4096", more="overrides:\n" + _many(4096, "- {{layers: {n}, set: {{mlp.intermediate_size: {m}}}}}", "\n")
        ),
        "",
    ),
    "ranges": (
        lambda: _file(more=f"overrides: [{{layers: '{_many(80_000, '0', ',')}', set: {{mlp.intermediate_size: 8}}}}]"),
        "",
    ),
    "faulty ranges": (
        lambda: _file(
            more=f"overrides: [{{layers: '{_many(80_000, 'x{n}', ',')}', set: {{mlp.intermediate_size: 8}}}}]"
        ),
        "AX136",
    ),
    "changes by ranges": (
        lambda: _file(
            "a*4096",
            more=f"overrides: [{{layers: '{_many(9000, '0..4095', ',')}', set: {{{_many(9000, 'mlp.o{n}: 1')}}}}}]",
        ),
        "AX136",
    ),
    "a deep override": (lambda: _file(more=f"overrides: [{{layers: 0, set: {{? mlp{'.a' * 90_000} : 1}}}}]"), "AX136"),
    "overrides of unknown components": (
        lambda: _file(more="overrides:\n" + _many(9000, "- {{layers: 0, set: {{none{n}.a: 1}}}}", "\n")),
        "AX140",
    ),
}


def main() -> None:
    """Compile them all, each in a process of its own; print for each, as JSON: name, codes, seconds, size of the report."""
    Registry.installed().components()  # loaded once, before the forks
    gc.freeze()  # as the command does with what it imports
    for name in sys.argv[1:] or DESCRIPTIONS:
        child = os.fork()
        if child == 0:
            resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
            try:
                result = _compile(DESCRIPTIONS[name][0]())
            except BaseException as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                result = [f"{type(error).__name__} at {last.filename}:{last.lineno}: {error}"[:500]], 0.0, 0
            _tell(name, *result)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            _tell(name, [f"ended by signal {status}"], 0.0, 0)


def _tell(*result: object) -> None:
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def _compile(text: str) -> tuple[list[str], float, int]:
    begin = time.process_time()
    codes: set[str] = set()
    size = 0
    try:
        compile_text(
            text.encode(), "file.yaml", Path(__file__).parent, registry=Registry.installed(), problems=Problems()
        )
    except ArchitectureError as error:
        codes = {d.code for d in error.diagnostics}
        size = max(len(render(error.diagnostics, error.sources, form, dropped=error.dropped)) for form in FORMS)
    return sorted(codes), time.process_time() - begin, size


if __name__ == "__main__":
    main()
