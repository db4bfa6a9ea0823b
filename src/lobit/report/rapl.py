"""Joules that the machine itself measures: the counters of RAPL, which Linux shows in /sys/class/powercap. Free of torch.

Intel and AMD processors count the energy of each package, and some that of the memory beside it. The counters have a range of their own and start again at 0;
they rise in steps of about a millisecond. They measure the whole package, whoever makes it work: so the machine's own use is measured first, at rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lobit.errors import ConfigError

POWERCAP = Path("/sys/class/powercap")
READ_EVERY = 5.0
"""Seconds between two readings: at 1 kW the smallest range in use, 2^16 J, passes after a minute."""
MAX_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Zone:
    """A counter: its name (``package-0``, ``package-0 dram``), its folder, and the microjoules at which it starts again."""

    name: str
    folder: Path
    range_uj: int

    def read(self) -> int:
        """Microjoules; of use only as a difference."""
        return _number(self.folder / "energy_uj")


@dataclass(frozen=True, slots=True)
class Measured:
    """What a measurement found.

    Parameters
    ----------
    joules : float
        Of all zones, for one call; the machine at rest included.
    rest_watts : float
        What the zones take while this process sleeps.
    seconds : float
        Of one call.
    calls : int
        How many there were.
    zones : tuple of str
        What was measured.
    """

    joules: float
    rest_watts: float
    seconds: float
    calls: int
    zones: tuple[str, ...]

    @property
    def watts(self) -> float:
        """Mean power while it ran."""
        return self.joules / self.seconds

    @property
    def joules_above_rest(self) -> float:
        """Joules of one call beyond what the machine takes at rest in the same time; about 0 or below where the call is lost in the noise."""
        return self.joules - self.rest_watts * self.seconds

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {**asdict(self), "watts": self.watts, "joules_above_rest": self.joules_above_rest}


def find_zones(root: Path = POWERCAP) -> tuple[Zone, ...]:
    """The counters of whole packages and of the memory beside them.

    Left out are parts of a package (core, uncore), the whole platform (psys), and a package that is shown a second time (intel-rapl-mmio).

    Raises
    ------
    ConfigError
        Where there is none, or none that may be read; the message says what to do.
    """
    zones: dict[str, Zone] = {}
    try:
        folders = sorted((folder for folder in root.glob("*:*") if (folder / "energy_uj").exists()), key=_order)
    except OSError as error:
        raise ConfigError(f"cannot read {root}: {error.strerror or error}; energy is not measured") from error
    for folder in folders:
        name = _name(folder)
        if name == "dram":
            name = f"{_name(folder.with_name(folder.name.rpartition(':')[0]))} dram"
        elif not name.startswith("package"):
            continue
        if name not in zones:
            zones[name] = Zone(name, folder, _number(folder / "max_energy_range_uj"))
    if not zones:
        raise ConfigError(f"this machine shows no energy counters: no package in {root} (virtual machines and containers rarely have one)")
    for zone in zones.values():
        zone.read()
    return tuple(zones.values())


def measure(
    run: Callable[[], object],
    seconds: float = 2.0,
    *,
    root: Path = POWERCAP,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> Measured:
    """Measure the energy of a call, repeated for at least ``seconds`` after a rest of half as long.

    Parameters
    ----------
    run : callable
        Called once before anything is measured, then again and again. A call longer than about a minute may hide that a counter started again.
    seconds : float
        0.1 to 600. Use a second or more: counters rise in steps of about a millisecond.
    root, clock, sleep
        The folder of the counters and the time; for tests.

    Raises
    ------
    ConfigError
        Where nothing can be measured, or for other seconds.
    """
    if not 0.1 <= seconds <= MAX_SECONDS:
        raise ConfigError(f"seconds is {seconds!r}; energy is measured for 0.1 to {MAX_SECONDS:.0f} seconds")
    counters = [_Counter(zone) for zone in find_zones(root)]
    run()
    start, before = clock(), _total(counters)
    sleep(seconds / 2)
    rest = (_total(counters) - before) / (clock() - start)
    calls, start, before = 0, clock(), _total(counters)
    read_at = now = start
    while now - start < seconds:
        run()
        calls += 1
        now = clock()
        if now - read_at >= READ_EVERY:
            read_at = now
            _total(counters)
    joules = _total(counters) - before
    spent = clock() - start
    return Measured(joules / calls, rest, spent / calls, calls, tuple(counter.zone.name for counter in counters))


class _Counter:
    """A zone's energy since it was made, in joules, however often the counter starts again between readings."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self._last = zone.read()
        self._sum = 0

    def joules(self) -> float:
        now = self.zone.read()
        step = now - self._last
        self._sum += step if step >= 0 else step + self.zone.range_uj
        self._last = now
        return self._sum * 1e-6


def _total(counters: Iterable[_Counter]) -> float:
    return sum(counter.joules() for counter in counters)


def _order(folder: Path) -> tuple[bool, str]:
    return "mmio" in folder.name, folder.name


def _name(folder: Path) -> str:
    return _text(folder / "name")


def _number(path: Path) -> int:
    text = _text(path)
    if not (text.isascii() and text.isdecimal()):
        raise ConfigError(f"{path} holds {text[:40]!r}, not a number; energy is not measured")
    return int(text)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except PermissionError as error:
        raise ConfigError(
            f"{path} may be read by root alone: run as root, or once: sudo chmod a+r {path.parent.parent}/*/energy_uj"
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}; energy is not measured") from error
