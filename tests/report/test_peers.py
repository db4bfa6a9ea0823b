"""The peers compute the network's own shape of work: where nothing is rounded away, their outputs are the network's."""

from __future__ import annotations

import numpy as np
import pytest

from lobit.bits import CodeType
from lobit.format import Constant
from lobit.nn.resize import axes_of
from lobit.report.floatnet import float_net
from lobit.report.peers import peers
from lobit.runtime import Session
from tests.runtime.nets import Net

SIGN, BIT = CodeType("odd", 1), CodeType("unsigned", 1)


def signs(net, batch):
    """Inputs that a sign, or a quantizer with a step of one, leaves as they are."""
    return [net.rng.choice([-1.0, 1.0], (batch, *shape)).astype(np.float32) for shape in net.inputs.values()]


def one_bit_mlp():
    net = Net(1, x=(1, 5, 7))
    x = net.node("flatten", (net.codes("x", SIGN),))
    for out, code in ((33, SIGN), (20, BIT), (9, SIGN)):
        width = net.kind(x).shape[0]
        x = net.threshold(net.linear(x, net.weight(SIGN, out, width)), code, width**0.5)
    logits = net.linear(x, net.weight(SIGN, 6, 9))
    net.chain(logits, "to_float", ("mul", net.rng.normal(size=6)), ("add", net.rng.normal(size=6)))
    return net


def one_bit_convnet():
    """Padding of every kind, groups, dilation, a pool ahead of thresholds that rise and fall."""
    net = Net(2, x=(4, 9, 8))
    x = net.codes("x", SIGN)
    x = net.threshold(net.conv(x, net.weight(SIGN, 8, 4, 3, 3), padding=(1, 1, 1, 1)), SIGN, 5)
    x = net.node("max_pool2d", (x,), {"kernel": [2, 2], "stride": [1, 2], "padding": [1, 0, 0, 1], "dilation": [1, 1]})
    x = net.conv(x, net.weight(SIGN, 6, 4, 3, 2), stride=(2, 1), padding=(2, 0, 1, 1), dilation=(2, 1), groups=2)
    x = net.node("max_pool2d", (x,), {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0, 0, 0], "dilation": [1, 1]})
    x = net.threshold(x, BIT, 5)
    x = net.node("flatten", (x,))
    net.linear(x, net.weight(SIGN, 5, net.kind(x).shape[0]))
    return net


def wide_codes():
    """Eight bits whose chains stay whole numbers: factors are powers of two, offsets integers, the ReLU comes before the factor."""
    net = Net(3, x=(3, 6, 6))
    x = net.chain("x", ("mul", 2.0), code=CodeType("signed", 8))
    x = net.conv(x, net.weight(CodeType("signed", 2), 7, 3, 3, 3), padding=(1, 1, 1, 1))
    x = net.chain(
        x, "to_float", ("mul", net.rng.choice([1.0, -1.0, 2.0], 7)), ("add", np.arange(7) - 3.0), ("max", 0.0), code=CodeType("unsigned", 8)
    )
    x = net.node("flatten", (x,))
    x = net.linear(x, net.weight(CodeType("ternary", 2), 5, 7 * 36))
    net.chain(x, "to_float", ("div", 4.0), ("min", 30.0), ("sub", 1.5))
    return net


def residual():
    """A value that two read, an average of codes with a zero, and an addition."""
    net = Net(4, x=(4, 6, 6))
    x = net.chain("x", ("add", 1.0), code=CodeType("unsigned", 4), zero=3)
    s = net.conv(x, net.weight(SIGN, 4, 4, 1, 1))
    f = net.chain(s, "to_float", ("add", 1.0))
    q = net.chain(f, ("div", 0.5), code=CodeType("signed", 8))
    g = net.chain(net.conv(q, net.weight(SIGN, 4, 4, 3, 3), padding=(1, 1, 1, 1)), "to_float", ("mul", 0.5))
    y = net.node("add", (f, g))
    y = net.node("avg_pool2d", (y,), {"kernel": [2, 2], "stride": [2, 2], "padding": [1, 1, 0, 0], "divisor": 3})
    net.node(
        "avg_pool2d", (net.chain(x, "to_float", ("sub", 3.0)),), {"kernel": [3, 3], "stride": [1, 1], "padding": [0, 0, 0, 0], "divisor": 9}
    )
    return net, y


def padded():
    """Codes padded with codes of a type with a zero, and floats."""
    net = Net(5, x=(3, 4, 5))
    x = net.chain("x", ("add", 1.0), code=CodeType("unsigned", 4), zero=3)
    s = net.conv(net.pad(x, (1, 0, 2, 1), 5), net.weight(SIGN, 4, 3, 3, 3))
    net.pad(net.chain(s, "to_float", ("add", 1.0)), (0, 1, 1, 2), -2.5)
    return net


def joined():
    """Codes side by side whose tensors have different scales, and floats."""
    net = Net(6, x=(3, 4, 5))
    two = net.chain("x", ("mul", 2.0), code=CodeType("signed", 8))
    four = net.chain("x", ("mul", 4.0), code=CodeType("signed", 8))
    s = net.conv(net.node("concat", (two, four)), net.weight(SIGN, 4, 6, 3, 3))
    f = net.chain(s, "to_float", ("add", 1.0))
    net.node("concat", (f, net.chain(f, ("max", 0.0))))
    return net


def rows():
    """Values of two axes, as inputs, between operators and as outputs."""
    net = Net(7, x=(3, 9))
    x = net.chain("x", ("mul", 2.0), code=CodeType("signed", 8))
    y = net.pool("max_pool2d", x, (1, 2), (1, 2), (0, 1, 0, 0))
    s = net.conv(y, net.weight(SIGN, 4, 3, 1, 3), padding=(0, 1, 0, 1))
    f = net.chain(s, "to_float", ("add", 1.0))
    net.node("flatten", (net.pad(f, (0, 1, 0, 2), 0.5),))
    return net, f


def resized():
    """Codes of nearest pixels, by a ratio and by any table; floats mixed in both of the usual ways and by any table."""
    net = Net(8, x=(3, 4, 5))
    x = net.chain("x", ("mul", 2.0), code=CodeType("signed", 8), zero=1)
    s = net.conv(net.resize(usual(net, x, (8, 15), "nearest"), 6, 7, False), net.weight(SIGN, 4, 3, 3, 3))
    f = net.chain(s, "to_float", ("add", 1.0))
    half, corners = usual(net, f, (9, 7), "bilinear"), usual(net, f, (6, 11), "bilinear", True)
    net.node("flatten", (net.resize(half, 5, 6, True),))
    return net, corners


def usual(net, x, size, mode, corners=None):
    axes = axes_of(net.kind(x).shape[1:], size, None, mode, corners)
    tables = {}
    for (places, shares), role, weights in zip(axes, ("rows", "columns"), ("row_weights", "column_weights"), strict=True):
        tables[role] = Constant.from_array(places.int().numpy())
        if shares is not None:
            tables[weights] = Constant.from_array(shares.numpy())
    return net.node("resize2d", (x,), {}, **tables)


def test_the_usual_ways_are_known_to_their_libraries():
    net, _ = resized()
    ways = [op.attrs["way"] for op in float_net(net.graph(*[node.output for node in net.nodes])).ops if op.op == "resize2d"]
    assert ways == ["nearest", None, "bilinear", "corners", None]


CASES = {
    "mlp": one_bit_mlp,
    "convnet": one_bit_convnet,
    "wide": wide_codes,
    "residual": residual,
    "padded": padded,
    "joined": joined,
    "rows": rows,
    "resized": resized,
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("batch", [1, 5])
def test_where_nothing_is_rounded_float_peers_give_the_networks_outputs(name, batch):
    made = CASES[name]()
    net, outputs = (made, ()) if isinstance(made, Net) else (made[0], (made[1], made[0].nodes[-1].output))
    graph = net.graph(*outputs)
    x = signs(net, batch)
    wanted = Session(graph, isa="scalar")(*x)
    with peers(float_net(graph), x) as found:
        assert found.left_out == {}
        assert set(found.makers) == {"torch_fp32", "ort_fp32", "ort_int8"}
        runs = found.runners(x)
        for peer in ("torch_fp32", "ort_fp32"):
            got = runs[peer]()
            for ours, theirs in zip(
                wanted if isinstance(wanted, tuple) else [wanted], got if isinstance(got, list | tuple) else [got], strict=True
            ):
                np.testing.assert_allclose(np.asarray(theirs), ours, rtol=1e-6, atol=1e-5)
        assert np.asarray(runs["ort_int8"]()[0]).shape == np.asarray(wanted[0] if isinstance(wanted, tuple) else wanted).shape
