"""Distillation: a low-bit student learns from a float teacher's logits, and from its features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lobit.errors import ConfigError, ShapeError

Loss = Callable[[Tensor, Tensor], Tensor]


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """How far a student's softened answers are from a teacher's.

    ``T^2 * mean over the batch of KL(softmax(teacher / T) || softmax(student / T))``; ``T^2`` keeps the gradient's size over temperatures. No gradient
    flows to the teacher.

    Parameters
    ----------
    student, teacher : Tensor of shape (N, classes)
        Logits.
    temperature : float
        ``T``, above 0.

    References
    ----------
    Hinton et al., Distilling the Knowledge in a Neural Network, arXiv 1503.02531, section 2.
    """
    if student.shape != teacher.shape:
        raise ShapeError(
            f"the student's logits have shape {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}; both must know the same classes"
        )
    mine, theirs = (F.log_softmax(logits.float() / temperature, 1) for logits in (student, teacher.detach()))
    return F.kl_div(mine, theirs, reduction="batchmean", log_target=True) * temperature**2


class Distillation:
    """The loss of a student that learns from a teacher as well as from labels.

    ``(1 - weight) * hard(logits, labels) + weight * distillation_loss(logits, teacher(x)) + hint_weight * mean over hints of mean (student - teacher)^2``

    The teacher is frozen, in eval mode, and no part of the student: its weights are in no checkpoint and in no optimizer.

    Parameters
    ----------
    teacher : nn.Module
        On the device of the data.
    temperature : float
        Above 0.
    weight : float
        Of the teacher's answers, 0 to 1.
    hard : callable
        ``hard(logits, labels)``; cross-entropy by default.
    hints : mapping of str to str, optional
        From the name of a module of ``student`` to the name of the teacher's module whose output it should match, of the same shape.
    hint_weight : float
        0 or more.
    student : nn.Module, optional
        Needed for hints: the module whose forward pass comes before each call. Call `close` when it is trained.

    Raises
    ------
    ConfigError
        For a setting out of its range, or a hint that names no module.

    References
    ----------
    Hinton et al., Distilling the Knowledge in a Neural Network, arXiv 1503.02531; Romero et al., FitNets, arXiv 1412.6550, equation 3 (hints, here without a
    regressor); for low bits Mishra and Marr, Apprentice, arXiv 1711.05852.

    Examples
    --------
    >>> teacher, student = nn.Linear(4, 3), nn.Linear(4, 3)
    >>> loss = Distillation(teacher, temperature=4.0, weight=0.5)
    >>> x, labels = torch.randn(8, 4), torch.randint(3, (8,))
    >>> loss(student(x), labels, x).backward()
    """

    def __init__(
        self,
        teacher: nn.Module,
        *,
        temperature: float = 4.0,
        weight: float = 0.5,
        hard: Loss = F.cross_entropy,
        hints: Mapping[str, str] | None = None,
        hint_weight: float = 1.0,
        student: nn.Module | None = None,
    ) -> None:
        if not 0 < temperature < float("inf"):
            raise ConfigError(f"the temperature of distillation must be above 0, not {temperature!r}")
        if not 0 <= weight <= 1:
            raise ConfigError(f"the weight of the teacher's answers must be 0 to 1, not {weight!r}")
        if not 0 <= hint_weight < float("inf"):
            raise ConfigError(f"hint_weight must be 0 or more, not {hint_weight!r}")
        if hints and student is None:
            raise ConfigError("hints name modules of the student; give student= too")
        self.teacher = teacher.eval().requires_grad_(False)
        self.temperature, self.weight, self.hard, self.hint_weight = temperature, weight, hard, hint_weight
        self._hints = dict(hints or {})
        self._seen: dict[tuple[str, str], Tensor] = {}
        self._handles = [
            self._watch(net, who, name)
            for mine, theirs in self._hints.items()
            for net, who, name in ((student, "student", mine), (teacher, "teacher", theirs))
        ]

    def __call__(self, logits: Tensor, labels: Tensor, x: Tensor) -> Tensor:
        """The loss of a batch.

        Parameters
        ----------
        logits : Tensor of shape (N, classes)
            The student's, with their graph.
        labels : Tensor
            As ``hard`` takes them.
        x : Tensor
            The inputs that made the logits; given to the teacher.

        Raises
        ------
        ShapeError
            When the teacher's logits or features are of another shape.
        """
        if self.teacher.training:  # somebody switched it
            self.teacher.eval()
        with torch.no_grad():
            theirs = self.teacher(x)
        loss = self.weight * distillation_loss(logits, theirs, self.temperature)
        if self.weight < 1:
            loss = loss + (1 - self.weight) * self.hard(logits, labels)
        if self._hints:
            loss = loss + self.hint_weight * self._hint_loss()
        return loss

    def close(self) -> None:
        """Stop watching the modules of the hints."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._seen = [], {}

    def _hint_loss(self) -> Tensor:
        terms = []
        for mine, theirs in self._hints.items():
            a, b = self._seen.pop(("student", mine), None), self._seen.pop(("teacher", theirs), None)
            if a is None or b is None:
                name = mine if a is None else theirs
                raise ConfigError(
                    f"the hint {mine!r}: {theirs!r} saw no output of {name!r}; run the student's forward pass before the loss"
                )
            if a.shape != b.shape:
                raise ShapeError(
                    f"the hint {mine!r}: {theirs!r} compares shapes {tuple(a.shape)} and {tuple(b.shape)}; name modules with outputs of one shape"
                )
            terms.append((a - b.detach()).float().square().mean())
        return torch.stack(terms).mean()

    def _watch(self, net: nn.Module | None, who: str, name: str) -> Any:
        known = dict(net.named_modules()) if net is not None else {}
        if not name or name not in known:
            raise ConfigError(f"the {who} has no module {name!r} for a hint; it has {', '.join(repr(path) for path in known if path)}")

        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                raise ConfigError(f"a hint compares tensors; {name!r} of the {who} gives {type(output).__name__}")
            if who == "teacher" or torch.is_grad_enabled():
                self._seen[who, name] = output

        return known[name].register_forward_hook(keep)
