"""The weight map of the 2015 paper: it makes the network learn the thin borders between touching cells."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def border_weights(
    instances: NDArray[Any], *, w0: float = 10.0, sigma: float = 5.0, class_weights: tuple[float, float] | None = None
) -> NDArray[np.float32]:
    """w(x) = w_c(x) + w0·exp(−(d1(x) + d2(x))² / 2σ²), Ronneberger et al. 2015, equation 2 (printed there without the minus sign).

    instances: (H, W) or (D, H, W) integers, 0 background and k the k-th cell; touching cells must be parted by at least a
        pixel of background, on which the second term stands (see `part_touching`).
    d1, d2: distance to the nearest and to the second nearest cell. w_c: `class_weights` for background and cell; without
        them the weights that give both classes the same share, 1/(2·frequency).
    """
    cells = instances > 0
    if class_weights is None:
        share = float(np.clip(cells.mean(), 1e-6, 1 - 1e-6))
        class_weights = 0.5 / (1 - share), 0.5 / share
    reach = int(np.ceil(7 * sigma))  # farther away the term is below w0·e⁻²⁴
    nearest = np.full((2, *instances.shape), np.inf)
    for number, box in enumerate(ndimage.find_objects(instances), start=1):
        if box is None:
            continue
        around = tuple(slice(max(s.start - reach, 0), s.stop + reach) for s in box)
        distance = ndimage.distance_transform_edt(instances[around] != number)
        first, second = nearest[0][around], nearest[1][around]
        second[...] = np.minimum(second, np.maximum(first, distance))
        first[...] = np.minimum(first, distance)
    border = w0 * np.exp(-(nearest.sum(axis=0) ** 2) / (2 * sigma**2))
    return np.where(cells, class_weights[1], class_weights[0] + border).astype(np.float32)


def part_touching(instances: NDArray[Any]) -> NDArray[Any]:
    """Instances with background put where a pixel's neighbour belongs to another cell."""
    neighbours = ndimage.generate_binary_structure(instances.ndim, 1)
    largest = ndimage.maximum_filter(instances, footprint=neighbours)
    without_background = np.where(instances > 0, instances, np.iinfo(instances.dtype).max)
    smallest = ndimage.minimum_filter(without_background, footprint=neighbours)
    return np.where((instances > 0) & (smallest == largest), instances, 0)
