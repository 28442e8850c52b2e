"""The register-blocked micro-kernel, written once for every vector width.

A matrix product is fast when its innermost block of results stays in the processor's registers. For `rows` rows of A and
`vectors` vectors of columns of B, one step over k is

        b0   b1   b2   b3          `vectors` loads of B, each `lanes` numbers wide
    a0  c00  c01  c02  c03
    a1  c10  c11  c12  c13         `rows` numbers of A, each repeated over a whole vector
    …                              rows × vectors fused multiply-adds, no other traffic
    a5  c50  c51  c52  c53

The c's are local vector variables, which LLVM keeps in registers. All strides are free: A may be a transposed matrix, or
overlapping rows of an image.

Source: Goto & van de Geijn, Anatomy of High-Performance Matrix Multiplication, ACM TOMS 34 (2008), section 6.
"""

from __future__ import annotations

from typing import Any

from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from minunet.simd.vectors import VECTOR_BYTES, Emitter, lanes

# (rows, vectors): results in registers with room for a row of B and one of A; 32 registers with AVX-512 and NEON, 16 before
BLOCKS = ((6, 4), (8, 2), (16, 1)) if VECTOR_BYTES == 64 else ((6, 2), (6, 2), (12, 1))


def block_for(columns: int, itemsize: int) -> tuple[int, int, int]:
    """(which block, rows, width) for a matrix of `columns` columns: the widest block that wastes no vector."""
    vectors = -(-columns // lanes(itemsize))
    for index, (rows, wide) in enumerate(BLOCKS):
        if vectors % wide == 0:
            return index, rows, wide * lanes(itemsize)
    raise AssertionError("the last block is one vector wide")


def _make_tile(rows: int, vectors: int) -> Any:
    @intrinsic
    def tile(typingctx, a, a_row, a_step, b, b_step, c, c_row, depth, fresh, zero):  # type: ignore[no-untyped-def]
        """c[r, :] += Σ_k a[r·a_row + k·a_step] · b[k·b_step, :] for r < rows, k < depth; with `fresh`, c = instead of c +=.

        a, b, c: addresses; strides in elements; `zero`: 0 of the element type, which chooses float32 or float64.
        """
        if not isinstance(zero, types.Float):
            return None

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            a, a_row, a_step, b, b_step, c, c_row, depth, fresh, _ = args
            emit = Emitter(builder, zero)
            a, b, c = emit.pointer(a), emit.pointer(b), emit.pointer(c)
            places = [[emit.at(c, emit.times(c_row, r), emit.index(v * emit.width)) for v in range(vectors)] for r in range(rows)]
            sums = [[cgutils.alloca_once(builder, emit.vector) for _ in range(vectors)] for _ in range(rows)]
            block = [(r, v) for r in range(rows) for v in range(vectors)]
            with builder.if_else(builder.icmp_signed("!=", fresh, emit.index(0))) as (start, go_on):
                with start:
                    for r, v in block:
                        builder.store(emit.constant(0.0), sums[r][v])
                with go_on:
                    for r, v in block:
                        builder.store(emit.load(places[r][v]), sums[r][v])
            row_offsets = [emit.times(a_row, r) for r in range(rows)]
            with cgutils.for_range(builder, depth) as loop:
                a_k = emit.at(a, builder.mul(loop.index, a_step))
                b_k = emit.at(b, builder.mul(loop.index, b_step))
                columns = [emit.load(emit.at(b_k, emit.index(v * emit.width))) for v in range(vectors)]
                for r in range(rows):
                    number = emit.splat(builder.load(emit.at(a_k, row_offsets[r]), align=emit.itemsize))
                    for v in range(vectors):
                        builder.store(emit.fma(number, columns[v], builder.load(sums[r][v])), sums[r][v])
            for r, v in block:
                emit.store(builder.load(sums[r][v]), places[r][v])
            return context.get_dummy_value()

        return types.void(*([types.intp] * 9), zero), codegen

    return tile


tile_0, tile_1, tile_2 = (_make_tile(rows, vectors) for rows, vectors in BLOCKS)


@njit(cache=True)
def tile(block, a, a_row, a_step, b, b_step, c, c_row, depth, fresh, zero):  # type: ignore[no-untyped-def]
    """The micro-kernel of `BLOCKS[block]`; its arguments are those of the kernels it chooses from."""
    if block == 0:
        tile_0(a, a_row, a_step, b, b_step, c, c_row, depth, fresh, zero)
    elif block == 1:
        tile_1(a, a_row, a_step, b, b_step, c, c_row, depth, fresh, zero)
    else:
        tile_2(a, a_row, a_step, b, b_step, c, c_row, depth, fresh, zero)
