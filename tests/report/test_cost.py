from __future__ import annotations

import numpy as np
import pytest

from lobit.bits import CodeType
from lobit.errors import ConfigError
from lobit.format import Constant, Graph, Node, check_graph, read_file, write_file
from lobit.report.cost import cost_of
from lobit.report.memory import fused_values, live_bytes
from lobit.runtime import Session
from tests.report.nets import captured
from tests.runtime.nets import Net

# (2 x 128C3) - MP2 - (2 x 256C3) - MP2 - (2 x 512C3) - MP2 - (2 x 1024FC) - 10 on 3 x 32 x 32, by hand: layer, weights, multiply-accumulates
CONVNET = [
    ("0", 128 * 3 * 9, 128 * 3 * 9 * 32 * 32),
    ("3", 128 * 128 * 9, 128 * 128 * 9 * 32 * 32),
    ("7", 256 * 128 * 9, 256 * 128 * 9 * 16 * 16),
    ("10", 256 * 256 * 9, 256 * 256 * 9 * 16 * 16),
    ("14", 512 * 256 * 9, 512 * 256 * 9 * 8 * 8),
    ("17", 512 * 512 * 9, 512 * 512 * 9 * 8 * 8),
    ("22", 8192 * 1024, 8192 * 1024),
    ("25", 1024 * 1024, 1024 * 1024),
    ("28", 1024 * 10, 1024 * 10),
]

POOL = {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0, 0, 0], "dilation": [1, 1]}


def products(cost):
    return [layer for layer in cost.layers if layer.bits]


@pytest.mark.parametrize("bits", ["W1A1", "W2A4", None])
def test_layers_of_the_convnet_equal_hand_arithmetic(bits):
    cost = cost_of(captured("cifar10-convnet", bits))
    assert [(layer.name, layer.parameters, layer.macs) for layer in products(cost)] == CONVNET
    assert cost.parameters == 14_022_016  # the paper's nets, PAPER section 2: weights of the CIFAR-10 net
    assert cost.macs == 616_966_144  # 617 M
    assert cost.float_bytes == 56_088_064


def test_widths_of_the_convnet_equal_hand_arithmetic():
    cost = cost_of(captured("cifar10-convnet", "W2A4"))
    first, rest = 3_538_944, 613_427_200
    assert cost.macs_by_width == {"W2A8": first, "W2A4": rest}
    assert cost.bit_operations_by_width == {"W2A8": first * 16, "W2A4": rest * 8}
    assert cost.bit_operations == first * 16 + rest * 8
    assert list(cost.macs_by_width) == ["W2A8", "W2A4"]  # widest first
    full = cost_of(captured("cifar10-convnet", None))
    assert full.macs_by_width == {"W32A32": first + rest}
    assert full.bit_operations == (first + rest) * 1024


def test_packed_bytes_of_the_convnet_equal_hand_arithmetic():
    cost = cost_of(captured("cifar10-convnet", "W1A1"))
    # one bit a weight; only the 27 inputs of the first layer's outputs do not fill their word of 64 bits
    assert cost.weight_bytes == (14_022_016 - 128 * 27 + 128 * 64) // 8
    # a threshold and a direction of 4 bytes a channel; the logits' scale and shift; the input's scale
    channels = 128 + 128 + 256 + 256 + 512 + 512 + 1024 + 1024
    assert cost.constant_bytes == channels * 8 + 10 * 8 + 4


def test_the_paper_s_other_nets_have_its_weights_and_multiply_accumulates():
    mlp = cost_of(captured("mnist-mlp", None))
    assert mlp.macs == mlp.parameters == 784 * 4096 + 4096 * 4096 * 2 + 4096 * 10 == 36_806_656  # PAPER sections 2 and 3
    net = Net(input=(3, 32, 32))  # SVHN: (2 x 64C3) - MP2 - (2 x 128C3) - MP2 - (2 x 256C3) - MP2 - (2 x 1024FC) - 10
    x, channels = "input", 3
    for index, width in enumerate((64, 64, 128, 128, 256, 256)):
        x, channels = net.conv(x, net.weight_f32(width, channels, 3, 3), padding=(1, 1, 1, 1)), width
        x = net.node("max_pool2d", (x,), POOL) if index % 2 else x
    x = net.node("flatten", (x,))
    for inputs, outputs in ((4096, 1024), (1024, 1024), (1024, 10)):
        x = net.linear(x, net.weight_f32(outputs, inputs))
    svhn = cost_of(net.graph())
    convolutions = [
        (27 * 64, 32 * 32),
        (576 * 64, 32 * 32),
        (576 * 128, 16 * 16),
        (1152 * 128, 16 * 16),
        (1152 * 256, 8 * 8),
        (2304 * 256, 8 * 8),
    ]
    linear = 4096 * 1024 + 1024 * 1024 + 1024 * 10
    assert svhn.parameters == sum(weights for weights, _ in convolutions) + linear == 6_397_632
    assert svhn.macs == sum(weights * positions for weights, positions in convolutions) + linear == 158_017_536  # 158 M


def test_peak_memory_of_the_convnet_equals_hand_arithmetic():
    for batch in (1, 50):
        cost = cost_of(captured("cifar10-convnet", "W1A1"), batch)
        # the second convolution: one-bit codes of 128 x 32 x 32 come in, its sums (4 bytes each) go to the pool
        # then the pool: the sums come in, a quarter as many go out
        sums = 128 * 32 * 32 * 4
        assert cost.peak_activation_bytes == batch * (sums + sums // 4)
        assert cost.peak_memory_bytes == cost.peak_activation_bytes + cost.weight_bytes + cost.constant_bytes
    full = cost_of(captured("cifar10-convnet", None))
    assert full.peak_activation_bytes == 2 * 128 * 32 * 32 * 4  # the second convolution reads and writes as many floats


@pytest.mark.parametrize("name", ["cifar10-convnet", "digits-convnet", "mnist-mlp-small"])
def test_the_same_network_in_float_costs_what_the_float_model_does(name):
    cost, full = cost_of(captured(name, "W2A2")).as_float(), cost_of(captured(name, None))
    assert cost.macs_by_width == full.macs_by_width
    assert (cost.weight_bytes, cost.float_bytes, cost.bit_operations) == (full.weight_bytes, full.float_bytes, full.bit_operations)
    assert cost.peak_activation_bytes == full.peak_activation_bytes


@pytest.mark.parametrize(("name", "bits"), [("cifar10-convnet", "W1A1"), ("digits-convnet", "W4A4"), ("digits-convnet", None)])
def test_the_engine_stores_what_memory_counts_and_multiplies_as_often(name, bits):
    graph = captured(name, bits)
    session = Session(graph)
    assert set(session.value_names) == {node.output for node in graph.nodes} - fused_values(graph)
    assert sum(row.macs for row in session.explain().rows) == cost_of(graph).macs


def test_a_file_costs_what_its_graph_does(tmp_path):
    graph = captured("digits-convnet", "W2A2")
    write_file(tmp_path / "net.lobit", graph)
    assert cost_of(read_file(tmp_path / "net.lobit")) == cost_of(graph)


def test_every_payload_of_a_file_is_counted_once():
    for bits in ("W1A1", "W4A4", None):
        graph = captured("digits-convnet", bits)
        cost = cost_of(graph)
        assert cost.weight_bytes + cost.constant_bytes == sum(constant.nbytes for constant in graph.constants.values())


def test_a_constant_that_two_layers_share_counts_once_and_its_products_twice():
    codes, weight = CodeType("unsigned", 2), Constant.from_codes(np.ones((4, 4), int), CodeType("odd", 1))
    chain = {"steps": [], "code": str(codes), "zero": 0}
    shared = {"weight": "w"}
    nodes = [
        Node("chain", "in", ("x",), "codes", chain),
        Node("linear", "a", ("codes",), "a", {}, shared),
        Node("linear", "b", ("codes",), "b", {}, shared),
    ]
    cost = cost_of(check_graph(Graph({"x": (4,)}, nodes, ("a", "b"), {"w": weight})))
    assert (cost.parameters, cost.weight_bytes, cost.macs) == (16, 4 * 8, 32)


def test_groups_and_the_accumulator_of_a_convolution():
    net = Net(input=(8, 6, 6))
    x = net.codes("input", CodeType("unsigned", 4))
    net.conv(x, net.weight(CodeType("signed", 4), 16, 2, 3, 3), stride=(2, 2), padding=(1, 1, 1, 1), groups=4)
    layer = products(cost_of(net.graph()))[0]
    assert layer.macs == 16 * 3 * 3 * 2 * 9  # 3 x 3 outputs; taps on the padding count
    assert (layer.bits, layer.bit_operations) == ("W4A4", layer.macs * 16)
    assert layer.accumulator_bits == 13  # 18 products of at most 15 * 8: +-2160 needs 12 bits and a sign


def test_a_value_lives_from_its_maker_to_its_last_reader():
    net = Net(input=(10,))
    a = net.chain("input", ("mul", 2.0))
    b = net.chain(a, ("mul", 3.0))
    c = net.node("add", (a, b))
    net.chain(c, ("mul", 1.0))
    # 40 bytes each; the input goes after the first node, a stays until the addition
    assert [size for _, size in live_bytes(net.graph())] == [80, 80, 120, 80]
    assert [size for _, size in live_bytes(net.graph(), batch=3)] == [240, 240, 360, 240]


def test_sums_that_a_threshold_takes_are_never_stored_and_outputs_stay():
    net = Net(input=(64,))
    x = net.codes("input", CodeType("odd", 1))
    sums = net.linear(x, net.weight(CodeType("odd", 1), 32, 64))
    y = net.threshold(sums, CodeType("odd", 1), 8.0)
    sizes = [size for _, size in live_bytes(net.graph(y))]
    assert sizes == [64 * 4 + 8, 8, 8 + 4]  # floats and codes; codes; codes in and out, both there while the loop runs
    both = [size for _, size in live_bytes(net.graph(y, sums))]
    assert both == [64 * 4 + 8, 8 + 32 * 4, 32 * 4 + 4]  # as an output the sums are stored


def test_an_output_lives_to_the_end():
    net = Net(input=(10,))
    a = net.chain("input", ("mul", 2.0))
    b = net.chain("input", ("mul", 3.0))
    c = net.chain(b, ("mul", 4.0))
    assert [size for _, size in live_bytes(net.graph(a, c))] == [80, 120, 120]
    assert [size for _, size in live_bytes(net.graph(c))] == [80, 80, 80]  # a, which nobody needs, goes at once


def test_a_flattened_image_takes_nothing_of_its_own():
    net = Net(input=(2, 4, 4))
    flat = net.node("flatten", ("input",))
    net.chain(flat, ("mul", 2.0))
    assert [size for _, size in live_bytes(net.graph())] == [128, 256]


@pytest.mark.parametrize("batch", [0, -1, 1.5, True, 2**21])
def test_a_batch_that_is_none_is_refused(batch):
    with pytest.raises(ConfigError, match="batch is"):
        cost_of(captured("digits-convnet", None), batch)
