"""Every quantizer of the table: its formulas, the properties of its codes, what it does in a layer, in training and in a file."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from lobit import data, optim
from lobit import nn as lnn
from lobit import quantizers as Q
from lobit.capture import export
from lobit.errors import ConfigError, ExportError
from tests.devices import DEVICES
from tests.quantizers.rows import Row, rows

ROWS = rows()
WITH_FORMULA = [pytest.param(row, bits, id=f"{row}-{bits}") for row in ROWS if row.forward for bits in row.bits]
ALL = [pytest.param(row, bits, id=f"{row}-{bits}") for row in ROWS for bits in row.bits]
NARROWEST = [pytest.param(row, min(row.bits), id=f"{row}-{min(row.bits)}") for row in ROWS]
WIDEST = [pytest.param(row, max(row.bits), id=f"{row}-{max(row.bits)}") for row in ROWS]
LINEAR8 = {"name": "linear", "bits": 8}
CHANNELS = 3
NOTHING = 1e-12  # a slope that has died away, or is lost among subnormal numbers

every_formula = pytest.mark.parametrize(("row", "bits"), WITH_FORMULA)
every_row = pytest.mark.parametrize(("row", "bits"), ALL)
every_row_at_its_narrowest = pytest.mark.parametrize(("row", "bits"), NARROWEST)
of_role = lambda *roles: [parameter for parameter in ALL if parameter.values[0].role in roles]  # noqa: E731

ONE = np.float32(1)
EXTREMES = {
    "nothing": np.zeros(4),
    "both zeros and the smallest": np.array([0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-38, 1e-30, -1e-30]),
    "around the edges": np.array(
        [1, -1, np.nextafter(ONE, 2), np.nextafter(ONE, 0), -np.nextafter(ONE, 2), -np.nextafter(ONE, 0), 0.5, -0.5, 0.25, 2]
    ),
    "large": np.array([1e4, -1e4, 1e18, -1e18, 127, -128]),
    "one sign": -np.arange(1.0, 9) / 7,
}


def of_shape(row: Row, values: np.ndarray) -> np.ndarray:
    """Some values in the row's layout: channels first for weights, else last, each channel a shift of the values; repeated where the row has a size of its own."""
    values = np.resize(values, row.columns) if row.columns else values
    channels = np.stack([np.roll(values, shift) for shift in range(CHANNELS)]).astype(np.float32)
    return channels if row.role == "weights" else np.ascontiguousarray(channels.T)


def normal(row: Row, count: int = 200, seed: int = 0) -> np.ndarray:
    """Normal values, each channel with a spread of its own."""
    x = np.random.default_rng(seed).normal(size=(CHANNELS, row.columns or count)) * [[0.5], [1.0], [1.7]]
    return (x if row.role == "weights" else x.T).astype(np.float32)


def started(row: Row, bits: int) -> Q.Quantizer:
    """A quantizer in training mode that has seen data, with values of both signs."""
    torch.manual_seed(0)
    quantizer = row.build(bits)
    first = torch.tensor(normal(row))
    attach(quantizer, first)
    quantizer(first)
    return quantizer


def attach(quantizer: Q.Quantizer, x: torch.Tensor) -> None:
    """Give a quantizer its shape, as a layer does."""
    if isinstance(quantizer, Q.WeightQuantizer):
        quantizer.attach(x)
    elif isinstance(quantizer, Q.ActivationQuantizer):
        quantizer.attach((x.shape[-1],))


def quantized(quantizer: Q.Quantizer, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, scale and values."""
    with torch.no_grad():
        q = quantizer(torch.tensor(x))
    return q.codes.numpy(), q.scale.numpy(), q.values().numpy()


def channels_of(row: Row, x: np.ndarray) -> np.ndarray:
    """The channels as rows."""
    return x if row.role == "weights" else x.T


def check_formulas(row: Row, quantizer: Q.Quantizer, x: np.ndarray) -> None:
    """Codes, scale and gradient are the oracle's, at x or at a neighbour that float32 cannot tell from it."""
    near = row.nearby(x)
    expected = [row.forward(quantizer, neighbour) for neighbour in near]
    modes = (False,) if row.eval_only_codes else (True, False)
    for training in modes:
        codes, scale, values = quantized(quantizer.train(training), x)
        assert np.array_equal(codes, np.rint(codes)) or row.refused
        matches = np.any([codes == wanted[0] for wanted in expected], axis=0)
        assert matches.all(), f"codes {codes[~matches]} of {x[~matches]}, not {expected[0][0][~matches]}"
        np.testing.assert_allclose(scale, np.broadcast_to(expected[0][1], scale.shape), rtol=1e-6, atol=1e-44)
        offset = expected[0][2] if len(expected[0]) > 2 else 0.0
        np.testing.assert_allclose(values, scale * (codes - quantizer.zero) + offset, rtol=1e-6, atol=1e-6 * np.abs(offset).max())
    if row.backward is None:
        return
    t = torch.tensor(x, requires_grad=True)
    g = np.random.default_rng(x.size).normal(size=x.shape)
    (quantizer.train()(t).values() * torch.tensor(g, dtype=torch.float32)).sum().backward()
    assert t.grad is not None
    got, wanted = t.grad.double().numpy(), [row.backward(quantizer, neighbour, g) for neighbour in near]
    closeness = [np.abs(got - w) <= row.tolerance * (np.abs(w) + 0.1 * np.abs(w).max(initial=0)) + NOTHING * np.abs(g) for w in wanted]
    close = np.any(closeness, axis=0)
    assert close.all(), f"gradient {got[~close]} at {x[~close]}, not {wanted[0][~close]}"


@every_formula
@settings(max_examples=10)
@given(values=hnp.arrays(np.float32, st.integers(1, 10), elements=st.floats(-3, 3, width=32)))
def test_codes_scale_and_gradient_are_those_of_the_formula(row, bits, values):
    check_formulas(row, started(row, bits), of_shape(row, values))


@every_formula
@pytest.mark.parametrize("extreme", EXTREMES.values(), ids=EXTREMES.keys())
def test_extremes_follow_the_formula_too(row, bits, extreme):
    check_formulas(row, started(row, bits), of_shape(row, extreme))


@every_formula
def test_many_values_follow_the_formula(row, bits):
    check_formulas(row, started(row, bits), normal(row, 2000, seed=bits))


def levels_of(row: Row, quantizer: Q.Quantizer) -> set[float] | None:
    """The levels of its code type; None where it has none, and says so in the row's words."""
    try:
        return {float(level) for level in quantizer.code_type.levels}
    except ConfigError as error:
        if row.refused and row.refused in str(error):
            return None
        raise


@every_row
def test_codes_are_levels_of_the_code_type(row, bits):
    quantizer = started(row, bits)
    levels = levels_of(row, quantizer)
    if levels is None:
        return
    for values in (*EXTREMES.values(), np.linspace(-3, 3, 300)):
        for training in (True, False):
            codes = quantized(quantizer.train(training), of_shape(row, values))[0]
            assert set(codes.flatten().tolist()) <= levels


@every_row
def test_values_rise_with_the_input(row, bits):
    if not row.monotone:
        return
    x = channels_of(row, normal(row, 500, seed=1))
    x = np.sort(x, axis=1)
    values = quantized(started(row, bits).eval(), np.ascontiguousarray(channels_of(row, x)))[2]
    assert (np.diff(channels_of(row, values), axis=1) >= 0).all()


@every_formula
def test_values_are_odd_in_the_input(row, bits):
    quantizer, x = started(row, bits).eval(), normal(row, seed=2)
    odd = np.array_equal(quantized(quantizer, -x)[2], -quantized(quantizer, x)[2])
    assert odd or not row.symmetric


@every_row
def test_values_quantized_again_are_the_same(row, bits):
    if not row.idempotent:
        return
    quantizer = started(row, bits).eval()
    codes, _, values = quantized(quantizer, normal(row, seed=3))
    again, _, same = quantized(quantizer, values)
    np.testing.assert_array_equal(again, codes)
    np.testing.assert_allclose(same, values, rtol=1e-6)


def in_file(quantizer: Q.ActivationQuantizer, x: np.ndarray) -> np.ndarray:
    """What the exported chain makes of x: float32 steps, then ``to_codes`` of docs/architecture.md."""
    functions = {
        "div": np.divide,
        "mul": np.multiply,
        "max": np.maximum,
        "min": np.minimum,
        "add": np.add,
        "sub": np.subtract,
        "round": np.rint,
    }
    v = x
    for op, operand in quantizer.steps():
        v = functions[op](v, operand.numpy())
        assert v.dtype == np.float32
    code, zero = quantizer.code_type, quantizer.zero
    if str(code) == "odd1":
        return np.where(v >= 0, 1, -1)
    if code.alphabet == "log2":
        mantissa, exponent = np.frexp(np.abs(v))
        exponent = exponent - 1 + (mantissa * 2 >= np.float32(np.sqrt(2)))
        power = np.exp2(np.minimum(exponent, np.log2(code.hi)))
        return np.where((v == 0) | (exponent < 0), 0, np.sign(v) * power)
    return np.clip(np.rint(v), code.lo - zero, code.hi - zero) + zero


@pytest.mark.parametrize(("row", "bits"), of_role("activations"))
def test_codes_in_eval_are_exactly_those_of_the_exported_chain(row, bits):
    quantizer = started(row, bits).eval()
    if levels_of(row, quantizer) is None:
        with pytest.raises(ConfigError, match=row.refused):
            quantizer.steps()
        return
    for values in (*EXTREMES.values(), np.linspace(-1.2, 1.2, 2401), np.random.default_rng(4).normal(size=2000)):
        x = of_shape(row, values)
        codes = quantized(quantizer, x)[0]
        np.testing.assert_array_equal(codes, in_file(quantizer, x))
        np.testing.assert_array_equal(quantized(quantizer, x)[0], codes)  # no chance in eval


@pytest.mark.parametrize(("row", "bits"), of_role("weights"))
def test_a_scale_for_each_channel_equals_a_loop_over_channels(row, bits):
    w = normal(row, 50, seed=5)

    def whole(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        quantizer = row.build(bits)
        attach(quantizer, torch.tensor(weights))
        quantizer(torch.tensor(weights))
        return quantized(quantizer.eval(), weights)[:2]

    codes, scale = whole(w)
    if scale.size == 1:
        assert scale.shape == ()
        return
    assert scale.shape == (w.shape if row.columns else (CHANNELS, 1))
    for channel in range(CHANNELS):
        alone, its_scale = whole(w[channel : channel + 1])
        np.testing.assert_array_equal(codes[channel : channel + 1], alone)
        np.testing.assert_array_equal(scale[channel : channel + 1], its_scale)


@pytest.mark.parametrize(("row", "bits"), [parameter for parameter in ALL if parameter.values[0].mean])
def test_random_codes_have_the_mean_of_their_formula(row, bits):
    draws, values = 20_000, np.linspace(-1.4, 1.4, 9).astype(np.float32)
    x = values[None] if row.role == "weights" else of_shape(row, values)
    quantizer = row.build(bits)
    many = torch.tensor(x).repeat(draws, 1) if row.role == "weights" else torch.tensor(x).expand(draws, *x.shape)
    attach(quantizer, many)
    torch.manual_seed(0)
    with torch.no_grad():
        drawn = quantizer(many).values().double().numpy()
    assert (drawn != drawn[:1]).any(), "nothing is random"
    spread = 4.5 * drawn.std(0) / np.sqrt(draws) + 1e-6 * np.abs(drawn).max()
    wanted = row.mean(quantizer, x)
    assert (np.abs(drawn.mean(0) - wanted.reshape(drawn.shape[1:])) <= spread).all()


@pytest.mark.parametrize("role", ["weights", "activations", "gradients"])
def test_every_registered_quantizer_has_a_row_and_every_row_is_registered(role):
    assert {row.name for row in ROWS if row.role == role} == set(Q.names(role))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_it_is_found_by_its_alias_and_documented_with_formulas_and_source(row):
    quantizer = row.build(min(row.bits))
    assert quantizer.alias == row.name
    assert quantizer.role == row.role
    texts = [type(quantizer).__doc__ or ""]
    for name in re.findall(r"`(\w+)`", texts[0]):
        texts.append(getattr(getattr(Q, name, None), "__doc__", "") or "")
    text = "\n".join(texts)
    assert "Forward" in text
    assert row.role == "gradients" or "Backward" in text
    assert "References" in text
    assert "arXiv" in text


@every_row
def test_its_state_reloads(row, bits):
    quantizer, x = started(row, bits), normal(row, 20, seed=6)
    fresh = row.build(bits)
    attach(fresh, torch.tensor(x))
    fresh.load_state_dict(quantizer.state_dict(), strict=True)
    for one, other in zip(fresh.state_dict().values(), quantizer.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    torch.manual_seed(1)
    ours = quantized(fresh.eval(), x)
    torch.manual_seed(1)
    for one, other in zip(ours, quantized(quantizer.eval(), x), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("row", "bits"), WIDEST)
def test_on_any_device_it_has_the_codes_and_gradients_of_the_cpu(row, bits, device):
    quantizer, x = started(row, bits), torch.tensor(normal(row, seed=5))
    if row.role != "gradients":
        quantizer.eval()  # where no code is random
    found = []
    for place in ("cpu", device):
        torch.manual_seed(1)
        there, leaf = copy.deepcopy(quantizer).to(place), x.to(place).requires_grad_()
        made = there(leaf)
        assert made.codes.device.type == place
        assert made.scale.device.type == place
        if row.role != "gradients":
            made.values().square().sum().backward()
            found.append([made.codes.detach().cpu(), made.scale.detach().cpu(), leaf.grad.cpu()])
    for a, b in zip(*found, strict=True) if found else ():
        assert (torch.isclose(a, b, rtol=1e-4, atol=1e-5).float().mean() >= 0.99).all()  # one in a hundred may stand at a boundary


@every_row_at_its_narrowest
def test_it_compiles_whole_and_gives_the_same(row, bits):
    quantizer = started(row, bits)
    twin = copy.deepcopy(quantizer)
    torch._dynamo.reset()
    compiled = torch.compile(twin, backend="aot_eager", fullgraph=True)
    results = []
    for call in (quantizer, compiled):
        torch.manual_seed(2)
        x = torch.tensor(normal(row, 30, seed=7), requires_grad=row.role != "gradients")
        q = call(x)
        if x.requires_grad:
            (q.values() * torch.linspace(-1, 1, x.numel()).reshape(x.shape)).sum().backward()
        results.append((q.codes.detach(), q.values().detach(), x.grad))
    (codes, values, gradient), (codes2, values2, gradient2) = results
    torch.testing.assert_close(codes2, codes, rtol=0, atol=0)
    torch.testing.assert_close(values2, values)
    torch.testing.assert_close(gradient2, gradient)


def small_net(row: Row, bits: int, hidden: int = 48) -> nn.Sequential:
    """A net of two layers that both have the row's quantizer in its role, and 8 bits in the others."""
    own = {"weights": "weight_quantizer", "activations": "input_quantizer", "gradients": "gradient_quantizer"}[row.role]

    def quantizers() -> dict[str, object]:
        return {"weight_quantizer": LINEAR8, "input_quantizer": LINEAR8} | {own: row.build(bits)}

    torch.manual_seed(3)
    layers = [lnn.Linear(64, hidden, **quantizers()), lnn.Linear(hidden, 10, **quantizers())]
    for layer in layers:
        span = layer.weight_quantizer.latent_range
        if row.role == "weights" and span is not None:
            nn.init.uniform_(layer.weight, *span)  # as the paper starts latent weights
    return nn.Sequential(layers[0], lnn.BatchNorm1d(hidden), nn.Hardtanh(), layers[1], lnn.BatchNorm1d(10))


def digits(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images as rows in -1 .. 1, and labels."""
    held = data.load_data("digits")
    images, labels = getattr(held, f"{split}_images"), getattr(held, f"{split}_labels")
    return torch.tensor(held.scale(images, -1, 1)).flatten(1), torch.tensor(labels)


def train(net: nn.Sequential, epochs: int, most: int = 10_000) -> None:
    """Adam on batches of 100 digits."""
    x, y = digits("train")
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(100)[:most]:
            optimizer.zero_grad()
            F.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
            optim.clip_latent_weights(net)


@every_row_at_its_narrowest
def test_a_net_learns_digits_with_it(row, bits):
    net = small_net(row, bits)
    train(net, epochs=4)
    x, y = digits("test")
    with torch.no_grad():
        right = (net.eval()(x).argmax(1) == y).double().mean().item()
    assert right > 0.5  # chance is 0.1


@pytest.mark.parametrize(("row", "bits"), WIDEST)
def test_a_layer_exports_and_verifies_or_is_refused_in_words(row, bits, tmp_path):
    net = small_net(row, bits, hidden=7)
    train(net, epochs=1, most=2)
    x = digits("test")[0][:32]
    path = tmp_path / "net.lobit"
    if row.refused and row.role != "gradients":
        with pytest.raises(ExportError, match=row.refused):
            export(net.eval(), x, path)
        assert not path.exists()
        return
    report = export(net.eval(), x, path, strict=True).verification
    assert report.ok
    assert report.equal == report.compared == 32 * (64 + 7)


@every_row_at_its_narrowest
def test_a_step_under_autocast_in_bfloat16_is_finite_and_its_codes_are_levels(row, bits):
    net = small_net(row, bits)
    x, y = digits("train")
    for _ in range(2):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            F.cross_entropy(net(x[:64]), y[:64]).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
    assert net[0].weight.grad.abs().sum() > 0
    if row.role == "activations":
        quantizer = net[3].input_quantizer
        codes = quantizer(torch.linspace(-2, 2, 480).reshape(-1, 48).bfloat16()).codes
        levels = levels_of(row, quantizer)
        assert levels is None or set(codes.flatten().tolist()) <= levels
