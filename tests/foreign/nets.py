"""Small nets in public styles: functional calls, named sequences, residual, dense and branching blocks, shared and tied layers, several outputs."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn


class LeNet(nn.Module):
    """All operations functional, sizes counted by hand."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(16 * 2 * 2, 24), nn.Linear(24, 16), nn.Linear(16, 10)

    def num_flat_features(self, x):
        count = 1
        for size in x.size()[1:]:
            count *= size
        return count

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), (2, 2))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.view(-1, self.num_flat_features(x))
        x = F.relu(self.fc1(x))
        x = F.dropout(F.relu(self.fc2(x)), 0.1, self.training)
        return self.fc3(x)


def named_sequence():
    """An OrderedDict of layers, nested, with in-place activations."""
    features = OrderedDict(
        [
            ("conv0", nn.Conv2d(3, 8, 3, padding=1, bias=False)),
            ("norm0", nn.BatchNorm2d(8)),
            ("relu0", nn.ReLU(inplace=True)),
            ("pool0", nn.AvgPool2d(2, 2)),
            ("conv1", nn.Conv2d(8, 8, 3, padding=1, groups=8)),
            ("norm1", nn.BatchNorm2d(8)),
            ("act1", nn.Hardtanh(inplace=True)),
        ]
    )
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(features),
            pool=nn.AdaptiveAvgPool2d((1, 1)),
            flat=nn.Flatten(),
            drop=nn.Dropout(0.2),
            head=nn.Linear(8, 5),
        )
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, as in ResNet-18; one ReLU module serves twice."""

    expansion = 1

    def __init__(self, inputs, planes, stride=1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False), nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False), nn.BatchNorm2d(planes)
        self.downsample = None
        if stride != 1 or inputs != planes:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class Bottleneck(nn.Module):
    """1x1, grouped 3x3, 1x1, as in ResNeXt."""

    expansion = 2

    def __init__(self, inputs, planes, stride=1):
        super().__init__()
        outputs = planes * self.expansion
        self.conv1, self.bn1 = nn.Conv2d(inputs, planes, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, stride, 1, groups=2, bias=False), nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = nn.Conv2d(planes, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """A stem, two stages of a block, a head; weights initialized as theirs are."""

    def __init__(self, block, width=8):
        super().__init__()
        self.inplanes = width
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        self.layer1, self.layer2 = self._make_layer(block, width, 1), self._make_layer(block, 2 * width, 2)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(2 * width * block.expansion, 10)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def _make_layer(self, block, planes, stride):
        layers = [block(self.inplanes, planes, stride)]
        self.inplanes = planes * block.expansion
        layers.append(block(self.inplanes, planes))
        return nn.Sequential(*layers)

    def _forward_impl(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer2(self.layer1(x))
        x = self.avgpool(x)
        x = torch.flatten(x, 1)
        return self.fc(x)

    def forward(self, x):
        return self._forward_impl(x)


class VGG(nn.Module):
    """Layers from a list of widths and letters."""

    def __init__(self, cfg=(8, "M", 16, 16, "M")):
        super().__init__()
        layers, channels = [], 3
        for v in cfg:
            layers += [nn.MaxPool2d(2, 2)] if v == "M" else [nn.Conv2d(channels, v, 3, padding=1), nn.BatchNorm2d(v), nn.ReLU(True)]
            channels = channels if v == "M" else v
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = nn.Sequential(
            nn.Linear(16 * 4, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 10)
        )

    def forward(self, x):
        x = self.avgpool(self.features(x))
        x = torch.flatten(x, 1)
        return self.classifier(x)


class ConvBNReLU(nn.Sequential):
    """A block that is a sequence itself."""

    def __init__(self, inputs, outputs, kernel=3, stride=1, groups=1):
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(inplace=True),
        )


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; a linear bottleneck."""

    def __init__(self, inputs, outputs, stride, expand):
        super().__init__()
        hidden = inputs * expand
        self.use_res_connect = stride == 1 and inputs == outputs
        layers = [ConvBNReLU(inputs, hidden, 1)] if expand != 1 else []
        layers += [ConvBNReLU(hidden, hidden, 3, stride, hidden), nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*layers)

    def forward(self, x):
        if self.use_res_connect:
            return x + self.conv(x)
        return self.conv(x)


class MobileNetV2(nn.Module):
    """ReLU6, depthwise layers, the mean over height and width."""

    def __init__(self):
        super().__init__()
        blocks = [InvertedResidual(8, 8, 1, 1), InvertedResidual(8, 12, 2, 4), InvertedResidual(12, 12, 1, 4)]
        self.features = nn.Sequential(ConvBNReLU(3, 8, stride=2), *blocks, ConvBNReLU(12, 32, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(32, 10))

    def forward(self, x):
        return self.classifier(self.features(x).mean([2, 3]))


class Fire(nn.Module):
    """Squeeze, then two expansions side by side."""

    def __init__(self, inputs, squeeze, expand):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1, self.expand3x3 = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.activation(self.squeeze(x))
        return torch.cat([self.activation(self.expand1x1(x)), self.activation(self.expand3x3(x))], 1)


class SqueezeNet(nn.Module):
    """A convolution as classifier, then a global average; pooling in ceil mode."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(8, 4, 8), Fire(16, 4, 8)
        )
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(16, 10, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d((1, 1)))

    def forward(self, x):
        return torch.flatten(self.classifier(self.features(x)), 1)


class DenseNet(nn.Module):
    """Batch norm and ReLU ahead of each convolution, all outputs concatenated, a transition with an average pool."""

    def __init__(self, growth=4):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(8 + i * growth), nn.ReLU(), nn.Conv2d(8 + i * growth, growth, 3, padding=1, bias=False))
            for i in range(3)
        )
        self.norm, self.trans = nn.BatchNorm2d(8 + 3 * growth), nn.Conv2d(8 + 3 * growth, 8, 1, bias=False)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, dim=1)))
        x = F.relu(self.norm(torch.cat(features, 1)), inplace=True)
        x = F.avg_pool2d(self.trans(x), 2)
        x = F.adaptive_avg_pool2d(x, (1, 1)).flatten(1)
        return self.head(x)


class Inception(nn.Module):
    """Four branches from one input, one of them behind a pool, in a dictionary."""

    def __init__(self):
        super().__init__()
        self.stem = ConvBNReLU(3, 8)
        self.branches = nn.ModuleDict(
            {
                "b1": ConvBNReLU(8, 4, 1),
                "b3": nn.Sequential(ConvBNReLU(8, 4, 1), ConvBNReLU(4, 8)),
                "b5": nn.Sequential(ConvBNReLU(8, 4, 1), ConvBNReLU(4, 4, 5)),
                "pool": nn.Sequential(nn.MaxPool2d(3, 1, 1), ConvBNReLU(8, 4, 1)),
            }
        )
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(20, 10)

    def forward(self, x):
        x = self.stem(x)
        x = torch.cat([branch(x) for branch in self.branches.values()], 1)
        x = self.pool(x)
        return self.fc(x.view(x.size(0), -1))


class Padded(nn.Module):
    """Asymmetric padding as TensorFlow's 'same', by a function and by a module."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8)
        self.pad, self.conv2, self.fc = nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(8, 8, 3, 2), nn.Linear(8, 10)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(F.pad(x, (0, 1, 0, 1)))))
        x = F.relu(self.conv2(self.pad(x)))
        return self.fc(torch.flatten(self.pool(x), 1))


class Shared(nn.Module):
    """One block called three times, under two names."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(12, 16)
        self.block = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU())
        self.again = self.block
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = F.relu(self.stem(x))
        for _ in range(2):
            x = self.block(x) + x
        return self.head(self.again(x))


class Tied(nn.Module):
    """An encoder and a decoder of one weight, in both directions, as two layers of equal shape."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b, self.head = nn.Linear(12, 16), nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.head(F.relu(self.b(F.relu(self.a(F.relu(self.stem(x)))))))


class TwoHeads(nn.Module):
    """A tuple of outputs, or a dictionary."""

    def __init__(self, dictionary=False):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Flatten())
        self.classes, self.box, self.dictionary = nn.Linear(32, 10), nn.Linear(32, 4), dictionary

    def forward(self, x):
        x = self.body(x)
        if self.dictionary:
            return {"logits": self.classes(x), "box": self.box(x)}
        return self.classes(x), self.box(x)


class TwoInputs(nn.Module):
    """A picture and a row of numbers, added after a layer each."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc, self.head = nn.Conv2d(1, 4, 3, 2, 1), nn.Linear(5, 16), nn.Linear(16, 3)

    def forward(self, image, row):
        return self.head(F.relu(torch.flatten(self.conv(image), 1) + self.fc(row)))


class SqueezeExcite(nn.Module):
    """A gate by channel: a product of two computed values, behind a sigmoid."""

    def __init__(self):
        super().__init__()
        self.conv, self.reduce, self.expand, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1), nn.Linear(8, 10)

    def forward(self, x):
        x = F.relu(self.conv(x))
        gate = self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))).sigmoid()
        return self.head((x * gate).mean((2, 3)))


class UNet(nn.Module):
    """Down, up by a transposed convolution, and a skip connection by concatenation."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2 = ConvBNReLU(3, 8), ConvBNReLU(8, 16)
        self.up, self.merge, self.out = nn.ConvTranspose2d(16, 8, 2, 2), ConvBNReLU(16, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        skip = self.down1(x)
        x = self.up(self.down2(F.max_pool2d(skip, 2)))
        return self.out(self.merge(torch.cat((skip, x), dim=1)))


class ResizingUNet(nn.Module):
    """Two steps down, and up again by a module and by a function."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.down3 = ConvBNReLU(3, 8), ConvBNReLU(8, 12), ConvBNReLU(12, 16)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.merge2, self.merge1, self.out = ConvBNReLU(28, 12), ConvBNReLU(20, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        x = self.up(self.down3(F.max_pool2d(second, 2)))
        x = F.interpolate(self.merge2(torch.cat((second, x), dim=1)), size=first.shape[2:], mode="nearest")
        return self.out(self.merge1(torch.cat((first, x), dim=1)))


class TextCNN(nn.Module):
    """Convolutions of several widths over embedded words, the largest value over time."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(30, 8)
        self.convs = nn.ModuleList(nn.Conv1d(8, 6, k) for k in (2, 3))
        self.fc = nn.Linear(12, 4)

    def forward(self, x):
        x = self.embed(x).transpose(1, 2)
        return self.fc(torch.cat([F.relu(conv(x)).amax(2) for conv in self.convs], 1))
