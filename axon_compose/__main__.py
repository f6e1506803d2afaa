"""`axon-compose` and `python -m axon_compose`: Ctrl-C is quiet from the first moment, also among the imports."""

import gc
import signal
import sys

from axon_compose.machine.interrupts import INTERRUPTED, interrupt

__all__ = ["main"]


def main() -> int:
    """Run a command with the arguments of the process; see `axon_compose.cli.main`."""
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, as after `nohup`
            signal.signal(signal.SIGINT, interrupt)
        from axon_compose.cli import main as command

        code = command()
        gc.freeze()  # so that the interpreter looks for no garbage when it ends
        return code
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
