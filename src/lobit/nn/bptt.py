"""Recurrent layers as one operation: preallocated memory forward, back-propagation through time written out.

Each step has one product; the weights' gradients and the inputs' are one product each over all steps at the end. The sums are not kept: the gradient
of a scale per output channel is ``(P * codes_w).sum(1)``, where ``P = g^T . codes`` is the product that the weights' gradient needs anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lobit.bits import CodeType
from lobit.errors import ConfigError
from lobit.nn.cells import Memory, gru_backward, lstm_backward, plain_backward
from lobit.nn.once import once
from lobit.nn.recurrence import Operands, Result, Steps, offset_term, product, times
from lobit.nn.scaled_product import expanded, weight_gradient
from lobit.nn.tables import PER_UNIT
from lobit.quantizers import LSQ, ActivationQuantizer, GradientQuantizer, LinearQuant, Quantized, Sign, fused
from lobit.quantizers.base import wide
from lobit.quantizers.sign import ONE_BIT

WORTH_A_COPY = 16  # steps whose products gain more by weights in their order of memory than the copy costs
Encode = Callable[[Tensor, Tensor, Tensor | None], None]
"""Writes the codes of a state, and where the gradient passes."""


@dataclass(frozen=True, slots=True)
class Uniform:
    """A hidden state's quantizer whose codes are ``round(clamp(h / step, lo, hi))``, or for one bit the sign of ``h``."""

    code: CodeType

    @property
    def learned(self) -> bool:
        """Whether the codes depend on the step."""
        return self.code != ONE_BIT


def uniform(quantizer: ActivationQuantizer | None) -> Uniform | None:
    """What `Recurrence` needs to know of a quantizer; None where it has to be asked at each step, as any subclass has: its gradient may be another."""
    if not isinstance(quantizer, (LSQ, LinearQuant, Sign)) or type(quantizer) not in (LSQ, LinearQuant, Sign):
        return None
    try:
        code = quantizer.code_type
    except ConfigError:  # undecided: it waits for states other than 0, or says what is missing when it is asked
        return None
    return Uniform(code) if getattr(quantizer, "gradient", "clipped") == "clipped" else None


def _encoder(rule: Uniform | None, step: Tensor | None) -> Encode:
    def encode(h: Tensor, out: Tensor, inside: Tensor | None) -> None:
        if rule is None or step is None:
            out.copy_(h)
        elif not rule.learned:
            torch.ge(h, 0, out=out).mul_(2).sub_(1)
            if inside is not None:
                torch.le(h.abs(), 1, out=inside)
        elif fused.steps_usable(h, out, step):
            fused.round_codes(h, step, rule.code.lo, rule.code.hi, out, inside)
        else:
            torch.div(h, step, out=out)
            before = None if inside is None else out.clone()
            out.clamp_(rule.code.lo, rule.code.hi)
            if inside is not None and before is not None:
                torch.eq(out, before, out=inside)
            out.round_()

    return encode


@dataclass(slots=True)
class _Pass:
    """What a forward pass leaves."""

    memory: Memory
    codes: Tensor
    inside: Tensor
    states: Tensor
    result: Result


def _forward(
    steps: Steps, given: Operands, s_hh: Tensor | None, o_hh: Tensor | None, encode: Encode, masked: bool, kept: bool, states: bool
) -> _Pass:
    x, w_ih, s_ih, w_hh, _, o_ih, bias, bias_n, h0, c0 = given
    gates = product(x, w_ih, steps.wide_inputs)
    gates = gates.mul_(PER_UNIT if s_ih is None else s_ih * PER_UNIT)
    for constant in (o_ih, bias):
        if constant is not None:
            gates.add_(constant * PER_UNIT)
    (rows, width), (batch, units) = gates.shape, h0.shape
    memory = Memory(steps, gates, gates, batch, units, kept)
    h, c = h0.clone(), None if c0 is None else c0.clone()
    hidden = gates.new_empty(rows, units)
    codes = gates.new_empty(rows if kept else batch, units)
    inside = gates.new_empty((rows if kept and masked else 0, units), dtype=torch.bool)
    before = gates.new_empty(rows if states else 0, units)
    sums = gates.new_empty(batch, width)
    weight = (wide(w_hh) if steps.wide_hidden else w_hh).t()
    weight = weight.contiguous() if len(steps.sizes) >= WORTH_A_COPY else weight
    scale = gates.new_full((1,), float(PER_UNIT)) if s_hh is None else s_hh * PER_UNIT
    offset = None if o_hh is None else o_hh * PER_UNIT
    bias_n = None if bias_n is None else bias_n * PER_UNIT
    for start, size in steps.rows():
        here, state, out = slice(start, start + size), h[:size], hidden[start : start + size]
        encoded, b = codes[here] if kept else codes[:size], sums[:size]
        encode(state, encoded, inside[here] if kept and masked else None)
        if steps.wide_hidden:
            b.copy_(torch.mm(wide(encoded), weight))
        else:
            torch.mm(encoded, weight, out=b)
        b.mul_(scale)
        if offset is not None:
            b.add_(offset)
        if states:
            before[here].copy_(state)
        if c is not None:
            memory.lstm(here, b, c[:size], out)
        elif steps.kind == "gru":
            memory.gru(here, b, bias_n, state, out)
        else:
            memory.plain(here, b, out)
        state.copy_(out)
    return _Pass(memory, codes, inside, before, Result(hidden, h, c))


@torch.no_grad()
def run(steps: Steps, given: Operands, quantizer: ActivationQuantizer | None) -> Result:
    """`lobit.nn.recurrence.walk` without gradients, for a quantizer whose scale does not depend on what it is given."""
    scale = offset = None
    if quantizer is not None:
        coded: Quantized = quantizer(given.h0)
        scale, offset = coded.scale, coded.offset
    s_hh = given.s_w if scale is None else times(scale, given.s_w)
    o_hh = offset_term(offset, given.w_hh, given.s_w)

    def encode(h: Tensor, out: Tensor, _: Tensor | None) -> None:
        out.copy_(h if quantizer is None else quantizer(h).centred())

    rule = uniform(quantizer)
    return _forward(steps, given, s_hh, o_hh, _encoder(rule, scale) if rule else encode, False, False, False).result


def recur(steps: Steps, given: Operands, quantizer: ActivationQuantizer | None, gradients: GradientQuantizer | None) -> Result:
    """`lobit.nn.recurrence.walk` with gradients, for a hidden state that has no quantizer or a `uniform` one."""
    rule, step, s_hh = uniform(quantizer), None, given.s_w
    if quantizer is not None:
        step = quantizer(given.h0).scale
        s_hh = times(step, given.s_w)
    hidden, h_n, *c_n = Recurrence.apply(steps, rule, gradients, *given[:4], s_hh, *given[5:], step)  # type: ignore[no-untyped-call]
    return Result(hidden, h_n, c_n[0] if c_n else None)


class Recurrence(torch.autograd.Function):
    """One direction of a recurrent layer. Its definition is `lobit.nn.recurrence.walk`, whose values it has bit for bit, and whose gradients."""

    @staticmethod
    def forward(ctx: Any, steps: Steps, rule: Uniform | None, gradients: GradientQuantizer | None, *tensors: Any) -> tuple[Tensor, ...]:
        """``tensors``: those of `Operands` in order, with ``s_hh`` in the place of ``s_w``, then the hidden quantizer's step."""
        *operands, step = tensors
        given = Operands(*operands)
        learned = rule is not None and rule.learned and ctx.needs_input_grad[-1]
        done = _forward(steps, given, given.s_w, None, _encoder(rule, step), rule is not None, True, learned or steps.kind == "gru")
        memory = done.memory
        ctx.settings = (steps, rule, gradients)
        x, weights, states = steps.kept
        ctx.save_for_backward(
            _small(given.x, x), _small(given.w_ih, weights), given.s_ih, _small(given.w_hh, weights), given.s_w, step,
            memory.gates, memory.inside, memory.new, memory.new_inside, memory.cells, _small(done.codes, states), done.inside, done.states,
        )  # fmt: skip
        ctx.set_materialize_grads(False)
        return tuple(value for value in done.result if value is not None)

    @staticmethod
    @once
    def backward(ctx: Any, grad: Tensor | None, grad_h: Tensor | None, grad_c: Tensor | None = None) -> tuple[Any, ...]:
        """Back-propagation through time."""
        gradients = ctx.settings[-1]
        x, w_ih, s_ih, w_hh, s_hh, step, *_, codes, _, _ = ctx.saved_tensors
        needs = ctx.needs_input_grad[3:]
        back = _through_time(ctx, grad, grad_h, grad_c)
        g_bias = back.inputs.sum(0) if needs[5] or needs[6] else None
        g_offset, g_bias = g_bias if needs[5] else None, g_bias if needs[6] else None
        g_bias_n = back.hidden[:, -w_hh.shape[1] :].sum(0) if needs[7] else None
        g_x, g_w_ih, g_s_ih = _side(back.inputs, None, x, w_ih, s_ih, gradients, needs[:3])
        _, g_w_hh, g_s_hh = _side(back.hidden, back.sent, codes, w_hh, s_hh, gradients, (False, *needs[3:5]))
        g_step = back.step.reshape(step.shape) if back.step is not None else None
        return None, None, None, g_x, g_w_ih, g_s_ih, g_w_hh, g_s_hh, g_offset, g_bias, g_bias_n, back.h0, back.c0, g_step


@dataclass(slots=True)
class _Back:
    """Gradients of the pre-activations of all steps, on the inputs' side and the hidden sums'; as sent through the gradient quantizer; of the first states and the step."""

    inputs: Tensor
    hidden: Tensor
    sent: Tensor | None
    h0: Tensor
    c0: Tensor | None
    step: Tensor | None


def _small(codes: Tensor, dtype: torch.dtype | None) -> Tensor:
    return codes if dtype is None else codes.to(dtype)


def _through_time(ctx: Any, grad: Tensor | None, grad_h: Tensor | None, grad_c: Tensor | None) -> _Back:
    steps, rule, gradients = ctx.settings
    _, _, _, w_hh, s_hh, step, gates, inside, new, new_inside, cells, _, passes, states = ctx.saved_tensors
    (rows, width), units, batch = gates.shape, w_hh.shape[1], max(steps.sizes, default=0)
    inputs = gates.new_empty(rows, width)
    hidden = gates.new_empty(rows, width) if steps.kind == "gru" else inputs
    sent = None if gradients is None else gates.new_empty(rows, width)
    d_step = gates.new_zeros(()) if rule is not None and rule.learned and ctx.needs_input_grad[-1] else None
    dh = gates.new_zeros(batch, units) if grad_h is None else grad_h.clone()
    dc = None
    if steps.kind == "lstm":
        dc = gates.new_zeros(batch, units) if grad_c is None else grad_c.clone()
    factor = None if s_hh is None or gradients is not None else s_hh.reshape(-1, *[1] * (s_hh.numel() > 1))
    if rule is not None and rule.learned:
        factor = 1 / step if factor is None else factor / step
    weight = _floats(w_hh, None if factor is None else factor.to(gates.dtype), gates.dtype)
    room = gates.new_empty(batch, units)
    for start, size in reversed(list(steps.rows())):
        here, d = slice(start, start + size), dh[:size]
        if grad is not None:
            d.add_(grad[here])
        if dc is not None:
            lstm_backward(d, dc[:size], gates[here], inside[here], new[here], new_inside[here], cells[here], inputs[here])
        elif steps.kind == "gru":
            gru_backward(d, gates[here], inside[here], new[here], states[here], inputs[here], hidden[here])
        else:
            plain_backward(d, steps.kind, gates[here], inside[here], inputs[here])
        g = hidden[here]
        if gradients is not None and sent is not None:
            sent[here] = gradients(g if s_hh is None else g * s_hh).values()
            g = sent[here]
        straight = steps.kind == "gru"
        to = torch.mm(g, weight, out=room[:size] if straight else d)
        if rule is not None:
            to.mul_(passes[here])
        if d_step is not None:
            d_step.sub_(torch.dot(to.reshape(-1), states[here].reshape(-1)))
        if straight:
            d.add_(to)
    return _Back(inputs, hidden, sent, dh, dc, None if d_step is None else d_step / step)


def _side(
    g: Tensor,
    sent: Tensor | None,
    x: Tensor,
    w: Tensor,
    scale: Tensor | None,
    gradients: GradientQuantizer | None,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of ``x``, ``w`` and ``scale`` in ``(x . w^T) * scale``, from that of the result; ``sent`` is its quantized form where that is known."""
    to_x, to_w, to_scale = needs
    x = x.to(g.dtype)
    by_channel = None if scale is None else scale.reshape(-1, *[1] * (scale.numel() > 1)).to(g.dtype)
    if gradients is None:
        g_x = g @ _floats(w, by_channel, g.dtype) if to_x else None
        raw = g.t() @ x if to_w or to_scale else None
        g_w, g_scale = (None, None) if raw is None else weight_gradient(raw, w, by_channel, to_scale)
        return g_x, g_w if to_w else None, None if g_scale is None or scale is None else g_scale.reshape(scale.shape)
    g_scale = weight_gradient(g.t() @ x, w, by_channel, True)[1] if to_scale else None
    at_sums = g if scale is None else g * scale
    if sent is None:
        sent = gradients(at_sums).values().to(g.dtype)
    g_w = ((at_sums if gradients.inputs_only else sent).t() @ x) if to_w else None
    g_scale = None if g_scale is None or scale is None else g_scale.reshape(scale.shape)
    return (sent @ w.to(g.dtype) if to_x else None), g_w, g_scale


def _floats(codes: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Codes, kept as bytes or not, times their scale."""
    if dtype == torch.float32:
        return expanded(codes, scale)
    return codes.to(dtype) if scale is None else codes * scale
