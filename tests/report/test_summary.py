from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import lobit
from lobit.errors import ConfigError, ExportError, FormatError, ShapeError
from lobit.format import read_file, write_file
from lobit.report.summary import si
from lobit.training import load_model
from tests.report.nets import captured
from tests.report.test_rapl import SERVER, Machine
from tests.runtime.nets import Net
from tests.training.test_training import tiny

MLP = "tests/golden/v1-mlp.lobit"


def quantized(bits="W2A2"):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10))
    lobit.quantize_(net, bits)
    return net


@pytest.mark.parametrize("bits", ["W1A1", "W4A4"])
def test_a_model_and_its_file_have_one_count(tmp_path, bits):
    net, x = quantized(bits), torch.rand(8, 1, 8, 8)
    net(x)
    lobit.export(net.eval(), x, tmp_path / "net.lobit")
    of_model, of_file = lobit.summary(net, x), lobit.summary(tmp_path / "net.lobit")
    assert of_model.cost == of_file.cost
    assert of_model.energy == of_file.energy
    assert of_file.file_bytes == (tmp_path / "net.lobit").stat().st_size
    assert of_file.cost == lobit.summary(lobit.load(tmp_path / "net.lobit")).cost == lobit.summary(read_file(tmp_path / "net.lobit")).cost


def test_a_model_stays_as_it_was(tmp_path):
    net, x = quantized(), torch.rand(8, 1, 8, 8)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert lobit.summary(net, x).cost.parameters == 64 * 48 + 48 * 32 + 32 * 10
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    with pytest.raises(ConfigError, match="has not seen data"):
        net.eval()(x)  # its learned steps still wait for their first batch


def test_a_run_its_checkpoint_its_recipe_and_its_file_have_one_count(tmp_path):
    recipe = tiny(epochs=1)
    done = lobit.train(recipe, out=tmp_path / "run")
    model, _ = load_model(done.folder)
    lobit.export(model, torch.rand(4, 1, 8, 8), tmp_path / "run.lobit")
    costs = [lobit.summary(path).cost for path in (done.folder, done.checkpoint, tmp_path / "run.lobit", tmp_path / "run" / "recipe.yaml")]
    assert costs[0] == costs[1] == costs[2]
    assert costs[3].macs_by_width == costs[0].macs_by_width
    assert costs[3].weight_bytes == costs[0].weight_bytes


def test_recipes_and_models_go_by_name_and_take_other_bits():
    by_recipe, by_model = lobit.summary("digits-w2a2"), lobit.summary("digits-convnet", bits="W2A2")
    assert by_recipe.cost == by_model.cost
    assert by_recipe.title == "recipe digits-w2a2 (digits-convnet, W2A2), untrained"
    assert by_model.title == "model digits-convnet, W2A2, untrained"
    other = lobit.summary("digits-w2a2", bits="W3A1")
    assert set(other.cost.macs_by_width) == {"W8A8", "W3A1"}
    assert lobit.summary("digits-convnet").title == "model digits-convnet, float, untrained"


def test_a_file_that_is_called_like_a_model_is_the_file(tmp_path, monkeypatch):
    write_file(tmp_path / "digits-convnet", captured("digits-convnet", "W1A1"))
    monkeypatch.chdir(tmp_path)
    assert lobit.summary("digits-convnet").title == "file digits-convnet"


def test_a_file_needs_no_torch():
    code = f"import sys; sys.modules['torch'] = None; import lobit; print(lobit.summary({MLP!r}, batch=3))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "peak memory, batch 3" in done.stdout


def test_a_name_without_torch_says_that_it_is_no_file():
    code = "import sys; sys.modules['torch'] = None; import lobit\ntry: lobit.summary('digits-convnet')\nexcept lobit.LobitError as error: print(error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (
        done.stdout.strip()
        == "'digits-convnet' is no file here, and a model or recipe needs torch, which is not installed: pip install 'lobit[train]'"
    )


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (("digits-convne",), ConfigError, "did you mean 'digits-convnet'"),
        (("digits-w1a",), ConfigError, "did you mean 'digits-w1a1'"),
        (("",), FormatError, "cannot read ''"),
        (("nowhere.lobit",), FormatError, "cannot read"),
        (("no/where",), FormatError, "cannot read"),
        (("nowhere.ckpt",), ConfigError, "there is no checkpoint"),
        (("x" * 5000,), ConfigError, "is no file, run, model or recipe"),
        (("a\0b",), ConfigError, "is no file, run, model or recipe"),
        ((7,), ConfigError, "not int"),
        ((nn.Linear(2, 2),), ConfigError, "needs an example of its input"),
        ((nn.Linear(2, 2), [1.0]), ShapeError, "example must be a tensor"),
        ((nn.Linear(2, 2), torch.rand(3, 3)), ExportError, "does not run on an input of shape (3, 3)"),
        (("digits-w1a1", torch.rand(2, 2)), ConfigError, "an example belongs to an nn.Module"),
    ],
)
def test_what_is_no_network_is_refused(given, error, message):
    with pytest.raises(error, match=re.escape(message)):
        lobit.summary(*given)


@pytest.mark.parametrize("given", [MLP, read_file(MLP), nn.Linear(2, 2)])
def test_bits_of_what_has_its_own_are_refused(given):
    with pytest.raises(ConfigError, match="has its own"):
        lobit.summary(given, bits="W1A1")


def test_a_wrong_batch_is_refused_before_any_work():
    with pytest.raises(ConfigError, match="batch is 0"):
        lobit.summary("nowhere.lobit", batch=0)


def test_the_table_fits_80_columns_whatever_the_names(tmp_path):
    net = Net(input=(8, 16, 16))
    graph = captured("digits-convnet", "W2A2")
    long = [replace(node, name=f"a.very.long.path.of.modules.that.goes.on.and.on.layer{node.name}") for node in graph.nodes]
    text = str(lobit.summary(replace(graph, nodes=long, types={})))
    assert max(map(len, text.splitlines())) <= 80
    assert ".layer11" in text  # the end of a name tells layers apart
    x = net.chain("input", ("mul", 2.0))
    assert "no layer has weights" in str(lobit.summary(net.graph(x)))


def test_the_table_shows_the_figures_of_the_cost():
    found = lobit.summary("cifar10-convnet", bits="W1A1")
    text = str(found)
    assert "14,022,016 weights" in text
    assert re.search(r"weights +1,753,344 B +56,088,064 B +32\.0 x", text)
    assert re.search(r"W1A1 +613,427,200 +99\.4% +613,427,200", text)
    assert re.search(r"all +616,966,144 +641,738,752", text)
    assert re.search(r"peak memory, batch 1 +2,439,508 B +57,167,444 B +23\.4 x", text)


def test_a_float_network_is_not_set_beside_itself():
    text = str(lobit.summary("digits-convnet"))
    assert "less" not in text
    assert "inexact: every layer, in float32" in text


def test_all_of_it_is_json():
    found = json.loads(json.dumps(lobit.summary(MLP).to_dict()))
    assert found["macs"] == sum(found["macs_by_width"].values()) == sum(layer["macs"] for layer in found["layers"])
    assert found["energy_estimate"]["joules"] < found["float"]["energy_joules"]
    assert found["measured"] is None
    assert found["file_bytes"] > found["weight_bytes"]


def test_joules_are_measured_where_the_machine_does(tmp_path, monkeypatch):
    machine = Machine(tmp_path, SERVER)

    def measured(run, seconds):
        return machine.measure(lambda: (run(), machine.pass_time(0.5, extra_watts=1)), seconds)

    monkeypatch.setattr("lobit.report.summary.find_zones", lambda: None)
    monkeypatch.setattr("lobit.report.summary.measure", measured)
    found = lobit.summary(MLP, batch=10, measured=True)
    assert found.measured.joules == pytest.approx(104 * 0.5)
    assert "measured: 5.200 J a sample at batch 10 on one thread (200.0 mJ above rest), 104.0 W of" in " ".join(str(found).split())
    assert found.to_dict()["measured"]["rest_watts"] == pytest.approx(100)


def test_where_nothing_is_measured_one_line_says_why(monkeypatch, tmp_path):
    def none():
        raise ConfigError("this machine shows no energy counters")

    monkeypatch.setattr("lobit.report.summary.find_zones", none)
    found = lobit.summary(MLP, measured=True)
    assert found.measured is None
    assert "joules not measured: this machine shows no energy counters" in str(found)
    assert "joules" not in str(lobit.summary(MLP))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((999.96, "1.000 k"), (9.9949, "9.995"), (99.94, "99.94"), (150994944, "151.0 M"), (80, "80"), (0, "0"), (-0.0021, "-2.100 m")),
        *((5e-12, "5.000 p"), (1e-13, "0.1000 p"), (1e15, "1000 T"), (np.float64(2.5), "2.500")),
    ],
)
def test_four_digits_and_a_prefix(value, text):
    assert si(value) == text
    assert si(value, "J") == f"{text}J" if text[-1].isalpha() else f"{text} J"
