"""Masks and images as files: in the format, and as deep in bits, as the image they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image as Picture

from minunet.data.images import JPEG, pixel_type
from minunet.files import replacing

Array = np.ndarray[Any, Any]
_TIFF = (".tif", ".tiff")


def mask_path(image: Path, folder: Path) -> Path:
    """Where the mask of an image goes: a TIFF for a TIFF, a PNG for the rest (JPEG would blur the classes)."""
    return folder / (image.name if image.suffix.lower() in _TIFF else image.stem + ".png")


def bit_depth(image: Path) -> np.dtype[Any]:
    """uint16 for an image file of 16 bits a channel, or more, in whole numbers; else uint8."""
    kind = pixel_type(image)
    return np.dtype(np.uint16 if kind.kind in "iu" and kind.itemsize > 1 else np.uint8)


def write_mask(path: Path, classes: Array, dtype: np.dtype[Any], *, binary: bool) -> None:
    """Writes (H, W) class numbers. binary: class 1 is written as the largest value, as editors show it: 255 or 65535."""
    largest = int(np.iinfo(dtype).max)
    if classes.max(initial=0) > largest:
        raise ValueError(f"{path.name}: {classes.max()} labels do not fit into {dtype}; write them as uint16 TIFF or PNG.")
    _write(path, (classes * largest if binary else classes).astype(dtype))


def write_image(path: Path, image: Array, dtype: np.dtype[Any]) -> None:
    """Writes an image (C, H, W), as `read_image` gives it, in pixels of this type: whole numbers are rounded and clipped to what the
    type can hold, floats are written as they are. The name says the format: TIFF, PNG or JPEG. TIFF alone knows floats."""
    pixels = image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)  # (H, W) or (H, W, C)
    if dtype.kind == "f":
        _write(path, pixels.astype(dtype))
        return
    dtype = np.dtype(np.uint8) if dtype.kind == "b" else dtype
    limits = np.iinfo(dtype)
    _write(path, np.clip(np.rint(pixels.astype(np.float64) * limits.max), limits.min, limits.max).astype(dtype))


def _write(path: Path, pixels: Array) -> None:
    """The file is the old one or the whole new one."""
    suffix = path.suffix.lower()
    with replacing(path) as beside:
        if suffix in _TIFF:
            colours = pixels.ndim == 3 and pixels.shape[-1] in (3, 4)
            tifffile.imwrite(
                beside, pixels, photometric="rgb" if colours else "minisblack", planarconfig="contig" if pixels.ndim == 3 else None
            )
        elif suffix in JPEG:
            Picture.fromarray(pixels).save(beside, format="JPEG", quality=95)
        else:
            Picture.fromarray(pixels).save(beside, format="PNG")
