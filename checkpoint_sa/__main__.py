"""The command `checkpoint-sa`, or `python -m checkpoint_sa`.

It imports the command inside a function, so that Ctrl-C is answered at any point.
"""

from __future__ import annotations

import os
import sys

_INTERRUPTED = 130


def run() -> int:
    """Run the command of the process's arguments; return its exit code."""
    try:
        from checkpoint_sa.cli import main  # noqa: PLC0415

        code = main()
        if code != _INTERRUPTED:
            return code
    except KeyboardInterrupt:
        sys.stderr.write("checkpoint-sa: interrupted\n")
    sys.stderr.flush()
    # An exit would wait for the threads of drivers, in which a statement may still run.
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    sys.exit(run())
