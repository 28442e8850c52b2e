"""Which algorithm computes a convolution.

| Algorithm | Takes | Because |
|---|---|---|
| `winograd` | 3×3 and kd×3×3, stride 1, from 8 channels on both sides | a quarter of the multiplications |
| `direct` | everything else | reads the image in place, any stride, dilation and groups |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minunet.ops.conv import Geometry

FEW = 8  # channels: below, transforms cost more than the multiplications that they save


def fits_winograd(kernel: tuple[int, ...], geometry: Geometry, channels: int, outputs: int) -> bool:
    once = max(geometry.stride) == max(geometry.dilation) == geometry.groups == 1
    return once and kernel[-2:] == (3, 3) and min(channels, outputs) >= FEW
