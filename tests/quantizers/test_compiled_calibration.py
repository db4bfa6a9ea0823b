"""What runs data through a compiled model compiles nothing, and leaves what was compiled in use."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import lobit
from lobit.quantizers import calibrating


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 6)
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.norm(self.rnn(x)[0].flatten(0, 1)))


def one_batch(model, batches):
    with calibrating(model):
        model(batches[0])


@pytest.mark.parametrize(
    "run", [lobit.calibrate, one_batch, lobit.reestimate_batch_norm], ids=["calibrate", "calibrating", "reestimate_batch_norm"]
)
@pytest.mark.parametrize("in_place", [False, True])
def test_data_that_runs_through_a_compiled_model_compiles_nothing_and_gives_what_the_plain_one_gives(run, in_place):
    torch.manual_seed(0)
    plain, graphs = Tagger(), []
    batches = [torch.randn(2, 2, 5) for _ in range(3)]
    lobit.quantize_(plain, "W4A4")
    lobit.calibrate(plain, batches)
    if run is one_batch:
        for module in plain.modules():
            if hasattr(module, "started"):
                module.reset()
    model = copy.deepcopy(plain).eval()
    run(plain, batches)

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = model
    if in_place:
        model.compile(backend=count)
    else:
        compiled = torch.compile(model, backend=count)
    if run is lobit.reestimate_batch_norm:
        compiled(batches[0])
        assert len(graphs) == 1  # so there is something to be left in use
    before = len(graphs)
    run(compiled, batches)
    assert len(graphs) == before
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), model.state_dict().values(), strict=True))
    torch.testing.assert_close(compiled(batches[1]), plain.eval()(batches[1]), rtol=0, atol=0)
    assert len(graphs) == max(before, 1)
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["lsq", "learned_bits"])
def test_one_graph_before_the_first_batch_is_refused_with_what_to_do(name):
    net = lobit.nn.Linear(8, 4, input_quantizer={"name": name, "bits": 4}, weight_quantizer={"name": "lsq", "bits": 4})
    torch._dynamo.reset()
    with pytest.raises(Exception, match="run one batch in training, or lobit.calibrate, before"):
        torch.compile(net, fullgraph=True, backend="eager")(torch.randn(8, 8))
