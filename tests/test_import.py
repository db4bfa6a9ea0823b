"""`import lobit` is light, and what is missing says how to get it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import lobit


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
"""


def test_running_a_packed_file_imports_no_torch():
    done = python(
        "import sys, glob, lobit; lobit.load(glob.glob('tests/golden/*.lobit')[0]).explain(); print([m for m in ('torch', 'yaml', 'typer', 'matplotlib') if m in sys.modules])"
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("name", "package", "extra"), [("quantize_", "torch", "train"), ("train", "lightning", "train"), ("recipes", "yaml", "train")]
)
def test_a_missing_package_gives_the_line_that_installs_it(name, package, extra):
    done = python(BLOCK.format(names={package}) + f"import lobit\ntry: lobit.{name}\nexcept lobit.LobitError as error: print(error)")
    assert package in done.stdout
    assert f"pip install 'lobit[{extra}]'" in done.stdout


@pytest.mark.parametrize(
    ("module", "package"),
    [
        *((name, "torch") for name in ("nn", "quantizers", "optim", "models", "capture", "training", "convert")),
        ("recipes", "yaml"),
        ("training", "lightning"),
    ],
)
def test_a_part_imported_by_itself_says_so_too(module, package):
    done = python(
        BLOCK.format(names={package}) + f"try: import lobit.{module}\nexcept ImportError as error: print(type(error).__name__, error)"
    )
    assert done.stdout.startswith("MissingExtraError lobit."), done.stderr
    assert f"needs {package}, which is not installed: pip install 'lobit[train]'" in done.stdout


def test_the_command_without_its_extra_says_so():
    done = python(BLOCK.format(names={"typer"}) + "from lobit.cli import main; main()")
    assert done.returncode == 2
    assert "pip install 'lobit[cli]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_public_names_all_exist():
    assert all(getattr(lobit, name) is not None for name in lobit.__all__)
    assert set(dir(lobit)) == set(lobit.__all__)
    with pytest.raises(AttributeError, match="quantise"):
        _ = lobit.quantise_


def test_commands_that_need_torch_say_so_in_one_line_without_a_traceback(tmp_path):
    commands = [["train", "digits-w1a1"], ["export", "run", "f.lobit"], ["verify", "run"], ["summary", "digits-w1a1"], ["models"], ["demo"], ["report", "run"], ["sweep", "digits-w1a1"]]  # fmt: skip
    done = python(
        BLOCK.format(names={"torch"})
        + f"import os; os.chdir({str(tmp_path)!r})\nfrom lobit.cli.app import run\nprint([run(command) for command in {commands}])"
    )
    assert done.stdout == f"{[2] * len(commands)}\n"
    lines = done.stderr.splitlines()
    assert len(lines) == len(commands), done.stderr
    assert all(line.startswith("lobit: ") and line.endswith("torch, which is not installed: pip install 'lobit[train]'") for line in lines)
    assert list(tmp_path.iterdir()) == []
