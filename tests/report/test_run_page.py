"""The page of a run: its figures are the run's, it needs nothing else, and a run that cannot be shown is refused by name."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
import yaml

import lobit
from lobit.errors import ConfigError
from lobit.recipes import load_recipe
from lobit.report.layer_error import Gain, LayerError
from lobit.report.run_facts import _command, gather
from lobit.report.run_page import read_errors, write_run_page
from lobit.training import load_model, load_test_set, predict
from tests.report.runs import finished


class Page(HTMLParser):
    """Tags, what they ask for, and the words of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.asked, self.ids, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.asked += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "poster", "data")]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = write_run_page(finished("W2A2"), tmp_path_factory.mktemp("page") / "page.html")
    return Page(path.read_text())


def test_the_page_needs_nothing_else_and_runs_no_script(page):
    assert page.asked
    assert all(asked.startswith(("data:", "#")) for asked in page.asked)
    assert not {"script", "link rel", "iframe", "object"} & set(page.tags)


def test_the_page_has_a_section_for_each_question(page):
    assert {"training", "layers", "codes", "error", "answers", "repeat"} <= set(page.ids)
    assert page.tags.count("svg") == 3 + 4 * 2 + 1  # curves; weights and input of four layers; errors
    assert page.tags.count("img") == 24


def test_the_page_shows_the_figures_of_the_run(page):
    run = finished("W2A2")
    result = json.loads((run / "result.json").read_text())
    assert f"{100 * result['test_accuracy']:.2f}" in page.words
    report = lobit.load(run / "model.lobit")
    for row in report.explain().rows:
        if row.macs:
            assert f"{row.macs:,}" in page.words
            assert row.kernel in page.words
    assert "A <small> net & a test" in page.words  # and not as a tag
    assert (run / "recipe.yaml").read_text() in page.words


def test_float_runs_have_a_page_without_codes(tmp_path):
    page = Page(write_run_page(finished(None), tmp_path / "page.html").read_text())
    assert not {"codes", "error"} & set(page.ids)
    assert "stored as float32" in page.text
    assert page.tags.count("svg") == 3


def test_layers_of_one_low_bit_side_have_errors_but_no_sums_of_codes(tmp_path):
    page = Page(write_run_page(finished("W1A32", validation=0, epochs=1), tmp_path / "page.html").read_text())
    assert page.tags.count("svg") == 3 + 2 * 2 + 1  # codes of the first and the last layer, which multiply codes; errors of all four
    assert "3: conv2d_f32, W32A32" in page.words  # as the file runs it


def test_facts_agree_with_the_model_and_the_file():
    run = finished("W2A2")
    facts = gather(run)
    model, recipe = load_model(run)
    images, labels = load_test_set(recipe)
    assert np.array_equal(facts.logits, predict(model, images).numpy())
    assert (facts.predicted == labels.numpy()).mean() == pytest.approx(facts.result["test_accuracy"])
    assert facts.codes_equal == facts.codes_compared > 0
    assert facts.file_bytes == (run / "model.lobit").stat().st_size
    assert facts.sample == len(images) == len(facts.images) == 360
    assert facts.images.max() == 255
    assert [row["epoch"] for row in facts.history] == [1, 2]
    assert [row.name for row in facts.layers] == [row.layer for row in facts.weights] == [row.layer for row in facts.activations]
    assert sum(row.weight_bytes for row in facts.layers) == facts.cost.weight_bytes
    assert sum(row.seconds for row in facts.layers) + facts.times.between == pytest.approx(facts.times.seconds)
    assert facts.activations[0].total == 360 * 64


def test_a_run_without_its_packed_file_is_packed_in_memory(tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished("W2A2"), folder)
    before = gather(folder)
    (folder / "model.lobit").unlink()
    (folder / "metrics.csv").unlink()
    after = gather(folder)
    assert after.file_bytes == before.file_bytes
    assert np.array_equal(after.logits, before.logits)
    page = Page(write_run_page(folder).read_text())
    assert "training" not in page.ids  # no curves to show
    assert (folder / "report.html").is_file()
    assert not (folder / "model.lobit").exists()


def test_a_file_of_another_net_is_refused(tmp_path):
    other = finished("W1A1", validation=0)
    with pytest.raises(ConfigError, match="pack it again"):
        write_run_page(finished("W2A2"), tmp_path / "page.html", packed=other / "model.lobit")
    moved = tmp_path / "moved"
    shutil.copytree(finished("W2A2"), moved)
    checkpoint = torch.load(moved / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["state_dict"]["model.11.bias"] += 1.0
    torch.save(checkpoint, moved / "checkpoints" / "best.ckpt")
    with pytest.raises(ConfigError, match="does not compute what the model of"):
        write_run_page(moved, tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == [moved]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: shutil.rmtree(run), "there is no run in"),
        (lambda run: (run / "result.json").unlink(), "is not finished"),
        (lambda run: (run / "result.json").write_text("{"), "cannot read"),
        (lambda run: (run / "result.json").write_text('{"name": "x"}'), "lacks what a run writes"),
        (
            lambda run: (run / "result.json").write_text('{"name": "x", "epoch": 1, "seconds": 2, "test_accuracy": "high"}'),
            "lacks what a run writes",
        ),
        (lambda run: (run / "metrics.csv").write_text("epoch,lr\n1,fast\n"), "cannot read"),
        (lambda run: (run / "model.lobit").write_bytes(b"lobit"), "model.lobit"),
    ],
)
def test_a_run_that_cannot_be_shown_is_refused_by_name(tmp_path, change, message):
    folder = tmp_path / "run"
    shutil.copytree(finished("W2A2"), folder)
    change(folder)
    with pytest.raises(lobit.LobitError, match=message):
        write_run_page(folder)
    assert not (folder / "report.html").exists()


def test_where_a_page_cannot_be_is_said_before_any_work(tmp_path):
    for out in (tmp_path, tmp_path / "no" / "page.html"):
        with pytest.raises(ConfigError, match="name a file for the page"):
            write_run_page("no-run-is-read", out)


def test_the_command_repeats_the_very_recipe(tmp_path):
    shipped = load_recipe("digits-w2a2")
    assert _command("digits-w2a2", shipped, tmp_path) == "lobit train digits-w2a2"
    assert (
        _command("digits-w2a2", shipped.model_copy(update={"epochs": 3, "seed": 7}), tmp_path)
        == "lobit train digits-w2a2 --epochs 3 --seed 7"
    )
    changed = shipped.model_copy(update={"batch_size": 7})
    for name, recipe in (("digits-w2a2", changed), ("my-own", shipped)):
        folder = tmp_path / "a run"
        assert _command(name, recipe, folder) == f"lobit train '{folder}/recipe.yaml' --out '{folder}-again'"


def test_a_recipe_in_the_run_is_the_recipe_on_the_page():
    facts = gather(finished("W1A1", validation=0))
    assert load_recipe(facts.recipe.model_copy()) == facts.recipe
    assert yaml.safe_load(facts.recipe_text) == facts.recipe.model_dump()
    assert facts.result["validation_accuracy"] is None
    assert "val_loss" not in facts.history[-1]


ROW = LayerError("a", 0.02, 0.02, 0.04, 0.1, 8, 0, Gain(0, 0, 100))


def test_errors_are_read_as_a_person_would():
    assert read_errors([]) == []
    worst = replace(ROW, name="b", weights=0.3, input=0.01, both=0.31)
    first, second = read_errors([ROW, worst])
    assert first.startswith("Layer b loses most: quantization destroys 31 %")
    assert first.endswith("mostly its weights.")
    assert "no single layer mends more of 100 answers than chance" in second
    assert read_errors([replace(ROW, input=0.5, both=0.5)])[0].endswith("mostly its input.")
    assert "about alike" in read_errors([ROW])[0]


def test_a_gain_beyond_chance_is_told_and_one_within_it_is_not():
    pays = replace(ROW, name="b", gain=Gain(12, 1, 100))  # 0.003 by chance
    assert "likely to pay at layer b (12 answers mended, 1 broken), of 100 images" in read_errors([ROW, pays])[1]
    assert "no single layer" in read_errors([*[ROW] * 20, pays])[1]  # 1 of 21 layers at 0.003 is chance again
    assert "no single layer" in read_errors([replace(ROW, gain=Gain(1, 12, 100))])[1]
