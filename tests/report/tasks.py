"""What processes do in the tests of workers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from lobit.errors import ConfigError


def task(given):
    """Whatever its name says, in the folder it is given."""
    what, folder = given["what"], Path(given["folder"])
    (folder / f"{what}-{given.get('name', '')}").write_text(str(os.getpid()))
    print("a library's own words")
    if what == "refuse":
        raise ConfigError("not like this")
    if what == "break":
        raise ZeroDivisionError("of something")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        raise SystemExit("no more")
    if what == "sleep":
        time.sleep(60)
