"""`quantize_`: what it replaces, what stays, and what it refuses."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lobit
from lobit import nn as lnn
from lobit.bits import CodeType
from lobit.convert import TABLE, Becomes, quantize_
from lobit.errors import ConfigError
from lobit.quantizers import GradientQuantizer, Quantized, get


class Foreign(nn.Conv2d):
    """A subclass of a known layer, with another arithmetic."""

    def __init__(self, channels):
        super().__init__(channels, channels, 1)

    def forward(self, x):
        return super().forward(x).abs()


class Net(nn.Module):
    """A functional ReLU, a residual add, a nested module, a shared one and a layer that lobit leaves alone."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.body = nn.ModuleDict({"a": nn.Conv2d(8, 8, 1), "b": nn.Conv2d(8, 8, 1)})
        self.again = self.body["a"]
        self.up = Foreign(8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x)))
        x = x + F.relu(self.body["b"](self.body["a"](x)))
        return self.head(self.pool(self.up(self.again(x))).flatten(1))


def test_layers_are_replaced_in_place_and_parameters_stay():
    net = Net()
    before = dict(net.named_parameters())
    keys = list(net.state_dict())
    report = quantize_(net, "W2A4")
    assert set(report.replaced) == {"conv", "norm", "body.a", "body.b", "pool", "head"}
    assert all(dict(net.named_parameters())[name] is parameter for name, parameter in before.items())
    assert [key for key in net.state_dict() if "quantizer" not in key] == keys
    assert net.again is net.body["a"]
    bits = {row.path: row.bits for row in report.rows}
    assert bits["conv"] == bits["head"] == "W8A8"
    assert bits["body.a"] == "W2A4"
    assert "left: a subclass may compute something else" in str(report)
    assert max(map(len, str(report).splitlines())) <= 100
    net(torch.randn(2, 3, 6, 6)).sum().backward()
    assert net.conv.weight_quantizer.step.grad is not None


def test_float_checkpoints_load_strictly_and_quantized_ones_exactly():
    torch.manual_seed(0)
    trained, net = Net(), Net()
    quantize_(net, "W2A2")
    net(torch.randn(4, 3, 6, 6))
    net.load_state_dict(trained.state_dict(), strict=True)
    torch.testing.assert_close(net.conv.weight, trained.conv.weight, rtol=0, atol=0)
    net(torch.randn(4, 3, 6, 6))
    expected = 2 * trained.head.weight.double().abs().mean(1, keepdim=True) / 127**0.5
    torch.testing.assert_close(net.head.weight_quantizer.step.detach(), expected.float())  # taken from the weights that were loaded
    net.eval()
    other = Net()
    quantize_(other, "W2A2")
    other.load_state_dict(net.state_dict(), strict=True)
    x = torch.randn(3, 3, 6, 6)
    torch.testing.assert_close(other.eval()(x), net(x), rtol=0, atol=0)


def test_defaults_follow_the_input():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    quantize_(net, "W1A1", first=None, last=None)
    net(torch.randn(16, 4))
    assert [str(net[i].input_quantizer.code_type) for i in (0, 2, 4)] == ["odd1", "unsigned1", "odd1"]
    assert net[2].weight_quantizer.alias == "magnitude_sign"


def test_policies_by_pattern():
    net = Net()
    quantize_(net, {"body.*": {"weights": "dorefa", "activations": "dorefa", "bits": "W2A3"}, "head": None, "*": "W4A4"}, first=None)
    assert net.body["b"].weight_quantizer.alias == "dorefa"
    assert net.body["b"].input_quantizer.code_type.bits == 3
    assert type(net.head) is nn.Linear
    assert net.conv.weight_quantizer.bits == 4


@pytest.mark.parametrize(
    ("bits", "message"),
    [("W9A1", "1 to 8"), ("2bits", "no bit setting"), ({"boddy.*": "W1A1"}, "fits no"), ({"bits": "W2A2", "weihgts": "lsq"}, "unknown setting"),
     ({"bits": "W2A2", "weights": "sign"}, "1 bit"), ({"bits": "W2A2G6", "gradients": "nonsense"}, "no quantizer of gradients"),
     ({"bits": "W2A2", "gradients": "dorefa"}, "leaves gradients in float; write G"), ({"weights": "lsq"}, "without 'bits'"),
     ({3: "W2A2"}, "3 is no pattern"), ({torch.Tensor: "W2A2"}, "no pattern"), ({"body.*": "W2A22"}, r"pattern 'body\.\*'.*1 to 8")],
)  # fmt: skip
def test_a_wrong_policy_changes_nothing(bits, message):
    net = Net()
    modules = dict(net.named_modules())
    with pytest.raises(ConfigError, match=message):
        quantize_(net, bits)
    assert dict(net.named_modules()) == modules


def test_twice_or_a_bare_layer_is_refused_and_nothing_to_do_warns():
    net = Net()
    quantize_(net, "W1A1")
    with pytest.raises(ConfigError, match="already"):
        quantize_(net, "W1A1")
    with pytest.raises(ConfigError, match="bare"):
        quantize_(nn.Linear(2, 2), "W1A1")
    with pytest.warns(UserWarning, match="no layer"):
        quantize_(nn.Sequential(nn.ReLU()), "W1A1")


def test_modes_hooks_and_copies_survive():
    net = Net().eval()
    seen = []
    net.conv.register_forward_hook(lambda *_: seen.append(1))
    quantize_(net, "W4A4")
    assert not any(module.training for module in net.modules())
    twin = copy.deepcopy(net)
    twin.train()(torch.randn(2, 3, 6, 6))
    assert seen == [1]
    assert isinstance(twin.conv, lnn.Conv2d)
    assert lobit.quantize_ is quantize_


def test_layers_whose_weights_others_read_or_compute_are_left_with_the_reason():
    class Own(nn.TransformerEncoderLayer):
        pass

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(8, 8),
        Own(8, 2, 16, batch_first=True, dropout=0.0),
        nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)),
        nn.Linear(8, 4),
    )
    notes = {row.path: row.note for row in quantize_(net, "W1A8").rows if not row.replaced}
    assert "reads its weights past the layer" in notes["1.linear1"]
    assert "reads its weights past the layer" in notes["1.self_attn"]
    assert "subclass" in notes["2"]
    assert "1.norm1" in notes
    x = torch.randn(2, 3, 8)
    net(x)
    net.eval()
    slow = net(x).detach()
    with torch.no_grad():  # here torch takes its fast path
        torch.testing.assert_close(net(x), slow, rtol=1e-5, atol=1e-6)


def test_everything_with_parameters_that_stays_float_is_listed():
    net = nn.Sequential(
        nn.Linear(4, 4),
        nn.LayerNorm(4),
        nn.PReLU(),
        nn.BatchNorm3d(4, track_running_stats=False),
        nn.Bilinear(4, 4, 4),
        nn.AvgPool2d(3, 1, 1, False, False),
    )
    report = quantize_(net, "W2A2")
    assert [row.path for row in report.rows if not row.replaced] == ["1", "2", "3", "4", "5"]
    assert "count_include_pad" in report.rows[-1].note
    assert max(map(len, str(report).splitlines())) <= 100


def test_long_names_still_make_a_table_of_a_hundred_columns():
    net = nn.Sequential()
    inner = net
    for depth in range(8):
        inner.add_module(f"a_rather_long_name_{depth}", inner := nn.Sequential())
    inner.add_module("conv", Foreign(3))
    inner.add_module("fc", nn.Linear(3, 3))
    text = str(quantize_(net, "W2A2"))
    assert max(map(len, text.splitlines())) <= 100
    assert ".fc" in text


@pytest.mark.parametrize(
    ("model", "bits", "message"),
    [
        (nn.BatchNorm2d(2), "W1A1", "bare BatchNorm2d"),
        ("net", "W1A1", "torch.nn.Module"),
        (nn.Sequential(nn.LazyLinear(4)), "W1A1", "no weights yet"),
        (nn.Sequential(nn.Linear(2, 2)).half(), "W1A1", "float16"),
        (nn.Sequential(nn.Linear(2, 2)), {}, "empty mapping"),
        (nn.Sequential(nn.Linear(2, 2)), {"bits": "W4A4", "weights": {"name": "lsq", "bits": 2}}, "2 bits"),
        (nn.Sequential(nn.Linear(2, 2)), {"bits": "W4A4", "activations": get({"name": "lsq", "bits": 4}, "activations")}, "only one layer"),
    ],
)
def test_what_cannot_be_quantized_is_named(model, bits, message):
    with pytest.raises(ConfigError, match=message):
        quantize_(model, bits, first=None, last=None)


def test_layers_that_stay_say_why():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(4, track_running_stats=False), nn.Conv2d(4, 4, 3)
    )
    report = quantize_(model, "W2A2")
    assert report.replaced == ("2",)
    assert "reflect" in report.rows[0].note
    assert "running statistics" in report.rows[1].note


def test_a_path_in_full_wins_over_its_reading_as_a_pattern():
    model = nn.ModuleDict({"a[0]": nn.Linear(2, 2)})
    assert quantize_(model, {"a[0]": "W1A1"}).replaced == ("a[0]",)


def small(bits):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    quantize_(model, bits, first=None, last=None)
    return model


def test_state_of_another_width_is_refused():
    two, four = small("W2A2"), small("W4A4")
    two(torch.randn(4, 8))
    with pytest.raises(RuntimeError, match="2 bits"):
        four.load_state_dict(two.state_dict())


def test_a_float_checkpoint_starts_both_sides_anew():
    model = small("W4A4")
    model(torch.randn(4, 8))
    model.load_state_dict(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).state_dict())
    with pytest.raises(ConfigError, match="calibration"):
        model.eval()(torch.randn(4, 8))


def test_averages_of_a_model_know_its_steps():
    model = small("W4A4")
    average = torch.optim.swa_utils.AveragedModel(model)
    x = torch.randn(16, 8)
    model(x)
    average.update_parameters(model)
    torch.testing.assert_close(average.eval()(x), model.eval()(x), rtol=0, atol=0)


def test_one_bit_weights_with_a_learned_step_train_and_export(tmp_path):
    model = small({"bits": "W1A2", "weights": "lsq"})
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    before = None
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
        before = before or model[0].weight_quantizer.step.detach().clone() if before is None else before
    assert not torch.equal(before, model[0].weight_quantizer.step)
    assert lobit.export(model.eval(), torch.randn(16, 8), tmp_path / "net.lobit").verification.ok
    layer = model[0]
    w, s = layer.weight.detach().double(), layer.weight_quantizer.step.detach().double()
    step = layer.weight_quantizer.step.detach().clone().requires_grad_()
    from lobit.quantizers import lsq

    (lsq(layer.weight.detach(), step, layer.weight_quantizer.code_type) * step).sum().backward()
    v = w / s
    q = torch.where(v >= 0, 1.0, -1.0).double()
    torch.testing.assert_close(step.grad.double(), torch.where(v.abs() <= 1, q - v, q).sum(1, keepdim=True), rtol=1e-5, atol=1e-5)


def test_latent_weights_beyond_the_highest_level_still_move():
    from lobit.quantizers import linear_quant

    w = torch.tensor([-1.0, 0.2, 0.6, 1.0], requires_grad=True)
    linear_quant(w, 2, clip=False).sum().backward()
    torch.testing.assert_close(w.grad, torch.full((4,), 2.0))


class Gradient(GradientQuantizer):
    """Six bits that change nothing: what `quantize_` builds and where it puts it is all that is looked at."""

    alias = "as it is"
    bits = 6

    @property
    def code_type(self):
        return CodeType("signed", 6)

    def forward(self, x):
        return Quantized(x, torch.ones(()))


def test_gradient_quantizers_go_where_the_policy_says():
    net = Net()
    report = quantize_(net, {"body.a": {"bits": "W2A4G6", "gradients": Gradient}, "*": "W2A4"})
    bits = {row.path: (row.bits, row.note) for row in report.rows}
    assert bits["body.a"] == ("W2A4G6", "lsq, lsq, as it is")
    assert bits["body.b"] == ("W2A4", "lsq, lsq")
    assert isinstance(net.body["a"].gradient_quantizer, Gradient)
    assert net.body["a"].gradient_quantizer.owner == "layer 'body.a'"
    assert net.body["b"].gradient_quantizer is None


def test_the_first_pattern_that_fits_counts():
    net = Net()
    quantize_(net, {"body.a": "W3A3", "body.*": "W2A2", "[bh]*": "W4A4", "*": "W5A5"}, first=None, last=None)
    assert [layer.weight_quantizer.bits for layer in (net.conv, net.body["a"], net.body["b"], net.head)] == [5, 3, 2, 4]


def test_a_class_is_a_pattern_as_itself_or_by_name():
    for conv in (nn.Conv2d, "nn.Conv2d"):
        net = Net()
        quantize_(net, {conv: "W3A3", "*": "W2A2"}, first=None, last=None)
        assert [layer.weight_quantizer.bits for layer in (net.conv, net.body["a"], net.head)] == [3, 3, 2]


@pytest.mark.parametrize("skip", ["body", ["body.*"], [nn.ModuleDict], "nn.ModuleDict"])
def test_what_is_skipped_stays_with_all_within_it(skip):
    net = Net()
    report = quantize_(net, "W2A2", skip=skip)
    assert type(net.body["a"]) is type(net.body["b"]) is nn.Conv2d
    assert {row.note for row in report.rows if row.path.startswith("body.")} == {"skipped by the policy"}
    assert report.quantized == ("conv", "head")


def test_skipping_goes_before_patterns_and_a_skipped_first_layer_has_no_heir():
    net = Net()
    report = quantize_(net, {"conv": "W2A2", "*": "W2A2"}, skip=["conv", "norm", nn.LSTM])  # a class may be absent
    assert {row.path: row.bits for row in report.rows if row.replaced} == {"body.a": "W2A2", "body.b": "W2A2", "pool": "", "head": "W8A8"}
    assert type(net.norm) is nn.BatchNorm2d
    with pytest.raises(ConfigError, match=r"'boddy' fits no module; did you mean 'body'"):
        quantize_(Net(), "W2A2", skip="boddy")


FILE = """
bits: W2A4
weights: dorefa
layers:
  "body.*": {bits: W3A3}
  head: null
first: W7A7
last: null
skip: ["body.b", nn.LSTM]
"""


def test_a_policy_file_says_the_same_as_its_arguments(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(FILE)
    from_file, from_arguments, by_text = Net(), Net(), Net()
    said = quantize_(from_file, path)
    policy = {"body.*": "W3A3", "head": None, "*": {"bits": "W2A4", "weights": "dorefa"}}
    assert said == quantize_(from_arguments, policy, first="W7A7", last=None, skip=["body.b", nn.LSTM])
    assert said == quantize_(by_text, str(path))
    assert {row.path: row.bits for row in said.rows if row.bits} == {"conv": "W7A7", "body.a": "W3A3"}


def test_arguments_fill_in_what_a_file_leaves_out(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("bits: W2A4\nlast: W5A5\nskip: [body.a]\n")
    net = Net()
    report = quantize_(net, path, first=None, last=None, skip="body.b")
    assert {row.path: row.bits for row in report.rows if row.bits} == {"conv": "W2A4", "head": "W5A5"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bits: W2A9", r"bits: activations have 1 to 8 bits.*9"),
        ("bits: 2", r"bits: must be text such as W2A4.*got 2"),
        ("bist: W2A4", r"bist: unknown field, did you mean 'bits'.*got 'W2A4'"),
        ("bits: W2A4\nbits: W2A2", "stands twice"),
        ("bits: [W2A4", "is not YAML"),
        ("- W2A4", r"must be a mapping of bits, .*skip; it holds \['W2A4'\]"),
        ("first: W8A8", "neither bits nor layers"),
        ("layers: W2A4", r"layers: must be a mapping.*got 'W2A4'"),
        ("layers: {conv: 4}", r"layers: 'conv': must be a policy.*got 4"),
        ("layers: {conv: W2A44}", r"pattern 'conv': activations have 1 to 8 bits.*44"),
        ("layers: {4: W2A4}", r"a pattern must be text.*got 4"),
        ("layers: {conv: {bits: W2A4, weight: lsq}}", r"pattern 'conv': unknown setting \['weight'\]"),
        ("layers: {'*': W2A4}\nbits: W2A4", "remove one of them"),
        ("layers: {conv: W2A4}\nweights: lsq", "weights needs bits"),
        ("bits: W2A4\nweights: lqs", r"no quantizer of weights is called 'lqs' \(did you mean 'lsq'\?\)"),
        ("bits: W2A4\nweights: 3", r"weights: must be a quantizer's name.*got 3"),
        ("bits: W2A4\nfirst: 8", r"first: must be a policy.*got 8"),
        ("bits: W2A4\nlast: W0A8", r"last: weights have 1 to 8 bits.*0"),
        ("bits: W2A4\nskip: conv", r"skip: must be a list.*got 'conv'"),
        ("layers: {cnov: W2A4}", "pattern 'cnov' fits no quantizable layer; did you mean 'conv'"),
    ],
)
def test_a_wrong_policy_file_is_refused_with_its_name_field_and_value(text, message, tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    net = Net()
    modules = dict(net.named_modules())
    with pytest.raises(ConfigError, match=f"(?s)policy.yaml.*{message}"):
        quantize_(net, path)
    assert dict(net.named_modules()) == modules


def test_a_policy_file_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="cannot read policy file 'none/policy.yaml': No such file"):
        quantize_(Net(), "none/policy.yaml")


def test_one_line_of_the_table_is_all_that_a_class_needs(monkeypatch):
    class Doubled(nn.Linear):
        def forward(self, x):
            return super().forward(2 * x)

    class LowBitDoubled(lnn.Linear):
        def forward(self, x):
            return super().forward(2 * x)

    net = nn.Sequential(Doubled(4, 4), nn.Linear(4, 4))
    assert "subclass" in quantize_(net, "W2A2").rows[0].note
    monkeypatch.setitem(TABLE, Doubled, Becomes(LowBitDoubled, ("weights", "activations", "gradients"), named=True))
    net = nn.Sequential(Doubled(4, 4), nn.Linear(4, 4))
    assert "only where a pattern names it" in quantize_(net, {"*": "W2A2"}).rows[0].note
    net = nn.Sequential(Doubled(4, 4), nn.Linear(4, 4))
    report = quantize_(net, {"0*": "W2A2", "*": "W2A2"})
    assert [row.bits for row in report.rows] == ["W2A2", "W8A8"]  # the one by name is neither first nor last
    assert isinstance(net[0], LowBitDoubled)


class Conv1D(nn.Module):
    """Weights of shape (in, out), as some language models have them."""

    def __init__(self, outputs, inputs):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return x @ self.weight + self.bias


def test_layers_of_other_packages_stay_with_their_origin_as_the_reason():
    report = quantize_(nn.Sequential(Conv1D(4, 4), nn.Linear(4, 2)), "W2A2")
    assert report.left == ("0",)
    assert f"a class of {Conv1D.__module__}" in report.rows[0].note


def test_every_class_of_the_table_shares_its_parameters_and_computes_the_same_without_quantizers():
    built = {
        nn.Linear: (4, 3), nn.Conv1d: (4, 3, 2), nn.Conv2d: (4, 3, 2), nn.Conv3d: (4, 3, 2), nn.ConvTranspose1d: (4, 3, 2),
        nn.ConvTranspose2d: (4, 3, 2), nn.ConvTranspose3d: (4, 3, 2), nn.Embedding: (4, 3), nn.RNN: (4, 3, 2), nn.LSTM: (4, 3, 2), nn.GRU: (4, 3),
        nn.RNNCell: (4, 3), nn.LSTMCell: (4, 3), nn.GRUCell: (4, 3), nn.BatchNorm1d: (4,), nn.BatchNorm2d: (4,), nn.BatchNorm3d: (4,),
        nn.AvgPool1d: (2,), nn.AvgPool2d: (2, 1), nn.AvgPool3d: (2,), nn.AdaptiveAvgPool1d: (2,), nn.AdaptiveAvgPool2d: (2,), nn.AdaptiveAvgPool3d: (2,),
        nn.MultiheadAttention: (4, 2), nn.Upsample: (None, 2, "bilinear"), nn.UpsamplingNearest2d: (None, 2), nn.UpsamplingBilinear2d: (None, 2),
    }  # fmt: skip
    around = {nn.TransformerEncoderLayer, nn.TransformerEncoder}  # of layers that are converted themselves: tests/nn/test_transformer.py
    assert set(built) | around == set(TABLE)
    axes = {"1d": (4, 6), "2d": (4, 6, 6), "3d": (4, 6, 6, 6)}
    for cls in built:
        torch.manual_seed(0)
        layer, entry = cls(*built[cls]).eval(), TABLE[cls]
        x = (
            torch.randn(5, *axes.get("2d" if cls is nn.Upsample else cls.__name__[-2:], (4,)))
            if cls is not nn.Embedding
            else torch.tensor([3, 0])
        )
        twin = entry.make(layer, entry.cls)
        if entry.roles:
            twin.set_quantizers(*[None] * len(entry.roles))
        given = [x] * (3 if cls is nn.MultiheadAttention else 1)
        theirs, ours = layer(*given), twin(*given)
        for a, b in zip(*(part if isinstance(part, tuple) else (part,) for part in (theirs, ours)), strict=True):
            torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-6, msg=cls.__name__)
        assert all(ours is theirs for ours, theirs in zip(twin.parameters(), layer.parameters(), strict=True))
        net = nn.ModuleDict({"layer": layer})
        if entry.roles:
            name = "lay*" if entry.named else "*"
            assert quantize_(net, {name: "W2A4G6"}, first=None, last=None).rows[0].bits == ("W2A32" if entry.named else "W2A4G6")
            assert type(net.layer) is entry.cls
            with pytest.raises(ConfigError, match="already"):
                quantize_(net, "W2A2")
        else:
            with pytest.warns(UserWarning, match="no layer"):
                assert quantize_(net, "W2A2").replaced == ("layer",)


class Language(nn.Module):
    """Words in, the next word out; input and output weights are one."""

    def __init__(self):
        super().__init__()
        self.words, self.memory, self.head = nn.Embedding(20, 8), nn.LSTM(8, 8, 2, batch_first=True), nn.Linear(8, 20)
        self.head.weight = self.words.weight

    def forward(self, x):
        return self.head(self.memory(self.words(x))[0])


@pytest.mark.parametrize("bits", ["W4A4", "W2A4G6"])
def test_a_language_model_is_converted_and_learns(bits):
    torch.manual_seed(0)
    net = Language()
    report = quantize_(net, bits, first=None, last=None)
    assert [(row.path, row.bits) for row in report.rows] == [("words", ""), ("memory", bits), ("head", bits)]
    assert net.head.weight is net.words.weight
    x = torch.randint(20, (8, 12))
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x).flatten(0, 1), x.flatten())
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert losses[-1] < losses[0]
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.requires_grad)


def test_an_embedding_is_quantized_where_a_pattern_names_it():
    for pattern in ("words", "wor*", nn.Embedding, "nn.Embedding"):
        net = Language()
        report = quantize_(net, {pattern: "W4A8", "*": "W2A2"})
        assert [(row.path, row.bits) for row in report.rows] == [("words", "W4A32"), ("memory", "W8A8"), ("head", "W8A8")]
    for pattern in ("words", nn.Embedding):
        net = Language()
        assert "policy is float" in quantize_(net, {pattern: "A8", "*": "W2A2"}).rows[0].note


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.LSTM(4, 4, proj_size=2), "proj_size=2"),
        (nn.Embedding(4, 4, max_norm=1.0), "max_norm=1.0"),
        (nn.Embedding(4, 4, sparse=True), "sparse"),
        (nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular"), "circular"),
    ],
)
def test_settings_that_no_low_bit_layer_has_leave_the_layer_with_the_reason(layer, message):
    net = nn.Sequential(layer, nn.Linear(4, 4))
    report = quantize_(net, "W2A2")
    assert message in report.rows[0].note
    assert net[0] is layer


def test_shift_based_norms_are_lobits_own_and_stay_without_a_word():
    net = nn.Sequential(nn.Linear(8, 8), lnn.ShiftBatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    norm = net[1]
    assert "ShiftBatchNorm1d" not in str(quantize_(net, "W2A2"))
    assert net[1] is norm


@pytest.mark.parametrize("pool", [nn.AvgPool1d(2), nn.AvgPool2d((2, 1)), nn.AvgPool3d(2, padding=1), nn.AdaptiveAvgPool2d(2)])
def test_an_average_pool_keeps_hooks_attributes_and_mode(pool):
    seen = []
    pool.register_forward_hook(lambda module, *_: seen.append(module))
    pool.note = "mine"
    model = nn.Sequential(nn.Linear(4, 4), pool.eval())
    x = torch.randn(2, 3, *[4] * (3 if isinstance(pool, nn.AvgPool3d) else 1 if isinstance(pool, nn.AvgPool1d) else 2))
    wanted = pool(x)
    seen.clear()
    quantize_(model, "W4A4")
    torch.testing.assert_close(model[1](x), wanted)
    assert type(model[1]).__module__ == "lobit.nn.pooling"
    assert seen == [model[1]]
    assert model[1].note == "mine"
    assert not model[1].training


def linears(count=3):
    return nn.Sequential(*[nn.Linear(4, 4) for _ in range(count)])


@pytest.mark.parametrize(
    ("bits", "count", "message"),
    [
        ({"*": "W2A2", "0": "W4A4"}, 3, r"pattern '0' never applies: '\*' stands before it.*put '0' first"),
        ({"*": "W2A2", "0": "W4A4"}, 1, "'0' never applies"),
        ({"[01]": "W2A2", "1": None}, 3, r"'1' never applies: '\[01\]'"),
        ({"[012]": "W2A2", "[12]": "W4A4"}, 3, r"'\[12\]' never applies"),
        ({nn.Module: "W2A2", "1": "W4A4"}, 3, "'1' never applies: Module"),
        ({"*": "W2A2", nn.Linear: "W4A4"}, 3, r"Linear never applies: '\*'"),
        ({nn.Module: "W2A2", nn.Linear: "W4A4"}, 3, "Linear never applies: Module"),
    ],
)
def test_a_pattern_that_a_wider_one_before_it_leaves_no_layer_is_refused(bits, count, message):
    model = linears(count)
    with pytest.raises(ConfigError, match=message):
        quantize_(model, bits)
    assert all(type(layer) is nn.Linear for layer in model)


@pytest.mark.parametrize(
    "bits",
    [
        {"0": "W4A4", "1": "W4A4", "2": "W4A4", "*": "W2A2"},
        {"0": "W4A4", "[12]": "W4A4", "[012]": "W2A2"},
        {"*": "W4A4", nn.Embedding: "W8"},
        {"[012]": "W4A4", nn.Linear: "W8A8"},
    ],
)
def test_a_fallback_for_which_nothing_is_left_is_no_slip(bits):
    model = linears()
    quantize_(model, bits, first=None, last=None)
    assert [layer.weight_quantizer.bits for layer in model] == [4, 4, 4]


def test_a_layer_is_named_in_full_only_by_the_rule_that_it_gets():
    model = nn.ModuleDict({"conv[12]": nn.Linear(2, 2), "conv1": nn.Linear(2, 2), "conv2": nn.Linear(2, 2), "x": nn.Linear(2, 2)})
    quantize_(model, {"conv[[]12]": "W3A3", "conv[12]": "W2A2", "*": "W4A4"}, last=None)
    assert [layer.weight_quantizer.bits for layer in model.values()] == [8, 2, 2, 4]


def test_one_activation_quantizer_that_a_callable_gives_to_two_layers_is_refused_and_the_model_stays():
    shared, model = get({"name": "lsq", "bits": 4}, "activations"), linears()
    policy = {"bits": "W4A4", "activations": lambda: shared}
    with pytest.raises(ConfigError, match=r"layer '1': .*state of layer '0'.*of its own"):
        quantize_(model, policy, first=None, last=None)
    assert all(type(layer) is nn.Linear for layer in model)
    model = nn.Sequential(nn.Linear(4, 4))
    model.append(model[0])
    quantize_(model, policy, first=None, last=None)  # one layer in two places
    assert model[0] is model[1]
    assert model[0].input_quantizer is shared


@pytest.mark.parametrize("pattern", [nn.BatchNorm2d, "nn.BatchNorm2d"])
def test_a_class_that_the_model_has_but_cannot_quantize_is_refused_unless_it_is_to_stay_float(pattern):
    make = lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))  # noqa: E731
    with pytest.raises(ConfigError, match="BatchNorm2d.* fits '1', which has no weights to quantize; quantizable layers are 0, 2"):
        quantize_(make(), {pattern: "W2A2", "*": "W4A4"})
    quantize_(make(), {pattern: None, "*": "W4A4"})


def test_what_is_skipped_must_be_patterns():
    with pytest.raises(ConfigError, match="skip must be a pattern of names, a class of torch.nn, or a list of them, not 3"):
        quantize_(nn.Sequential(nn.Linear(3, 4)), "W2A2", skip=3)
