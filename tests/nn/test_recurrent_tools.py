"""What surrounds recurrent layers: compilers, autocast, optimizers, export's refusal."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

import lobit
from lobit import nn as lnn
from lobit import optim
from lobit.capture.capture import capture
from lobit.errors import ExportError
from tests.nn.test_recurrent import FAMILIES, KINDS, make, tensors

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize(("kind", "family"), [("lstm", FAMILIES[0]), ("gru", FAMILIES[3]), ("tanh", FAMILIES[0]), ("relu", FAMILIES[4])])
def test_a_compiled_training_step_is_one_graph_and_the_same(kind, family):
    torch.compiler.reset()  # a class has a limited number of graphs
    layer = make(kind, family).train()
    x = torch.randn(2, 4, 5)
    results = []
    for model in (layer, torch.compile(layer, backend="aot_eager", fullgraph=True)):
        layer.zero_grad()
        parts = tensors(model(x))
        sum(part.square().sum() for part in parts).backward()
        results.append([*(part.detach() for part in parts), *(p.grad.clone() for p in layer.parameters() if p.grad is not None)])
    assert len(results[0]) == len(results[1])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    layer.eval()
    with torch.no_grad():
        assert torch.equal(torch.compile(layer, backend="aot_eager", fullgraph=True)(x)[0], layer(x)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_eval_is_the_same_exported_pickled_or_without_autograd(kind):
    layer = make(kind, FAMILIES[0])
    x = torch.randn(2, 3, 5)
    expected = layer(x)[0]
    with torch.inference_mode():
        assert torch.equal(layer(x)[0], expected)
    assert torch.equal(layer(x)[0], expected)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x)[0], expected)
    with torch.no_grad():
        assert torch.equal(torch.export.export(layer, (x,), strict=False).module()(x)[0], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_batch_gives_empty_results(kind):
    layer = make(kind, FAMILIES[0], num_layers=2, bidirectional=True)
    for training in (False, True):
        output, *states = tensors(layer.train(training)(torch.zeros(4, 0, 5)))
        assert output.shape == (4, 0, 12)
        assert all(state.shape == (4, 0, 6) for state in states)
    output.sum().backward()
    assert layer.weight_hh_l0.grad.abs().sum() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_leaves_codes_and_states_in_float32(kind):
    layer = make(kind, FAMILIES[0]).train()
    x = torch.randn(4, 3, 5)
    expected = layer(x.bfloat16().float())[0]
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x.bfloat16())[0]
        output.square().sum().backward()
    assert output.dtype == torch.float32
    assert torch.equal(output, expected)
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_step_runs_on_any_device(kind, device):
    layer = make(kind, FAMILIES[0], num_layers=2, bidirectional=True).train()
    x = torch.randn(4, 3, 5)
    results = []
    for where in ("cpu", device):
        layer.to(where).zero_grad()
        output = layer(x.to(where))[0]
        output.square().sum().backward()
        results.append([output.detach().cpu(), *(p.grad.cpu() for p in layer.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        lnn.LSTM(3, 4, 2, bidirectional=True, weight_quantizer="sign", input_quantizer="sign"),
        lnn.GRUCell(3, 4, weight_quantizer="sign", input_quantizer="sign"),
    ],
)
def test_every_latent_matrix_is_seen_by_optimizers(layer):
    model = nn.ModuleDict({"rnn": layer, "head": lnn.Linear(4, 3, weight_quantizer="sign", input_quantizer="sign")})
    matrices = [p for name, p in model.named_parameters() if "weight" in name]
    assert {id(found.weight) for found, _ in optim.latent_layers(model)} == {id(p) for p in matrices}
    groups = optim.parameter_groups(model, 0.1, step_scale="glorot")
    assert len([group for group in groups if len(group["params"]) == 1 and group["params"][0] in set(matrices)]) == len(matrices)
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(id(p) for p in model.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(5.0)
    optim.clip_latent_weights(model)
    assert all((p == (1 if "weight" in name else 5)).all() for name, p in model.named_parameters())
    optim.init_latent_weights(model)
    assert all(0.1 < p.std() < 1 for p in matrices)


def test_learned_steps_are_kept_positive():
    layer = make("lstm", FAMILIES[0])
    with torch.no_grad():
        for quantizer in [*layer.weight_quantizers.values(), *layer.input_quantizers.values(), *layer.hidden_quantizers.values()]:
            quantizer.step.fill_(-1.0)
    optim.clip_latent_weights(layer)
    assert all((p > 0).all() for name, p in layer.named_parameters() if name.endswith("step"))


class Tagger(nn.Module):
    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn

    def forward(self, x):
        return self.rnn(x)[0]


@pytest.mark.parametrize("cls", [lnn.LSTM, lnn.GRU, lnn.RNN, nn.LSTM, lnn.LSTMCell, nn.GRUCell])
@pytest.mark.parametrize("x", [torch.zeros(2, 5, 4), torch.zeros(2, 4), torch.zeros(2, 5, dtype=torch.int64)])
def test_export_refuses_recurrent_layers_by_name(cls, x, tmp_path):
    settings = {"weight_quantizer": "sign", "input_quantizer": "sign"} if cls.__module__.startswith("lobit") else {}
    model = Tagger(cls(4, 3, **settings)).eval()
    with pytest.raises(ExportError, match=rf"layer 'rnn' \({cls.__name__}\) .*recurrent layers do not export yet"):
        lobit.export(model, x, tmp_path / "net.lobit")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ExportError, match="recurrent layers do not export yet"):
        capture(model, (x,))
