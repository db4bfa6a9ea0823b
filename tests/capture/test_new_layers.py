"""Layers of one axis, padding with a code, RPReLU and global pools in packed networks; layers that have no place there are named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from lobit import nn as lnn
from lobit.capture import export, verify
from lobit.capture.capture import capture
from lobit.errors import ExportError, ShapeError
from lobit.runtime import Session, isas
from tests.capture.nets import quantizers, settle

SIGN = {"weight_quantizer": "magnitude_sign", "input_quantizer": "sign"}
FOUR = {"weight_quantizer": {"name": "lsq", "bits": 4}, "input_quantizer": {"name": "lsq", "bits": 4}}


def signs_of_all_kinds(model):
    """Slopes and shifts of every sign, some of them zero."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, lnn.RPReLU | nn.PReLU):
                for parameter in module.parameters():
                    parameter.normal_().mul_(torch.rand_like(parameter) > 0.2)
    return model


def same_numbers(model, shape, seed, scale=2.0):
    """Settle, capture, and compare codes and outputs on every instruction set; the graph is returned."""
    settle(model, shape, seed)
    signs_of_all_kinds(model)
    x = torch.randn(9, *shape) * scale
    x[0] = x[0].round()  # zeros, and values that stand on rounding boundaries
    graph = capture(model, (x,)).graph
    with torch.no_grad():
        expected = model(x).numpy()
    for isa in isas():
        session = Session(graph, isa=isa)
        report = verify(model, session, x)
        assert report.ok, f"\n{model}\n{report}"
        assert all(row.exact for row in report.rows)
        assert report.equal == report.compared
        np.testing.assert_array_equal(session(x.numpy()), expected)
    return graph


@st.composite
def row_nets(draw):
    """A net over (C, L): convolutions along a row with groups, strides, dilations and all paddings, norms, pools and both PReLUs."""
    channels, length = draw(st.sampled_from([1, 3, 8, 33, 64])), draw(st.integers(1, 12))
    shape = (channels, length)
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 3))):
        kernel, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 2))
        stride = draw(st.integers(1, 3))
        padding = draw(st.sampled_from([0, 1, 2, *(["same", "valid"] if stride == 1 else [])]))
        groups = draw(st.sampled_from([g for g in (1, 2, 3, channels) if channels % g == 0]))
        out = groups * draw(st.integers(1, max(1, 40 // groups)))
        reach = dilation * (kernel - 1)
        around = reach if padding == "same" else 0 if padding == "valid" else 2 * padding
        if length + around - reach < 1:
            continue
        chosen = draw(quantizers())
        value = draw(st.sampled_from([0, 1, -1])) if chosen["input_quantizer"] == "sign" else 0
        layers.append(
            lnn.Conv1d(channels, out, kernel, stride, padding, dilation, groups, draw(st.booleans()), padding_value=value, **chosen)
        )
        channels, length = out, (length + around - reach - 1) // stride + 1
        layers += [lnn.BatchNorm1d(channels)] if draw(st.booleans()) else []
        layers += draw(st.sampled_from([[], [lnn.RPReLU(channels)], [lnn.PReLU(channels)], [lnn.PReLU()], [nn.ReLU()]]))
        if length >= 2 and draw(st.booleans()):
            layers.append(draw(st.sampled_from([lnn.AvgPool1d(2), nn.MaxPool1d(2), lnn.AvgPool1d(2, 2, 1)])))
            length = (length + 2 * (layers[-1].padding != 0 and layers[-1].padding != (0,)) - 2) // 2 + 1
    if draw(st.booleans()):
        layers.append(lnn.AdaptiveAvgPool1d(1))
        length = 1
    layers += [nn.Flatten(), lnn.Linear(channels * length, 5, **draw(quantizers()))]
    return nn.Sequential(*layers), shape


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(net=row_nets(), seed=st.integers(0, 2**31 - 1))
def test_random_nets_over_a_row_equal_pytorch(net, seed):
    same_numbers(*net, seed)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    value=st.sampled_from([1, -1]),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 3)),
    groups=st.sampled_from([1, 3]),
    channels=st.sampled_from([3, 33, 66]),
    seed=st.integers(0, 2**31 - 1),
)
def test_padding_with_a_code_is_the_same_in_a_file(value, kernel, stride, padding, groups, channels, seed):
    one = {"weight_quantizer": "magnitude_sign", "input_quantizer": {"name": "lsq", "bits": 1, "nonnegative": False}}
    model = nn.Sequential(
        lnn.Conv2d(channels, 6, kernel, stride, padding, groups=groups, padding_value=value, **SIGN),
        lnn.BatchNorm2d(6),
        lnn.RPReLU(6),
        lnn.Conv2d(6, 5, 2, padding="same", padding_value=-value, **one),
        lnn.GlobalAvgPool2d(),
        lnn.Linear(5, 3, **FOUR),
    )
    graph = same_numbers(model, (channels, 5, 6), seed)
    pads = [node for node in graph.nodes if node.op == "pad2d"]
    assert [node.attrs["value"] for node in pads] == ([value] if any(padding) else []) + [-value]
    assert all(not any(node.attrs["padding"]) for node in graph.nodes if node.op == "conv2d")


def test_padding_with_a_code_under_float_weights_is_exported_as_an_inexact_layer(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(
        lnn.Conv2d(3, 4, 3, padding=1, padding_value=-1, input_quantizer="sign"), nn.Flatten(), lnn.Linear(100, 2, **FOUR)
    )
    model.train()(torch.randn(4, 3, 5, 5))
    report = export(model.eval(), torch.randn(4, 3, 5, 5), tmp_path / "net.lobit")
    assert report.inexact == ("0", "2")
    assert report.verification.ok


def test_padding_of_nothing_is_no_operator():
    model = nn.Sequential(lnn.Conv1d(3, 4, 3, padding_value=1, **SIGN), nn.Flatten(), lnn.Linear(12, 2, **FOUR))
    assert not [node for node in same_numbers(model, (3, 5), 0).nodes if node.op == "pad2d"]


@pytest.mark.parametrize("where", ["before", "after"])
def test_rprelu_is_exact_wherever_it_stands(where):
    """Also where a residual adds, and where a max pool comes between it and the next quantizer; its values are PyTorch's, zeros of either sign alike."""
    body = [lnn.Conv2d(4, 4, 3, padding=1, **SIGN), lnn.BatchNorm2d(4)]
    body = [lnn.RPReLU(4), *body] if where == "before" else [*body, lnn.RPReLU(4)]
    model = nn.Sequential(*body, nn.MaxPool2d(2), lnn.RPReLU(4), lnn.Conv2d(4, 3, 3, **FOUR), lnn.RPReLU(3), lnn.GlobalAvgPool2d())
    graph = same_numbers(model, (4, 8, 8), 0)
    assert sum(node.op == "add" for node in graph.nodes) == 3


def test_rprelu_behind_codes_of_zero_keeps_every_bit_of_the_next_sign():
    """A value that is exactly on the kink, and one whose result is a zero: the sign takes both for +1, in PyTorch and in the file."""
    model = nn.Sequential(lnn.RPReLU(2), lnn.Linear(2, 3, **SIGN)).eval()
    with torch.no_grad():
        model[0].gamma.copy_(torch.tensor([0.5, -0.25]))
        model[0].beta.copy_(torch.tensor([-1.0, 0.0]))
        model[0].zeta.copy_(torch.tensor([0.0, -0.0]))
    x = torch.tensor([[0.5, -0.25], [-0.0, -3.0], [0.25, 0.0], [1.0, -0.0]])
    session = Session(capture(model, (x,)).graph)
    with torch.no_grad():
        np.testing.assert_array_equal(session(x.numpy()), model(x).numpy())
    assert verify(model, session, x).ok


REFUSED = [
    (lambda: nn.Sequential(lnn.Conv3d(2, 3, 2, **FOUR)), (2, 3, 4, 5), "'0' (Conv3d)", "two axes"),
    (lambda: nn.Sequential(nn.Unflatten(1, (2, 2)), lnn.Conv3d(2, 3, 1, **SIGN)), (4, 2, 2), "'1' (Conv3d)", "two axes"),
    (lambda: nn.Sequential(nn.Unflatten(1, (2, 2)), lnn.AvgPool3d(2)), (4, 2, 2), "'1' (AvgPool3d)", "two axes"),
    (lambda: nn.Sequential(nn.Unflatten(1, (2, 2)), lnn.BatchNorm3d(2)), (4, 2, 2), "'1' (BatchNorm3d)", "two axes"),
    (lambda: nn.Sequential(nn.Unflatten(1, (2, 2)), lnn.AdaptiveAvgPool3d(1)), (4, 2, 2), "'1' (AdaptiveAvgPool3d)", "two axes"),
    (lambda: nn.Sequential(nn.ReLU(), lnn.ConvTranspose1d(2, 3, 2, **SIGN)), (2, 5), "'1' (ConvTranspose1d)", "Conv1d and Conv2d"),
    (lambda: nn.Sequential(nn.ReLU(), lnn.ConvTranspose2d(2, 3, 2, **SIGN)), (2, 5, 4), "'1' (ConvTranspose2d)", "Conv1d and Conv2d"),
    (lambda: nn.Sequential(nn.ConvTranspose2d(2, 3, 2)), (2, 5, 4), "'0' (ConvTranspose2d)", "Conv1d and Conv2d"),
    (lambda: nn.Sequential(lnn.ConvTranspose3d(2, 3, 2)), (2, 5, 4, 3), "'0' (ConvTranspose3d)", "Conv1d and Conv2d"),
    (lambda: nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8)), (3, 4), "'0' (TransformerEncoderLayer)", "two computed values"),
]


@pytest.mark.parametrize(("make", "shape", "layer", "words"), REFUSED)
def test_a_layer_that_has_no_place_in_a_file_is_named(make, shape, layer, words, tmp_path):
    torch.manual_seed(0)
    model = make()
    x = torch.randn(2, *shape)
    model(x)
    with pytest.raises(ExportError) as caught:
        export(model.eval(), x, tmp_path / "net.lobit")
    assert f"layer {layer} has no place in a packed network" in str(caught.value)
    assert words in str(caught.value)
    assert not list(tmp_path.iterdir())
    assert "forward" not in vars(model[-1])  # it is as it was
    model(x)


class Lookup(nn.Module):
    """Rows of a table for indices, or for floats that hold indices."""

    def __init__(self, package, **settings):
        super().__init__()
        self.rows, self.out = package.Embedding(5, 4, **settings), lnn.Linear(4, 2, **SIGN)

    def forward(self, index):
        return self.out(self.rows(index.long()))


@pytest.mark.parametrize(("package", "quantizer"), [(lnn, "sign"), (lnn, None), (nn, None)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_an_embedding_is_named(package, quantizer, dtype, tmp_path):
    model = Lookup(package, **({} if quantizer is None else {"weight_quantizer": quantizer})).eval()
    index = torch.tensor([[1], [4]], dtype=dtype).squeeze(1) if dtype == torch.int64 else torch.tensor([[1.0], [4.0]])
    with pytest.raises(ExportError, match=r"'rows' \(Embedding\).*float32, not indices"):
        export(model, index, tmp_path / "net.lobit")


def test_a_layer_that_is_not_used_refuses_nothing(tmp_path):
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.encode, self.decode = lnn.Linear(4, 2, **SIGN), lnn.ConvTranspose2d(2, 3, 2, **SIGN)

        def forward(self, x):
            return self.encode(x)

    export(Encoder().eval(), torch.randn(3, 4), tmp_path / "net.lobit")
    with pytest.raises(ShapeError, match="dtype"):
        export(nn.Sequential(lnn.Linear(4, 2, **SIGN)).eval(), torch.ones(2, 4, dtype=torch.int64), tmp_path / "other.lobit")
