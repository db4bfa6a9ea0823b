"""What every test shares: a steady hypothesis profile, and no wish to use the network or all cores."""

from __future__ import annotations

import os
import signal

# Several tests fork or measure; threads of the numeric libraries only get in their way on small machines.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import HealthCheck, settings

# Deadlines measure the machine, not the code. CI repeats the same examples every time; a developer's runs explore.
settings.register_profile("developer", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("developer"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "developer")

# Under nohup the commands that tests start and hang up on would inherit that it is ignored.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
