from __future__ import annotations

import subprocess
import sys

from lobit.report import machine

CPUINFO = "processor\t: 0\nmodel name\t: A CPU\ncpu family\t: 6\nmodel\t\t: 207\nstepping\t: 2\nflags\t\t: fma sse avx2\n\nprocessor\t: 1\nmodel name\t: Another\n"


def tree(root, monkeypatch, **files):
    for name, text in files.items():
        (root / name.replace("_", ".")).write_text(text)
    monkeypatch.setattr(machine, "PROC", root)
    monkeypatch.setattr(machine, "CGROUP", root)


def test_facts_are_those_of_the_first_processor(tmp_path, monkeypatch):
    tree(tmp_path, monkeypatch, cpuinfo=CPUINFO)
    found = machine.facts()
    assert (found["cpu"], found["family_model_stepping"], found["features"]) == ("A CPU", "6/207/2", ["avx2", "fma"])
    assert found["versions"]["lobit"] == machine.version("lobit")
    assert machine.version("no-such-package") is None


def test_a_machine_that_says_nothing_still_has_facts(tmp_path, monkeypatch):
    tree(tmp_path, monkeypatch)
    assert machine.facts()["features"] == []
    assert machine.memory_bytes() == (None, None)


def test_memory_is_the_machine_s_or_the_control_group_s(tmp_path, monkeypatch):
    tree(tmp_path, monkeypatch, meminfo="MemTotal:  1000 kB\nMemFree: 10 kB\nMemAvailable:  600 kB\nHugePages_Total: 0\n")
    assert machine.memory_bytes() == (1_024_000, 614_400)
    tree(tmp_path, monkeypatch, memory_max="max\n", memory_current="5\n")
    assert machine.memory_bytes() == (1_024_000, 614_400)
    tree(tmp_path, monkeypatch, memory_max="500000\n", memory_current="100000\n")
    assert machine.memory_bytes() == (500_000, 400_000)
    tree(tmp_path, monkeypatch, memory_max="2000000\n", memory_current="100000\n")
    assert machine.memory_bytes() == (1_024_000, 614_400)


def test_benchmarks_learn_them_before_numeric_libraries_are_imported():
    """Threads are set by variables that numpy reads when it is imported."""
    code = "import sys; from benchmarks import machine; machine.facts(); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
