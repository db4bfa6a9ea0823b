"""The native loops of training against the same in PyTorch's operators: equal bit for bit, sums in double precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lobit import _native
from lobit.quantizers import fused
from lobit.quantizers.straight_through import round_by_step, slope_by_step, straight_through

SIZES = st.sampled_from([8, 9, 15, 16, 17, 31, 33, 100, 2047, 2048, 2049, 16_383, 16_384, 16_385, 70_001])
WINDOWS = [(-1.0, 1.0), (-math.inf, 0.5), (0.0, math.inf), (-3.0, -1.0)]


@pytest.fixture(autouse=True, params=_native.isas())
def isa(request, monkeypatch):
    monkeypatch.setattr(fused, "_best_isa", lambda: _native.isas().index(request.param))
    monkeypatch.setattr(fused, "SMALLEST", 8)
    return request.param


def values(count, seed):
    x = torch.randn(count, generator=torch.Generator().manual_seed(seed)) * 3
    odd = torch.tensor([0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -0.5, math.nan, math.inf, -math.inf, 1e-45, 3e38])
    where = torch.randperm(count, generator=torch.Generator().manual_seed(seed + 1))[: len(odd)]
    x[where] = odd[: len(where)]
    return x


def bits(mask, count):
    return np.unpackbits(mask.numpy(), bitorder="little")[:count].astype(bool)


@settings(max_examples=12)
@given(count=SIZES, seed=st.integers(0, 99))
def test_signs_masks_and_masked_gradients(count, seed):
    x, g = values(count, seed), torch.randn(count, generator=torch.Generator().manual_seed(seed + 7))
    assert torch.equal(fused.sign(x), (x >= 0).float() * 2 - 1)
    codes = fused.sign(x)
    assert torch.equal(fused.signs(fused.inside(codes, 0.0, math.inf), codes.shape, codes.stride()), codes)
    for lo, hi in WINDOWS:
        mask = fused.inside(x, lo, hi)
        expected = (x >= lo) & (x <= hi)
        np.testing.assert_array_equal(bits(mask, count), expected.numpy())
        assert not np.unpackbits(mask.numpy(), bitorder="little")[count:].any()
        assert torch.equal(fused.masked(g, mask, 0.25), torch.where(expected, g * 0.25, 0.0))


@settings(max_examples=12)
@given(count=SIZES, seed=st.integers(0, 99), step=st.sampled_from([1.0, 0.37, 2.0**-30, 1e6]))
def test_codes_by_one_step(count, seed, step):
    x, step = values(count, seed), torch.tensor(step)
    for lo, hi in ((0, 3), (-8, 7), (-128, 127)):
        torch.testing.assert_close(fused.round_codes(x, step, lo, hi), (x / step).clamp(lo, hi).round(), rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(fused.round_codes(x, None, lo, hi), x.clamp(lo, hi).round(), rtol=0, atol=0, equal_nan=True)


@settings(max_examples=12)
@given(rows=st.integers(1, 9), columns=st.sampled_from([8, 9, 27, 64, 2049, 20_000]), seed=st.integers(0, 99), one=st.booleans())
def test_gradients_of_rounding_by_a_step(rows, columns, seed, one):
    generator = torch.Generator().manual_seed(seed)
    x, g = (torch.randn(rows, columns, generator=generator) for _ in range(2))
    step = torch.rand((1, 1) if one else (rows, 1), generator=generator) + 0.1
    step = step.reshape(()) if one else step
    if not fused.rows_of(x, step):
        return
    back, sums = fused.round_back(x, g, step, -2, 1)
    v = x / step
    inside = (v >= -2) & (v <= 1)
    assert torch.equal(back, torch.where(inside, g, 0.0) / step)
    terms = (g.double() * v.double()) * inside
    expected = terms.sum() if one else terms.sum(1, keepdim=True)
    tolerance = 2e-6 * float(terms.abs().sum()) + 1e-12  # float32 terms, summed in parts
    assert (sums.double() - expected).abs().max() <= tolerance


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_do_not_depend_on_the_number_of_threads(threads):
    x, g, step = torch.randn(300_000), torch.randn(300_000), torch.tensor(0.3)
    before = torch.get_num_threads()
    one = fused.round_back(x, g, step, -4, 3)
    try:
        torch.set_num_threads(threads)
        several = fused.round_back(x, g, step, -4, 3)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one[0], several[0])
    assert torch.equal(one[1], several[1])


def test_layouts_that_have_gaps_or_other_types_run_in_pytorch():
    x = torch.randn(2, 8, 6, 6)
    assert fused.usable(x)
    assert fused.usable(x.to(memory_format=torch.channels_last))
    for other in (x[:, :, ::2], x.transpose(1, 2), x.double(), x.bfloat16(), x.to("meta")):
        assert not fused.usable(other)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("other", [torch.contiguous_format, torch.channels_last])
def test_a_gradient_in_another_order_of_memory_meets_its_own_values(layout, other):
    x = torch.randn(2, 8, 5, 6).to(memory_format=layout).requires_grad_()
    g = torch.randn(2, 8, 5, 6).to(memory_format=other)
    straight_through(x, x.detach().round(), -1.0, 1.0).backward(g)
    assert torch.equal(x.grad, g * (x.detach().abs() <= 1))
    x.grad = None
    step = torch.tensor(0.5, requires_grad=True)
    round_by_step(x, step, -2, 1).backward(g)
    v = x.detach() / 0.5
    assert torch.equal(x.grad, torch.where((v >= -2) & (v <= 1), g, 0.0) / 0.5)


def test_both_paths_of_rounding_by_a_step_give_the_same(monkeypatch):
    x = torch.randn(64, 100, generator=torch.Generator().manual_seed(1))
    for step in (torch.tensor(0.4), torch.rand(64, 1) + 0.2):
        found = []
        for native in (True, False):
            monkeypatch.setattr(fused, "usable", (lambda _: True) if native else (lambda _: False))
            a, s = x.clone().requires_grad_(), step.clone().requires_grad_()
            y = round_by_step(a, s, -4, 3)
            (y * torch.arange(6400.0).reshape(64, 100)).sum().backward()
            found.append((y.detach(), a.grad, s.grad))
        assert torch.equal(found[0][0], found[1][0])
        assert torch.equal(found[0][1], found[1][1])
        terms = 100 * 6400 * 4 if step.numel() > 1 else 6400 * 6400 * 4  # no more than the sum of their magnitudes
        torch.testing.assert_close(found[0][2], found[1][2], rtol=0, atol=2e-7 * terms)


@settings(max_examples=12)
@given(
    rows=st.integers(1, 9),
    columns=st.sampled_from([8, 9, 31, 2047, 2049]),
    seed=st.integers(0, 99),
    unsigned=st.booleans(),
    one=st.booleans(),
)
def test_kept_codes_come_back_times_their_scale_and_meet_gradients(rows, columns, seed, unsigned, one):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0 if unsigned else -128, 256 if unsigned else 128, (rows, columns), generator=generator)
    codes = codes.to(torch.uint8 if unsigned else torch.int8)
    scale = torch.rand(1 if one else rows, 1, generator=generator) + 0.1
    assert torch.equal(fused.expand(codes, scale), codes * scale)
    assert torch.equal(fused.expand(codes, None), codes.float())
    g = torch.randn(rows, columns, generator=generator)
    terms = g.double() * codes.double()
    expected, bound = (terms.sum(), terms.abs().sum()) if one else (terms.sum(1), terms.abs().sum(1))
    back = g.clone()
    sums = fused.scale_back_(back, codes, scale)
    assert torch.equal(back, g * scale)
    assert ((sums.double() - expected).abs() <= 2e-6 * bound).all()


@pytest.mark.parametrize("shape", [(2000,), (3, 50, 40)])
def test_the_slope_by_the_step_is_what_the_backward_pass_multiplies_with(shape, monkeypatch):
    x, step = torch.randn(shape), torch.tensor(0.4, requires_grad=True)
    slopes = []
    for _ in range(2):
        slopes.append(slope_by_step(x, step, -2, 1))
        monkeypatch.setattr(fused, "usable", lambda _: False)
    assert torch.equal(*slopes)
    g = torch.randn(shape)
    (expected,) = torch.autograd.grad(round_by_step(x, step, -2, 1), step, g)
    torch.testing.assert_close((slopes[0].double() * g.double()).sum().float(), expected, rtol=1e-4, atol=1e-4)
    assert not slopes[0].requires_grad


@settings(max_examples=25)
@given(
    images=st.integers(1, 3), channels=st.integers(1, 40), height=st.integers(1, 9), width=st.integers(1, 19), seed=st.integers(0, 99),
    above=st.integers(0, 2), before=st.integers(0, 3), lo=st.sampled_from([-128, -2, -1, 0]),
)  # fmt: skip
def test_images_become_bytes_in_a_border_and_sums_become_planes(images, channels, height, width, seed, above, before, lo):
    if channels * height * width < 8:
        return
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(lo, 2, (images, channels, height, width), generator=generator).float()
    found = fused.to_pixels(x, lo, 1, -lo, (above, before))
    assert torch.equal(found, torch.nn.functional.pad(x - lo, [before, before, above, above], value=-lo).to(torch.uint8))
    offset, scale, bias = torch.randint(-9, 9, (channels,), generator=generator).float(), *torch.randn(2, channels, generator=generator)
    y = x.contiguous(memory_format=torch.channels_last)
    for o, s, b in ((offset, scale, bias), (None, scale[:1], None), (offset, None, bias)):
        expected = y if o is None else y - o[:, None, None]
        expected = expected if s is None else expected * s[:, None, None]
        expected = expected if b is None else expected + b[:, None, None]
        planes = torch.empty(y.shape)
        fused.to_planes(y, o, s, b, planes)
        assert torch.equal(planes, expected)
    for value in (float("nan"), 0.5, 2.0, lo - 1.0, float("inf"), -float("inf")):
        spoilt = x.clone()
        spoilt.view(-1)[torch.randint(x.numel(), (1,), generator=generator)] = value
        assert fused.to_pixels(spoilt, lo, 1, -lo, (above, before)) is None
        assert fused.to_bytes(spoilt, lo, 1, torch.int8) is None
    assert torch.equal(fused.to_bytes(x, lo, 1, torch.int8), x.to(torch.int8))


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.float32, torch.bool])
def test_bytes_are_written_into_tensors_of_bytes_alone(dtype):
    with pytest.raises(TypeError, match=r"-102 \.\. 153 .*uint8"):
        fused.to_bytes(torch.zeros(fused.SMALLEST), -102, 153, dtype)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
@pytest.mark.parametrize(("lo", "hi"), [(-102, 153), (-255, 0), (0, 255), (-128, 127)])
def test_bytes_are_integers_modulo_256(dtype, lo, hi):
    x = torch.arange(lo, hi + 1.0).repeat(20)
    assert torch.equal(fused.to_bytes(x, lo, hi, dtype), torch.from_numpy(x.numpy().astype("int16").astype(str(dtype)[6:])))
