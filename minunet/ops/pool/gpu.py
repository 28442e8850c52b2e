"""Maximum pooling on the GPU: shapes and grids for the kernels of pool.cu."""

from __future__ import annotations

from typing import Any

from minunet.arrays import is_float
from minunet.cuda import Source, blocks_for
from minunet.ops.pool import ref
from minunet.ops.pool.windows import Windows
from minunet.volumes import empty, is_channels_last, three, volume

SOURCE = Source(__file__, "pool.cu")
THREADS = 256  # of a block


def max_forward(x: Any, windows: Windows) -> tuple[Any, Any]:
    if not is_float(x):
        return ref.max_forward(x, windows)  # kernels are compiled for floating-point numbers
    y = empty(x, windows.outputs, x.dtype)
    winners = empty(x, windows.outputs, ref.winner_dtype(windows))
    kernel = SOURCE.kernel(f"max_forward_{winners.dtype}", x.dtype)
    kernel(blocks_for(y.size, THREADS), THREADS, volume(x), volume(y), volume(winners), _told(windows, x))
    return y, winners


def max_backward(gy: Any, winners: Any, windows: Windows) -> Any:
    gx = empty(winners, windows.spatial, gy.dtype)  # winners lie as the input did, gy as it likes
    kernel = SOURCE.kernel(f"max_backward_{winners.dtype}", gy.dtype)
    kernel(blocks_for(gx.size, THREADS), THREADS, volume(gy), volume(winners), volume(gx), _told(windows, winners))
    return gx


def _told(windows: Windows, like: Any) -> dict[str, Any]:
    """`struct Windows` of pool.cu. Absent axes have one element and one place."""
    return {
        "samples": like.shape[0],
        "channels": like.shape[1],
        "in": three(windows.spatial),
        "out": three(windows.outputs),
        "kernel": three(windows.kernel),
        "stride": three(windows.stride),
        "before": three(windows.before, 0),
        "dilation": three(windows.dilation),
        "channels_last": is_channels_last(like),
    }
