"""Which algorithm computes a convolution.

| Algorithm | Takes | Because |
|---|---|---|
| `winograd` | 3×3 and kd×3×3, stride 1, from 8 channels on both sides | a quarter of the multiplications |
| `windows` | few input channels; windows that do not overlap: 1×1, 2×2/2, both ways | small matrices stay in the cache |
| `direct` | everything else | reads the image in place, any stride, dilation and groups |
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minunet.ops.conv import Geometry

FEW = 8  # channels: below, transforms cost more than the multiplications that they save


def fits_winograd(kernel: tuple[int, ...], geometry: Geometry, channels: int, outputs: int) -> bool:
    once = all(s == 1 for s in geometry.stride) and all(d == 1 for d in geometry.dilation) and geometry.groups == 1
    return once and kernel[-2:] == (3, 3) and min(channels, outputs) >= FEW


def fits_windows(kernel: tuple[int, ...], geometry: Geometry, channels: int) -> bool:
    return geometry.groups == 1 and (touching(kernel, geometry) or channels * math.prod(kernel) <= FEW * FEW)


def touching(kernel: tuple[int, ...], geometry: Geometry) -> bool:
    """Windows side by side, over the unpadded image: no number belongs to two."""
    unpadded = all(pair == (0, 0) for pair in geometry.padding)
    return kernel == geometry.stride and unpadded and all(d == 1 or k == 1 for d, k in zip(geometry.dilation, kernel, strict=True))
