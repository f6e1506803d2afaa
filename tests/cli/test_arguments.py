"""Values on the command line: what people write is understood, or refused with the right spelling."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from typing import Any

import pytest

from axon_compose.cli import main
from axon_compose.cli._arguments import bandwidth, contexts, dtype, nbytes, sequences, tokens


@pytest.mark.parametrize(
    ("read", "text", "expected"),
    [
        (tokens, "4096", 4096),
        (tokens, "4k", 4096),
        (tokens, "128K", 131_072),
        (tokens, "1m", 1_048_576),
        (contexts, "4k,65536", (4096, 65_536)),
        (contexts, "4k, 64k", (4096, 65_536)),
        (dtype, "bf16", "bfloat16"),
        (dtype, "FP16", "float16"),
        (dtype, "f32", "float32"),
        (dtype, "bfloat16", "bfloat16"),
        (dtype, "int8", "int8"),  # refused by the choices
        (nbytes, "16GB", 16 * 10**9),
        (nbytes, "16 GiB", 16 * 2**30),
        (nbytes, "24g", 24 * 10**9),
        (nbytes, "17179869184", 2**34),
        (nbytes, "512B", 512),
        (bandwidth, "400", 400e9),
        (bandwidth, "400 GB/s", 400e9),
        (bandwidth, "1.6TB/s", 1.6e12),
    ],
)
def test_understood(read: Any, text: str, expected: Any) -> None:
    assert read(text) == expected


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (nbytes, "16", "'16' has no unit: is 16GB meant, or 16GiB?"),
        (nbytes, "0.5", "'0.5' has no unit: is 0.5GB meant, or 0.5GiB?"),
        (nbytes, "lots", "'lots' is not an amount of memory such as 16GB or 24GiB"),
        (tokens, "4kb", "'4kb' is not a number of tokens from 1 to 2^40, such as 4096 or 4k"),
        (tokens, "0k", "'0k' is not a number of tokens from 1 to 2^40, such as 4096 or 4k"),
        (tokens, "9999999999999m", "'9999999999999m' is not a number of tokens from 1 to 2^40, such as 4096 or 4k"),
        (contexts, "4k,", "'' is not a number of tokens from 1 to 2^40, such as 4096 or 4k"),
        (sequences, "4k", "'4k' is not a number from 1 to 2^40"),
        (bandwidth, "400MB/s", "'400MB/s' is not a number of GB/s such as 400"),
    ],
)
def test_refused_with_the_right_spelling(read: Any, text: str, message: str) -> None:
    with pytest.raises(ArgumentTypeError) as caught:
        read(text)
    assert str(caught.value) == message


def test_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    common = ["cost", "hybrid-demo", "--memory", "16GB", "--bandwidth", "400GB/s"]
    assert main([*common, "--context", "4k", "--dtype", "bf16"]) == 0
    short = capsys.readouterr().out
    assert main([*common, "--context", "4096", "--dtype", "bfloat16"]) == 0
    assert capsys.readouterr().out == short
    assert not re.search(r"\de[+-]\d", short), "no exponents"
    with pytest.raises(SystemExit) as caught:
        main(["cost", "hybrid-demo", "--memory", "16"])
    assert caught.value.code == 2
    assert "is 16GB meant, or 16GiB?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["cost", "hybrid-demo", "--dtype", "int8"])
    assert "choose from" in capsys.readouterr().err
