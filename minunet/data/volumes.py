"""Volumes from NIfTI files, for networks of rank 3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from minunet.data.dataset import DataError, Image, Mask
from minunet.data.images import natural_key
from minunet.shapes import sizes_text


def read_volume(path: str | Path) -> np.ndarray[Any, Any]:
    """(D, H, W) float32 in the file's axis order, its scale factors applied."""
    import nibabel  # noqa: PLC0415  loaded with the first volume

    try:
        file: Any = nibabel.load(path)
        volume = np.asarray(file.dataobj, dtype=np.float32)
    except Exception as problem:  # readers raise whatever a damaged file leads them to
        raise DataError(f"{str(path)!r} cannot be read ({problem}): the file is missing, damaged or cut short; copy it again.") from problem
    if volume.ndim != 3 or not np.isfinite(volume).all():
        raise DataError(
            f"{str(path)!r} is no volume of three axes and finite numbers: it is {sizes_text(volume.shape)}; repair or remove it."
        )
    return volume


class VolumeFolder:
    """Volumes and label volumes, matched by name (.nii or .nii.gz).

    A sample is (image (1, D, H, W), labels (D, H, W)). Each volume is standardised by its own mean and standard deviation:
    the scale of magnetic resonance images means nothing between scans.
    """

    channels = 1

    def __init__(self, images: str | Path, labels: str | Path, *, classes: int) -> None:
        found, targets = _volume_files(Path(images)), _volume_files(Path(labels))
        for name, path in found.items():
            if name not in targets:
                raise DataError(f"volume {str(path)!r} has no labels in {str(labels)!r}: add {path.name!r} there or take the volume out.")
        self.classes = classes
        self.names = list(found)
        self.files = [(path, targets[name]) for name, path in found.items()]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image, Mask]:
        image_file, label_file = self.files[index]
        image, labels = read_volume(image_file), read_volume(label_file).astype(np.int64)
        if image.shape != labels.shape:
            raise DataError(f"volume {str(image_file)!r} is {sizes_text(image.shape)} but its labels are {sizes_text(labels.shape)}.")
        if labels.min() < 0 or labels.max() >= self.classes:
            raise DataError(f"{str(label_file)!r} holds labels {labels.min()} … {labels.max()}, expected 0 … {self.classes - 1}.")
        return ((image - image.mean()) / max(float(image.std()), 1e-6))[None], labels


def _volume_files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"there is no folder {str(folder)!r}: check the path.")
    files = [p for p in folder.iterdir() if p.name.endswith((".nii", ".nii.gz")) and not p.name.startswith(".")]
    if not files:
        raise DataError(f"the folder {str(folder)!r} holds no volume: files ending in .nii or .nii.gz are read.")
    return {p.name.removesuffix(".gz").removesuffix(".nii"): p for p in sorted(files, key=lambda p: natural_key(p.name))}
