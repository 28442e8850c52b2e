"""Reading one image or one mask from a PNG, TIFF or JPEG file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from minunet.data.dataset import DataError, Image

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
_PLAIN_MODES = ("1", "L", "RGB", "I;16", "I;16L", "I;16B", "I", "F")  # Pillow's; others become gray or RGB
JPEG = (".jpg", ".jpeg")


def image_files(folder: str | Path) -> list[Path]:
    """The PNG, TIFF and JPEG files of a folder, sorted as people count: image2 before image10."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"there is no folder {str(folder)!r}: check the path (now in {str(Path.cwd())!r}).")
    found = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith(".")]
    if not found:
        raise DataError(f"the folder {str(folder)!r} holds no image: files ending in {', '.join(SUFFIXES)} are read.")
    return sorted(found, key=lambda path: natural_key(path.name))


def natural_key(name: str) -> list[tuple[bool, int, str]]:
    """A sort key in which digits count as numbers."""
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name.lower()) if part]


def read_image(path: str | Path) -> Image:
    """(C, H, W) float32. Integers are divided by the largest value of their type, so 8 and 16 bits both fill [0, 1];
    floats keep their values. An alpha channel is dropped, a palette becomes RGB."""
    array = _decode(Path(path), palette_as_index=False)
    if array.dtype.kind == "b":
        array = array.astype(np.float32)
    elif array.dtype.kind in "iu":
        array = array.astype(np.float32) / np.float32(np.iinfo(array.dtype).max)
    image = np.atleast_3d(array.astype(np.float32, copy=False))  # (H, W) or (H, W, C) → (H, W, C)
    if not np.isfinite(image).all():
        raise DataError(f"image {str(path)!r} holds NaN or infinite pixels: repair it or leave it out.")
    return np.ascontiguousarray(np.moveaxis(image, -1, 0))


def pixel_type(path: str | Path) -> np.dtype[Any]:
    """The number type of the file's pixels, from its header: uint8 for most, uint16 for 16 bits, float32, bool …"""
    from PIL import Image as Picture  # noqa: PLC0415

    path = Path(path)
    with _telling(path):
        if path.suffix.lower() in (".tif", ".tiff"):
            import tifffile  # noqa: PLC0415

            with tifffile.TiffFile(path) as file:
                return np.dtype(file.series[0].dtype)
        with Picture.open(path) as picture:
            types: dict[str, type] = {"1": np.bool_, "F": np.float32, "I": np.int32}
            return np.dtype(np.uint16 if picture.mode.startswith("I;16") else types.get(picture.mode, np.uint8))


def read_mask(path: str | Path) -> np.ndarray[Any, Any]:
    """(H, W) integers as they stand in the file; a palette image gives its indices. Equal colour channels are one."""
    array = _decode(Path(path), palette_as_index=True)
    if array.ndim == 3:
        if not (array == array[..., :1]).all():
            raise DataError(f"mask {str(path)!r} is in colour: save it as one channel of class numbers (0, 1, 2, …) or as a palette PNG.")
        array = array[..., 0]
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if array.dtype.kind == "f":
        if not np.array_equal(array, np.rint(array)):
            raise DataError(
                f"mask {str(path)!r} holds fractions such as {_a_fraction(array)}: a mask holds whole numbers, one for each class."
            )
        array = array.astype(np.int64)
    return array


def _a_fraction(array: np.ndarray[Any, Any]) -> str:
    return f"{array[array != np.rint(array)].flat[0]:.4g}"


def _decode(path: Path, palette_as_index: bool) -> np.ndarray[Any, Any]:
    """(H, W) or (H, W, C)."""
    with _telling(path):
        if path.suffix.lower() in (".tif", ".tiff"):
            return _decode_tiff(path, palette_as_index)
        return _decode_picture(path, palette_as_index)


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Within the block the file is read; what goes wrong becomes a sentence."""
    if not path.is_file():
        raise DataError(f"there is no file {str(path)!r}: check the path.")
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as problem:  # decoders raise whatever a damaged file leads them to
        raise DataError(
            f"{str(path)!r} cannot be read ({problem}): the file is damaged or cut short; copy or export it again."
        ) from problem


def _decode_picture(path: Path, palette_as_index: bool) -> np.ndarray[Any, Any]:
    from PIL import Image as Picture  # noqa: PLC0415  loaded with the first file

    with Picture.open(path) as picture:
        if picture.mode in _PLAIN_MODES or (palette_as_index and picture.mode == "P"):
            return np.asarray(picture)
        return np.asarray(picture.convert("L" if picture.mode == "LA" else "RGB"))


def _decode_tiff(path: Path, palette_as_index: bool) -> np.ndarray[Any, Any]:
    import tifffile  # noqa: PLC0415  loaded with the first TIFF

    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        axes, sizes, page = series.axes, series.shape, series.keyframe
        stacked = {axis: n for axis, n in zip(axes, sizes, strict=True) if axis not in "YXSC" and n > 1}
        if stacked or len(file.series) > 1:
            pages = int(np.prod(list(stacked.values()))) if stacked else len(file.series)
            raise DataError(f"{str(path)!r} is a stack of {pages} pictures: save each as a file of its own.")
        try:
            array = series.asarray()
        except ValueError as problem:
            if "imagecodecs" not in str(problem):
                raise
            return _decode_picture(path, palette_as_index)  # LZW and its like, which Pillow knows
        colour_map = page.colormap if page.photometric == tifffile.PHOTOMETRIC.PALETTE else None
        alpha = page.photometric == tifffile.PHOTOMETRIC.RGB and bool(page.extrasamples)
    kept = [axis for axis in axes if axis in "YXSC"]
    array = array.reshape([n for axis, n in zip(axes, sizes, strict=True) if axis in "YXSC"])
    array = array.transpose(sorted(range(len(kept)), key=lambda i: "YXSC".index(kept[i])))  # → (H, W[, C])
    array = array.reshape(array.shape[0], array.shape[1], -1) if array.ndim > 2 else array
    if colour_map is not None and not palette_as_index:
        return np.moveaxis(colour_map[:, array], 0, -1)
    return array[..., : array.shape[-1] - len(page.extrasamples)] if alpha and array.ndim == 3 else array
