"""Which algorithm computes a convolution.

| Algorithm | Takes | Because |
|---|---|---|
| `winograd` | 3×3 and kd×3×3, stride 1, from 8 channels on both sides | a quarter of the multiplications |
| `direct` | everything else | reads the image in place, any stride, dilation and groups |
| `line_weights` | of the rest ∂w alone: windows of several pixels in a line, stride 1 there, 8 to 64 channels | copies no window |

The sums of `line_weights` go to memory after each line, which costs more than the copy where they are many and a line has few windows.
Measured with 5×5 and 5×5×5 windows of as many channels as outputs: 1.3 to 3 times as fast with 16 channels, 1 to 1.3 with 32, 1 to 1.1
with 64, 0.8 to 1 with more or with lines of 8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minunet.ops.conv import Geometry

FEW = 8  # channels: below, transforms cost more than the multiplications that they save
MANY, LINE = 64, 16  # for `line_weights`: channels at most, windows at least


def fits_winograd(kernel: tuple[int, ...], geometry: Geometry, channels: int, outputs: int) -> bool:
    once = max(geometry.stride) == max(geometry.dilation) == geometry.groups == 1
    return once and kernel[-2:] == (3, 3) and min(channels, outputs) >= FEW


def fits_lines(kernel: tuple[int, ...], geometry: Geometry, channels: int, outputs: int, line: int) -> bool:
    """line: windows along the last axis."""
    along = kernel[-1] > 1 and geometry.stride[-1] == geometry.dilation[-1] == 1
    return along and FEW <= channels <= MANY and outputs >= FEW and line >= LINE
