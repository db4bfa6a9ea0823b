"""The Imagenette photographs that the benchmarks use: 100 of 224 px to test on, 5000 of 64 px to calibrate and to train with."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lobit.errors import ConfigError

CLASSES = {
    "n01440764": 0,
    "n02102040": 217,
    "n02979186": 482,
    "n03000684": 491,
    "n03028079": 497,
    "n03394916": 566,
    "n03417042": 569,
    "n03425413": 571,
    "n03445777": 574,
    "n03888257": 701,
}
"""Index among ImageNet's 1000 classes by WordNet identifier."""
SAMPLE = "imagenette/imagenette2-224px-val-sample.zip"
SUBSET = "imagenette/imagenette2-64px-subset.zip"


def folder() -> Path:
    """The folder of the data sets, ``LOBIT_DATA``.

    Raises
    ------
    ConfigError
        Where it is not set.
    """
    if not os.environ.get("LOBIT_DATA"):
        raise ConfigError(f"set LOBIT_DATA to the folder that holds {SAMPLE}")
    return Path(os.environ["LOBIT_DATA"])


def photos(name: str, part: str, size: int) -> tuple[Tensor, Tensor, list[str]]:
    """All photographs of one part of an archive, in the order of their names.

    Parameters
    ----------
    name : str
        `SAMPLE` or `SUBSET`.
    part : {"train", "val"}
    size : int
        Side of the square in the middle that is kept; no photograph is resized.

    Returns
    -------
    pixels : uint8 Tensor of shape (N, 3, size, size)
        Greyscale as RGB.
    classes : int64 Tensor of shape (N,)
        Indices among ImageNet's 1000.
    names : list of str
        File names.
    """
    pixels, classes, names = [], [], []
    with zipfile.ZipFile(folder() / name) as archive:
        for member in sorted(archive.namelist()):
            if not member.endswith(".JPEG") or f"/{part}/" not in member:
                continue
            image = Image.open(io.BytesIO(archive.read(member))).convert("RGB")
            left, top = (image.width - size) // 2, (image.height - size) // 2
            pixels.append(np.asarray(image.crop((left, top, left + size, top + size))))
            classes.append(CLASSES[member.split("/")[-2]])
            names.append(member.split("/")[-1])
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(), torch.tensor(classes), names


def inputs(pixels: Tensor) -> Tensor:
    """What EfficientNet-Lite takes: ``(x - 127) / 128``."""
    return (pixels.float() - 127.0) / 128.0


def enlarged(pixels: Tensor, generator: torch.Generator, size: int = 224) -> Tensor:
    """Inputs of ``size`` from 64 px photographs: one enlarged, four or sixteen side by side, cropped at random, half of them mirrored.

    Enlarged photographs have no fine detail, and those at their own size no large object. A network that is to agree with another one on photographs
    of 224 px sees both kinds of detail so.

    Parameters
    ----------
    pixels : uint8 Tensor of shape (N, 3, 64, 64)

    Returns
    -------
    Tensor of shape (N, 3, size, size)
    """
    count = len(pixels)
    made = []
    for index in range(count):
        across = (1, 1, 2, 4)[int(torch.randint(4, (1,), generator=generator))]
        others = torch.randint(count, (across * across - 1,), generator=generator)
        tiles = torch.cat([pixels[index : index + 1], pixels[others]])
        tiles = tiles[torch.randperm(len(tiles), generator=generator)]
        side = tiles.shape[-1] * across
        sheet = tiles.reshape(across, across, 3, 64, 64).permute(2, 0, 3, 1, 4).reshape(1, 3, side, side)
        whole = torch.nn.functional.interpolate(inputs(sheet), (256, 256), mode="bicubic", antialias=True).clamp(-127 / 128, 1.0)
        top, left = torch.randint(256 - size + 1, (2,), generator=generator).tolist()
        crop = whole[:, :, top : top + size, left : left + size]
        made.append(crop.flip(3) if torch.rand((), generator=generator) < 0.5 else crop)
    return torch.cat(made)
