"""Batch-norm statistics estimated anew, from data that pass through weights that stay."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lobit.errors import ConfigError
from lobit.nn.shiftnorm import ShiftBatchNorm
from lobit.quantizers.feed import Batches, Progress, feed, in_eval

BatchNorm = nn.modules.batchnorm._BatchNorm | ShiftBatchNorm


def reestimate_batch_norm(model: nn.Module, batches: Batches, *, progress: Progress | None = None) -> None:
    """Estimate the running statistics of every batch norm again, for the weights and quantizers as they are now.

    A running average follows weights that were still moving, and codes that jumped back and forth; calibration changes what layers give. Here weights stand
    still: batch norms run as in training, all else as in eval, and each running mean and variance (inverse deviation, of a shift-based one) becomes the average of those of the batches, weighted by
    their samples: ``mean <- mean + (batch mean - mean) n / N``, n samples of the batch, N so far. A norm that runs several times in a forward averages over all its
    calls. The result does not depend on the order of the batches when
    a model has one batch norm; behind another one, inputs are normalized by each batch itself, as in training. So use batches of the size that training had.

    Under `torch.distributed` each process brings its own data; the statistics of all are averaged, weighted by their samples.

    Parameters
    ----------
    model : nn.Module
        With batch norms that have running statistics, whose quantizers have started. Modes and momenta are left as they were.
    batches : Tensor, tuple of Tensors, or iterable of batches
        As `lobit.calibrate` takes them.
    progress : callable, optional
        Called after each batch with the batches done and those of all, None where that is not known.

    Raises
    ------
    ConfigError
        Without data, for a model without such a batch norm, or one that no batch reached. Statistics then are as they were.

    References
    ----------
    Hubara et al., Improving Post Training Neural Quantization, arXiv 2006.10518 (statistics tuned after quantization); Wu and Johnson, Rethinking "Batch" in
    BatchNorm, arXiv 2105.07576, section 3 (averages over many batches in place of running ones).

    Examples
    --------
    >>> import lobit
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    >>> lobit.reestimate_batch_norm(net, [torch.randn(64, 4) for _ in range(10)])
    >>> int(net[1].num_batches_tracked)
    10
    """
    norms = {path: module for path, module in model.named_modules() if isinstance(module, BatchNorm) and module.running_mean is not None}
    if not norms:
        raise ConfigError("the model has no batch norm with running statistics, so there is nothing to estimate")
    before = {
        path: ({name: buffer.clone() for name, buffer in norm.named_buffers(recurse=False)}, norm.momentum) for path, norm in norms.items()
    }
    counted: dict[nn.Module, int] = dict.fromkeys(norms.values(), 0)  # samples that each norm saw, in all its calls
    count = 0

    def weigh(norm: BatchNorm, *_: object) -> None:
        counted[norm] += count
        norm.momentum = count / counted[norm] if count else 0.0

    hooks = [norm.register_forward_pre_hook(weigh) for norm in norms.values()]
    try:
        with in_eval(model):
            for norm in norms.values():
                norm.reset_running_stats()
                norm.train()
            for count in feed(model, batches, progress):  # noqa: B007  # `weigh` reads it
                pass
        for path, norm in norms.items():
            if not counted[norm]:
                raise ConfigError(f"batch norm {path!r} saw no data: no batch reached it; give data that runs through it")
            _join_processes(norm, counted[norm])
    except BaseException:
        for path, norm in norms.items():
            for name, buffer in before[path][0].items():
                norm.get_buffer(name).copy_(buffer)
        raise
    finally:
        for hook in hooks:
            hook.remove()
        for path, norm in norms.items():
            norm.momentum = before[path][1]


def _join_processes(norm: BatchNorm, samples: int) -> None:
    """The average over all processes of a distributed run."""
    if not (dist.is_available() and dist.is_initialized()):
        return
    statistics = [buffer for buffer in norm.buffers(recurse=False) if buffer.is_floating_point()]
    weighted: Tensor = torch.stack([*statistics, torch.ones_like(statistics[0])]).double() * samples
    dist.all_reduce(weighted, dist.ReduceOp.SUM)
    for buffer, total in zip(statistics, weighted, strict=False):
        buffer.copy_(total / weighted[-1])
