"""Energy counters, on a tree of files that looks like the kernel's: the machines that run tests rarely have one."""

from __future__ import annotations

import os

import pytest

from lobit.errors import ConfigError
from lobit.report.rapl import find_zones, measure


class Machine:
    """Counters in a folder, and a clock that they follow: each zone takes its watts while time passes."""

    def __init__(self, root, zones, range_uj=262_143_328_850):
        self.root, self.now, self.range_uj = root, 1000.0, range_uj
        self.watts, self.microjoules = {}, {}
        for folder, (name, watts, at) in zones.items():
            (root / folder).mkdir(parents=True)
            (root / folder / "name").write_text(f"{name}\n")
            (root / folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
            self.watts[folder], self.microjoules[folder] = watts, at
        self.pass_time(0.0)

    def pass_time(self, seconds, extra_watts=0.0):
        self.now += seconds
        for folder, watts in self.watts.items():
            self.microjoules[folder] += round((watts + extra_watts) * seconds * 1e6)
            (self.root / folder / "energy_uj").write_text(f"{self.microjoules[folder] % (self.range_uj + 1)}\n")

    def clock(self):
        return self.now

    def measure(self, run, seconds=2.0):
        return measure(run, seconds, root=self.root, clock=self.clock, sleep=self.pass_time)


SERVER = {
    "intel-rapl": ("not a zone", 0, 0),
    "intel-rapl:0": ("package-0", 40, 5),
    "intel-rapl:0:0": ("core", 30, 5),
    "intel-rapl:0:1": ("dram", 8, 5),
    "intel-rapl:1": ("package-1", 42, 5),
    "intel-rapl:1:0": ("dram", 10, 5),
    "intel-rapl:2": ("psys", 200, 5),
    "intel-rapl-mmio:0": ("package-0", 40, 5),
}


def test_packages_and_their_memory_count_once_each(tmp_path):
    Machine(tmp_path, SERVER)
    assert [zone.name for zone in find_zones(tmp_path)] == ["package-0", "package-0 dram", "package-1", "package-1 dram"]
    assert {zone.folder.name for zone in find_zones(tmp_path)} == {"intel-rapl:0", "intel-rapl:0:1", "intel-rapl:1", "intel-rapl:1:0"}


def test_joules_of_a_call_and_of_the_rest(tmp_path):
    machine = Machine(tmp_path, SERVER)
    found = machine.measure(lambda: machine.pass_time(0.25, extra_watts=5))
    assert found.rest_watts == pytest.approx(40 + 8 + 42 + 10)
    assert (found.calls, found.seconds) == (8, pytest.approx(0.25))
    assert found.watts == pytest.approx(100 + 4 * 5)
    assert found.joules == pytest.approx(120 * 0.25)
    assert found.joules_above_rest == pytest.approx(20 * 0.25)
    assert found.to_dict()["zones"] == ("package-0", "package-0 dram", "package-1", "package-1 dram")


def test_a_counter_that_starts_again_loses_nothing(tmp_path):
    # 10 W for 6 s at rest and 12 s at work pass the range of 70 J twice
    machine = Machine(tmp_path, {"intel-rapl:0": ("package-0", 10, 69_999_999)}, range_uj=70_000_000)
    found = machine.measure(lambda: machine.pass_time(1.0), seconds=12)
    assert found.joules == pytest.approx(10, abs=1e-5)
    assert found.rest_watts == pytest.approx(10, abs=1e-5)


def test_a_machine_without_counters_says_so(tmp_path):
    for root in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigError, match="shows no energy counters"):
            find_zones(root)
    Machine(tmp_path, {"intel-rapl:0": ("psys", 3, 0), "dtpm:0": ("other", 3, 0)})
    with pytest.raises(ConfigError, match="shows no energy counters"):
        measure(lambda: None, root=tmp_path)


def test_a_counter_for_root_alone_names_the_line_that_opens_it(tmp_path, monkeypatch):
    Machine(tmp_path, SERVER)
    (tmp_path / "intel-rapl:0" / "energy_uj").chmod(0)
    if os.geteuid() == 0:  # root may read it all the same
        real = type(tmp_path).read_text

        def refuse(path, *args, **options):
            if path.name == "energy_uj":
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *args, **options)

        monkeypatch.setattr(type(tmp_path), "read_text", refuse)
    with pytest.raises(ConfigError, match=r"root alone.*sudo chmod a\+r .*/\*/energy_uj"):
        find_zones(tmp_path)


@pytest.mark.parametrize("text", ["", "-5", "12 J", "\u0663"])
def test_a_counter_that_holds_no_number_is_named(tmp_path, text):
    Machine(tmp_path, SERVER)
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text(text)
    with pytest.raises(ConfigError, match="not a number"):
        find_zones(tmp_path)


def test_a_zone_that_vanishes_is_an_error_of_one_line(tmp_path):
    Machine(tmp_path, SERVER)
    (tmp_path / "intel-rapl:0" / "max_energy_range_uj").unlink()
    with pytest.raises(ConfigError, match="cannot read"):
        find_zones(tmp_path)


@pytest.mark.parametrize("seconds", [0, -1, 0.01, 601, float("nan")])
def test_seconds_out_of_range_are_refused_before_anything_runs(tmp_path, seconds):
    Machine(tmp_path, SERVER)
    with pytest.raises(ConfigError, match="seconds is"):
        measure(lambda: pytest.fail("it ran"), seconds, root=tmp_path)
