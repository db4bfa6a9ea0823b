"""Grids: what is asked for, and what is refused in one clear error."""

from __future__ import annotations

import pytest

from lobit import models
from lobit.bits import Bits
from lobit.errors import ConfigError
from lobit.models import registry
from lobit.report.sweep import Cell, Grid
from lobit.report.sweep.grid import check_models, parse_numbers
from tests.training.test_training import tiny


def test_the_default_is_the_papers_question():
    bits = [cell.bits for cell in Grid().cells]
    assert len(bits) == 25
    assert {"W1A1", "W1A32", "W32A1", "W32A32", "W4A3"} <= set(bits)


def test_cells_are_whole_grids_seed_by_seed():
    assert [cell.name for cell in Grid((1, 2), [3], (7, 8)).cells] == ["w1a3-seed7", "w2a3-seed7", "w1a3-seed8", "w2a3-seed8"]


def test_a_cell_changes_bits_and_seed_of_the_recipe_and_nothing_else():
    base = tiny()
    changed = Cell(1, 32, 9).recipe(base)
    assert changed.model.bits == "W1A32"
    assert changed.seed == 9
    assert changed.model_copy(update={"seed": base.seed, "model": base.model}) == base
    assert changed.model.model_copy(update={"bits": base.model.bits}) == base.model


def test_bits_of_gradients_stay():
    base = tiny(model={"name": "digits-convnet", "bits": "W1A1G6"})
    assert Bits.parse(Cell(2, 3, 1).recipe(base).model.bits) == Bits(2, 3, 6)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"weights": (0,)}, "weights has 0; widths are 1 to 8, or 32"),
        ({"activations": (1, 9)}, "activations has 9; widths are 1 to 8, or 32"),
        ({"weights": (1, 2, 1)}, "weights has 1 twice"),
        ({"seeds": ()}, "seeds is empty"),
        ({"seeds": (2**32,)}, "seeds has 4294967296; seeds are 0 to 4294967295"),
        ({"weights": (True,)}, "weights has True"),
        ({"weights": 3}, "weights is 3; give a list"),
        ({"activations": "12"}, "activations has '1'"),
    ],
)
def test_a_wrong_list_is_named_with_what_is_allowed(lists, message):
    with pytest.raises(ConfigError, match=message):
        Grid(**lists)


@pytest.mark.parametrize("text", ["", "1,", "1;2", "1,-2", "one", "1.5", "1,,2", "99999999999", "²", "1 2"])
def test_a_list_that_is_none_is_one_error_that_names_it(text):
    with pytest.raises(ConfigError, match="weights is .* no whole number; write numbers with commas"):
        parse_numbers("weights", text)


def test_lists_may_have_spaces():
    assert parse_numbers("weights", " 1, 2 ,32") == (1, 2, 32)


def test_a_model_that_does_not_take_the_bits_is_refused_ahead_of_any_work(monkeypatch):
    def refuses(bits):
        raise ConfigError(f"this net has no {bits}")

    monkeypatch.setattr(registry, "_MODELS", {"picky": models.ModelInfo("picky", refuses, (1, 8, 8), 10, "refuses")})
    with pytest.raises(ConfigError, match="no net with W1A1: this net has no W1A1G6"):
        check_models(Grid((1,), (1,)), tiny(model={"name": "picky", "bits": "W2A2G6"}))
