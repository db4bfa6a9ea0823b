"""A quantizer of your own in 20 lines: ternary weights with a threshold, trained on digits, exported and verified.

Once registered, it has a name like lobit's own: in `lobit.quantize_`, in layers, in recipes. Its codes belong to one of lobit's alphabets, so files
and kernels know them already. (lobit ships these weights as `ternary`; a name belongs to one class, so here they get another.)

Run: python your_own_quantizer.py [ternary.lobit]     needs lobit[train]; a few seconds on the digits that lobit ships
"""

import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lobit
from lobit.data import load_data
from lobit.quantizers import Quantized, WeightQuantizer, register, straight_through


@register("my_ternary")
class TernaryWeights(WeightQuantizer):
    """Weights -1, 0 and +1 times one scale per output channel (Li et al., Ternary Weight Networks, arXiv 1605.04711).

    Forward: ``t = 0.7 mean|w|``; the code is ``sign(w)`` where ``|w| > t``, else 0; the scale is the mean of those ``|w|``.
    Backward: ``g_w = g / scale``, so that the value ``scale * code`` has slope 1.
    """

    code_type = lobit.CodeType("ternary", 2)

    def forward(self, w: Tensor) -> Quantized:
        size, axes = w.detach().double().abs(), tuple(range(1, w.ndim))
        large = size > 0.7 * size.mean(axes, keepdim=True)
        scale = ((size * large).sum(axes, keepdim=True) / large.sum(axes, keepdim=True).clamp(min=1)).clamp(min=1e-8).float()
        return Quantized(straight_through(w, w.detach().sign() * large, slope=1 / scale), scale, self.zero)


def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else "ternary.lobit"
    torch.manual_seed(0)
    data = load_data("digits")
    x, labels = torch.from_numpy(data.scale(data.train_images, 0.0, 1.0)), torch.from_numpy(data.train_labels)
    test_x, test_labels = torch.from_numpy(data.scale(data.test_images, 0.0, 1.0)), torch.from_numpy(data.test_labels)

    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    print(lobit.quantize_(net, {"weights": "my_ternary", "bits": "W2A4"}))
    adam = torch.optim.Adam(lobit.optim.parameter_groups(net, lr=3e-3))
    for _ in range(15):
        for rows in torch.randperm(len(x)).split(64):
            adam.zero_grad()
            F.cross_entropy(net(x[rows]), labels[rows]).backward()
            adam.step()
            lobit.optim.clip_latent_weights(net)
    net.eval()

    print(lobit.export(net, test_x[:32], path))
    print(lobit.verify(net, path, test_x))
    packed = torch.from_numpy(lobit.load(path)(test_x.numpy()))
    print(f"packed: test accuracy {(packed.argmax(1) == test_labels).float().mean():.1%}")


if __name__ == "__main__":
    main()
