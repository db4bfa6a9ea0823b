"""Take a float model that you wrote, make it low-bit, export it, and see what runs.

The model is an ordinary PyTorch module that knows nothing of lobit: a small residual net. `lobit.quantize_` replaces its layers in place, chosen
by name patterns; a few epochs let it settle; `lobit.export` folds, packs, checks every code and writes the file.

Run: python bring_your_own_model.py [digits.lobit]     needs lobit[train]; about ten seconds on the digits that lobit ships
"""

import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lobit
from lobit.data import load_data


class Residual(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


class Net(nn.Module):
    """A stem, two residual blocks with a strided convolution between them, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.block1 = Residual(16)
        self.down = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.block2 = Residual(32)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block2(self.down(self.block1(self.stem(x)))))


def fit(net: nn.Module, images: Tensor, labels: Tensor, epochs: int, lr: float) -> None:
    """Adam with a falling rate; nothing here is special to low-bit nets."""
    adam = torch.optim.Adam(net.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs)
    net.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(64):
            adam.zero_grad()
            F.cross_entropy(net(images[rows]), labels[rows]).backward()
            adam.step()
        schedule.step()
    net.eval()


def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else "digits.lobit"
    torch.manual_seed(0)
    data = load_data("digits")
    x, labels = torch.from_numpy(data.scale(data.train_images, 0.0, 1.0)), torch.from_numpy(data.train_labels)
    test_x, test_labels = torch.from_numpy(data.scale(data.test_images, 0.0, 1.0)), torch.from_numpy(data.test_labels)

    def accuracy(logits: Tensor) -> str:
        return f"{(logits.argmax(1) == test_labels).float().mean():.1%}"

    net = Net()
    fit(net, x, labels, epochs=8, lr=3e-3)
    with torch.no_grad():
        print(f"float:               {accuracy(net(test_x))}")

    # Patterns are tried in order, and a layer that fits none stays float; first= and last= take the image and give the logits.
    print(lobit.quantize_(net, {"block*": "W2A2", "*": "W2A4"}, first="W8A8", last="W8A8"))
    fit(net, x, labels, epochs=6, lr=2e-3)
    with torch.no_grad():
        print(f"low-bit, in PyTorch: {accuracy(net(test_x))}")

    print(lobit.export(net, test_x[:32], path))
    session = lobit.load(path)
    print(f"low-bit, packed:     {accuracy(torch.from_numpy(session(test_x.numpy())))}")
    print(lobit.verify(net, path, test_x))
    print(session.explain())


if __name__ == "__main__":
    main()
