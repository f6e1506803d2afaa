"""Time and memory of commands that only describe, over `python -c pass`: interleaved runs as whole processes.

Bytecode is already written. Processor time leaves out what neighbours on the machine take. The file of a trillion
parameters and 200 layers lies beside this script. `imports.py` lists what the imports of a command take.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

MAIN = "import sys; from axon_compose.__main__ import main; sys.exit(main())"
TRILLION = str(Path(__file__).with_name("trillion.yaml"))
COMMANDS = [
    ["--help"],
    ["validate", "hybrid-demo"],
    ["validate", "gemma4_text"],
    ["validate", TRILLION],
    ["show", "hybrid-demo"],
    ["cost", TRILLION],
    ["cost", TRILLION, "--training", "--memory", "16GB"],
]


def run(command: list[str]) -> tuple[float, float, float]:
    """Milliseconds by the clock and of the processor, and megabytes at most, of a command."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    if status:
        raise SystemExit(f"{command} failed")
    return wall * 1e3, (usage.ru_utime + usage.ru_stime) * 1e3, usage.ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="*", help="one command with its arguments (default: a choice)")
    parser.add_argument("--runs", type=int, default=15, help="runs of each command (default: 15)")
    arguments, rest = parser.parse_known_args()
    chosen = [[*arguments.command, *rest]] if arguments.command else COMMANDS
    commands = {"python -c pass": [sys.executable, "-c", "pass"]}
    for words in chosen:
        commands[" ".join(Path(word).name for word in words)] = [sys.executable, "-c", MAIN, *words]
    for command in commands.values():
        run(command)  # compiles and reads from disk what later runs find ready
    times = [[run(command) for command in commands.values()] for _ in range(arguments.runs)]
    print(f"{'':46}  wall (ms)         processor (ms)    memory")
    print(f"{f'{arguments.runs} interleaved runs':46}  least    median    least    median    (MB)")
    for name, figures in zip(commands, zip(*times, strict=True), strict=True):
        wall, processor, memory = zip(*figures, strict=True)
        cells = [f"{figure:7.0f}  " for each in (wall, processor) for figure in (min(each), statistics.median(each))]
        print(f"{name:46}{''.join(cells)} {max(memory):6.0f}")


if __name__ == "__main__":
    main()
