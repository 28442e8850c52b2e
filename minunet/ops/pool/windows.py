"""Where the windows of a pooling lie."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from minunet.ops.upsample.tables import Table
from minunet.shapes import Pairs, ntuple, sizes_text, window_outputs, window_padding


@dataclass(frozen=True)
class Windows:
    """Window p covers the elements s·p + d·k − before, k = 0 … kernel − 1, that lie inside the input; on each axis alone.

    spatial, outputs: the input's and the output's size on each axis.
    """

    spatial: tuple[int, ...]
    outputs: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pairs
    dilation: tuple[int, ...]

    @classmethod
    def over(
        cls, name: str, spatial: tuple[int, ...], kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
    ) -> Windows:
        """The windows that `name`'s arguments describe; raises ValueError where they make no sense."""
        rank = len(spatial)
        kernel = ntuple(kernel_size, rank, f"{name}: kernel_size", minimum=1)
        if isinstance(stride, tuple | list) and not stride:
            stride = None  # PyTorch's other way to leave it out
        steps = kernel if stride is None else ntuple(stride, rank, f"{name}: stride", minimum=1)
        holes = ntuple(dilation, rank, f"{name}: dilation", minimum=1)
        if min(spatial) < 1:
            raise ValueError(f"{name}: the input has no elements to pool, its spatial size is {sizes_text(spatial)}.")
        pairs = window_padding(padding, spatial, kernel, steps, holes)
        if not isinstance(padding, str) and any(before > k // 2 for (before, _), k in zip(pairs, kernel, strict=True)):
            raise ValueError(f"{name}: padding is at most half of kernel_size; got padding {padding!r} for kernel_size {kernel_size!r}.")
        outputs = window_outputs(name, spatial, kernel, steps, pairs, holes, ceil_mode)
        return cls(spatial, outputs, kernel, steps, pairs, holes)

    @property
    def before(self) -> tuple[int, ...]:
        return tuple(before for before, _ in self.padding)

    @property
    def cover(self) -> bool:
        """Whether every element of the input lies in a window."""
        return all(
            d == 1 and s <= k and s * (out - 1) + k - b >= n
            for n, out, k, s, b, d in zip(self.spatial, self.outputs, self.kernel, self.stride, self.before, self.dilation, strict=True)
        )


@lru_cache(maxsize=128)  # a network asks for the same few in every step
def average_tables(windows: Windows, include_padding: bool, divisor: int | None) -> tuple[Table, ...]:
    """The mean of each window as tables, one for each axis; what hangs over the padded input is never counted.

    divisor: divides the sum of each window instead of the number of its elements.
    """
    tables = []
    for axis, (n, out, k, s, (before, after)) in enumerate(
        zip(windows.spatial, windows.outputs, windows.kernel, windows.stride, windows.padding, strict=True)
    ):
        place = s * np.arange(out)[:, None] - before + np.arange(k)
        low, high = (-before, n + after) if include_padding else (0, n)
        if divisor is None:
            size = ((low <= place) & (place < high)).sum(axis=1, keepdims=True)
        else:
            size = np.full((out, 1), divisor if axis == 0 else 1)
        inside = (place >= 0) & (place < n)
        tables.append(Table(np.clip(place, 0, n - 1), np.where(inside, 1 / size, 0)))
    return tuple(tables)
