"""A short fine-tune of EfficientNet-Lite0 at W4A4: the published float net teaches the low-bit one on photographs of the Imagenette training subset.

usage: python -m benchmarks.efficientnet_tune OUT [--steps 100] [--batch 16] [--size 160] [--lr 5e-5] [--threads 1]

Both nets see the same inputs, made from 64 px photographs (`benchmarks.imagenette.enlarged`); the loss is the divergence of their 1000 probabilities, so no labels are used, and the head
keeps its 1000 classes. Batch norms keep the statistics that `lobit.match_batch_norm` gave them; their factors are trained with the rest. How far both agree on photographs of the subset's
validation part is printed on the way; the 100 photographs of the benchmark are not read here. OUT is a state_dict.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lobit
from benchmarks import imagenette
from benchmarks.efficientnet_net import calibrated, calibration_inputs, logits, published


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--bits", default="W4A4")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=160, help="side of the training inputs")
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def divergence(ours: Tensor, theirs: Tensor) -> Tensor:
    """Kullback-Leibler divergence of ``ours`` from ``theirs``, both logits, mean over the batch."""
    return F.kl_div(ours.log_softmax(1), theirs.log_softmax(1), log_target=True, reduction="batchmean")


def training(net: nn.Module) -> None:
    """Training mode, batch norms and dropout in eval."""
    net.train()
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.Dropout)):
            module.eval()


def main() -> None:
    """Run from the command line."""
    options = arguments()
    torch.set_num_threads(options.threads)
    teacher = published()
    start = calibration_inputs()
    net = calibrated(options.bits, start)
    lobit.match_batch_norm(net, teacher, start)
    pixels, _, _ = imagenette.photos(imagenette.SUBSET, "train", 64)
    held, _, _ = imagenette.photos(imagenette.SUBSET, "val", 64)
    generator = torch.Generator().manual_seed(options.seed)
    held_x = imagenette.enlarged(held[torch.randperm(len(held), generator=generator)[:100]], generator)
    held_y = logits(teacher, held_x)

    def report(step: int, loss: float | None) -> None:
        found = logits(net.eval(), held_x)
        agree = int((found.argmax(1) == held_y.argmax(1)).sum())
        row = {"step": step, "loss": loss, "held_out_agreement": agree, "held_out_divergence": float(divergence(found, held_y))}
        print(json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}), flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), options.out)

    steps = [p for name, p in net.named_parameters() if "quantizer" in name and p.requires_grad]
    others = [p for name, p in net.named_parameters() if "quantizer" not in name]
    optimizer = torch.optim.Adam([{"params": others, "lr": options.lr}, {"params": steps, "lr": options.lr / 10}])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / options.steps)))
    report(0, None)
    mean, began = None, time.perf_counter()
    for step in range(1, options.steps + 1):
        training(net)
        x = imagenette.enlarged(pixels[torch.randint(len(pixels), (options.batch,), generator=generator)], generator, options.size)
        with torch.no_grad():
            wanted = teacher(x)
        loss = divergence(net(x), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        mean = loss.item() if mean is None else 0.95 * mean + 0.05 * loss.item()
        if step % 25 == 0 or step == options.steps:
            report(step, mean)
    print(f"{options.steps} steps of {options.batch} in {time.perf_counter() - began:.0f} s on {options.threads} thread(s)")


if __name__ == "__main__":
    main()
