"""Which algorithm computes a convolution.

| Algorithm | Takes | Because |
|---|---|---|
| `winograd` | 3×3 and kd×3×3, stride 1, from 8 channels on both sides | a quarter of the multiplications |
| | 5×5 and kd×5×5, stride 1, from 16 channels on both sides | 36 % of them |
| `direct` | everything else | reads the image in place, any stride, dilation and groups |
| `line_weights` | of the rest ∂w alone: windows of several pixels in a line, stride 1 there, 8 to 64 channels | copies no window |

The sums of `line_weights` go to memory after each line, which costs more than the copy where they are many and a line has few windows.
Measured with 2×2, 5×5 and 7×7 windows of as many channels as outputs: 1.6 to 3.3 times as fast with 8 or 16 channels, 1.1 to 1.3 with 32,
0.9 to 1.1 with 64, 0.8 to 1 with more or with lines of 8.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minunet.ops.conv import Geometry

ENOUGH = {3: 8, 5: 16}  # taps along one axis → channels: with fewer, transforms cost more than the multiplications that they save
FEW, MANY, LINE = 8, 64, 16  # for `line_weights`: channels at least and at most, windows at least


def fits_winograd(kernel: tuple[int, ...], geometry: Geometry, channels: int, outputs: int) -> bool:
    once = max(geometry.stride) == max(geometry.dilation) == geometry.groups == 1
    square = kernel[-2:] == (kernel[-1], kernel[-1])
    return once and square and min(channels, outputs) >= ENOUGH.get(kernel[-1], math.inf)


def fits_lines(kernel: tuple[int, ...], geometry: Geometry, channels: int, outputs: int, line: int) -> bool:
    """line: windows along the last axis."""
    along = kernel[-1] > 1 and geometry.stride[-1] == geometry.dilation[-1] == 1
    return along and FEW <= channels <= MANY and outputs >= FEW and line >= LINE
