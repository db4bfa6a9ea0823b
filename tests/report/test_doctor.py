from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import pytest

from lobit.report import checks, doctor, self_test
from lobit.report.doctor import Diagnosis, diagnose
from lobit.report.packages import Package, packages
from lobit.runtime import Kernel, isas, kernels


def named(found, name):
    return next(check for part in found.parts.values() for check in part if check.name == name)


def test_this_machine_is_well_and_all_of_it_is_json():
    found = diagnose()
    assert found.ok
    assert found.kernels == kernels()
    assert named(found, "instruction sets").found.split("; ")[0] == ", ".join(isas())
    assert named(found, "self-test").state == "ok"
    assert named(found, "digits").state == "ok"
    values = json.loads(json.dumps(found.to_dict()))
    assert values["ok"] is True
    assert list(values["checks"]) == list(doctor.PARTS)
    assert len(values["kernels"]) == len(kernels())
    assert all(line == line.rstrip() and len(line) <= 80 for line in str(found).splitlines())


@pytest.mark.parametrize("module", ["lobit._native", "numpy"])
def test_what_is_essential_and_does_not_load_is_broken_and_has_a_remedy(module, tmp_path):
    code = f"import sys; sys.modules[{module!r}] = None\nfrom lobit.report.doctor import diagnose\nfound = diagnose(); print(found.ok); print(found)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("False\n")
    assert f"BROKEN  {'native module' if module == 'lobit._native' else 'numpy'}" in done.stdout
    assert "pip install" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("broken: ")


def test_an_instruction_set_that_the_processor_lacks_breaks_every_session(monkeypatch):
    monkeypatch.setenv("LOBIT_ISA", "sve9")
    found = diagnose()
    assert not found.ok
    assert [check.name for check in found.broken] == ["LOBIT_ISA"]
    assert "unset LOBIT_ISA" in str(found)
    monkeypatch.setenv("LOBIT_ISA", "scalar")
    assert named(diagnose(), "LOBIT_ISA").found == "scalar"


def test_kernels_that_compute_something_else_are_found(monkeypatch):
    class Wrong(self_test.Session):
        def __call__(self, *inputs):
            return super().__call__(*inputs) + (self.isa == "scalar")

    monkeypatch.setattr(self_test, "Session", Wrong)
    assert self_test.wrong_isas() == {"scalar": "wrong sums of odd1 weights and odd1 activations"}
    found = diagnose()
    assert [check.name for check in found.broken] == ["self-test"]


def test_a_check_that_fails_is_a_finding_and_the_others_still_run(monkeypatch):
    def fails():
        yield checks.Check("first", "ok", "seen")
        raise KeyError("rows")

    monkeypatch.setitem(doctor.PARTS, "processor", fails)
    found = diagnose()
    assert [(check.name, check.state) for check in found.parts["processor"]] == [("first", "ok"), ("processor", "broken")]
    assert "KeyError: 'rows'" in str(found)
    assert named(found, "self-test").state == "ok"


def test_a_native_module_of_another_version_is_broken(monkeypatch):
    import lobit._native

    monkeypatch.setattr(lobit._native, "kernels", lambda: [{"name": "a", "colour": "red"}])
    found = diagnose()
    assert found.kernels == ()
    assert "colour" not in str(found)


def test_data_sets_are_looked_for_where_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("LOBIT_DATA", raising=False)
    assert {check.name: check.state for check in checks.data_sets()}["mnist"] == "missing"
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3"):
        (raw / f"{part}-ubyte.gz").write_bytes(b"")
    monkeypatch.setenv("LOBIT_DATA", str(tmp_path))
    assert {check.name: check.state for check in checks.data_sets()}["mnist"] == "missing"  # one of four files is not there
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"")
    found = {check.name: check for check in checks.data_sets()}
    assert (found["mnist"].state, found["mnist"].found) == ("ok", str(raw))
    assert found["fashion-mnist"].state == "missing"
    monkeypatch.setenv("LOBIT_DATA", str(tmp_path / "nowhere"))
    assert next(checks.data_sets()).state == "missing"


def test_a_tool_is_named_with_its_version_or_with_what_brings_it(monkeypatch, tmp_path):
    for name, body in {"gcc": "echo gcc 99; echo more", "clang": "exit 1", "qemu-system-arm": "kill -9 $$"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {check.name: check for check in checks.tools()}
    assert (found["gcc"].state, found["gcc"].found) == ("ok", "gcc 99")
    assert (found["clang"].state, found["clang"].found) == ("ok", str(tmp_path / "clang"))
    assert found["qemu-system-arm"].state == "ok"
    assert found["arm-none-eabi-gcc"].state == "missing"
    assert "gcc-arm-none-eabi" in found["arm-none-eabi-gcc"].remedy


def test_a_kernel_that_does_not_run_here_says_what_the_processor_lacks():
    table = (
        Kernel("a_scalar", "scalar", "xor", 1, 16, 7.0, "", True),
        Kernel("a_avx512", "avx512", "xor", 3, 64, 360.0, "avx512vpopcntdq", False),
        Kernel("stage_avx512", "avx512", "stage", 0, 0, 0.0, "", True),
        Kernel("a_amx", "amx", "dot8", 32, 64, 230.0, "", False),
    )
    text = str(Diagnosis({"kernels": ()}, table))
    assert "no: the processor lacks avx512vpopcntdq" in text
    assert "no: the processor lacks amx" in text
    assert text.count("yes") == 2


def test_an_extra_names_what_it_lacks_and_the_line_that_installs_it(monkeypatch):
    there, old, gone = Package("numpy", "1.26", "2.0"), Package("torch", "2.8", "2.7.1"), Package("optuna", "4.0", None)
    monkeypatch.setattr(checks, "packages", lambda extra: {"train": (there, old), "search": (gone,)}.get(extra, (there,)))
    found = {check.name: check for check in checks.extras()}
    assert (found["cli"].state, found["cli"].found) == ("ok", "numpy 2.0")
    assert found["train"].found == "torch 2.7.1 (needs 2.8); there are numpy 2.0"
    assert (found["search"].found, found["search"].remedy) == ("optuna", "pip install 'lobit[search]'")
    monkeypatch.setattr(checks, "packages", lambda extra: None)
    (tree,) = checks.extras()
    assert (tree.name, tree.state) == ("extras", "missing")
    assert "source tree" in tree.found


def test_requirements_are_read_from_what_is_installed(tmp_path, monkeypatch):
    info = tmp_path / "fake-1.0.dist-info"
    info.mkdir()
    asked = [
        "numpy>=1.26",
        'typer>=0.15; extra == "cli"',
        "no-such-package >= 2.8, < 3 ; extra == 'train'",
        'fake[cli]; extra == "train"',
        'mkdocstrings[python]>=0.26; python_version >= "3.11" and extra == "docs"',
        'types-PyYAML; extra == "docs"',
    ]
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: fake\nVersion: 1.0\n" + "".join(f"Requires-Dist: {line}\n" for line in asked)
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert [(package.name, package.least) for package in packages(of="fake")] == [("numpy", "1.26")]
    assert packages("train", of="fake") == (Package("no-such-package", "2.8", None),)
    assert [(package.name, package.least) for package in packages("docs", of="fake")] == [("mkdocstrings", "0.26"), ("types-PyYAML", "0")]
    assert packages(of="no-such-package") is None


@pytest.mark.parametrize(
    ("least", "installed", "fits"),
    [
        ("2.8", "2.13.0+cpu", True),
        ("2.8", "2.7.9", False),
        ("6.0.1", "6.0", False),
        ("1.0", "1", True),
        ("0", "x", True),
        ("1", "x", False),
        ("1.20", "1.20rc1", True),
        ("1", None, False),
    ],
)
def test_versions_compare_by_their_numbers(least, installed, fits):
    assert Package("p", least, installed).fits is fits


def test_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    diagnose()
    assert os.listdir(tmp_path) == []
