"""EfficientNet-Lite0 with its published ImageNet weights on 100 photographs: float, low-bit without training, low-bit after a short fine-tune, and packed.

usage: python -m benchmarks.efficientnet_lite [--tuned STATE] [--bits W8A8 W4A8 W4A4] [--threads 1] [--out FILE] [--layers]

The photographs are the Imagenette sample of 224 px in ``LOBIT_DATA``, in the middle of their longer side; the answer is the largest of the net's 1000 logits. Ranges and statistics come
from 64 photographs of the 64 px training subset, enlarged: none of them is tested. ``--tuned`` takes what `benchmarks.efficientnet_tune` wrote. Each low-bit net is compared with the
float one photograph by photograph; the packed file of each that has its norms matched, or is fine-tuned, with the net in PyTorch: all codes of all layers on all photographs, and
all answers. Prints a table, and one JSON line
a net (or appends them to FILE). ``--layers`` names the layers whose output quantization changes most.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import lobit
from benchmarks import imagenette, machine
from benchmarks.efficientnet_net import calibrated, calibration_inputs, logits, published
from lobit.report.layer_error import Gain, layer_errors


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bits", nargs="*", default=["W8A8", "W4A8", "W4A4"])
    parser.add_argument("--tuned", type=Path, help="state of the W4A4 net after benchmarks.efficientnet_tune")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="append the JSON lines to this file")
    parser.add_argument("--layers", action="store_true", help="list the layers that err most, on the calibration inputs")
    return parser.parse_args()


def paired(found: Tensor, before: Tensor, classes: Tensor) -> dict[str, Any]:
    """Answers beside the float net's: right, changed, and of the changed ones those from right to wrong and from wrong to right."""
    ours, theirs = found.argmax(1), before.argmax(1)
    mended = int(((ours == classes) & (theirs != classes)).sum())
    broken = int(((ours != classes) & (theirs == classes)).sum())
    return {
        "right": int((ours == classes).sum()),
        "changed": int((ours != theirs).sum()),
        "mended": mended,
        "broken": broken,
        "chance": float(f"{Gain(mended, broken, len(classes)).chance:.2g}"),
        "within_the_ten": int((_of_ten(found) == classes).sum()),
    }


def _of_ten(found: Tensor) -> Tensor:
    """The best of Imagenette's ten classes alone."""
    ten = torch.tensor(list(imagenette.CLASSES.values()))
    return ten[found[:, ten].argmax(1)]


def packed(net: nn.Module, x: Tensor, found: Tensor, threads: int) -> dict[str, Any]:
    """The packed file of a net: its size, how many codes equal PyTorch's, and whether all answers do."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.lobit"
        report = lobit.export(net, x[:2], path)
        verification = lobit.verify(net, path, x)
        answers = torch.from_numpy(lobit.load(path, threads=threads)(x.numpy())).argmax(1)
    return {
        "file_bytes": report.file_bytes,
        "weight_bytes": report.weight_bytes,
        "float_bytes": report.float_bytes,
        "codes": verification.compared,
        "codes_equal": verification.equal,
        "verdict": verification.verdict,
        "answers_equal": int((answers == found.argmax(1)).sum()),
    }


def main() -> None:
    """Run from the command line."""
    options = arguments()
    torch.set_num_threads(options.threads)
    reference = published()
    pixels, classes, _ = imagenette.photos(imagenette.SAMPLE, "val", 224)
    x, start = imagenette.inputs(pixels), calibration_inputs()
    before = logits(reference, x)
    facts = machine.facts()
    print(f"{'net':<24}{'right':>6}{'changed':>9}{'mended':>8}{'broken':>8}{'chance':>8}{'codes equal':>26}{'file bytes':>12}")

    def show(name: str, net: nn.Module, how: str) -> None:
        found = logits(net.eval(), x)
        row = {"net": "efficientnet-lite0", "bits": name, "how": how, "photographs": len(x), **paired(found, before, classes)}
        if how in ("norms matched", "fine-tuned"):
            row |= packed(net, x, found, options.threads)
        codes = f"{row['codes_equal']} of {row['codes']}" if "codes" in row else ""
        print(
            f"{f'{name} {how}':<24}{row['right']:>6}{row['changed']:>9}{row['mended']:>8}{row['broken']:>8}{row['chance']:>8.2g}{codes:>26}"
            f"{row.get('file_bytes', ''):>12}",
            flush=True,
        )
        if name != "float" and options.layers:
            worst = sorted(layer_errors(net, start, batch_size=16), key=lambda layer: -layer.both)[:5]
            print(
                "".join(
                    f"  {layer.name}: {layer.both:.1%}, weights alone {layer.weights:.1%}, input {layer.input:.1%}\n" for layer in worst
                )
            )
        line = json.dumps(row | {"machine": facts})
        if options.out:
            with options.out.open("a") as stream:
                stream.write(line + "\n")
        else:
            print(line, flush=True)

    show("float", reference, "published")
    for bits in options.bits:
        net = calibrated(bits, start)
        show(bits, net, "calibrated")
        lobit.match_batch_norm(net, reference, start)
        show(bits, net, "norms matched")
    if options.tuned:
        net = published()
        lobit.quantize_(net, "W4A4")
        net.load_state_dict(torch.load(options.tuned, weights_only=True))
        show("W4A4", net, "fine-tuned")


if __name__ == "__main__":
    main()
