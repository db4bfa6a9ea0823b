"""From a model to an exported graph of PyTorch operators with a free batch axis, after the checks that need no graph."""

from __future__ import annotations

import contextlib
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from lobit.capture.opaque import opaque_layers
from lobit.capture.refused import refuse, why_refused
from lobit.errors import ExportError, LobitError, ShapeError
from lobit.quantizers import Quantizer

Example = Tensor | Sequence[Tensor]


@dataclass(frozen=True, slots=True)
class Traced:
    """The graph of PyTorch operators, its free inputs, what its other placeholders hold, and the opaque layers by path."""

    graph: fx.Graph
    inputs: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    layers: Mapping[str, nn.Module]


def as_tuple(example: Example) -> tuple[Tensor, ...]:
    """The inputs of a model as a tuple of checked tensors.

    Raises
    ------
    ShapeError
        Unless each is a finite float32 CPU tensor of shape (N, C), (N, C, L) or (N, C, H, W), with one N for all.
    """
    inputs = (example,) if isinstance(example, Tensor) else example
    if not isinstance(inputs, (tuple, list)) or not inputs or not all(isinstance(x, Tensor) for x in inputs):
        raise ShapeError(f"example must be a tensor or a tuple of tensors, not {type(example).__name__}")
    for index, x in enumerate(inputs):
        what = f"input {index}" if len(inputs) > 1 else "the input"
        if x.dtype != torch.float32:
            raise ShapeError(f"{what} has dtype {x.dtype}; lobit takes torch.float32: convert it with x.float()")
        if x.device.type != "cpu":
            raise ShapeError(f"{what} is on {x.device}; export and verify run on the CPU: pass x.cpu()")
        if x.ndim not in (2, 3, 4) or 0 in x.shape[1:]:
            raise ShapeError(
                f"{what} has shape {tuple(x.shape)}; lobit takes a batch of shape (N, C), (N, C, L) or (N, C, H, W), none of C, L, H, W zero"
            )
        if len(x) != len(inputs[0]):
            raise ShapeError(f"{what} has a batch of {len(x)}, the first one of {len(inputs[0])}; they must agree")
        if not torch.isfinite(x).all():
            raise ShapeError(f"{what} holds values that are not finite; replace NaN and infinities")
    return tuple(inputs)


def checked_inputs(model: nn.Module, example: Example) -> tuple[Tensor, ...]:
    """The inputs of a model, as `as_tuple` checks them.

    Raises
    ------
    ExportError
        Where the example is none that a file takes because the model starts with a layer that a file has no place for.
    ShapeError
        Where it is none for another reason.
    """
    try:
        return as_tuple(example)
    except ShapeError:
        if isinstance(model, nn.Module):
            _refuse_layers(model)
        raise


def _refuse_layers(model: nn.Module) -> None:
    for path, layer in model.named_modules():
        if why_refused(layer):
            refuse(path, layer)


def check_model(model: nn.Module) -> None:
    """Refuse a model that is not ready: in training mode, off the CPU, not float32, or not finite.

    Raises
    ------
    ExportError
        Naming the module or tensor.
    """
    if not isinstance(model, nn.Module):
        raise ExportError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    known = set(model.modules())
    for path, module in model.named_modules():
        for name, held in vars(module).items():
            parts = held.values() if isinstance(held, dict) else held if isinstance(held, (list, tuple)) else ()
            if any(isinstance(part, nn.Module) and part not in known for part in parts):
                raise ExportError(
                    f"{f'{path}.{name}'.lstrip('.')!r} keeps layers in a plain {type(held).__name__}, where PyTorch does not see them; "
                    "use torch.nn.ModuleList or ModuleDict, then quantize and train again"
                )
        if isinstance(module, Quantizer) and module.off:
            raise ExportError(f"quantizer {path!r} is switched off by a schedule; go on to the schedule's end, then train some more")
        if module.training:
            raise ExportError(f"{f'module {path!r}' if path else 'the model'} is in training mode; call model.eval() first")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.device.type != "cpu":
            raise ExportError(f"{name!r} is on {tensor.device}; export and verify run on the CPU: call model.cpu() first")
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ExportError(f"{name!r} is {tensor.dtype}; the numbers are defined for torch.float32: call model.float() first")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ExportError(f"{name!r} holds values that are not finite; the training diverged or the checkpoint is damaged")


def trace(model: nn.Module, inputs: tuple[Tensor, ...]) -> Traced:
    """Run `torch.export` on the eval graph, lobit's layers left whole, in-place operations made plain.

    Raises
    ------
    ExportError
        When the model cannot be traced, fixes its batch size, or changes its buffers or its input.
    """
    batch = tuple(x[:1].repeat(2, *[1] * (x.ndim - 1)) if len(x) == 1 else x for x in inputs)
    if not len(batch[0]):
        raise ExportError("the example is an empty batch; give at least one row")
    _try_once(model, batch)
    with opaque_layers(model) as layers, quiet_torch(), warnings.catch_warnings(), torch.no_grad(), torch.autocast("cpu", enabled=False):
        warnings.simplefilter("ignore")  # of torch's own machinery, none of them of use to the caller
        try:
            program = torch.export.export(model, batch, dynamic_shapes=_free_batch(model, batch), strict=False).run_decompositions({})
        except ExportError:  # of a layer that has no place in a file
            raise
        except Exception as error:  # torch.export raises whatever the model's code does
            raise ExportError(_why(error, len(batch[0]))) from error
    return Traced(program.graph, _user_inputs(program), _tensors(program), layers)


def _try_once(model: nn.Module, batch: tuple[Tensor, ...]) -> None:
    """A model that fails by itself is told so, in its own words."""
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            model(*batch)
    except Exception as error:  # whatever the model's code does
        _refuse_layers(model)  # which may be why no example fits
        if isinstance(error, LobitError):
            raise ExportError(str(error)) from error
        shapes = ", ".join(str(tuple(x.shape)) for x in batch)
        raise ExportError(
            f"the model fails on the example, of shape {shapes} ({type(error).__name__}: {_first_line(error)}); give an example that it takes"
        ) from error


def _free_batch(model: nn.Module, batch: tuple[Tensor, ...]) -> Any:
    """Axis 0 of every input is free, in the structure of forward's parameters (what goes to ``*args`` is one tuple)."""
    free = {0: Dim.DYNAMIC}
    given = inspect.signature(model.forward).bind(*batch).arguments.values()
    return tuple(tuple(free for _ in value) if isinstance(value, tuple) else free for value in given)


@contextlib.contextmanager
def quiet_torch() -> Iterator[None]:
    """Keep torch's loggers from printing what the error says anyway."""
    loggers = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict) if name.split(".")[0] == "torch"]
    for logger in loggers:
        logger.addFilter(_drop)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_drop)


def _drop(_: logging.LogRecord) -> bool:
    return False


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _why(error: Exception, batch: int) -> str:
    text, first = str(error), _first_line(error)
    if "specialized" in text or "Constraints violated" in text or "ConstraintViolation" in type(error).__name__:
        return (
            f"the model fixes its batch size to the example's {batch}; use x.size(0) or flatten(1) where the code counts rows "
            f"(torch.export says: {first})"
        )
    decides = any(word in f"{type(error).__name__} {text}" for word in ("DataDependent", "data-dependent", "control flow", "UserError"))
    advice = "; forward must be the same straight program for every input, without decisions on values" if decides else ""
    return f"torch.export cannot trace the model ({type(error).__name__}: {first}){advice}"


def _user_inputs(program: ExportedProgram) -> tuple[str, ...]:
    changed = [spec for spec in program.graph_signature.output_specs if spec.kind is not OutputKind.USER_OUTPUT]
    if changed:
        raise ExportError(
            f"the model changes {changed[0].target!r} in eval mode; export needs a model that leaves its buffers and inputs alone"
        )
    specs = [spec for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
    return tuple(spec.arg.name for spec in specs)


def _tensors(program: ExportedProgram) -> dict[str, Tensor]:
    """Parameters, buffers and tensor constants by the name of their placeholder."""
    known = {**program.state_dict, **program.constants}
    specs = [spec for spec in program.graph_signature.input_specs if spec.target is not None]
    return {spec.arg.name: known[spec.target].detach() for spec in specs if isinstance(known.get(spec.target or ""), Tensor)}
