"""Masks as files: as deep in bits as the image they belong to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image as Picture

Array = np.ndarray[Any, Any]
_TIFF = (".tif", ".tiff")


def mask_path(image: Path, folder: Path) -> Path:
    """Where the mask of an image goes: a TIFF for a TIFF, a PNG for the rest (JPEG would blur the classes)."""
    return folder / (image.name if image.suffix.lower() in _TIFF else image.stem + ".png")


def bit_depth(image: Path) -> np.dtype[Any]:
    """uint16 for an image file of 16 bits a channel, else uint8."""
    if image.suffix.lower() in _TIFF:
        with tifffile.TiffFile(image) as file:
            deep = file.series[0].dtype in (np.uint16, np.int16)
    else:
        with Picture.open(image) as picture:
            deep = picture.mode.startswith("I")
    return np.dtype(np.uint16 if deep else np.uint8)


def write_mask(path: Path, classes: Array, dtype: np.dtype[Any], *, binary: bool) -> None:
    """Writes (H, W) class numbers. binary: class 1 is written as the largest value, as editors show it: 255 or 65535."""
    largest = int(np.iinfo(dtype).max)
    if classes.max(initial=0) > largest:
        raise ValueError(f"{path.name}: {classes.max()} labels do not fit into {dtype}; write them as uint16 TIFF or PNG.")
    stored = (classes * largest if binary else classes).astype(dtype)
    beside = path.with_name(path.name + ".part")
    if path.suffix.lower() in _TIFF:
        tifffile.imwrite(beside, stored)
    else:
        Picture.fromarray(stored).save(beside, format="PNG")
    os.replace(beside, path)
