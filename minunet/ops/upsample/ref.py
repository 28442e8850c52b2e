"""Resampling, the definition: axis after axis, one pass for each term of the table."""

from __future__ import annotations

from typing import Any

from minunet.arrays import array_module, rounded, widened
from minunet.ops.upsample.tables import Table


def resample(x: Any, tables: tuple[Table, ...]) -> Any:
    """x: (N, C, *spatial). tables: one for each spatial axis."""
    xp, like, x = array_module(x), x, widened(x)
    for axis, table in enumerate(tables, start=2):
        weight = xp.asarray(table.weight, dtype=x.dtype).reshape(-1, table.weight.shape[1], *(1,) * (x.ndim - axis - 1))
        source = xp.asarray(table.source)
        x = sum(xp.take(x, source[:, t], axis=axis) * weight[:, t] for t in range(source.shape[1]))
    return rounded(x, like)
