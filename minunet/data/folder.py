"""A folder of images and a folder of masks: the practitioner's own data.

An image and its mask share a name: `cell7.png` and `cell7.png`, `cell7.tif` or `cell7_mask.png`. The whole set is read once on
construction, so that a bad file is found before training and not in its third epoch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from minunet.data.dataset import DataError, Image, Mask
from minunet.data.images import JPEG, image_files, read_image, read_mask
from minunet.shapes import sizes_text

_IMAGE_ENDINGS = re.compile(r"[ _.-](image|images|img)$", re.IGNORECASE)
_MASK_ENDINGS = re.compile(r"[ _.-](mask|masks|label|labels|seg|segmentation|gt|annotation|instance|instances)$", re.IGNORECASE)
_MOST_CLASSES = 32  # more different values than this are no class numbers


class ImageMaskFolder:
    """Images and masks matched by name.

    values: the mask value of each class, `values=[0, 128, 255]` for classes 0, 1, 2. Without it the values are found over the
        whole set: two values (0 and 255, 0 and 1) are classes 0 and 1; small numbers are class numbers. The attribute
        `values` keeps what was found; pass it on for the validation set.
    binary: every mask value above 0 is class 1, as for masks that number their instances. In a JPEG mask, whose compression
        blurs 0 and 255, every value above 127.
    select: keeps only the names for which it is true.
    """

    def __init__(
        self,
        images: str | Path,
        masks: str | Path,
        *,
        values: Sequence[int] | None = None,
        binary: bool = False,
        select: Callable[[str], bool] | None = None,
    ) -> None:
        if values is not None and (binary or len(values) < 2 or len(set(values)) < len(values)):
            raise ValueError(f"values names two or more different mask values, without binary=True; got {list(values)!r}, binary={binary}.")
        self.binary = binary
        self.files = [(image, mask) for image, mask in _pairs(Path(images), Path(masks)) if select is None or select(image.stem)]
        if not self.files:
            raise DataError(f"none of the images in {str(images)!r} belongs to the part asked for: check that the set is complete.")
        self.names = [image.stem for image, _ in self.files]
        with ThreadPoolExecutor() as pool:
            surveys = list(pool.map(self._survey, self.files))
        self.channels = _one_channel_count(self.files, [channels for channels, _ in surveys])
        found = set().union(*(mask_values for _, mask_values in surveys))
        self.values = tuple(values) if values is not None else _class_values(sorted(found), self.files, binary)
        self.classes = len(self.values)
        for (_, mask), (_, mask_values) in zip(self.files, surveys, strict=True):
            if unknown := sorted(mask_values - set(self.values)):
                raise DataError(
                    f"mask {str(mask)!r} holds the unknown values {_listed(unknown)} beside the classes' {_listed(self.values)}: "
                    "repair it, or name all values with values=[…]."
                )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image, Mask]:
        image_file, mask_file = self.files[index]
        stored = self._mask_values(mask_file)
        mask = np.full(stored.shape, -1, np.int64)
        for number, value in enumerate(self.values):
            mask[stored == value] = number
        return read_image(image_file), mask

    def stored_mask(self, index: int) -> np.ndarray[Any, Any]:
        """(H, W): the mask as the file holds it, before its values become classes."""
        return read_mask(self.files[index][1])

    def _mask_values(self, path: Path) -> np.ndarray[Any, Any]:
        stored = read_mask(path)
        return (stored > (127 if path.suffix.lower() in JPEG else 0)).astype(np.uint8) if self.binary else stored

    def _survey(self, files: tuple[Path, Path]) -> tuple[int, set[int]]:
        """Reads one pair: the image's channels and the mask's values."""
        image, mask = read_image(files[0]), self._mask_values(files[1])
        if image.shape[1:] != mask.shape:
            raise DataError(
                f"image {str(files[0])!r} is {sizes_text(image.shape[1:])} but its mask {str(files[1])!r} is {sizes_text(mask.shape)} "
                "(height×width): export the mask again at the image's size."
            )
        return len(image), set(np.unique(mask).tolist())


def _pairs(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Each image with its mask."""
    image_paths, mask_paths = image_files(images), image_files(masks)
    if images.resolve() == masks.resolve():
        raise DataError(f"images and masks are both looked for in {str(images)!r}: put the masks into a folder of their own.")
    exact, stripped = _by_stem(mask_paths, None), _by_stem(mask_paths, _MASK_ENDINGS)
    pairs = []
    for key, candidates in _by_stem(image_paths, None).items():
        found = exact.get(key) or stripped.get(key) or stripped.get(_IMAGE_ENDINGS.sub("", key)) or []
        for what, paths in (("images", candidates), ("masks", found)):
            if len(paths) > 1:
                raise DataError(
                    f"the {what} {paths[0].name!r} and {paths[1].name!r} share one name: it is unclear which to take; remove one."
                )
        if not found:
            raise DataError(
                f"image {str(candidates[0])!r} has no mask in {str(masks)!r}: expected {candidates[0].stem!r} or "
                f"{candidates[0].stem + '_mask'!r} as .png, .tif or .jpg; add it or take the image out."
            )
        pairs.append((candidates[0], found[0]))
    return pairs


def _by_stem(paths: list[Path], endings: re.Pattern[str] | None) -> dict[str, list[Path]]:
    grouped: dict[str, list[Path]] = {}
    for path in paths:
        grouped.setdefault(endings.sub("", path.stem) if endings else path.stem, []).append(path)
    return grouped


def _one_channel_count(files: list[tuple[Path, Path]], channels: list[int]) -> int:
    for (path, _), count in zip(files, channels, strict=True):
        if count != channels[0]:
            raise DataError(
                f"image {files[0][0].name!r} has {channels[0]} channel(s) but {path.name!r} has {count}: "
                "convert all images of the set to gray or all to RGB."
            )
    return channels[0]


def _class_values(found: list[int], files: list[tuple[Path, Path]], binary: bool) -> tuple[int, ...]:
    """The mask value of each class, from all values in the set."""
    if len(found) == 1:
        raise DataError(
            f"every pixel of every mask {'is one class' if binary else f'has the value {found[0]}'}: there is nothing to learn; "
            f"check that {str(files[0][1].parent)!r} holds the masks."
        )
    if len(found) == 2:
        return tuple(found)
    jpeg = next((mask for _, mask in files if mask.suffix.lower() in JPEG), None)
    if jpeg is not None:
        raise DataError(
            f"mask {str(jpeg)!r} is a JPEG, whose compression invents values between the classes (here {_listed(found)}): "
            "save the masks as PNG, or pass binary=True to take all above 127 as class 1."
        )
    if found[0] >= 0 and found[-1] < _MOST_CLASSES:
        return tuple(range(found[-1] + 1))
    raise DataError(
        f"the masks hold {len(found)} values ({_listed(found)}), neither two nor class numbers below {_MOST_CLASSES}: pass "
        "values=[…] if each value is a class, or binary=True if all above 0 are one class (instance numbers)."
    )


def _listed(values: Sequence[int]) -> str:
    shown = [str(v) for v in values]
    return ", ".join(shown if len(shown) <= 6 else [*shown[:3], "…", *shown[-2:]])
