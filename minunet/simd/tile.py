"""The register-blocked micro-kernel, written once for every vector width.

A matrix product is fast when its innermost block of results stays in the processor's registers. For `rows` rows of A and
`vectors` vectors of columns of B, one step over k is

        b0   b1   b2   b3          `vectors` loads of B, each `lanes` numbers wide
    a0  c00  c01  c02  c03
    a1  c10  c11  c12  c13         `rows` numbers of A, each repeated over a whole vector
    …                              rows × vectors fused multiply-adds, no other traffic
    a5  c50  c51  c52  c53

The c's are local vector variables, which LLVM keeps in registers. There are two ways to say where the matrices lie:

`multiply`      rows at equal distances: A may be a transposed matrix
`multiply_runs` rows anywhere, each made of numbers at the same offsets from its start: the windows of an image

One column or two would leave most of a vector empty. `multiply_runs` then takes vectors along k, whose lanes are added at the end.

Source: Goto & van de Geijn, Anatomy of High-Performance Matrix Multiplication, ACM TOMS 34 (2008), section 6.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from minunet.simd.vectors import CACHE_LINE, VECTOR_BYTES, Emitter, lanes

# (rows, vectors): results in registers with room for a row of B and one of A; 32 registers with AVX-512 and NEON, 16 before. More
# than eight rows of one vector would be slower: each has its address in a register of the other kind, and there are but 16.
BLOCKS = ((6, 4), (8, 2), (8, 1)) if VECTOR_BYTES == 64 else ((6, 2), (6, 2), (8, 1))
REGISTERS = 32 if VECTOR_BYTES == 64 else 16  # that every processor with such vectors has
PLACE = 8  # bytes of an address
DOTS = ((8, 1), (8, 2)) if VECTOR_BYTES == 64 else ((8, 1), (4, 2))  # (rows, columns) where vectors run along k
AHEAD = 4096  # bytes by which it asks beforehand: the next rows would be too near


@cache
def block_for(columns: int, itemsize: int, waste: float = 0, first: int = 0) -> tuple[int, int, int]:
    """(which block, rows, width) for a matrix of `columns` columns: the widest from the `first` on, where `waste` of the vectors may stay
    empty."""
    vectors = -(-columns // lanes(itemsize))
    for index, (rows, wide) in enumerate(BLOCKS):
        if index >= first and -vectors % wide <= waste * vectors:
            return index, rows, wide * lanes(itemsize)
    raise AssertionError("the last block is one vector wide")


class _Sums:
    """The block of results in registers: `rows` × `vectors` vector variables."""

    def __init__(self, builder: Any, emit: Emitter, rows: int, vectors: int) -> None:
        self.builder, self.emit = builder, emit
        self.rows, self.vectors = range(rows), range(vectors)
        self._variables = [[cgutils.alloca_once(builder, emit.vector) for _ in self.vectors] for _ in self.rows]

    def set(self, r: int, v: int, value: Any) -> None:
        self.builder.store(value, self._variables[r][v])

    def get(self, r: int, v: int) -> Any:
        return self.builder.load(self._variables[r][v])

    def fill(self, value: Any) -> None:
        """Every row = value(v) for vector v."""
        for v in self.vectors:
            columns = value(v)
            for r in self.rows:
                self.set(r, v, columns)

    def column(self, pointer: Any, v: int) -> Any:
        """Where vector v of a row lies that begins at `pointer`."""
        return self.emit.at(pointer, self.emit.index(v * self.emit.width))

    def step(self, numbers: list[Any], b: Any) -> None:
        """sums[r, :] += a_r · b[:], for a pointer to each a_r and one to b."""
        emit = self.emit
        columns = [emit.load(self.column(b, v)) for v in self.vectors]
        for r in self.rows:
            number = emit.splat(self.builder.load(numbers[r], align=emit.itemsize))
            for v in self.vectors:
                self.set(r, v, emit.fma(number, columns[v], self.get(r, v)))

    def step_of_three(self, pixels: Any, b: Any, b_step: Any) -> None:
        """sums[r, :] += pixels[r]·b[0, :] + pixels[r + 1]·b[1, :] + pixels[r + 2]·b[2, :]. b_step: from b[k] to b[k + 1]."""
        emit = self.emit
        columns = [[emit.load(self.column(emit.at(b, emit.times(b_step, k)), v)) for v in self.vectors] for k in range(3)]
        for i in range(len(self.rows) + 2):
            number = emit.splat(self.builder.load(emit.at(pixels, emit.index(i)), align=emit.itemsize))
            for k in range(3):
                for v in self.vectors if 0 <= i - k < len(self.rows) else ():
                    self.set(i - k, v, emit.fma(number, columns[k][v], self.get(i - k, v)))


def _make_tile(rows: int, vectors: int) -> Any:
    @intrinsic
    def tile(typingctx, a, a_row, a_step, b, b_step, c, c_row, depth, height, fresh, zero):  # type: ignore[no-untyped-def]
        """c[r, :] += Σ_k a[r·a_row + k·a_step] · b[k·b_step, :] for r < height, k < depth; with `fresh`, c = instead of c +=.

        a, b, c: addresses; strides in elements; height: rounded up to whole blocks; `zero`: 0 of the element type, float32 or float64.
        """
        if not isinstance(zero, types.Float):
            return None

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            a, a_row, a_step, b, b_step, c, c_row, depth, height, fresh, _ = args
            emit = Emitter(builder, zero)
            a, b, c = emit.pointer(a), emit.pointer(b), emit.pointer(c)
            sums = _Sums(builder, emit, rows, vectors)
            row_offsets = [emit.times(a_row, r) for r in sums.rows]
            with cgutils.for_range_slice(builder, emit.index(0), height, emit.index(rows)) as (first, _):
                a_block, c_block = emit.at(a, builder.mul(first, a_row)), emit.at(c, builder.mul(first, c_row))

                def places():  # type: ignore[no-untyped-def]
                    """Row, vector, where its results lie. Reckoned when needed: meanwhile the registers are for the sums."""
                    for r in sums.rows:
                        for v in sums.vectors:
                            yield r, v, sums.column(emit.at(c_block, emit.times(c_row, r)), v)

                with builder.if_else(builder.icmp_signed("!=", fresh, emit.index(0))) as (start, go_on):
                    with start:
                        sums.fill(lambda v: emit.constant(0.0))
                    with go_on:
                        for r, v, place in places():
                            sums.set(r, v, emit.load(place))
                with cgutils.for_range(builder, depth) as loop:
                    a_k = emit.at(a_block, builder.mul(loop.index, a_step))
                    sums.step([emit.at(a_k, offset) for offset in row_offsets], emit.at(b, builder.mul(loop.index, b_step)))
                for r, v, place in places():
                    emit.store(sums.get(r, v), place)
            return context.get_dummy_value()

        return types.void(*([types.intp] * 10), zero), codegen

    return tile


def _make_tile_of_runs(rows: int, vectors: int) -> Any:
    @intrinsic
    def tile(  # type: ignore[no-untyped-def]
        typingctx, a_rows, runs, count, asked, threes, b, c_rows, height, columns, whole, bias, first, relu, zero
    ):
        """c_r[:] = bias[:] + Σ_i a_r[offset_i] · b[i, :] for r < height, rounded up to whole blocks.

        a_rows, c_rows: the address of an address for each row. runs: the address of `count` pairs (offset, 1) of int64. b: contiguous rows.
        columns: the address of a pair for each vector of the block: where its results lie, seen from c_r, and how many are written.
        threes: 0, or the number of channels of an image in planes: the numbers come as (line, 3 taps, channel), and where the rows of a
        block lie one pixel apart, as the taps do, a pixel is loaded once for the three windows that it belongs to.
        asked: so many numbers of the next block's rows are asked for beforehand, a line at a time.
        whole = 1: all are; 2: and they go past the caches. first = 0: the sum is added to c_r instead of the bias. relu = 1: what is
        written is at least 0.
        """
        if not isinstance(zero, types.Float):
            return None

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            a_rows, runs, count, asked, threes, b, c_rows, height, columns, whole, bias, first, relu, _ = args
            emit = Emitter(builder, zero)
            b, bias = emit.pointer(b), emit.pointer(bias)
            sums = _Sums(builder, emit, rows, vectors)
            complete, past = (builder.icmp_signed(">", whole, emit.index(n)) for n in (0, 1))
            with cgutils.for_range_slice(builder, emit.index(0), height, emit.index(rows)) as (block, _):
                a_places, c_places = (builder.add(table, emit.times(block, PLACE)) for table in (a_rows, c_rows))

                def places():  # type: ignore[no-untyped-def]
                    """Row, vector, where its results lie, how many they are. Read when needed: meanwhile the registers are for the sums."""
                    shifts = [emit.load_index(columns, 2 * v) for v in sums.vectors]
                    kept = [emit.load_index(columns, 2 * v + 1) for v in sums.vectors]
                    for r in sums.rows:
                        c_at = emit.pointer(emit.load_index(c_places, r))
                        for v in sums.vectors:
                            yield r, v, emit.at(c_at, shifts[v]), kept[v]

                with builder.if_else(builder.icmp_signed("!=", first, emit.index(0))) as (start, go_on):
                    with start:
                        sums.fill(lambda v: emit.load(sums.column(bias, v)))
                    with go_on, builder.if_else(complete) as (all_columns, some_columns):
                        with all_columns:
                            for r, v, place, _ in places():
                                sums.set(r, v, emit.load(place))
                        with some_columns:
                            for r, v, place, kept in places():
                                sums.set(r, v, emit.load_some(place, kept))
                line = CACHE_LINE // emit.itemsize
                with cgutils.for_range_slice(builder, emit.index(line - 1), asked, emit.index(line)) as (last, _):
                    offset = emit.load_index(runs, emit.times(last, 2))
                    for r in sums.rows:
                        a_next = emit.pointer(emit.load_index(a_places, rows + r))
                        emit.prefetch(emit.at(a_next, offset), write=False)

                def one_by_one():  # type: ignore[no-untyped-def]
                    a_at = [emit.pointer(emit.load_index(a_places, r)) for r in sums.rows]
                    with cgutils.for_range(builder, count) as each:
                        offset = emit.load_index(runs, emit.times(each.index, 2))
                        sums.step([emit.at(pointer, offset) for pointer in a_at], emit.at(b, emit.times(each.index, row)))

                def by_threes():  # type: ignore[no-untyped-def]
                    begin = emit.pointer(emit.load_index(a_places, 0))
                    lines = cgutils.for_range_slice(builder, emit.index(0), count, emit.times(threes, 3))
                    with lines as (line, _), cgutils.for_range(builder, threes) as channel:
                        number = builder.add(line, channel.index)
                        pixels = emit.at(begin, emit.load_index(runs, emit.times(number, 2)))
                        sums.step_of_three(pixels, emit.at(b, emit.times(number, row)), emit.times(threes, row))

                row = vectors * emit.width
                if (rows + 3) * vectors >= REGISTERS:  # no room for three rows of B beside the sums
                    one_by_one()
                else:
                    beside = emit.rises(a_places, rows, emit.itemsize)
                    together = builder.and_(builder.icmp_signed(">", threes, emit.index(0)), beside)
                    with builder.if_else(together) as (line, no_line):
                        with line:
                            by_threes()
                        with no_line:
                            one_by_one()
                with builder.if_then(builder.icmp_signed("!=", relu, emit.index(0))):
                    for r in sums.rows:
                        for v in sums.vectors:
                            sums.set(r, v, emit.at_least(sums.get(r, v), emit.constant(0.0)))
                with builder.if_else(complete) as (all_columns, some_columns):
                    with all_columns, builder.if_else(past) as (past_caches, into_caches):
                        with past_caches:
                            for r, v, place, _ in places():
                                emit.stream(sums.get(r, v), place)
                        with into_caches:
                            for r, v, place, _ in places():
                                emit.store(sums.get(r, v), place)
                    with some_columns:
                        for r, v, place, kept in places():
                            emit.store_some(sums.get(r, v), place, kept)
            return context.get_dummy_value()

        return types.void(*([types.intp] * 13), zero), codegen

    return tile


def _make_dots_of_runs(rows: int, columns: int) -> Any:
    @intrinsic
    def dots(typingctx, a_rows, runs, count, asked, b, c_rows, height, places, whole, bias, first, relu, zero):  # type: ignore[no-untyped-def]
        """As `tile` of runs for few columns: each is contiguous, and sums go along it and the runs (offset, length), a vector at a time.

        places: the address of a pair for each column: where its results lie, seen from c_r, and where it lies itself, seen from b.
        whole = 1: the results of one row lie behind those of the row before.
        asked: so many numbers are asked for beforehand that lie AHEAD bytes behind those of the first run.
        """
        if not isinstance(zero, types.Float):
            return None

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            a_rows, runs, count, asked, b, c_rows, height, places, whole, bias, first, relu, _ = args
            emit = Emitter(builder, zero)
            sums = _Sums(builder, emit, rows, columns)
            shifts = [emit.load_index(places, 2 * v) for v in sums.vectors]
            b_at = [emit.at(emit.pointer(b), emit.load_index(places, 2 * v + 1)) for v in sums.vectors]
            results = [(r, v) for r in sums.rows for v in sums.vectors]
            with cgutils.for_range_slice(builder, emit.index(0), height, emit.index(rows)) as (block, _):
                a_places, c_places = (builder.add(table, emit.times(block, PLACE)) for table in (a_rows, c_rows))

                def place(r, v):  # type: ignore[no-untyped-def]
                    return emit.at(emit.pointer(emit.load_index(c_places, r)), shifts[v])

                a_at = [emit.pointer(emit.load_index(a_places, r)) for r in sums.rows]
                with builder.if_else(builder.icmp_signed("!=", first, emit.index(0))) as (start, go_on):
                    with start:
                        sums.fill(lambda v: emit.alone(builder.load(emit.at(emit.pointer(bias), emit.index(v)))))
                    with go_on:
                        for r, v in results:
                            sums.set(r, v, emit.alone(builder.load(place(r, v), align=emit.itemsize)))
                line = CACHE_LINE // emit.itemsize
                with cgutils.for_range_slice(builder, emit.index(0), asked, emit.index(line)) as (k, _):
                    further = builder.add(emit.load_index(runs, 0), builder.add(k, emit.index(AHEAD // emit.itemsize)))
                    for pointer in a_at:
                        emit.prefetch(emit.at(pointer, further), write=False)
                done = cgutils.alloca_once(builder, ir.IntType(64))  # numbers of a column
                builder.store(emit.index(0), done)
                with cgutils.for_range(builder, count) as each:
                    pair = emit.times(each.index, 2)
                    offset, length = emit.load_index(runs, pair), emit.load_index(runs, builder.add(pair, emit.index(1)))
                    before = builder.load(done)
                    whole_vectors = builder.mul(builder.sdiv(length, emit.index(emit.width)), emit.index(emit.width))

                    def add(k, load):  # type: ignore[no-untyped-def]
                        numbers = [load(emit.at(column, before, k)) for column in b_at]
                        for r in sums.rows:
                            of_row = load(emit.at(a_at[r], offset, k))
                            for v in sums.vectors:
                                sums.set(r, v, emit.fma(of_row, numbers[v], sums.get(r, v)))

                    with cgutils.for_range_slice(builder, emit.index(0), whole_vectors, emit.index(emit.width)) as (k, _):
                        add(k, emit.load)
                    left = builder.sub(length, whole_vectors)
                    with builder.if_then(builder.icmp_signed(">", left, emit.index(0))):
                        add(whole_vectors, lambda pointer: emit.load_some(pointer, left))
                    builder.store(builder.add(before, length), done)
                together = min(len(results), emit.width)
                no_row_twice = builder.icmp_signed("<=", builder.add(block, emit.index(rows)), height)
                behind = builder.and_(no_row_twice, builder.icmp_signed("!=", whole, emit.index(0)))
                for begin in range(0, len(results), together):
                    some = results[begin : begin + together]
                    totals = cgutils.alloca_once(builder, emit.vector)
                    builder.store(emit.totals([sums.get(r, v) for r, v in some]), totals)
                    with builder.if_then(builder.icmp_signed("!=", relu, emit.index(0))):
                        builder.store(emit.at_least(builder.load(totals), emit.constant(0.0)), totals)
                    with builder.if_else(behind) as (in_one, each_alone):
                        with in_one:
                            emit.store_some(builder.load(totals), place(*some[0]), emit.index(together))
                        with each_alone:
                            for lane, (r, v) in enumerate(some):
                                number = builder.extract_element(builder.load(totals), ir.Constant(ir.IntType(32), lane))
                                builder.store(number, place(r, v), align=emit.itemsize)
            return context.get_dummy_value()

        return types.void(*([types.intp] * 12), zero), codegen

    return dots


tile_0, tile_1, tile_2 = (_make_tile(rows, vectors) for rows, vectors in BLOCKS)
runs_0, runs_1, runs_2 = (_make_tile_of_runs(rows, vectors) for rows, vectors in BLOCKS)
dots_0, dots_1 = (_make_dots_of_runs(rows, columns) for rows, columns in DOTS)


@njit(cache=True)
def multiply(block, a, a_row, a_step, b, b_step, c, c_row, depth, height, fresh, zero):  # type: ignore[no-untyped-def]
    """`height` rows of a product by the micro-kernel of `BLOCKS[block]`; the arguments are those of the kernels it chooses from."""
    if block == 0:
        tile_0(a, a_row, a_step, b, b_step, c, c_row, depth, height, fresh, zero)
    elif block == 1:
        tile_1(a, a_row, a_step, b, b_step, c, c_row, depth, height, fresh, zero)
    else:
        tile_2(a, a_row, a_step, b, b_step, c, c_row, depth, height, fresh, zero)


@njit(cache=True)
def multiply_runs(  # type: ignore[no-untyped-def]
    block, a_rows, runs, count, asked, threes, b, c_rows, height, columns, whole, bias, first, relu, zero
):
    """The same for rows made of runs; from len(BLOCKS) on, `block` is one of DOTS."""
    if block == 0:
        runs_0(a_rows, runs, count, asked, threes, b, c_rows, height, columns, whole, bias, first, relu, zero)
    elif block == 1:
        runs_1(a_rows, runs, count, asked, threes, b, c_rows, height, columns, whole, bias, first, relu, zero)
    elif block == 2:
        runs_2(a_rows, runs, count, asked, threes, b, c_rows, height, columns, whole, bias, first, relu, zero)
    elif block == 3:
        dots_0(a_rows, runs, count, asked, b, c_rows, height, columns, whole, bias, first, relu, zero)
    else:
        dots_1(a_rows, runs, count, asked, b, c_rows, height, columns, whole, bias, first, relu, zero)
