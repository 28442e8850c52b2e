"""Microscope images of cells, generated with their exact masks: the data of `minunet demo`, and a test that needs no download.

An image is made as a fluorescence microscope makes it. Cells settle in colonies, press against each other and share
membranes; each takes up a different amount of dye. Above and below the focus lie other cells, seen as haze; debris sticks
to the glass; the lamp lights the field unevenly. The lens blurs all of it, photons arrive at random, and the camera adds
noise and eight-bit steps. So brightness alone does not tell a cell from the background, but its outline and texture do.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from minunet.data.dataset import Image, Mask
from minunet.shapes import ntuple

_CLASSES = {"cell": 2, "membrane": 2, "three": 3}
_RADIUS = 12.5  # mean radius of a cell, in pixels
Field = NDArray[np.float32]


class GeneratedCells:
    """`count` images of `size` (a number, or height and width) with masks. Sample i depends on (seed, i) alone.

    target: 'cell', class 1 is cell; 'membrane', class 1 is membrane; 'three', 0 background, 1 inside, 2 membrane.
    """

    channels = 1

    def __init__(self, count: int, size: int | tuple[int, int] = 128, seed: int = 0, *, target: str = "cell") -> None:
        if target not in _CLASSES:
            raise ValueError(f"target is one of {', '.join(map(repr, _CLASSES))}; got {target!r}.")
        self.count, self.seed, self.target = count, seed, target
        height, width = ntuple(size, 2, "size", minimum=32)
        self.size = height, width
        self.classes = _CLASSES[target]
        self.names = [f"cells-{seed}-{index:04d}" for index in range(count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Image, Mask]:
        tissue, rng = self._tissue(index)
        inside, membrane = tissue.labels > 0, tissue.membrane
        mask = {"cell": inside, "membrane": membrane, "three": inside.astype(np.int64) + membrane}[self.target]
        return _photograph(tissue, rng)[None], mask.astype(np.int64)

    def instances(self, index: int) -> Mask:
        """(H, W): 0 background, k the k-th cell, its membrane included."""
        return self._tissue(index)[0].labels

    def _tissue(self, index: int) -> tuple[_Tissue, np.random.Generator]:
        if not 0 <= index < self.count:
            raise IndexError(f"sample {index} of {self.count}.")
        rng = np.random.default_rng([self.seed, index])
        return _grow(self.size, rng), rng


class _Tissue(NamedTuple):
    """Cells in focus, before any light falls on them. All maps are (H, W)."""

    labels: Mask  # 0 background, k the k-th cell
    depth: Field  # pixels from the nearest outline, which has 0
    nucleus: NDArray[np.bool_]

    @property
    def membrane(self) -> NDArray[np.bool_]:
        """The outermost two pixels of each cell."""
        return (self.labels > 0) & (self.depth < 1.5)


def _noise(shape: tuple[int, int], grain: float, rng: np.random.Generator) -> Field:
    """Smooth Gaussian noise of mean 0 and variance 1 whose blobs are about `grain` pixels wide."""
    step = max(int(grain / 2), 1)  # wide blobs are drawn on a coarse grid
    coarse = rng.standard_normal([-(-n // step) + 2 for n in shape], dtype=np.float32)
    coarse = ndimage.gaussian_filter(coarse, grain / step / 2)
    fine = ndimage.zoom(coarse, step, order=1)[: shape[0], : shape[1]] if step > 1 else coarse[: shape[0], : shape[1]]
    return (fine - fine.mean()) / fine.std()


def _grow(shape: tuple[int, int], rng: np.random.Generator) -> _Tissue:
    """Bent ellipses in colonies. A pixel belongs to the ellipse it lies deepest in, so neighbours press each other flat."""
    bend = [2.2 * _noise(shape, 12, rng) + 0.35 * _noise(shape, 4, rng) for _ in shape]
    rows, columns = (line + shift for line, shift in zip(np.ogrid[: shape[0], : shape[1]], bend, strict=True))
    labels, nucleus = np.zeros(shape, np.int64), np.zeros(shape, bool)
    nearest = np.ones(shape, np.float32)  # an ellipse ends at distance 1
    for number, (y, x, radius) in enumerate(_settle(shape, rng), start=1):
        reach = int(1.7 * radius + 8)
        box = tuple(slice(max(int(c) - reach, 0), max(int(c) + reach, 0)) for c in (y, x))
        stretch, turn = rng.uniform(1, 1.4), rng.uniform(0, np.pi)
        u, v = columns[box] - x, rows[box] - y
        u, v = (u * np.cos(turn) + v * np.sin(turn)) / (radius * stretch), (v * np.cos(turn) - u * np.sin(turn)) / (radius / stretch)
        distance = np.hypot(u, v)
        won = distance < nearest[box]
        shift = rng.normal(0, 0.12, 2)
        nearest[box][won] = distance[won]
        labels[box][won] = number
        nucleus[box][won] = (np.hypot(u - shift[0], v - shift[1]) < rng.uniform(0.38, 0.5))[won]
    labels = _whole(labels)
    cross = ndimage.generate_binary_structure(2, 1)
    outline = ndimage.maximum_filter(labels, footprint=cross) != ndimage.minimum_filter(labels, footprint=cross)
    depth = ndimage.distance_transform_edt(~outline).astype(np.float32)
    return _Tissue(labels, depth, nucleus & (labels > 0) & (depth > 2.5))


def _settle(shape: tuple[int, int], rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """(y, x, radius) of cells that keep their distance and live where a slow random field is high."""
    colony, shore = _noise(shape, 45, rng), rng.uniform(-0.9, 0.5)
    cells: list[tuple[float, float, float]] = []
    for _ in range(shape[0] * shape[1] // 30):
        y, x = rng.uniform(-8, shape[0] + 8), rng.uniform(-8, shape[1] + 8)
        radius = _RADIUS * rng.lognormal(0, 0.16)
        settled = colony[min(max(int(y), 0), shape[0] - 1), min(max(int(x), 0), shape[1] - 1)] > shore
        if settled and all((y - v) ** 2 + (x - u) ** 2 > (0.75 * (radius + r)) ** 2 for v, u, r in cells):
            cells.append((y, x, radius))
    return cells


def _whole(labels: Mask) -> Mask:
    """Each cell's largest connected piece, numbered anew; crumbs become background."""
    kept = np.zeros_like(labels)
    number = 0
    for old, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        pieces, _ = ndimage.label(labels[box] == old)
        areas = np.bincount(pieces.ravel())[1:]
        if areas.max() >= 30:
            number += 1
            kept[box][pieces == 1 + areas.argmax()] = number
    return kept


def _photograph(tissue: _Tissue, rng: np.random.Generator) -> Field:
    """Dye, haze, debris, lamp, lens, photons, camera: (H, W) in [0, 1] by steps of 1/255."""
    shape = tissue.labels.shape
    cells = int(tissue.labels.max()) + 1
    inside = tissue.labels > 0
    dye = rng.lognormal(-0.3, 0.4, cells)[tissue.labels]
    rim = rng.lognormal(0.0, 0.35, cells)[tissue.labels]
    body = dye * (1 + 0.22 * _noise(shape, 2.0, rng) + 0.15 * _noise(shape, 5, rng)) * np.where(tissue.nucleus, 0.35, 1.0)
    membrane = rim * np.exp(-((tissue.depth / 1.1) ** 2)) * np.clip(1 + 0.35 * _noise(shape, 7, rng), 0.1, None)
    focus = np.where(inside, 0.6 * body + 0.7 * membrane, 0)
    haze = 0.3 * np.logaddexp(0, 2 * _noise(shape, 18, rng)) + 0.15 * np.logaddexp(0, 2 * _noise(shape, 45, rng))
    scene = focus + rng.uniform(0.3, 1.0) * haze + 0.12 + _debris(shape, rng)
    scene = ndimage.gaussian_filter(scene * _lamp(shape, rng), rng.uniform(0.7, 1.2))
    photons = rng.uniform(40, 150)
    counts = rng.poisson(np.clip(scene, 0, None) * photons) + rng.normal(0, 2.5, shape)
    low, high = np.percentile(counts, (0.5, 99.7))
    return (np.rint(255 * np.clip((counts - low) / (high - low), 0, 1)) / 255).astype(np.float32)


def _debris(shape: tuple[int, int], rng: np.random.Generator) -> Field:
    """Bright specks, sharp or out of focus, and now and then a fibre."""
    scene = np.zeros(shape, np.float32)
    for blur in (0.7, 1.3, 2.5):
        specks = np.zeros(shape, np.float32)
        n = rng.poisson(shape[0] * shape[1] / 6000)
        specks[rng.integers(0, shape[0], n), rng.integers(0, shape[1], n)] = rng.lognormal(0.0, 0.5, n)
        scene += ndimage.gaussian_filter(specks, blur) * (2 * np.pi * blur**2)
    if rng.random() < 0.4:
        t = np.linspace(-1, 1, 4 * max(shape))[:, None]
        start, way, bow = rng.uniform(0, 1, 2) * shape, rng.normal(0, 0.35, 2) * shape, rng.normal(0, 0.12, 2) * shape
        points = (start + way * t + bow * t**2).astype(int)
        points = points[((points >= 0) & (points < shape)).all(axis=1)]
        fibre = np.zeros(shape, np.float32)
        fibre[points[:, 0], points[:, 1]] = 1
        scene += rng.uniform(1, 2) * ndimage.gaussian_filter(fibre, 1.0)
    return scene


def _lamp(shape: tuple[int, int], rng: np.random.Generator) -> Field:
    """Brightest somewhere near the middle, falling off towards the corners."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) - rng.uniform(-0.6, 0.6) for n in shape)
    return np.exp(-rng.uniform(0.15, 0.5) * (y[:, None] ** 2 + x[None] ** 2)).astype(np.float32)
