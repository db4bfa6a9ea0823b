"""The estimate against arithmetic written out by hand: no number here comes from the code."""

from __future__ import annotations

import pytest

from lobit.report.cost import cost_of
from lobit.report.energy import access_pj, estimate
from tests.report.nets import captured


def test_the_convnet_in_one_bit_equals_hand_arithmetic():
    energy = estimate(cost_of(captured("cifar10-convnet", "W1A1")))
    first, rest = 3_538_944, 613_427_200  # multiply-accumulates with 8-bit and with one-bit inputs
    assert energy.multiply_pj == pytest.approx(first * 0.2 * 8 / 64 + rest * 0.2 * 1 / 64, rel=1e-12)
    # widths of the accumulators. First layer: 27 products of at most 128: 3456 < 2^12, and a sign: 13. Then K products of at most 1.
    add = 3_538_944 * 13 + 150_994_944 * 12 + 75_497_472 * 12 + 150_994_944 * 13 + 75_497_472 * 13 + 150_994_944 * 14
    #     K = 3 * 9: 13        128 * 9: 12       128 * 9: 12      256 * 9: 13       256 * 9: 13      512 * 9: 14
    add += 8_388_608 * 15 + 1_048_576 * 12 + 10_240 * 12
    #      8192: 15         1024: 12         1024: 12
    assert energy.add_pj == pytest.approx(add * 0.1 / 32, rel=1e-12)
    weights = [
        (128, 10),  # 128 rows of one word (27 bits): 1 KB
        (2304, 20),  # 128 * 1152 bits: 18 KB
        (4608, 100),  # 256 * 1152 bits: 36 KB
        (9216, 100),  # 256 * 2304 bits
        (18432, 100),  # 512 * 2304 bits
        (36864, 100),  # 512 * 4608 bits: 288 KB
        (131072, 100),  # 1024 * 8192 bits: 1 MB, which 1 MB holds
        (16384, 100),  # 1024 * 1024 bits: 128 KB
        (160, 10),  # 10 * 1024 bits
    ]
    inputs = [
        (384, 10),  # 3 * 32 * 32 bytes
        (2048, 20),  # 128 * 32 * 32 bits: 16 KB
        (512, 10),  # 128 * 16 * 16 bits: 4 KB
        (1024, 10),  # 256 * 16 * 16 bits: 8 KB, which 8 KB holds
        (256, 10),  # 256 * 8 * 8 bits
        (512, 10),  # 512 * 8 * 8 bits
        (128, 10),  # 8192 bits
        (16, 10),
        (16, 10),
    ]
    assert energy.memory_pj == sum(words * picojoules for words, picojoules in weights + inputs)
    assert energy.joules == pytest.approx((energy.multiply_pj + energy.add_pj + energy.memory_pj) * 1e-12, rel=1e-12)
    assert energy.joules_range == (energy.joules, energy.joules)  # nothing is so large that it goes to DRAM


def test_the_convnet_in_float_equals_hand_arithmetic():
    energy = estimate(cost_of(captured("cifar10-convnet", None)))
    assert energy.multiply_pj == pytest.approx(616_966_144 * 3.7, rel=1e-12)
    assert energy.add_pj == pytest.approx(616_966_144 * 0.9, rel=1e-12)
    on_chip = [
        (1728, 20),  # weights: 128 * 27 * 4 bytes, 14 KB
        (73728, 100),  # 128 * 1152 floats: 576 KB
        (5120, 100),  # 10 * 1024 floats: 40 KB
        (1536, 20),  # inputs: 3 * 32 * 32 floats, 12 KB
        (65536, 100),  # 128 * 32 * 32: 512 KB
        (16384, 100),  # 128 * 16 * 16
        (32768, 100),  # 256 * 16 * 16
        (8192, 100),  # 256 * 8 * 8: 64 KB
        (16384, 100),  # 512 * 8 * 8
        (4096, 20),  # 8192: 32 KB, which 32 KB holds
        (512, 10),
        (512, 10),
    ]
    dram = 147_456 + 294_912 + 589_824 + 1_179_648 + 4_194_304 + 524_288  # words of the other layers' weights, each above 1 MB
    chip = sum(words * picojoules for words, picojoules in on_chip)
    assert energy.memory_pj == pytest.approx(chip + dram * 1950, rel=1e-12)
    products = 616_966_144 * (3.7 + 0.9)
    assert energy.joules_range == pytest.approx([(products + chip + dram * each) * 1e-12 for each in (1300, 2600)], rel=1e-12)


def test_a_layer_of_a_few_bits_equals_hand_arithmetic():
    energy = estimate(cost_of(captured("digits-convnet", "W4A2")))
    second = energy.layers[1]  # 64 x 32 x 3 x 3 on 8 x 8, 4-bit signed weights, 2-bit unsigned inputs
    macs = 64 * 32 * 9 * 64
    assert second.multiply_pj == pytest.approx(macs * 0.2 * 8 / 64, rel=1e-12)
    assert second.add_pj == pytest.approx(macs * 0.1 * 14 / 32, rel=1e-12)  # 288 * 3 * 8 = 6912 < 2^13, and a sign
    # weights: 4 planes of 64 rows of 288 bits, 5 words each, 10 KB; input: 32 * 64 codes of 2 bits, 512 bytes
    assert second.memory_pj == 4 * 64 * 5 * 20 + 64 * 10


def test_the_same_network_in_float_takes_what_the_float_model_does():
    ours, full = (estimate(cost_of(captured("cifar10-convnet", bits))) for bits in ("W1A1", None))
    assert estimate(cost_of(captured("cifar10-convnet", "W1A1")).as_float()) == full
    assert full.joules > 100 * ours.joules


def test_memory_is_taken_at_the_level_that_a_size_falls_in():
    sizes = (0, 8192, 8193, 32768, 32769, 2**20, 2**20 + 1)
    assert [access_pj(size) for size in sizes] == [10, 10, 20, 20, 100, 100, 1950]
