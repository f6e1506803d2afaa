"""Texts that are made to hurt, too large to be stored: a name to the text and the codes that it must be told."""

from collections.abc import Callable
from typing import Final

MIB: Final = 1 << 20
#: Deeper than our limit of 64, and no deeper than other readers of YAML and JSON bear: far deeper nesting ends some.
DEEP: Final = 200


def _laughs(levels: int) -> str:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


def _deep_by_alias() -> str:
    """Each value is 50 levels deep and holds the one before at its bottom."""
    lines = ["a0: &a0 1"]
    lines += [f"a{n}: &a{n} {'[' * 50}*a{n - 1}{']' * 49}, 1]" for n in range(1, 4)]
    return "\n".join(lines)


def _stairs(levels: int) -> str:
    return "".join(" " * n + "a:\n" for n in range(levels))


HOSTILE: Final[dict[str, tuple[Callable[[], str | bytes], set[str]]]] = {
    "billion laughs": (lambda: _laughs(6), {"AX009"}),
    "laughs by merge": (lambda: "a: &a {b: 1}\n" + "c: {<<: [" + "*a, " * 60_000 + "]}", {"AX009"}),
    "deep by alias": (_deep_by_alias, {"AX008"}),
    "brackets": (lambda: "[" * DEEP, {"AX008"}),
    "braces": (lambda: "{a: " * DEEP, {"AX008"}),
    "pairs in lists": (lambda: '["a":' * DEEP, {"AX008"}),
    "dashes": (lambda: "- " * DEEP, {"AX008"}),
    "question marks": (lambda: "? " * DEEP, {"AX008"}),
    "stairs": (lambda: _stairs(DEEP), {"AX008"}),
    "anchors": (lambda: "\n".join(f"- &a{n} 1" for n in range(70_000)), set()),
    "anchors in a row": (lambda: "&a " * (MIB // 3), {"AX001"}),
    "aliases": (lambda: "- &a 1\n" + "- *a\n" * 99_000, set()),
    "unknown aliases": (lambda: "- *a\n" * 90_000, {"AX014"}),
    "wide mapping": (lambda: "\n".join(f"k{n}: {n}" for n in range(49_000)), set()),
    "wider mapping": (lambda: "\n".join(f"k{n}: 1" for n in range(100_000)), {"AX009"}),
    "one line": (lambda: "{" + ", ".join(f"k{n}: 1" for n in range(49_000)) + "}", set()),
    "duplicates": (lambda: "a: 1\n" * 49_000, {"AX007"}),
    "long duplicates": (lambda: f"? {'k' * 400_000}\n: 1\n? {'k' * 400_000}\n: 1\n", {"AX007"}),
    "numbers as keys": (lambda: "\n".join(f"{n}: 1" for n in range(49_000)), {"AX012"}),
    "tags": (lambda: "- !!x 1\n" * 90_000, {"AX011"}),
    "tag directives": (lambda: "".join(f"%TAG !a{n}! x\n" for n in range(2_000)) + "---\na", {"AX011"}),
    "tag directives by CR": (lambda: "a\n...\n" + "".join(f"%TAG !a{n}! x\r" for n in range(2_000)), {"AX011"}),
    "huge integer": (lambda: "n: " + "9" * (MIB - 9), {"AX010"}),
    "huge hexadecimal": (lambda: "n: 0x" + "f" * (MIB - 9), {"AX010"}),
    "huge float": (lambda: "n: " + "9" * (MIB - 99) + "e9", {"AX010"}),
    "long fraction": (lambda: "n: 0." + "1" * (MIB - 9), set()),
    "many huge integers": (lambda: f"- {'9' * 50}\n" * 19_000, {"AX010"}),
    "long text": (lambda: "n: " + "x" * (MIB - 9), set()),
    "long key": (lambda: "x" * (MIB - 9) + ": 1", {"AX001"}),
    "quote without end": (lambda: '"' + "a\n" * (MIB // 2 - 1), {"AX001"}),
    "blank lines": (lambda: "\n" * MIB, {"AX006"}),
    "spaces": (lambda: " " * MIB, {"AX006"}),
    "tabs": (lambda: "\t" * MIB, {"AX002"}),
    "carriage returns": (lambda: "\r" * MIB, {"AX006"}),
    "folded lines": (lambda: "a: >\n" + " a\n" * (MIB // 3 - 9), set()),
    "documents": (lambda: "---\n" * (MIB // 4), {"AX013"}),
    "zeros": (lambda: b"\x00" * MIB, {"AX004"}),
    "bad bytes": (lambda: b"\xff" * MIB, {"AX003"}),
    "surrogates": (lambda: "\ud800" * (MIB // 3), {"AX004"}),
    "separators": (lambda: "\u2028" * (MIB // 3), {"AX004"}),
    "two MiB": (lambda: b"a: 1\n" * (2 * MIB // 5), {"AX005"}),
    "characters of four bytes": (lambda: "\U0001f600" * MIB, {"AX005"}),
}


def main() -> None:
    """Read them all; print for each, as JSON: name, codes, whether anything was read, seconds, size of the report."""
    import json
    import sys
    import time

    from axon_compose.diagnostics import Problems
    from axon_compose.language.source import plain, read
    from axon_compose.report._diagnostics import render

    for name, (make, _) in HOSTILE.items():
        data, problems = make(), Problems()
        begin = time.process_time()
        node = read(data, "f", problems)
        text = render(problems, problems.sources)
        seconds = time.process_time() - begin
        if node is not None:
            plain(node)  # not deeper than Python can walk
        result = [name, sorted({d.code for d in problems}), node is not None, seconds, len(text)]
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
