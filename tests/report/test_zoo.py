from __future__ import annotations

import pytest

from lobit.models import list_models, model_info
from lobit.recipes import list_recipes, load_recipe
from lobit.report.cost import cost_of
from lobit.report.zoo import ModelRow, model_rows, model_table
from tests.report.nets import captured


@pytest.mark.parametrize("name", list_models())
def test_a_model_s_figures_are_those_of_its_graph(name):
    (row,) = model_rows(name)
    cost = cost_of(captured(name, None))
    assert (row.weights, row.macs) == (cost.parameters, cost.macs)
    assert (row.input_shape, row.classes) == (model_info(name).input_shape, model_info(name).num_classes)


def test_a_model_of_words_counts_the_steps_of_its_text():
    (row,) = model_rows("ptb-lstm")
    steps, words, units = 35, 10000, 300
    assert (row.input_shape, row.classes) == ((steps,), words)
    assert row.macs == steps * (2 * 4 * units * units + units * words)
    assert row.weights == 2 * words * units + 2 * 4 * units * units


def test_every_recipe_stands_with_its_model():
    rows = {row.name: row for row in model_rows()}
    assert list(rows) == sorted(list_models() + list_models(kind="words"))
    assert sorted(recipe for row in rows.values() for recipe in row.recipes) == list_recipes()
    assert all(load_recipe(recipe).model.name == name for name, row in rows.items() for recipe in row.recipes)
    assert model_rows("no*") == ()


def test_the_table_fits_80_columns():
    recipes = tuple(f"a-recipe-of-some-length-{index}" for index in range(9))
    text = model_table([*model_rows(), ModelRow("a-model", (3, 224, 224), 1000, 10**8, 10**10, recipes, "what it is, " * 20)])
    assert max(map(len, text.splitlines())) <= 80
    assert "3x224x224     1000  100.0 M  10.00 G" in text
    assert all(recipe in text for recipe in recipes)
    assert "no recipe" in model_table([ModelRow("a-model", (1,), 2, 3, 4, (), "what it is")])
