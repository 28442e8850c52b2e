"""Resampling on the GPU: the tables, and the grid for the kernel of upsample.cu."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from minunet.arrays import array_module, computed_dtype, is_float
from minunet.cuda import Source, blocks_for, held
from minunet.ops.upsample import ref
from minunet.ops.upsample.tables import Table, gather_table
from minunet.volumes import empty, is_channels_last, is_wide, three, volume

SOURCE = Source(__file__, "upsample.cu")
THREADS = 256  # of a block
ABSENT = gather_table(np.zeros(1))  # y = x, along an axis of one element


def resample(x: Any, tables: tuple[Table, ...]) -> Any:
    if not is_float(x):
        return ref.resample(x, tables)  # labels; kernels are compiled for floating-point numbers
    sizes = tuple(len(table.source) for table in tables)
    y = empty(x, sizes, x.dtype)
    sources, weights, terms, first = held(_packed(array_module(x), tables, computed_dtype(x)))
    last = is_channels_last(x)
    wide = last and is_wide(x, y)
    threads = y.size // (16 // x.itemsize) if wide else y.size
    told = {
        "samples": x.shape[0],
        "channels": x.shape[1],
        "out": three(sizes),
        "terms": terms,
        "first": first,
        "channels_last": last,
        "wide": wide,
    }
    SOURCE.kernel("resample", x.dtype)(blocks_for(threads, THREADS), THREADS, volume(x), sources, weights, volume(y), told)
    return y


@lru_cache(maxsize=128)  # a network asks for the same few in every step, and the way to the GPU is long
def _packed(xp: Any, tables: tuple[Table, ...], dtype: Any) -> tuple[Any, Any, tuple[int, ...], tuple[int, ...]]:
    """The tables of D, H and W one after another on the GPU: sources, weights; terms of each axis, and where its table begins."""
    axes = (ABSENT,) * (3 - len(tables)) + tables
    sources = np.concatenate([table.source.ravel() for table in axes]).astype(np.int32)
    weights = np.concatenate([table.weight.ravel() for table in axes]).astype(dtype)
    first = (0, axes[0].source.size, axes[0].source.size + axes[1].source.size)
    return xp.asarray(sources), xp.asarray(weights), tuple(table.source.shape[1] for table in axes), first
