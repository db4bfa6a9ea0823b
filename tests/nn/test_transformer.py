"""torch.nn's transformer layers, converted: attention is one layer of the policy, and no fast path of eval runs in float past the quantizers."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn

import lobit
from lobit import nn as lnn
from lobit.convert import quantize_
from lobit.errors import ConfigError, ExportError
from lobit.training.matrices import matrices
from lobit.training.schedules import QuantizationSchedule


def encoder(layers=2, width=16, **setting):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(width, 2, 24, dropout=0.0, batch_first=True, **setting)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=not setting.get("norm_first", False))


class Classifier(nn.Module):
    def __init__(self, **setting):
        super().__init__()
        self.encoder, self.head = encoder(**setting), nn.Linear(16, 3)

    def forward(self, x, padding=None):
        return self.head(self.encoder(x, src_key_padding_mask=padding).mean(1))


def converted(bits="W4A4", **setting):
    net, x = Classifier(**setting), torch.randn(4, 6, 16)
    report = quantize_(net, bits, first=None, last=None)
    net(x)
    return net, x, report


def test_attention_is_one_layer_of_the_report_and_its_parameters_keep_names_and_objects():
    net = Classifier()
    before = dict(net.named_parameters())
    report = quantize_(net, "W4A4")
    after = {name: p for name, p in net.named_parameters() if "quantizer" not in name}
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)
    rows = {row.path: row for row in report.rows}
    assert rows["encoder.layers.0.self_attn"].bits == "W8A8"  # the first layer
    assert rows["encoder.layers.1.self_attn"].bits == "W4A4"
    assert rows["encoder.layers.1.self_attn"].note == "lsq, lsq"
    assert not any("out_proj" in path for path in rows)
    assert type(net.encoder.layers[1].self_attn) is lnn.MultiheadAttention
    assert net.encoder.layers[1].self_attn.out_proj.weight_quantizer.code_type.bits == 4
    assert set(report.quantized) == {f"encoder.layers.{i}.{name}" for i in (0, 1) for name in ("self_attn", "linear1", "linear2")} | {
        "head"
    }
    assert "norm1" in " ".join(report.left)


def test_a_pattern_or_skip_leaves_attention_float_with_the_layer_still_in_use():
    net = Classifier()
    report = quantize_(net, {"*.self_attn": None, "*": "W2A2"}, first=None, last=None)
    assert {row.path: row.note for row in report.rows}["encoder.layers.0.self_attn"] == "its policy is float"
    assert type(net.encoder.layers[0].self_attn) is nn.MultiheadAttention
    net(torch.randn(4, 6, 16))
    net.eval()
    x = torch.randn(2, 6, 16)
    slow = net(x).detach()
    with torch.no_grad():
        torch.testing.assert_close(net(x), slow, rtol=1e-6, atol=1e-6)
    skipped = Classifier()
    report = quantize_(skipped, "W4A4", skip=nn.TransformerEncoder)
    assert report.quantized == ("head",)
    assert type(skipped.encoder.layers[0]) is nn.TransformerEncoderLayer


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_eval_without_gradients_runs_the_quantized_layers(norm_first, padded):
    """There torch's layer has a fast path of float weights, and its encoder makes nested tensors for it."""
    net, x, _ = converted(norm_first=norm_first)
    padding = None
    if padded:
        padding = torch.zeros(4, 6, dtype=torch.bool)
        padding[1, 4:] = True
    net.eval()
    with_gradients = net(x, padding).detach()
    with torch.no_grad():
        assert torch.equal(net(x, padding), with_gradients)
        ran = []
        for name, module in net.named_modules():
            if isinstance(module, lobit.quantizers.ActivationQuantizer):
                module.register_forward_hook(lambda *_, name=name: ran.append(name))
        net(x, padding)
    assert len(ran) == 2 * (3 + 4 + 1 + 2) + 1
    floats = Classifier(norm_first=norm_first).eval()
    floats.load_state_dict({name: value for name, value in net.state_dict().items() if "quantizer" not in name})
    assert not torch.allclose(floats(x, padding), with_gradients, atol=1e-3)


def test_lobits_attention_put_into_torchs_own_layer_is_not_bypassed_either():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0, batch_first=True)
    four = {"name": "lsq", "bits": 4}
    layer.self_attn = lnn.MultiheadAttention(16, 2, batch_first=True, weight_quantizer=four, input_quantizer=four)
    x = torch.randn(3, 5, 16)
    layer(x)
    layer.eval()
    wanted = layer(x).detach()
    with torch.no_grad():
        assert torch.equal(layer(x), wanted)
        assert torch.equal(copy.deepcopy(layer)(x), wanted)
        nested = torch.nested.nested_tensor([torch.randn(3, 16), torch.randn(5, 16)])
        with pytest.raises(ConfigError, match="enable_nested_tensor=False"):
            layer.self_attn(nested, nested, nested)


def test_without_quantizers_an_encoder_layer_is_torchs():
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
    ours = lnn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(3, 5, 16)
    for training in (True, False):
        results = []
        for layer in (ours.train(training), theirs.train(training)):
            layer.zero_grad()
            torch.manual_seed(1)
            y = layer(x)
            y.square().sum().backward()
            with torch.no_grad():
                torch.manual_seed(1)
                again = layer(x)
            results.append([y, again, *(p.grad for p in layer.parameters())])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_bare_encoder_is_converted_in_place():
    net, x = encoder(), torch.randn(3, 5, 16)
    assert len(quantize_(net, "W4A4").quantized) == 6
    net(x)
    net.eval()
    padding = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1]], dtype=torch.bool)
    wanted = net(x, src_key_padding_mask=padding).detach()
    with torch.no_grad():
        assert torch.equal(net(x, src_key_padding_mask=padding), wanted)
    with pytest.raises(ConfigError, match="quantized already"):
        quantize_(net, "W4A4")


def test_a_whole_transformer_trains_and_every_quantized_layer_gets_a_gradient():
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.both, self.head = nn.Transformer(16, 2, 1, 1, 24, dropout=0.1, batch_first=True), nn.Linear(16, 5)

        def forward(self, source, target):
            return self.head(self.both(source, target, tgt_mask=self.both.generate_square_subsequent_mask(target.shape[1])))

    net = Net()
    report = quantize_(net, "W4A4G8")
    assert {path.rpartition(".")[2] for path in report.quantized} == {"self_attn", "multihead_attn", "linear1", "linear2", "head"}
    source, target = torch.randn(4, 6, 16), torch.randn(4, 5, 16)
    adam, losses = torch.optim.Adam(net.parameters(), 3e-3), []
    for _ in range(12):
        adam.zero_grad()
        loss = nn.functional.cross_entropy(net(source, target).flatten(0, 1), torch.arange(20) % 5)
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    silent = [name for name, p in net.named_parameters() if p.requires_grad and (p.grad is None or not torch.isfinite(p.grad).all())]
    assert not silent


def test_a_compiled_encoder_is_one_graph_with_the_same_gradients():
    net, x, _ = converted()
    results = []
    for run in (net, torch.compile(net, backend="aot_eager", fullgraph=True)):
        net.zero_grad()
        y = run(x)
        y.square().sum().backward()
        results.append([y, *(p.grad.clone() for p in net.parameters() if p.grad is not None)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3 * float(b.detach().abs().max()))


def test_calibration_schedules_and_guards_know_attention():
    net, x = Classifier(), torch.randn(8, 6, 16)
    quantize_(net, "W4A4")
    lobit.calibrate(net, [x, x + 1])
    net.eval()
    y = net(x)
    assert torch.isfinite(y).all()
    known = {matrix.name: matrix for matrix in matrices(net)}
    found = known["encoder.layers.1.self_attn.in_proj_weight"]
    assert found.in_quantized_layer
    assert found.quantizer is net.encoder.layers[1].self_attn.weight_quantizers["in_proj_weight"]
    schedule = QuantizationSchedule(net.train(), {1: "float"})
    schedule.advance(0)
    floats = Classifier()
    floats.load_state_dict({name: value for name, value in net.state_dict().items() if "quantizer" not in name})
    torch.testing.assert_close(net(x), floats(x), rtol=1e-4, atol=1e-5)
    schedule.advance(1)
    assert not torch.allclose(net(x), floats(x), atol=1e-3)


def test_quantizers_that_are_switched_off_still_have_gradients_for_data_parallel_training(tmp_path):
    net, x, _ = converted()
    QuantizationSchedule(net, {1: "float"}).advance(0)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        net(x).sum().backward()
    finally:
        dist.destroy_process_group()
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)
    assert not net.encoder.layers[0].self_attn.exact


def test_export_refuses_attention_by_name():
    class Pooled(nn.Module):
        def __init__(self, attention):
            super().__init__()
            self.attention, self.out = attention, nn.Linear(16, 3)

        def forward(self, x):
            return self.out(self.attention(x, x, x)[0].mean(1))

    four = {"name": "lsq", "bits": 4}
    for attention in (
        nn.MultiheadAttention(16, 2, batch_first=True),
        lnn.MultiheadAttention(16, 2, batch_first=True, weight_quantizer=four, input_quantizer=four),
    ):
        net, x = Pooled(attention), torch.randn(2, 6, 16)
        net(x)
        with pytest.raises(ExportError, match=r"'attention' \(MultiheadAttention\).*two computed values.*run the model in PyTorch"):
            lobit.export(net.eval(), x, "never.lobit")
    net, x, _ = converted()
    with pytest.raises(ExportError, match=r"'encoder.layers.0' \(TransformerEncoderLayer\)"):
        lobit.export(net.eval(), x, "never.lobit")
