"""What every source of images and masks offers, and what it raises when they are not in order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]  # (C, H, W), or (C, D, H, W) for a volume
Mask = NDArray[np.int64]  # (H, W) or (D, H, W): the class of each pixel


class DataError(ValueError):
    """The data are not in order. The message is one sentence that names the file and says what to do."""


class SegmentationDataset(Protocol):
    """A sequence of (image, mask). classes: how many the masks tell apart, background included."""

    channels: int
    names: list[str]

    @property
    def classes(self) -> int: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Image, Mask]: ...


class Samples(Protocol):
    """A sequence of (image, what belongs to it): a mask, or another image."""

    channels: int
    names: list[str]

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Any, Any]: ...


class Subset:
    """The samples of `dataset` at `indices`, in that order."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, list(indices)
        self.channels = dataset.channels
        self.names = [dataset.names[i] for i in self.indices]

    @property
    def classes(self) -> int:
        """Of a dataset with masks."""
        return self.dataset.classes

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.dataset[self.indices[index]]


def split(dataset: Samples, validation: float = 0.2, seed: int = 0) -> tuple[Subset, Subset]:
    """Two disjoint random parts, for training and for validation; each keeps the order of the names."""
    if len(dataset) < 2 or not 0 < validation < 1:
        raise DataError(f"{len(dataset)} images cannot be split into {1 - validation:.0%} and {validation:.0%}: give two images or more.")
    held_out = min(max(round(validation * len(dataset)), 1), len(dataset) - 1)
    order = np.random.default_rng(seed).permutation(len(dataset))
    return Subset(dataset, sorted(order[held_out:].tolist())), Subset(dataset, sorted(order[:held_out].tolist()))


def fingerprint(dataset: SegmentationDataset) -> str:
    """SHA-256 of all images and masks as they are read: two copies of a set agree whatever compressed or renamed their files."""
    digest = hashlib.sha256()
    for index in range(len(dataset)):
        for array in dataset[index]:
            little: Any = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            digest.update(str(little.shape).encode() + little.tobytes())
    return digest.hexdigest()
