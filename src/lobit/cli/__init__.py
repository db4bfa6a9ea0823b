"""The `lobit` command. It starts without any extra installed, to say which one is missing."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Entry point: run the command line, or say how to get it."""
    try:
        from lobit.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich", "click"):
            raise
        print("lobit: the command line needs typer and rich: pip install 'lobit[cli]' (or 'lobit[train]' to train too)", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # before there is anything to go on with
        print("lobit: interrupted", file=sys.stderr)
        sys.exit(130)
    status = run()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while Python shuts down has nothing more to say
    sys.exit(status)


__all__ = ["main"]
