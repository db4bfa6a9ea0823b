"""`lobit bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lobit.cli.options import Json, Threads
from lobit.cli.progress import counter
from lobit.errors import ConfigError

EXAMPLE = "Example: lobit bench lobit-demo/w1a1.lobit --batches 1,32 --picture bench.svg"


def add_to(app: typer.Typer) -> None:
    """Enter the command."""
    app.command(epilog=EXAMPLE)(bench)


def bench(
    file: Annotated[Path, typer.Argument(help="The .lobit file.")],
    batches: Annotated[str, typer.Option(metavar="N,N..", help="Batch sizes.")] = "1,32",
    threads: Threads = 1,
    seconds: Annotated[float, typer.Option(help="Time for each net and batch size.")] = 3.0,
    peers: Annotated[
        str, typer.Option(metavar="PEER,..", help="torch, onnxruntime, or none; those that are installed by default.")
    ] = "torch,onnxruntime",
    isa: Annotated[str | None, typer.Option(help="Instruction set of the packed file, instead of the best.")] = None,
    core: Annotated[int | None, typer.Option(min=0, help="The core to run on, with one thread.")] = None,
    picture: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a picture too: .svg or .png.")] = None,
    as_json: Json = False,
) -> None:
    """Time a packed file beside the float network of its shape, and each layer beside the limit of the core.

    The peers are PyTorch in fp32, and ONNX Runtime in fp32 and int8, with scales and batch norms folded. All run in this process, in turns; the
    best repetition counts.
    """
    from lobit.report.bench import bench
    from lobit.report.bench_table import bench_text, check_picture, write_bench_picture

    if picture is not None:
        check_picture(picture)
    wanted = [] if peers == "none" else [name.strip() for name in peers.split(",")]
    with counter("batch sizes") as progress:
        result = bench(
            file, batches=_counts(batches), threads=threads, seconds=seconds, wanted=wanted, isa=isa, core=core, progress=progress
        )
    typer.echo(json.dumps(result.as_dict()) if as_json else bench_text(result))
    if picture is not None:
        write_bench_picture(picture, result)


def _counts(text: str) -> list[int]:
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise ConfigError(f"batches are {text!r}; write integers with commas between, such as 1,32") from None
