"""Cleaning a binary mask: small components removed, holes filled, the largest component kept, components numbered.

connectivity: 1 joins pixels that share a side (4 neighbours in 2D, 6 in 3D), `mask.ndim` also those that share a corner
(8, 26). The complement of a mask is joined with the other choice, as usual: holes of an 8-connected object are 4-connected.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

Array = np.ndarray[Any, Any]


def components(mask: Array, connectivity: int = 1) -> tuple[Array, int]:
    """(labels, count): 0 outside the mask, 1 … count on its connected components."""
    return ndimage.label(mask, structure=_neighbours(mask, connectivity))


def remove_small(mask: Array, min_size: int, connectivity: int = 1) -> Array:
    """The mask without components of fewer than `min_size` pixels."""
    labels, count = components(mask, connectivity)
    keep = np.bincount(labels.ravel(), minlength=count + 1) >= min_size
    keep[0] = False
    return keep[labels]


def keep_largest(mask: Array, connectivity: int = 1) -> Array:
    """The largest component alone; of several equally large, the first in row-major order."""
    labels, count = components(mask, connectivity)
    if count == 0:
        return mask.astype(bool)
    return labels == 1 + int(np.argmax(np.bincount(labels.ravel(), minlength=count + 1)[1:]))


def fill_holes(mask: Array, max_size: int | None = None, connectivity: int = 1) -> Array:
    """The mask with its holes filled: background that does not reach the image's border. max_size: larger holes stay."""
    background = 1 if connectivity == mask.ndim else mask.ndim
    filled = ndimage.binary_fill_holes(mask, structure=_neighbours(mask, background))
    if max_size is None:
        return filled
    holes = filled & ~mask.astype(bool)
    return filled & ~remove_small(holes, max_size + 1, background)


def _neighbours(mask: Array, connectivity: int) -> Array:
    if not 1 <= connectivity <= mask.ndim:
        raise ValueError(f"connectivity of a mask with {mask.ndim} axes is 1 to {mask.ndim}, got {connectivity}.")
    return ndimage.generate_binary_structure(mask.ndim, connectivity)
