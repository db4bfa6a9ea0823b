"""What a network costs, in one view: `lobit.summary` and `lobit summary`. A file needs no torch."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lobit.bits import Bits
from lobit.errors import ConfigError
from lobit.report.cost import LayerCost, NetworkCost, check_batch, cost_of
from lobit.report.energy import Energy, estimate
from lobit.report.network import Network, find_network
from lobit.report.rapl import Measured, find_zones, measure
from lobit.runtime.report import table

if TYPE_CHECKING:
    from torch import Tensor

COLUMNS = 80
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"), (1e-12, "p"))


@dataclass(frozen=True, slots=True)
class Summary:
    """A network's cost and the estimate of its energy, beside those of the same network in float32; ``str()`` makes tables of 80 columns.

    Parameters
    ----------
    title : str
        What was summarised.
    cost : NetworkCost
        Of the packed network.
    energy, float_energy : Energy
        The estimate for one sample, and that of the same network in float32.
    file_bytes : int or None
        Of the file, where it is one.
    measured : Measured or None
        Joules of one batch, where they were asked for and the machine measures them.
    not_measured : str
        Why they were not, where they were asked for.
    grouped : tuple of str
        Layers with scales for groups of inputs, which are counted here and have no place in a file yet.
    """

    title: str
    cost: NetworkCost
    energy: Energy
    float_energy: Energy
    file_bytes: int | None = None
    measured: Measured | None = None
    not_measured: str = ""
    grouped: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        full = self.cost.as_float()
        return {
            "network": self.title,
            "file_bytes": self.file_bytes,
            **self.cost.to_dict(),
            "energy_estimate": self.energy.to_dict(),
            "float": {"peak_memory_bytes": full.peak_memory_bytes, "energy_joules": self.float_energy.joules},
            "measured": None if self.measured is None else self.measured.to_dict(),
            "not_measured": self.not_measured or None,
            "grouped": list(self.grouped),
        }

    def __str__(self) -> str:
        title = f"{self.title}; {self.cost.parameters:,} weights"
        parts = [_wrap(title), self._layers(), self._widths(), self._sizes(), self._notes()]
        return "\n\n".join(part for part in parts if part)

    def _layers(self) -> str:
        head = ("layer", "operator", "bits", "weights", "bytes", "MACs", "bit ops", "energy")
        shares = {layer.name: layer.picojoules * 1e-12 for layer in self.energy.layers}
        body = [_row(layer, shares[layer.name]) for layer in self.cost.layers if layer.bits]
        if not body:
            return "no layer has weights"
        rest = max(len(line) for line in table(head[1:], [row[1:] for row in body], right=range(2, 7)).splitlines())
        room = max(COLUMNS - rest - 2, len(head[0]))
        return table(head, [(_clip(row[0], room), *row[1:]) for row in body], right=range(3, 8))

    def _widths(self) -> str:
        cost = self.cost
        if not cost.macs:
            return ""
        operations = cost.bit_operations_by_width
        body = [(width, f"{macs:,}", f"{macs / cost.macs:.1%}", f"{operations[width]:,}") for width, macs in cost.macs_by_width.items()]
        if len(body) > 1:
            body.append(("all", f"{cost.macs:,}", "", f"{cost.bit_operations:,}"))
        return table(("bits", "MACs", "share", "bit operations"), body, right=(1, 2, 3))

    def _sizes(self) -> str:
        """Bytes and joules, beside float32's where the network is not float32 itself."""
        cost, full = self.cost, self.cost.as_float()
        rows = [
            ("weights", cost.weight_bytes, full.weight_bytes, _bytes),
            ("other constants", cost.constant_bytes, None, _bytes),
            ("file", self.file_bytes, None, _bytes),
            (f"activations, batch {cost.batch}", cost.peak_activation_bytes, full.peak_activation_bytes, _bytes),
            (f"peak memory, batch {cost.batch}", cost.peak_memory_bytes, full.peak_memory_bytes, _bytes),
            ("energy of a sample, estimate", self.energy.joules, self.float_energy.joules, lambda joules: si(joules, "J")),
        ]
        is_float = all(width == str(Bits()) for width in cost.macs_by_width)
        body = []
        for name, ours, floats, text in rows:
            if ours is None:
                continue
            beside = ("", "") if floats is None else (text(floats), f"{floats / ours:.1f} x" if ours else "")
            body.append((name, text(ours)) if is_float else (name, text(ours), *beside))
        return table(("", "this")[:2] if is_float else ("", "this", "float32", "less"), body, right=(1, 2, 3))

    def _notes(self) -> str:
        least, most = self.energy.joules_range
        spread = f", {si(least, 'J')} to {si(most, 'J')} with the range of DRAM" if most > least else ""
        parts = " + ".join(
            f"{name} {si(picojoules * 1e-12, 'J')}"
            for name, picojoules in (
                ("multiply", self.energy.multiply_pj),
                ("add", self.energy.add_pj),
                ("memory", self.energy.memory_pj),
            )
        )
        notes = [f"energy: {parts}{spread}"]
        inexact = [layer.name for layer in self.cost.layers if not layer.exact]
        if inexact:
            every = len(inexact) == sum(bool(layer.bits) for layer in self.cost.layers)
            notes.append(f"inexact: {'every layer' if every else ', '.join(inexact)}, in float32")
        if self.grouped:
            notes.append(f"scales for groups of inputs: {', '.join(self.grouped)}; counted here, they do not export yet")
        if self.measured is not None:
            notes.append(_measured(self.measured, self.cost.batch))
        elif self.not_measured:
            notes.append(f"joules not measured: {self.not_measured}")
        return "\n".join(_wrap(note) for note in notes)


def summary(
    network: Any,
    example: Tensor | Sequence[Tensor] | None = None,
    *,
    bits: str | Bits | None = None,
    batch: int = 1,
    measured: bool = False,
    seconds: float = 2.0,
) -> Summary:
    """Count what a network costs, layer by layer, beside the same network in float32.

    Parameters
    ----------
    network : path-like, str, Graph, Session or nn.Module
        A ``.lobit`` file (needs no torch), the folder of a run, a checkpoint, a recipe, the name of a model of the zoo, or a model of your own.
    example : Tensor or tuple of Tensor, optional
        Input of an nn.Module, with a batch axis.
    bits : str or Bits, optional
        For a model of the zoo, or instead of a recipe's.
    batch : int
        Samples that run at once: for the memory, and for what is measured.
    measured : bool
        Run the packed network on noise, on one thread, and read the machine's energy counters; where it has none, the summary says why not.
    seconds : float
        How long.

    Returns
    -------
    Summary

    Examples
    --------
    >>> import lobit
    >>> lobit.summary("tests/golden/v1-mlp.lobit").cost.macs_by_width
    {'W2A8': 910, 'W3A2': 36, 'W1A1': 630}
    """
    check_batch(batch)
    found = find_network(network, example, bits)
    cost = cost_of(found.graph, batch)
    layers = (replace(layer, constant_bytes=layer.constant_bytes + found.group_scales.get(layer.name, 0)) for layer in cost.layers)
    cost = replace(cost, layers=tuple(layers))
    joules, why_not = _try_to_measure(found, batch, seconds) if measured else (None, "")
    grouped = tuple(found.group_scales)
    return Summary(found.title, cost, estimate(cost), estimate(cost.as_float()), found.file_bytes, joules, why_not, grouped)


def _try_to_measure(network: Network, batch: int, seconds: float) -> tuple[Measured | None, str]:
    from lobit.runtime import Session

    if network.group_scales:
        return None, "layers with scales for groups of inputs do not run packed yet"
    try:
        find_zones()
    except ConfigError as error:
        return None, str(error)
    session = Session(network.graph)
    rng = np.random.default_rng(0)
    try:
        inputs = [rng.random((batch, *shape), np.float32) for shape in network.graph.inputs.values()]
    except MemoryError:
        raise ConfigError(f"there is not enough memory for a batch of {batch}; use a smaller batch") from None
    return measure(lambda: session(*inputs), seconds), ""


def si(value: float, unit: str = "") -> str:
    """Four digits and a prefix.

    Examples
    --------
    >>> si(150994944), si(0.0000435, "J"), si(18432, "B"), si(0)
    ('151.0 M', '43.50 uJ', '18.43 kB', '0')
    """
    if not value:
        return f"0 {unit}".strip()
    scale, prefix = next(((scale, prefix) for scale, prefix in PREFIXES if abs(value) >= scale * 0.99995), PREFIXES[-1])
    if isinstance(value, int) and scale == 1:
        return f"{value} {unit}".strip()
    return f"{value / scale:#.4g}".rstrip(".") + f" {prefix}{unit}".rstrip()


def _row(layer: LayerCost, joules: float) -> tuple[str, ...]:
    return (
        layer.name,
        layer.op.removesuffix("_f32"),
        layer.bits,
        si(layer.parameters),
        si(layer.weight_bytes, "B"),
        si(layer.macs),
        si(layer.bit_operations),
        si(joules, "J"),
    )


def _bytes(count: float) -> str:
    return f"{count:,} B"


def _clip(text: str, room: int) -> str:
    """The last characters of a name, which tell layers apart."""
    return text if len(text) <= room else ".." + text[2 - room :]


def _wrap(text: str) -> str:
    return textwrap.fill(text, COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _measured(found: Measured, batch: int) -> str:
    return (
        f"measured: {si(found.joules / batch, 'J')} a sample at batch {batch} on one thread ({si(found.joules_above_rest / batch, 'J')} above rest), "
        f"{found.watts:.1f} W of {', '.join(found.zones)}, {found.rest_watts:.1f} W at rest; {found.calls} calls of {si(found.seconds, 's')}"
    )
