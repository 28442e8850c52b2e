"""The register-blocked micro-kernel, written once for every vector width.

A matrix product is fast when its innermost block of results stays in the processor's registers. For `rows` rows of A and
`vectors` vectors of columns of B, one step over k is

        b0   b1   b2   b3          `vectors` loads of B, each `lanes` numbers wide
    a0  c00  c01  c02  c03
    a1  c10  c11  c12  c13         `rows` numbers of A, each repeated over a whole vector
    …                              rows × vectors fused multiply-adds, no other traffic
    a5  c50  c51  c52  c53

Numba has no vector type, so the block is emitted as LLVM IR through `numba.extending.intrinsic`: the c's are local vector
variables, which LLVM keeps in registers. All strides are free: A may be a transposed matrix, or overlapping rows of an image.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, config
from numba.extending import intrinsic


def _vector_bytes() -> int:
    """Register width of the processor that Numba compiles for: 64 (AVX-512), 32 (AVX) or 16 (SSE2, NEON)."""
    asked: str | None = config.CPU_FEATURES  # type: ignore[attr-defined]  # NUMBA_CPU_FEATURES, or None for the machine's own
    if asked is not None:
        features = {name[1:] for name in asked.split(",") if name.startswith("+")}
    else:
        features = {name for name, present in llvm.get_host_cpu_features().items() if present}
    return 64 if "avx512f" in features else 32 if "avx" in features else 16


VECTOR_BYTES = _vector_bytes()
# (rows, vectors): results in registers with room for a row of B and one of A; 32 registers with AVX-512 and NEON, 16 before
BLOCKS = ((6, 4), (8, 2), (16, 1)) if VECTOR_BYTES == 64 else ((6, 2), (6, 2), (12, 1))


def lanes(itemsize: int) -> int:
    """Numbers in one vector."""
    return VECTOR_BYTES // itemsize


def block_for(columns: int, itemsize: int) -> tuple[int, int, int]:
    """(which block, rows, width) for a matrix of `columns` columns: the widest block that wastes no vector."""
    vectors = -(-columns // lanes(itemsize))
    for index, (rows, wide) in enumerate(BLOCKS):
        if vectors % wide == 0:
            return index, rows, wide * lanes(itemsize)
    raise AssertionError("the last block is one vector wide")


def _make_tile(rows: int, vectors: int) -> Any:
    @intrinsic
    def tile(typingctx, a, a_row, a_step, b, b_step, c, c_row, depth, zero):  # type: ignore[no-untyped-def]
        """c[r, :] += Σ_k a[r·a_row + k·a_step] · b[k·b_step, :] for r < rows, k < depth.

        a, b, c: addresses; strides in elements; `zero`: 0 of the element type, which chooses float32 or float64.
        """
        if not isinstance(zero, types.Float):
            return None
        scalar = ir.FloatType() if zero == types.float32 else ir.DoubleType()
        width = VECTOR_BYTES // (zero.bitwidth // 8)
        vector = ir.VectorType(scalar, width)
        index = ir.IntType(64)

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            a, a_row, a_step, b, b_step, c, c_row, depth, _ = args
            fma = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{width}f{zero.bitwidth}"
            )
            a, b, c = (builder.inttoptr(p, scalar.as_pointer()) for p in (a, b, c))

            def vector_at(base, *offsets):  # type: ignore[no-untyped-def]
                for offset in offsets:
                    base = builder.gep(base, [offset])
                return builder.bitcast(base, vector.as_pointer())

            def element(base, *offsets):  # type: ignore[no-untyped-def]
                for offset in offsets:
                    base = builder.gep(base, [offset])
                return builder.load(base, align=zero.bitwidth // 8)

            def splat(number):  # type: ignore[no-untyped-def]
                first = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
                lanes_of_first = ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width)
                return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), lanes_of_first)

            def load(pointer):  # type: ignore[no-untyped-def]
                return builder.load(pointer, align=zero.bitwidth // 8)

            sums = [[cgutils.alloca_once(builder, vector) for _ in range(vectors)] for _ in range(rows)]
            places = [
                [vector_at(c, builder.mul(c_row, ir.Constant(index, r)), ir.Constant(index, v * width)) for v in range(vectors)]
                for r in range(rows)
            ]
            for r in range(rows):
                for v in range(vectors):
                    builder.store(load(places[r][v]), sums[r][v])
            row_offsets = [builder.mul(a_row, ir.Constant(index, r)) for r in range(rows)]
            with cgutils.for_range(builder, depth) as loop:
                a_k = builder.gep(a, [builder.mul(loop.index, a_step)])
                b_k = builder.gep(b, [builder.mul(loop.index, b_step)])
                columns = [load(vector_at(b_k, ir.Constant(index, v * width))) for v in range(vectors)]
                for r in range(rows):
                    number = splat(element(a_k, row_offsets[r]))
                    for v in range(vectors):
                        builder.store(builder.call(fma, [number, columns[v], builder.load(sums[r][v])]), sums[r][v])
            for r in range(rows):
                for v in range(vectors):
                    builder.store(builder.load(sums[r][v]), places[r][v], align=zero.bitwidth // 8)
            return context.get_dummy_value()

        return types.void(*([types.intp] * 8), zero), codegen

    return tile


tile_0, tile_1, tile_2 = (_make_tile(rows, vectors) for rows, vectors in BLOCKS)


@njit(cache=True)
def tile(block, a, a_row, a_step, b, b_step, c, c_row, depth, zero):  # type: ignore[no-untyped-def]
    """The micro-kernel of `BLOCKS[block]`; its arguments are those of the kernels it chooses from."""
    if block == 0:
        tile_0(a, a_row, a_step, b, b_step, c, c_row, depth, zero)
    elif block == 1:
        tile_1(a, a_row, a_step, b, b_step, c, c_row, depth, zero)
    else:
        tile_2(a, a_row, a_step, b, b_step, c, c_row, depth, zero)
