"""∂b: the sum of ∂y over all pixels, read where it lies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from minunet.arrays import in_place
from minunet.simd import all_tasks, share

PARTS = 64  # into which the lines of pixels are split, at most; they are added in order
U = np.uintp  # an index that cannot be negative: Numba then asks nothing at each element


def over_pixels(gy: Any, gate: Any) -> Any:
    """∂b[o] = Σ_n Σ_p ∂y[n,o,p]; only where gate > 0 does ∂y count."""
    flat, steps = in_place(gy)
    opening, gate_steps = (flat, steps) if gate is None else in_place(gate)
    shape = (gy.shape[0], *(1,) * (5 - gy.ndim), *gy.shape[2:])
    sums = np.zeros((max(1, min(PARTS, shape[0] * shape[1] * shape[2])), gy.shape[1]), gy.dtype)
    _over_pixels(all_tasks(), flat, steps, opening, gate_steps, gate is not None, shape, sums)
    return sums.sum(axis=0)


@njit(nogil=True, cache=True)
def _over_pixels(mine, y, steps, gate, gate_steps, gated, shape, sums):  # type: ignore[no-untyped-def]
    parts, channels = sums.shape
    lines = shape[0] * shape[1] * shape[2]
    for part in share(mine, parts):
        total = sums[part]
        for line in range(lines * part // parts, lines * (part + 1) // parts):
            n, d, h = line // (shape[1] * shape[2]), line // shape[2] % shape[1], line % shape[2]
            corner = n * steps[0] + d * steps[1] + h * steps[2]
            opening = n * gate_steps[0] + d * gate_steps[1] + h * gate_steps[2]
            fours = 0 if gated else shape[3] // 4 * 4
            for w in range(0, fours, 4):
                p0 = U(corner + w * steps[3])
                p1, p2, p3 = p0 + U(steps[3]), p0 + U(2 * steps[3]), p0 + U(3 * steps[3])
                for c in range(U(channels)):
                    total[c] += (y[p0 + c] + y[p1 + c]) + (y[p2 + c] + y[p3 + c])
            for w in range(fours, shape[3]):
                p, q = U(corner + w * steps[3]), U(opening + w * gate_steps[3])
                for c in range(U(channels)):
                    if not gated or gate[q + c] > 0:
                        total[c] += y[p + c]
