"""Long walks over memory: one formula for every number, whose constants stay in the processor's registers on the way down the rows.

column      c        c+1      …    `VECTORS` vectors, next to one another

constants   k[0, c]  k[0, c+1]     loaded once
row 0       x[0, c]  x[0, c+1]     formula(x, k) → a result, stored; or several, each added to its total in a register
row 1       x[1, c]  x[1, c+1]
…                                  after a few rows the next columns, at last the next rows
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minunet.simd.vectors import Emitter

STORED_ROWS = 4  # so few that memory is walked nearly from end to end
ADDED_ROWS = 16  # that a total in the arrays' own dtype adds up, before it goes to a float64
VECTORS = 4  # side by side: enough sums under way that none waits for the one before
PADDING = 16  # totals lie in lines of a multiple of these, the most lanes that a vector has

Formula = Callable[[Emitter, list[Any], list[Any], Any], list[Any]]


def make_rows(formula: Formula, *, inputs: int, constants: int, totals: int = 0) -> Any:
    """An intrinsic that applies formula(emit, x, k, floor), on vectors, to `count` rows of `width` numbers of each input:

        walk(sources, steps, target, target_step, count, width, table, spacing, floor)

    sources, steps: the address of each input's first row, and its distance to the next one. table: the address of the first constant's
    row, `spacing` from the next one's. The one result is stored in rows from `target` on, `target_step` apart. With `totals`, the sums
    of that many results over each column are added to float64 rows at `target`, `target_step` apart. Distances count elements.
    """

    @intrinsic
    def walk(typingctx, sources, steps, target, target_step, count, width, table, spacing, floor):  # type: ignore[no-untyped-def]
        if not isinstance(floor, types.Float):
            return None

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            sources, steps, target, target_step, count, width, table, spacing, floor = args
            emit = Emitter(builder, signature.args[-1])
            emit.align_stack()
            starts = [emit.pointer(address) for address in cgutils.unpack_tuple(builder, sources, inputs)]
            distances = cgutils.unpack_tuple(builder, steps, inputs)
            lines = [emit.at(emit.pointer(table), emit.times(spacing, k)) for k in range(constants)]
            lowest = emit.splat(floor)
            sums = _Totals(emit, totals, target, target_step) if totals else None

            def columns(c: Any, vectors: int, some: Any, first: Any, rows: Any) -> None:
                """Rows `first` … `first + rows − 1`, `vectors` vectors from column c on; some: lanes of the last, None for all."""

                def load(line: Any, v: int) -> Any:
                    place = emit.at(line, c, emit.index(v * emit.width))
                    return emit.load(place) if some is None else emit.load_some(place, some)

                k = [[load(line, v) for line in lines] for v in range(vectors)]
                if sums:
                    sums.begin()
                with cgutils.for_range(builder, rows, intp=ir.IntType(64)) as loop:
                    r = builder.add(first, loop.index)
                    places = [emit.at(start, builder.mul(r, step)) for start, step in zip(starts, distances, strict=True)]
                    for v in range(vectors):
                        results = formula(emit, [load(place, v) for place in places], k[v], lowest)
                        if sums:
                            sums.add(v, results)
                            continue
                        place = emit.at(emit.pointer(target), builder.mul(r, target_step), c, emit.index(v * emit.width))
                        if some is None:
                            emit.store(results[0], place)
                        else:
                            emit.store_some(results[0], place, some)
                if sums:
                    sums.end(c, vectors)

            each = emit.index(ADDED_ROWS if totals else STORED_ROWS)
            wide = emit.index(VECTORS * emit.width)
            all_wide = builder.mul(builder.sdiv(width, wide), wide)
            all_whole = builder.and_(width, emit.index(-emit.width))
            with cgutils.for_range_slice(builder, emit.index(0), count, each, ir.IntType(64)) as (first, _):
                left = builder.sub(count, first)
                rows = builder.select(builder.icmp_signed("<", left, each), left, each)
                with cgutils.for_range_slice(builder, emit.index(0), all_wide, wide, ir.IntType(64)) as (c, _):
                    columns(c, VECTORS, None, first, rows)
                with cgutils.for_range_slice(builder, all_wide, all_whole, emit.index(emit.width), ir.IntType(64)) as (c, _):
                    columns(c, 1, None, first, rows)
                with builder.if_then(builder.icmp_signed("<", all_whole, width), likely=False):
                    columns(all_whole, 1, builder.sub(width, all_whole), first, rows)
            return context.get_dummy_value()

        pointers = types.UniTuple(types.intp, inputs)
        return types.void(pointers, pointers, *([types.intp] * 6), floor), codegen

    return walk


class _Totals:
    """Sums of the rows on the way, in registers, and the float64 rows in memory that they are added to."""

    def __init__(self, emit: Emitter, count: int, target: Any, spacing: Any) -> None:
        self.emit, self.spacing = emit, spacing
        self.double = ir.VectorType(ir.DoubleType(), emit.width)
        self.target = emit.builder.inttoptr(target, ir.DoubleType().as_pointer())
        self.variables = [[cgutils.alloca_once(emit.builder, emit.vector) for _ in range(count)] for _ in range(VECTORS)]

    def begin(self) -> None:
        for variable in itertools.chain(*self.variables):
            self.emit.builder.store(self.emit.constant(0.0), variable)

    def add(self, v: int, results: list[Any]) -> None:
        for variable, result in zip(self.variables[v], results, strict=True):
            self.emit.builder.store(self.emit.add(self.emit.builder.load(variable), result), variable)

    def end(self, c: Any, vectors: int) -> None:
        emit, builder = self.emit, self.emit.builder
        for v in range(vectors):
            for i, variable in enumerate(self.variables[v]):
                place = emit.at(self.target, emit.times(self.spacing, i), c, emit.index(v * emit.width))
                place = builder.bitcast(place, self.double.as_pointer())
                total = builder.load(variable)
                total = total if emit.itemsize == 8 else builder.fpext(total, self.double)
                builder.store(builder.fadd(builder.load(place, align=8), total), place, align=8)
