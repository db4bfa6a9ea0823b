"""The pages of the site: their Python runs, their generated parts are current, the API lists every public name, the menu leads to pages."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import yaml

import lobit
from lobit.quantizers import registry

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BLOCKS = [
    pytest.param(block, shown, id=f"{page.stem}-{index}")
    for page in sorted(DOCS.glob("*.md"))
    for index, (block, shown) in enumerate(
        re.findall(r"^```python\n(.*?)^```$(?:\n\nprints\n\n```text\n(.*?)^```$)?", page.read_text(), re.S | re.M), start=1
    )
]
PUBLIC = ["quantizers", "nn", "models", "recipes", "training", "data", "capture", "runtime", "format"]
TORCHS_OWN = {"Flatten", "Hardtanh", "MaxPool2d", "PReLU", "ReLU"}
ELSEWHERE = {"paper", "small", "DATA_SETS", "PLACES"}  # modules whose nets the registry lists; tables


@pytest.mark.parametrize(("block", "shown"), BLOCKS)
def test_python_of_the_pages_runs_and_prints_what_they_show(
    block: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))  # a page may add a quantizer
    exec(compile(block, "page", "exec"), {})
    assert not shown or capsys.readouterr().out == shown


def test_the_quantizer_of_the_tutorial_has_no_more_than_twenty_lines() -> None:
    block = next(parameter.values[0] for parameter in BLOCKS if "@Q.register" in str(parameter.values[0]))
    lines = [line for line in str(block).split("\n\n\n")[1].splitlines() if line.strip()]
    assert lines[0].startswith("@Q.register")
    assert len(lines) <= 20


def test_the_pages_have_python_that_is_run() -> None:
    assert len(BLOCKS) >= 5
    assert sum(bool(parameter.values[1]) for parameter in BLOCKS) >= 2


def test_the_start_page_has_the_example_of_the_readme() -> None:
    examples = [re.search(r"```python\n(.*?)```", path.read_text(), re.S) for path in (ROOT / "README.md", DOCS / "index.md")]
    assert examples[0] is not None
    assert examples[1] is not None
    assert examples[0][1] == examples[1][1]


def test_the_api_pages_list_every_public_name() -> None:
    pages = "\n".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    headings = set(re.findall(r"^      heading: (\S+)$", pages, re.M)) | set(re.findall(r"^::: (\S+)$", pages, re.M))
    for name in lobit.__all__:
        assert f"lobit.{name}" in headings | {f"lobit.{module}" for module in (*PUBLIC, "optim")} or name == "__version__", name
    for module in PUBLIC:
        for name in importlib.import_module(f"lobit.{module}").__all__:
            if name not in TORCHS_OWN | ELSEWHERE:
                assert {f"lobit.{module}.{name}", f"lobit.{name}"} & headings, f"lobit.{module}.{name} is on no page of docs/api"


def test_every_page_is_in_the_menu_or_is_none() -> None:
    settings = yaml.load(re.sub(r"!!python/\S+", "", (ROOT / "mkdocs.yml").read_text()), yaml.SafeLoader)
    listed: set[str] = set()

    def walk(entries: list[dict[str, str | list[dict[str, str]]]]) -> None:
        for entry in entries:
            for target in entry.values():
                listed.add(target) if isinstance(target, str) else walk(target)  # type: ignore[arg-type]  # the menu nests

    walk(settings["nav"])
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert pages <= listed, f"not in the menu of mkdocs.yml: {sorted(pages - listed)}"
    assert listed & pages >= {"index.md", "concepts.md", "commands.md", "kernels.md", "file-format.md", "api/index.md"}


def test_the_recipe_on_the_page_of_training_is_the_shipped_one() -> None:
    shown = re.search(r"```yaml\n(.*?)```", (DOCS / "training.md").read_text(), re.S)
    assert shown is not None
    assert lobit.recipes.check_recipe("shown", yaml.safe_load(shown[1])) == lobit.recipes.load_recipe("mnist-mlp-small-w1a1")


def test_the_table_of_quantizers_names_them_all() -> None:
    page = (DOCS / "bits.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (weights|activations|both) \|", page, re.M)
    for role in ("weights", "activations"):
        named = {name for name, of in rows if of in (role, "both")}
        assert named == set(lobit.quantizers.names(role))  # type: ignore[arg-type]  # the two roles
