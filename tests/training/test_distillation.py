"""Distillation: the loss of the formula, a teacher that stays as it is, hints, and that a student learns more from it than from few labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import lobit
from lobit.data import load_data
from lobit.errors import ConfigError, ShapeError
from lobit.nn import SquaredHingeLoss
from lobit.training import Distillation, accuracy, distillation_loss, predict


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_loss_and_its_gradient_are_those_of_the_formula(temperature):
    rng = np.random.default_rng(1)
    student, teacher = rng.standard_normal((6, 5)) * 3, rng.standard_normal((6, 5)) * 3
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    tensor = torch.tensor(student, dtype=torch.float32, requires_grad=True)
    loss = distillation_loss(tensor, torch.tensor(teacher, dtype=torch.float32), temperature)
    loss.backward()
    assert loss.item() == pytest.approx(temperature**2 * (p * np.log(p / q)).sum() / 6, rel=1e-5)
    np.testing.assert_allclose(tensor.grad.numpy(), temperature * (q - p) / 6, rtol=1e-4, atol=1e-6)


def nets():
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))
    return teacher, nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def test_the_terms_are_weighted_and_the_teacher_stays_as_it_is():
    teacher, student = nets()
    x, labels = torch.randn(8, 4), torch.randint(3, (8,))
    with torch.no_grad():
        theirs = teacher.eval()(x)
    teacher.train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    loss = Distillation(teacher, temperature=2.0, weight=0.3, hard=SquaredHingeLoss())
    teacher.train()  # by a careless caller
    logits = student(x)
    found = loss(logits, labels, x)
    assert found.item() == pytest.approx(
        0.7 * SquaredHingeLoss()(logits, labels).item() + 0.3 * distillation_loss(logits, theirs, 2.0).item()
    )
    found.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is not None for parameter in student.parameters())


def test_hints_compare_features_and_can_be_closed():
    teacher, student = nets()
    x, labels = torch.randn(8, 4), torch.randint(3, (8,))
    loss = Distillation(teacher, weight=0.0, hints={"1": "2", "0": "1"}, hint_weight=0.5, student=student)
    logits = student(x)
    found = loss(logits, labels, x)
    with torch.no_grad():
        a, b = student[0](x), student[:2](x)
        c, d = teacher[:2](x), teacher[:3](x)
        mean = ((b - d).square().mean() + (a - c).square().mean()) / 2
    assert found.item() == pytest.approx(nn.functional.cross_entropy(logits, labels).item() + 0.5 * mean.item(), rel=1e-5)
    with pytest.raises(ConfigError, match=r"saw no output of '1'"):
        loss(logits, labels, x)
    loss.close()
    assert not student[0]._forward_hooks
    assert not teacher[1]._forward_hooks


def test_what_does_not_fit_is_refused():
    teacher, student = nets()
    x, labels = torch.randn(8, 4), torch.randint(3, (8,))
    for settings, told in (
        ({"temperature": 0}, "temperature"),
        ({"weight": 1.5}, "0 to 1, not 1.5"),
        ({"hint_weight": -1}, "hint_weight"),
        ({"hints": {"0": "0"}}, "give student="),
        ({"hints": {"9": "0"}, "student": student}, "student has no module '9'.*'0', '1', '2'"),
        ({"hints": {"0": "body"}, "student": student}, "teacher has no module 'body'"),
    ):
        with pytest.raises(ConfigError, match=told):
            Distillation(teacher, **settings)
    with pytest.raises(ShapeError, match=r"\(8, 4\), the teacher's \(8, 3\)"):
        Distillation(teacher)(torch.randn(8, 4), labels, x)
    loss = Distillation(teacher, hints={"2": "0"}, student=student)
    with pytest.raises(ShapeError, match=r"'2': '0' compares shapes \(8, 3\) and \(8, 6\)"):
        loss(student(x), labels, x)


def test_a_low_bit_student_learns_digits_from_the_teacher_alone():
    """Labels are noise here, and have weight 0."""
    data = load_data("digits")
    x, y = (torch.from_numpy(part) for part in (data.scale(data.train_images, 0, 1), data.train_labels))
    test = torch.from_numpy(data.scale(data.test_images, 0, 1)), torch.from_numpy(data.test_labels)

    def train(model, loss):
        optimizer = torch.optim.Adam(lobit.optim.parameter_groups(model, 0.01), fused=True)
        for epoch in range(4):
            for index in torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch)).split(64):
                optimizer.zero_grad()
                loss(model(x[index]), y[index], x[index]).backward()
                optimizer.step()
                lobit.optim.clip_latent_weights(model)
        return accuracy(predict(model, test[0]), test[1])

    def make():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 48, bias=False), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 10))

    teacher = make()
    assert train(teacher, lambda logits, labels, _: nn.functional.cross_entropy(logits, labels)) > 0.85
    student = make()
    lobit.quantize_(student, "W2A2")
    loss = Distillation(teacher, temperature=2.0, weight=1.0)
    assert train(student, lambda logits, labels, given: loss(logits, labels.flip(0), given)) > 0.8
