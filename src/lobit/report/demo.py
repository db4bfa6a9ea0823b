"""The demo: the whole path on small nets, in under a minute."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from lobit.atomic import atomic_file, new_folder
from lobit.capture import export, verify
from lobit.data import load_data
from lobit.errors import ConfigError
from lobit.report.about import about_run
from lobit.report.demo_page import write_report
from lobit.report.run_page import write_run_page
from lobit.report.timing import best_ms
from lobit.runtime import load
from lobit.training import accuracy, load_model, load_test_set, predict, train

NETS = {"float": "digits-float", "W1A1": "digits-w1a1", "W2A2": "digits-w2a2", "W4A4": "digits-w4a4"}
BATCHES = (1, 100)
SECONDS_A_TIMING = 0.25


@dataclass(frozen=True, slots=True)
class DemoRow:
    """One net: accuracies as shares, codes, bytes, milliseconds of one batch at one thread, by batch size; and the page of its run, as seen from the demo's folder."""

    net: str
    accuracy_torch: float
    accuracy_packed: float
    codes_compared: int
    codes_equal: int
    weight_bytes: int
    float_bytes: int
    file_bytes: int
    packed_ms: dict[int, float]
    torch_ms: dict[int, float]
    history: list[dict[str, float]]
    page: str


def run_demo(out: Path, seed: int) -> None:
    """Train, export, verify, run and time each net; print one table and write the page."""
    start = time.perf_counter()
    console = Console()
    _check_outputs(out)
    console.print("Four nets of one shape on 1797 handwritten digits: trained, exported and run.", highlight=False)
    console.print(f"Output goes to {out}/", highlight=False, soft_wrap=True)
    with new_folder(out / "runs"):
        rows = [_one_net(name, recipe, out, seed) for name, recipe in NETS.items()]
    console.print(_table(rows))
    compared, equal = sum(row.codes_compared for row in rows), sum(row.codes_equal for row in rows)
    console.print(f"Codes: {equal:,} of {compared:,} equal in PyTorch and packed, over 360 test images.", highlight=False)
    console.print("Times: one thread, packed; in brackets PyTorch fp32 running the float net.", highlight=False)
    with atomic_file(out / "results.json") as stream:
        stream.write(json.dumps([asdict(row) for row in rows], indent=2).encode())
    data = load_data("digits")
    logits = np.asarray(load(out / "w1a1.lobit")(data.scale(data.test_images, 0.0, 1.0)))
    pixels = (data.test_images.astype(np.float64) * (255 / data.white)).round().astype(np.uint8)
    write_report(out / "report.html", [asdict(row) for row in rows], pixels, data.test_labels, logits)
    console.print(f"Done in {time.perf_counter() - start:.0f} s. Pictures: {out / 'report.html'}", highlight=False, soft_wrap=True)
    console.print(f"Run a net: lobit.load('{out / 'w1a1.lobit'}')", highlight=False, soft_wrap=True)


def _check_outputs(out: Path) -> None:
    """Refuse what would fail after the training."""
    made = [name for net in NETS for name in (f"{net.lower()}.lobit", f"runs/{net.lower()}/report.html")]
    for name in ("results.json", "report.html", *made):
        if (out / name).exists() and not (out / name).is_file():
            raise ConfigError(f"{str(out / name)!r} is in the way and no file; move it, or name another folder with --out")
    try:
        with new_folder(out), tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ConfigError(f"cannot write to {str(out)!r}: {error.strerror}; name a writable folder with --out") from error


def _one_net(name: str, recipe: str, out: Path, seed: int) -> DemoRow:
    folder = out / "runs" / name.lower()
    result = train(recipe, out=folder, seed=seed, overwrite=True)
    model, spec = load_model(result.checkpoint)
    images, labels = load_test_set(spec, None)
    file = out / f"{name.lower()}.lobit"
    exported = export(model, images[:16], file, about=about_run(spec, load_data(spec.data.name)))
    compared = verify(model, file, images)
    packed = torch.from_numpy(load(file)(images.numpy()))
    float_model = model if name == "float" else load_model(out / "runs" / "float")[0]
    rows = [json.loads(json.dumps(row)) for row in torch.load(result.checkpoint, weights_only=True)["lobit"]["history"]]
    page = write_run_page(folder, packed=file)
    return DemoRow(
        name,
        accuracy(predict(model, images), labels),
        accuracy(packed, labels),
        compared.compared,
        compared.equal,
        exported.weight_bytes,
        exported.float_bytes,
        exported.file_bytes,
        {batch: _packed_ms(file, images[:batch]) for batch in BATCHES},
        {batch: _torch_ms(float_model, images[:batch]) for batch in BATCHES},
        rows,
        page.relative_to(out).as_posix(),
    )


def _packed_ms(file: Path, x: Tensor) -> float:
    session, array = load(file), x.numpy()
    return best_ms(lambda: session(array), SECONDS_A_TIMING)


def _torch_ms(model: nn.Module, x: Tensor) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return best_ms(lambda: model(x), SECONDS_A_TIMING)
    finally:
        torch.set_num_threads(threads)


def _table(rows: list[DemoRow]) -> Table:
    """Fits 80 columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    heads = (
        "net",
        "accuracy %\nPyTorch",
        "\npacked",
        "codes\nequal",
        "weights\nkB",
        "file\nkB",
        *(f"batch {batch}\nms (fp32)" for batch in BATCHES),
    )
    for head in heads:
        table.add_column(head, justify="left" if head == "net" else "right", no_wrap=True)
    for row in rows:
        codes = (
            "-"
            if not row.codes_compared
            else "all"
            if row.codes_equal == row.codes_compared
            else f"{row.codes_equal / row.codes_compared:.4%}"
        )
        times = (f"{row.packed_ms[batch]:.3f} ({row.torch_ms[batch]:.2f})" for batch in BATCHES)
        accuracies = (f"{100 * row.accuracy_torch:.2f}", f"{100 * row.accuracy_packed:.2f}")
        table.add_row(row.net, *accuracies, codes, f"{row.weight_bytes / 1000:.1f}", f"{row.file_bytes / 1000:.1f}", *times)
    return table
