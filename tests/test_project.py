"""What the project as a whole promises: a light import, an import table, a README that works, modules of a readable size."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [
    path
    for folder in ("src", "native", "benchmarks", "scripts")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".c", ".h", ".cpp"}
]


def python(code: str, cwd: Path | None = None) -> str:
    """Output of a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bare_import_brings_no_package_but_numpy_and_safetensors() -> None:
    code = """
        import sys
        before = set(sys.modules)
        import lobit
        origins = {m: getattr(sys.modules[m], "__file__", None) or "" for m in set(sys.modules) - before}
        print(*sorted({m.split(".")[0] for m, origin in origins.items() if "site-packages" in origin}))
    """
    assert set(python(re.sub(r"^ {8}", "", code, flags=re.M)).split()) <= {"lobit", "numpy", "safetensors"}


def test_bare_import_is_quick() -> None:
    code = "import time; start = time.perf_counter(); import lobit; print(time.perf_counter() - start)"
    assert min(float(python(code)) for _ in range(5)) < 0.2


@pytest.mark.parametrize("name", ["format", "runtime", "targets", "bits", "errors"])
def test_what_runs_a_file_works_where_torch_does_not_exist(name: str) -> None:
    python(f"import sys; sys.modules['torch'] = None; import lobit.{name}")


# .ci/run runs these with a sanitized engine, in an environment that has numpy, pytest and hypothesis alone.
TORCHLESS = ["tests.golden.test_golden"] + [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for folder in ("runtime", "fuzz")
    for path in (ROOT / "tests" / folder).glob("*.py")
]


def test_tests_of_the_engine_and_their_helpers_import_no_torch() -> None:
    code = """
        import ast, importlib, pathlib, sys
        sys.modules["torch"] = None
        for name in NAMES:
            importlib.import_module(name)
        files = [module.__file__ for name, module in sorted(sys.modules.items()) if name.startswith("tests.")]
        assert len(files) > len(NAMES)
        for file in files:  # what functions import when they run, too
            for node in ast.walk(ast.parse(pathlib.Path(file).read_text())):
                if isinstance(node, ast.Import) or isinstance(node, ast.ImportFrom) and node.module != "__future__":
                    exec(compile(ast.Module([node], []), f"{file}:{node.lineno}", "exec"), {})
    """
    python(f"NAMES = {TORCHLESS}\n" + re.sub(r"^ {8}", "", code, flags=re.M), cwd=ROOT)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert "AttributeError" in python("import lobit\ntry: lobit.no_such_name\nexcept AttributeError: print('AttributeError')")


def test_imports_follow_the_table() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_has_at_most_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_the_readme_begins_with_what_lobit_implements() -> None:
    assert (ROOT / "README.md").read_text().startswith("lobit implements Quantized Neural Networks")


def test_the_example_of_the_readme_runs(tmp_path: Path) -> None:
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert example is not None
    assert len(example[1].split("\n\n", 1)[1].splitlines()) <= 10
    python(example[1] + "\nassert y.shape == (32, 10)", cwd=tmp_path)
    assert (tmp_path / "net.lobit").exists()


def test_links_of_the_documents_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_constraints_pin_every_direct_requirement() -> None:
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    wanted = subprocess.run(
        [sys.executable, ROOT / "scripts" / "requirements.py", "dev"], capture_output=True, text=True, check=True
    ).stdout.split()
    names = {re.split(r"[<>=\[]", requirement)[0].lower().replace("_", "-") for requirement in wanted}
    assert "torch" in names
    assert names <= pinned
