"""Test-time augmentation: the mean prediction over the eight symmetries of the square (flips and quarter turns)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def average_symmetries(predict: Callable[[Array], Array], image: Array) -> Array:
    """(1/8) Σ_g g⁻¹ predict(g image), g over the symmetries of the square; image (C, H, W), prediction (K, H, W)."""
    total: Any = 0
    for turns in range(4):
        for flip in (False, True):
            turned = np.rot90(image, turns, axes=(-2, -1))
            output = predict(np.ascontiguousarray(turned[..., ::-1] if flip else turned))
            total = total + np.rot90(output[..., ::-1] if flip else output, -turns, axes=(-2, -1))
    return total / 8
