"""`lobit export --target c`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lobit.cli.app import run
from lobit.format import write_file
from tests.format.samples import convnet, mlp


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    write_file(tmp_path / "net.lobit", mlp())
    return tmp_path / "net.lobit"


def test_a_packed_file_becomes_c_where_torch_does_not_exist(packed: Path, tmp_path: Path) -> None:
    code = f"import sys; sys.modules['torch'] = None; from lobit.cli.app import run; sys.exit(run(['export', '--target', 'c', {str(packed)!r}, {str(tmp_path / 'c')!r}, '--name', 'digits']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "arena" in done.stdout
    assert {"digits.c", "digits.h", "digits_test.c", "Makefile", "lobit_products.c"} <= {path.name for path in (tmp_path / "c").iterdir()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "c", "{net}", "{place}"], "not empty"),
        (["--target", "c", "{net}", "{place}/c", "--name", "9"], "letters"),
        (["--target", "c", "{place}/nosuch.lobit", "{place}/c"], "nosuch"),
        (["--target", "c", "{place}/float.lobit", "{place}/c"], "_f32"),
        (["--target", "rust", "{net}", "{place}/c"], "rust"),
        (["{net}", "{place}/x.lobit", "--name", "digits"], "--target c"),
    ],
)
def test_what_cannot_be_exported_is_one_message_and_status_2_and_writes_nothing(
    arguments: list[str], message: str, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_file(tmp_path / "float.lobit", convnet())
    before = sorted(tmp_path.iterdir())
    assert run(["export", *(word.format(net=packed, place=tmp_path) for word in arguments)]) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
