"""Image files as a network's pixels: by Pillow, in the size and colours that the network takes, with a line that says what was done."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lobit.errors import ShapeError
from lobit.extras import require

if TYPE_CHECKING:
    from PIL.Image import Image

WHITE = 255
COLOURS = {1: "L", 3: "RGB"}
NAMES = {"L": "grey", "I;16": "16-bit grey", "1": "black and white", "P": "palette", "LA": "grey with alpha"}


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file read: uint8 pixels of shape (C, H, W), and what was done to it, ``""`` where nothing was."""

    pixels: NDArray[np.uint8]
    done: str


def endings() -> frozenset[str]:
    """Endings of the image files that Pillow reads, in lower case with their dot."""
    require("reading images", "PIL")
    from PIL import Image

    Image.init()
    return frozenset(ending.lower() for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN)


def read_picture(path: Path, shape: tuple[int, ...]) -> Picture:
    """Read an image file for a network that takes ``shape``.

    It is turned as its camera notes, its transparent parts become black, 16-bit greys are divided by 257; it becomes grey or RGB, its middle is cut out in
    the network's proportions, and that is scaled with antialiasing (bilinear). The first frame of an animation counts.

    Parameters
    ----------
    path : Path
    shape : tuple of int
        ``(1, H, W)`` or ``(3, H, W)``.

    Raises
    ------
    ShapeError
        When the network does not take images, or the file is none, is damaged, or is unreasonably large; it says which.
    """
    if len(shape) != 3 or shape[0] not in COLOURS:
        raise ShapeError(f"the network takes {shape}, no image of 1 or 3 channels; give .npy files of float32")
    require("reading images", "PIL")
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with path.open("rb") as stream, Image.open(stream) as image:
                return _fit(image, shape)
    except UnidentifiedImageError:
        raise ShapeError("it is no image that Pillow can read") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ShapeError(f"it has more than {Image.MAX_IMAGE_PIXELS} pixels; make it smaller first") from None
    except OSError as error:
        raise ShapeError(f"it cannot be read: {error.strerror or error}") from None
    except (
        ValueError,
        SyntaxError,
        MemoryError,
        EOFError,
        IndexError,
        TypeError,
        ArithmeticError,
        LookupError,
    ) as error:  # what damaged files make of Pillow
        raise ShapeError(f"it is damaged: {str(error) or type(error).__name__}") from None


def _fit(image: Image, shape: tuple[int, ...]) -> Picture:
    from PIL import Image, ImageOps

    channels, height, width = shape
    wanted = COLOURS[channels]
    before, done = f"{image.width} x {image.height} {NAMES.get(image.mode, image.mode)}", []
    turned = ImageOps.exif_transpose(image)
    if turned.size != image.size:
        done.append("turned")
    image = turned
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
        done.append("black where transparent")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.clip(np.asarray(image, np.int64), 0, 65535) // 257).astype(np.uint8))
        done.append("16 bits to 8")
    elif image.mode == "F":
        raise ShapeError("its pixels are floats; save them as float32 in a .npy file")
    if image.mode != wanted:
        image = image.convert(wanted)
        done.append(f"to {NAMES.get(wanted, wanted)}")
    if image.size != (width, height):
        if image.width * height != image.height * width:
            done.append("cut to its middle")
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
        done.append(f"scaled to {width} x {height}")
    pixels = np.asarray(image, np.uint8)
    pixels = pixels[None] if channels == 1 else np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    return Picture(pixels, f"{before}: {', '.join(done)}" if done else "")
