"""Train a net of one-bit weights and activations with a loop of your own: no Lightning, no recipe, plain PyTorch.

What a low-bit loop does beyond a float one is three lines: the optimizer's groups from `lobit.optim.parameter_groups`, so that each layer's latent
weights move by the paper's step; `lobit.optim.clip_latent_weights` after every step, so that they stay in [-1, 1]; `net.eval()` before export.

Run: python your_own_training_loop.py [mlp.lobit] [--seed 0]     needs lobit[train]; a few seconds on the digits that lobit ships
"""

import argparse

import torch
from torch import nn

import lobit
from lobit import nn as lnn
from lobit.data import load_data


def one_bit(inputs: int, outputs: int) -> lnn.Linear:
    """Signs times signs, as in the paper; the batch norm behind it makes a bias needless."""
    return lnn.Linear(inputs, outputs, bias=False, weight_quantizer="sign", input_quantizer="sign")


def make_net() -> nn.Module:
    """The paper's MLP, small: pixels of 8 bits into the first layer, signs between the others."""
    first = lnn.Linear(64, 512, bias=False, weight_quantizer="sign", input_quantizer={"name": "linear", "bits": 8})
    return nn.Sequential(
        nn.Flatten(), first, lnn.BatchNorm1d(512), lnn.Hardtanh(),
        one_bit(512, 512), lnn.BatchNorm1d(512), lnn.Hardtanh(),
        one_bit(512, 10), lnn.BatchNorm1d(10),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", nargs="?", default="mlp.lobit")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)  # initial weights and order of batches
    data = load_data("digits")
    x, labels = torch.from_numpy(data.scale(data.train_images, -1.0, 1.0)), torch.from_numpy(data.train_labels)
    test_x, test_labels = torch.from_numpy(data.scale(data.test_images, -1.0, 1.0)), torch.from_numpy(data.test_labels)

    net = make_net()
    lobit.optim.init_latent_weights(net)
    adam = torch.optim.Adam(lobit.optim.parameter_groups(net, lr=3e-3, step_scale="glorot"))
    schedule = torch.optim.lr_scheduler.ExponentialLR(adam, 0.8)
    loss_of = lnn.SquaredHingeLoss()
    for epoch in range(1, 16):
        net.train()
        total = 0.0
        for rows in torch.randperm(len(x)).split(64):
            adam.zero_grad()
            loss = loss_of(net(x[rows]), labels[rows])
            loss.backward()
            adam.step()
            lobit.optim.clip_latent_weights(net)
            total += loss.item() * len(rows)
        schedule.step()
        net.eval()
        with torch.no_grad():
            accuracy = (net(test_x).argmax(1) == test_labels).float().mean()
        print(f"epoch {epoch:2}  loss {total / len(x):.4f}  test accuracy {accuracy:.1%}")

    print(lobit.export(net, test_x[:32], arguments.path))
    packed = lobit.load(arguments.path)(test_x.numpy())
    print(f"packed: test accuracy {(packed.argmax(1) == test_labels.numpy()).mean():.1%}")


if __name__ == "__main__":
    main()
