"""What the machine can do at most: fused multiply-adds from registers, and copying through memory."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from minunet.simd import VECTOR_BYTES, all_tasks, lanes, share

CHAINS = 12  # independent sums: enough to fill two units of four or five cycles each, few enough for 16 registers
_STEPS = 1 << 20


def peaks(threads: int, quick: bool) -> dict[str, float]:
    """gflops: float32, a multiply-add counted as two. gbytes: a second, read and written, of arrays far larger than the caches.

    The best of several runs: a limit is what is reached once.
    """
    steps, numbers, repeats = (_STEPS // 64, 1 << 20, 3) if quick else (_STEPS, 1 << 25, 15)
    out = np.zeros(threads, np.float32)
    source, target = np.ones(numbers, np.float32), np.zeros(numbers, np.float32)
    arithmetic = _best(lambda: _multiply_adds(all_tasks(), steps, out, np.float32(0.5)), repeats)
    copying = _best(lambda: _copy(all_tasks(), source, target), repeats)
    return {
        "gflops": 2 * CHAINS * lanes(4) * steps * threads / arithmetic / 1e9,
        "gbytes": 2 * source.nbytes / copying / 1e9,
    }


def _best(run: Any, repeats: int) -> float:
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


@intrinsic
def _chains(typingctx, steps, factor):  # type: ignore[no-untyped-def]
    """CHAINS vectors, each x ← factor·x + factor `steps` times, nothing but registers; one number of their sum, so that all is used."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        steps, factor = args
        width = VECTOR_BYTES // 4
        vector = ir.VectorType(ir.FloatType(), width)
        fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{width}f32")
        undefined, first = ir.Constant(vector, ir.Undefined), ir.Constant(ir.IntType(32), 0)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width)
        factors = builder.shuffle_vector(builder.insert_element(undefined, factor, first), undefined, everywhere)
        sums = [cgutils.alloca_once_value(builder, ir.Constant(vector, [float(i)] * width)) for i in range(CHAINS)]
        with cgutils.for_range(builder, steps):
            for place in sums:
                builder.store(builder.call(fma, [builder.load(place), factors, factors]), place)
        total = builder.load(sums[0])
        for place in sums[1:]:
            total = builder.fadd(total, builder.load(place))
        return builder.extract_element(total, first)

    return types.float32(types.int64, types.float32), codegen


@njit(nogil=True, cache=True)
def _multiply_adds(mine, steps, out, factor):  # type: ignore[no-untyped-def]
    for i in share(mine, len(out)):
        out[i] = _chains(steps, factor)


@njit(nogil=True, cache=True)
def _copy(mine, source, target):  # type: ignore[no-untyped-def]
    for i in share(mine, len(source)):
        target[np.uintp(i)] = source[np.uintp(i)]  # an index that cannot be negative: one loop of vectors
