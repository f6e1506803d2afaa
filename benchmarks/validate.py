"""Wall time of `axon-compose validate FILE` over `python -c pass`: interleaved runs, medians, and their difference."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

MAIN = "import sys; from axon_compose.cli import main; sys.exit(main(sys.argv[1:]))"


def wall(command: list[str]) -> float:
    """Milliseconds that a command takes."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return (time.perf_counter() - begin) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", default="hybrid-demo", help="a description (default: hybrid-demo)")
    parser.add_argument("--runs", type=int, default=15, help="runs of each command (default: 15)")
    arguments = parser.parse_args()
    nothing = [sys.executable, "-c", "pass"]
    validate = [sys.executable, "-c", MAIN, "validate", arguments.file]
    wall(nothing), wall(validate)  # compiles and reads from disk what later runs find ready
    times = [(wall(nothing), wall(validate)) for _ in range(arguments.runs)]
    base, whole = map(statistics.median, zip(*times, strict=True))
    print(f"python -c pass             {base:7.1f} ms")
    print(f"validate {arguments.file:17} {whole:7.1f} ms")
    print(f"difference                 {whole - base:7.1f} ms (medians of {arguments.runs} interleaved runs)")


if __name__ == "__main__":
    main()
