"""What quantizers whose range is state share: where that state comes from, and what is said when it is not there yet."""

from __future__ import annotations

import torch
from torch import Tensor

from lobit.errors import ConfigError
from lobit.quantizers.base import ActivationQuantizer, Quantized, WeightQuantizer, constant
from lobit.quantizers.observer import Observer, Sample
from lobit.quantizers.ranges import Method
from lobit.quantizers.tracing import readable

FIRST_BATCH = "a quantizer takes its range from its first batch, by values: run one batch in training, or lobit.calibrate, before torch.compile(fullgraph=True)"


class FromData(ActivationQuantizer):
    """An activation quantizer that takes its range from data.

    It starts at the first batch in training or in `calibrating`, by a rule of its own, or takes what `lobit.calibrate` chooses for all data that it observed. A
    batch of zeros says nothing, so it is quantized to zeros and the next one decides. All processes of a distributed run start alike. A subclass
    states `quantize`, `take` and `steps`; its state is buffers and parameters, so that it is saved and copied with the model.

    Parameters
    ----------
    bits : int
        Stored with the state, so that a state of another width is refused.

    Attributes
    ----------
    observer : Observer or None
        While it is there, inputs are shown to it and pass on as they are: ``codes = x``, ``scale = 1``.
    """

    started: Tensor
    width: Tensor
    observer: Observer | None = None

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.register_buffer("started", torch.tensor(False))
        self.register_buffer("width", torch.tensor(bits, dtype=torch.int8))
        self._running = False  # a Python copy decides branches, so that graphs do not depend on a tensor

    def quantize(self, x: Tensor) -> Quantized:
        """Codes of a tensor of any shape, once it has started."""
        raise NotImplementedError

    def take(self, sample: Sample, method: Method | None) -> None:
        """Set the range for values that were seen, by a method; by the quantizer's own rule where it is None."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Quantized:
        """Codes of a tensor of any shape."""
        if self.observer is not None:
            self.observer.see(x, self.owner)
            return Quantized(x, constant(1.0, x))
        if not self._running and not self._start(x):
            return Quantized(x * 0, self._scale_of_none(x))  # of zeros; the layers before it have a gradient, as in every pass
        return self.quantize(x)

    @property
    def observes(self) -> bool:
        """Whether its input passes as it is."""
        return self.observer is not None

    @property
    def undecided(self) -> bool:
        """Whether it has not started, and gives codes of 0."""
        return not self.observes and not self.has_started

    @property
    def has_started(self) -> bool:
        """Whether its range is set."""
        return self._running or bool(self.started)  # the buffer may have been copied from another model

    @torch.no_grad()
    def settle(self, sample: Sample, method: Method | None = None) -> None:
        """`take`, and be started."""
        self.take(sample, method)
        self.started.fill_(True)
        self._running = True

    @torch.compiler.disable(reason=FIRST_BATCH)  # type: ignore[untyped-decorator, no-untyped-call]
    @torch.no_grad()
    def _start(self, x: Tensor) -> bool:
        """Take the range from a batch; False when it holds only zeros."""
        if bool(self.started):  # copied from another model, as averages of weights are
            self._after_load()
            return True
        if not (self.training or self.calibrating):
            raise ConfigError(self._needs_data("it is used before calibration: its step is not set"))
        if x.numel() == 0:
            raise ConfigError(f"the first batch of {self.owner or 'a quantizer'} is empty; calibrate with data")
        observer = Observer()
        observer.see(x, self.owner)
        observer.join_processes()
        if observer.only_zeros:
            return False
        self.settle(observer.sample())
        return True

    def reset(self) -> None:
        """Forget the range."""
        self.started.fill_(False)
        self._running = False

    def _check_started(self) -> None:
        if not self._running and bool(self.started):
            self._after_load()
        if not self._running:
            raise ConfigError(self._needs_data("its step is not set"))

    def _needs_data(self, why: str) -> str:
        return (
            f"the quantizer of {self.owner or 'a layer'} has not seen data: {why} (batches of nothing but zeros do not count). Run one training or calibration batch, in train() mode or by "
            "lobit.calibrate(model, batches), or load a trained state"
        )

    def _after_load(self) -> None:
        self._running = bool(self.started)


class FromWeights(WeightQuantizer):
    """A weight quantizer whose range `lobit.calibrate` can choose.

    Attributes
    ----------
    method : Method or None
        How the range of the weights that come next is chosen; None where it stays as it is.
    """

    started: Tensor
    method: Method | None = None
    _running = False  # a Python copy of ``started``

    def _is_running(self) -> bool:
        """Whether it has started; the buffer may have been copied from another model."""
        if not self._running and readable(self.started):
            self._running = bool(self.started)
        return self._running

    _attached = False

    def _attach_once(self, holds: str) -> None:
        """Refuse a second layer: state belongs to the weights of one."""
        if self._attached:
            raise ConfigError(
                f"this quantizer holds the {holds} of {self.owner or 'another layer'}; give each layer a quantizer of its own"
            )
        self._attached = True

    def reset(self) -> None:
        """Let the range follow the weights again."""
        self.started.fill_(False)
        self._running = False

    def _after_load(self) -> None:
        self._running = bool(self.started)

    def take(self, sample: Sample, method: Method) -> None:
        """Set the range for weights of which each row is an output channel."""
        raise NotImplementedError

    @torch.no_grad()
    def _fit(self, x: Tensor) -> None:
        """For `forward` to call first."""
        if self.method is not None:
            self.take(Sample.of_rows(x), self.method)
            self.method = None
