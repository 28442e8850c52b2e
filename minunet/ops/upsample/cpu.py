"""Resampling with Numba: channels-last, rank 1 and 2 as volumes with axes of size 1.

Parallel over rows of the output. A row first sums the rows of the input that it reads, weighted, into a line of the input's
width, then resamples that line: the inner loops are long, contiguous and without branches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from minunet.arrays import channels_first, channels_last_volume
from minunet.ops.upsample.tables import Table, gather_table


def resample(x: Any, tables: tuple[Table, ...]) -> Any:
    volume = channels_last_volume(x)
    axes = (gather_table(np.zeros(1)),) * (3 - len(tables)) + tables
    sizes = [len(table.source) for table in axes]
    y = np.empty((volume.shape[0], *sizes, volume.shape[-1]), dtype=x.dtype)
    (jd, wd), (jh, wh), (jw, ww) = ((table.source, table.weight.astype(x.dtype)) for table in axes)
    _resample(volume, y, jd, wd, jh, wh, jw, ww)
    return channels_first(y.reshape(y.shape[0], *sizes[3 - len(tables) :], y.shape[-1]))


@njit(parallel=True, nogil=True, cache=True)
def _resample(x, y, jd, wd, jh, wh, jw, ww):  # type: ignore[no-untyped-def]
    width, channels = x.shape[3:]
    _, out_d, out_h, out_w, _ = y.shape
    for row in prange(y.shape[0] * out_d * out_h):
        n, q, r = row // (out_d * out_h), row // out_h % out_d, row % out_h
        line = np.empty((width, channels), dtype=y.dtype)
        for td in range(jd.shape[1]):
            for th in range(jh.shape[1]):
                source, weight = x[n, jd[q, td], jh[r, th]], wd[q, td] * wh[r, th]
                if td + th == 0:
                    for w in range(width):
                        for c in range(channels):
                            line[w, c] = weight * source[w, c]
                else:
                    for w in range(width):
                        for c in range(channels):
                            line[w, c] += weight * source[w, c]
        for s in range(out_w):
            j, weight = jw[s, 0], ww[s, 0]
            for c in range(channels):
                y[n, q, r, s, c] = weight * line[j, c]
            for tw in range(1, jw.shape[1]):
                j, weight = jw[s, tw], ww[s, tw]
                for c in range(channels):
                    y[n, q, r, s, c] += weight * line[j, c]
