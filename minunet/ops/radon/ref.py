"""The Radon transform and its adjoint, the definition: angle after angle, two terms each."""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet.arrays import array_module
from minunet.ops.radon.geometry import Geometry, rays


def project(x: Any, geometry: Geometry) -> Any:
    """(N, H, W) → (N, angles, detectors)."""
    xp = array_module(x)
    y = xp.empty((len(x), *geometry.sinogram), dtype=x.dtype)
    for k, (by_column, by_row, start) in enumerate(rays(geometry)):
        crosses_rows = abs(by_column) >= abs(by_row)
        lines = x if crosses_rows else x.swapaxes(1, 2)  # (N, lines, pixels of a line)
        along, across = (by_column, by_row) if crosses_rows else (by_row, by_column)
        line = np.arange(lines.shape[1])[:, None]
        place = (np.arange(geometry.detectors) - start - across * line) / along  # (lines, detectors): where ray j meets the line
        low = np.floor(place)
        upper = xp.asarray(place - low, dtype=x.dtype)
        met = _at(lines, low, line) * (1 - upper) + _at(lines, low + 1, line) * upper
        y[:, k] = met.sum(axis=1) / x.dtype.type(abs(along))
    return y


def back_project(y: Any, geometry: Geometry, linear: bool) -> Any:
    """(N, angles, detectors) → (N, H, W)."""
    xp = array_module(y)
    x = xp.zeros((len(y), *geometry.size), dtype=y.dtype)
    row, column = np.ogrid[: geometry.size[0], : geometry.size[1]]
    for k, (by_column, by_row, start) in enumerate(rays(geometry)):
        c = 1.0 if linear else max(abs(by_column), abs(by_row))
        t = by_column * column + by_row * row + start  # (H, W)
        low = np.floor(t)
        for j in (low, low + 1):
            weight = np.maximum(0, 1 - np.abs(j - t) / c) / c
            x += _at(y, j, k) * xp.asarray(weight, dtype=y.dtype)
    return x


def _at(lines: Any, place: np.ndarray[Any, Any], line: Any) -> Any:
    """lines (N, lines, pixels) at whole places of a line or of each line; 0 beyond its ends."""
    xp = array_module(lines)
    edge = xp.zeros((*lines.shape[:2], 1), dtype=lines.dtype)
    padded = xp.concatenate([edge, lines, edge], axis=2)
    index = np.clip(place + 1, 0, lines.shape[2] + 1).astype(np.int64)
    return padded[:, line if isinstance(line, int) else xp.asarray(line), xp.asarray(index)]
