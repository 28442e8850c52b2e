"""Faults planted in CUDA sources, and the sentence that tells each: what test_host_gpu.py walks, and docs/gpu.md shows.

`python -m tools.gpu_faults` writes the page's table anew.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minunet import cuda
from tests import host_gpu
from tests.host_gpu import stand_in

cupy: Any = stand_in.module()


_folder = tempfile.TemporaryDirectory(prefix="minunet-kernels-")


def launch(source: str, grid: Any, block: Any, *arguments: Any, shared: int = 0) -> None:
    """Runs the kernel `f` of a source, compiled for float32, through minunet/cuda.py."""
    path = Path(_folder.name, hashlib.sha256(source.encode()).hexdigest()[:16], "f.cu")
    path.parent.mkdir(exist_ok=True)
    path.write_text(source, encoding="utf-8")
    cuda.Source(str(path), path.name).kernel("f", np.float32)(grid, block, *arguments, shared=shared)


def row(n: int) -> Any:
    return cupy.asarray(np.random.default_rng(0).standard_normal(n).astype(np.float32))


def empty(n: int) -> Any:
    return cupy.empty(n, np.float32)


def lists(*sizes: int) -> tuple[list[Any], list[Any], Any]:
    """Arguments for LISTS: arrays of these sizes and room for the results."""
    return [row(n) for n in sizes], [empty(n) for n in sizes], cupy.asarray(np.array(sizes, np.int32))


REVERSAL = """
extern "C" __global__ void f(const REAL* __restrict__ x, REAL* __restrict__ y, int n) {
    __shared__ REAL s[256];
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = s[n - 1 - threadIdx.x];
}
"""
TREE = """
extern "C" __global__ void f(const REAL* __restrict__ x, REAL* __restrict__ y, int n) {
    extern __shared__ REAL s[];
    const int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
    s[t] = i < n ? x[i] : REAL(0);
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (t < half) s[t] += s[t + half];
        __syncthreads();
    }
    if (t == 0) y[blockIdx.x] = s[0];
}
"""
DOUBLE = """
extern "C" __global__ void f(const REAL* __restrict__ x, REAL* __restrict__ y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = 2 * x[i];
}
"""
NEIGHBOUR = """
extern "C" __global__ void f(const REAL* __restrict__ x, REAL* __restrict__ y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i] + (i + 1 < n ? x[i + 1] : REAL(0));
}
"""
COPY = """
#include "copies.cuh"
extern "C" __global__ void f(const REAL* __restrict__ x, REAL* __restrict__ y) {
    __shared__ float4 s[32];
    copy_chunk(s + threadIdx.x, x + 4 * threadIdx.x, true);
    end_group();
    wait_for_copies<0>();
    __syncthreads();
    const REAL first = s[31 - threadIdx.x].x;
    __syncthreads();
    copy_chunk(s + threadIdx.x, x, threadIdx.x < 20);
    end_group();
    wait_for_copies<0>();
    __syncthreads();
    y[threadIdx.x] = first + s[31 - threadIdx.x].x;
}
"""
LISTS = """
extern "C" __global__ void f(const REAL* const* __restrict__ x, REAL* const* __restrict__ y, const int* __restrict__ sizes) {
    const REAL* const from = x[blockIdx.x];
    for (int i = threadIdx.x; i < sizes[blockIdx.x]; i += blockDim.x) y[blockIdx.x][i] = from ? 2 * from[i] : REAL(7);
}
"""


@dataclass(frozen=True)
class Fault:
    """A source with a fault, how it is launched, and a pattern for the sentence that is due.

    arguments: grid, block and what the kernel takes.
    """

    name: str
    source: str
    arguments: Callable[[], tuple[Any, ...]]
    told: str
    shared: int = 0

    def sentence(self) -> str:
        """What is told; '' where nothing is."""
        seconds, host_gpu.launch.SECONDS = host_gpu.launch.SECONDS, 1
        try:
            with host_gpu.pretended():
                launch(self.source, *self.arguments(), shared=self.shared)
        except host_gpu.KernelError as problem:
            return str(problem)
        finally:
            host_gpu.launch.SECONDS = seconds
        return ""


def _one(body: str) -> str:
    """A kernel of one thread."""
    return f'extern "C" __global__ void f(int* y) {{ {body} }}'


def _numbers() -> tuple[Any, ...]:
    return 1, 1, cupy.asarray(np.array([9, 0], np.int32))


FIRST, SECOND, THIRD = TREE.split("__syncthreads();")
REUSE = """
extern "C" __global__ void f(const REAL* x, REAL* y, int n) {
    __shared__ REAL s[32];
    REAL sum = 0;
    for (int i = 0; i < n; i += 32) {
        s[threadIdx.x] = x[i + threadIdx.x];
        __syncthreads();
        sum += s[31 - threadIdx.x];
    }
    y[threadIdx.x] = sum;
}
"""
BETWEEN = """
#include "cuda.cuh"
extern "C" __global__ void f(REAL* y, const Steps<1> y_steps) { y[y_steps(threadIdx.x) + (threadIdx.x == 1)] = 1; }
"""
BESIDE = """
#include "cuda.cuh"
extern "C" __global__ void f(const REAL* x, const Steps<1> x_steps, REAL* y) { y[threadIdx.x] = x[threadIdx.x]; }
"""
SOME_LANES = (
    'extern "C" __global__ void f(int* y) { if (threadIdx.x < 20) y[threadIdx.x] = __shfl_sync(0xffffffffu, (int)threadIdx.x, 0); }'
)
NO_LANE = 'extern "C" __global__ void f(int* y) { if (threadIdx.x < 8) y[threadIdx.x] = __shfl_sync(0xffu, (int)threadIdx.x, 9); }'
BARRIER = "__syncthreads();"
HALVES = f"if (threadIdx.x < 128)\n{BARRIER}\nelse\n{BARRIER}"
LEAVES = "if (threadIdx.x >= 200) return; s[threadIdx.x] ="
WAIT = "wait_for_copies<0>();"
COPIED, READ, AGAIN, ADDED = COPY.split(BARRIER)
TOO_EARLY = BARRIER.join([COPIED, READ + AGAIN.replace(WAIT, BARRIER + WAIT), ADDED])
ORDER = "depend on the order of the threads"

FAULTS = [
    Fault("a missing barrier", REVERSAL.replace(BARRIER, ""), lambda: (1, 256, row(256), empty(256), 256), ORDER),
    Fault("the first of a tree's barriers", FIRST + SECOND + BARRIER + THIRD, lambda: (4, 256, row(1000), empty(4), 1000), ORDER, 1024),
    Fault("the barriers within a tree", FIRST + BARRIER + SECOND + THIRD, lambda: (4, 256, row(1000), empty(4), 1000), ORDER, 1024),
    Fault("a barrier too few between two uses of shared memory", REUSE, lambda: (1, 32, row(64), empty(32), 64), ORDER),
    Fault("shared memory read before a copy is waited for", COPY.replace(WAIT, "", 1), lambda: (1, 32, row(128), empty(32)), ORDER),
    Fault("a group of copies too few waited for", COPY.replace("<0>", "<1>"), lambda: (1, 32, row(128), empty(32)), ORDER),
    Fault("a copy begun while others still read what was there", TOO_EARLY, lambda: (1, 32, row(128), empty(32)), ORDER),
    Fault(
        "a barrier that some threads leave out",
        REVERSAL.replace("s[threadIdx.x] =", LEAVES),
        lambda: (1, 256, row(256), empty(256), 200),
        r"at the barrier .*:\d+, which not all threads of the block reach: thread \(200, 0, 0\) has ended",
    ),
    Fault(
        "two barriers for two halves of a block",
        REVERSAL.replace(BARRIER, HALVES),
        lambda: (1, 256, row(256), empty(256), 256),
        r"waits at the barrier .* others of its block at another",
    ),
    Fault(
        "a shuffle that some lanes leave out",
        SOME_LANES,
        lambda: (1, 32, cupy.zeros(32, np.int32)),
        "for lanes of its warp that do not come",
    ),
    Fault(
        "a shuffle from a lane that takes no part",
        NO_LANE,
        lambda: (1, 32, cupy.zeros(32, np.int32)),
        "reads from lane 9, which takes no part",
    ),
    Fault("threads that write the same element", DOUBLE.replace("y[i]", "y[i / 2]"), lambda: (1, 64, row(64), empty(64)[:32], 64), ORDER),
    Fault(
        "a sum by floating-point atomics",
        DOUBLE.replace("y[i] = 2 * x[i]", "atomicAdd(y, x[i])"),
        lambda: (4, 256, row(1000), cupy.zeros(1, np.float32), 1000),
        ORDER,
    ),
    Fault(
        "a write one too far",
        DOUBLE.replace("2 * x[i]", "2").replace("i < n", "i <= n"),
        lambda: (2, 256, row(300), empty(300), 300),
        r"block \(1, 0, 0\), thread \(44, 0, 0\) touches memory outside the argument 'y', 1 elements after",
    ),
    Fault(
        "a read one too far",
        NEIGHBOUR.replace("i + 1 < n", "i < n"),
        lambda: (2, 256, row(300), empty(300), 300),
        r"block \(1, 0, 0\), thread \(43, 0, 0\) touches memory outside the argument 'x', 1 elements after",
    ),
    Fault(
        "a read before the start",
        NEIGHBOUR.replace("x[i + 1]", "x[i - 1]"),
        lambda: (2, 256, row(300), empty(300), 300),
        "outside the argument 'x', 1 elements before the first",
    ),
    Fault(  # then up to three elements lie between the end and the protected page; they differ from run to run
        "a read one too far where the array must be aligned",
        NEIGHBOUR.replace("i + 1 < n", "i < n") + "struct Unused { float4 v; };",
        lambda: (2, 256, row(301), empty(301), 301),
        ORDER + " or on memory that is not theirs",
    ),
    Fault(
        "a write between the elements",
        BETWEEN,
        lambda: (1, 5, cupy.zeros(10, np.float32)[::2]),
        "writes between or beside the elements of 'y'",
    ),
    Fault("a read between the elements", BESIDE, lambda: (1, 5, cupy.zeros(10, np.float32)[::2], empty(5)), "memory that is not theirs"),
    Fault(
        "a write into a constant argument",
        DOUBLE.replace("y[i] = 2 * x[i]", "const_cast<REAL*>(x)[i] = y[i] = 2"),
        lambda: (1, 256, row(256), empty(256), 256),
        "writes into the argument 'x', which is const",
    ),
    Fault(
        "a write past an array of a list",
        LISTS,
        lambda: (3, 32, *lists(5, 300, 1)[:2], cupy.asarray(np.array([5, 301, 1], np.int32))),
        r"block \(1, 0, 0\), thread .* touches memory outside the argument '[xy]\[1\]', 1 elements after",
    ),
    Fault(
        "a block too many for a list",
        LISTS,
        lambda: (4, 32, *lists(5, 300, 1)),
        r"block \(3, 0, 0\), thread .* outside the argument '(x|sizes)', 1 elements after the last",
    ),
    Fault(
        "a write into a constant array of a list",
        LISTS.replace("y[blockIdx.x][i] =", "const_cast<REAL*>(from)[i] = y[blockIdx.x][i] ="),
        lambda: (3, 32, *lists(5, 300, 1)),
        r"writes into the argument 'x\[\d\]', which is const",
    ),
    Fault(
        "an index past shared memory", _one("__shared__ int s[8]; s[y[0]] = 1; y[1] = s[0];"), _numbers, "an index lies outside its array"
    ),
    Fault("an index past a thread's own array", _one("int s[8]; s[y[0]] = 1; y[1] = s[0];"), _numbers, "an index lies outside its array"),
    Fault(
        "an index past the shared memory that was asked for",
        _one("extern __shared__ int s[]; s[y[0] + 8] = 1; y[1] = s[0];"),
        _numbers,
        "memory that belongs to no argument",
        64,
    ),
    Fault("a null pointer", _one("y[1] = *(const int*)8;"), _numbers, "null pointer"),
    Fault("an address that no wide load takes", _one("reinterpret_cast<int2*>(y + 1)->x = 1;"), _numbers, "an address is not a multiple"),
    Fault(
        "a copy from an address that is no multiple of 16",
        COPY.replace("x + 4 *", "x + 1 + 4 *"),
        lambda: (1, 32, row(132), empty(32)),
        r"thread \(0, 0, 0\) copies or loads 16 bytes at once, and an address is not a multiple of 16",
    ),
    Fault("an integer that overflows", _one("y[1] = 2147483647 + y[0];"), _numbers, "integer overflowed"),
    Fault("a division by zero", _one("y[1] = 5 / (y[0] - 9);"), _numbers, "divided by zero"),
    Fault(
        "a loop without end",
        _one("volatile int i = 0; while (y[0] == 9) i = 1 - i;"),
        _numbers,
        "no end after 1 seconds",
    ),
]
