"""Vector code for Numba, which has no vector type: emitted as LLVM IR through `numba.extending.intrinsic`.

`vectors.py` knows how wide the processor's registers are, `tile.py` holds the micro-kernels of all matrix products, `transform.py` the
small transforms Y = M X Mᵀ of Winograd's convolution, `rows.py` one formula for every number of long rows. `tasks.py` runs a kernel on all
threads.
"""

from minunet.simd.rows import PADDING, make_rows
from minunet.simd.tasks import all_tasks, share, thread_count
from minunet.simd.tile import BLOCKS, DOTS, PLACE, block_for, multiply, multiply_runs
from minunet.simd.transform import make_transform, transpose
from minunet.simd.vectors import CACHE_LINE, VECTOR_BYTES, address, lanes, next_line, peek, poke, prefetch, prefetch_to_write, settle

__all__ = [
    "BLOCKS",
    "CACHE_LINE",
    "DOTS",
    "PADDING",
    "PLACE",
    "VECTOR_BYTES",
    "address",
    "all_tasks",
    "block_for",
    "lanes",
    "make_rows",
    "make_transform",
    "multiply",
    "multiply_runs",
    "next_line",
    "peek",
    "poke",
    "prefetch",
    "prefetch_to_write",
    "settle",
    "share",
    "thread_count",
    "transpose",
]
