"""Small transforms Y = M X Mᵀ on a square of pixels, for as many channels at once as a vector has lanes.

X is q × q pixels, M a p × q matrix of constants, Y is p × p. M is applied to every column of X, then to every row of the result.
The instructions are generated from the matrix: zeros vanish, ±1 are additions, and rows or columns that come in pairs
of opposite sign (the points +a and −a of an interpolation do) share their work:

    y₊ = e + a·o,  y₋ = e − a·o     e: what a pair of rows has in common, a·o: in which it differs by the sign
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from minunet.simd.vectors import Emitter


def make_transform(
    matrices: dict[int, Any], *, gated: bool = False, total: bool = False, bias: bool = False, relu: bool = False, stream: bool = False
) -> Any:
    """An intrinsic on addresses, with strides in elements; `zero` is 0 of the element type:

        transform(case, x, x_row, x_column, y, y_row, y_column, gate, gate_row, gate_column, vector, zero)

    matrices: M for each number that `case` may be. gated: x counts only where a second image, `gate`, is positive.
    total: the sum of all x is added to `vector`. bias: `vector` is added to every y. relu: y = max(y, 0). stream: y goes past the caches.
    Arguments that an intrinsic has no use for may be 0.
    """

    def apply(emit: Emitter, M: Any, args: Any) -> None:
        p, q = M.shape
        x, x_row, x_column, y, y_row, y_column, gate, gate_row, gate_column, vector, _ = args
        store = emit.stream if stream else emit.store
        x, y, gate, vector = (emit.pointer(address) for address in (x, y, gate, vector))
        columns = []
        for j in range(q):
            columns.append([emit.load(emit.at(x, emit.times(x_row, i), emit.times(x_column, j))) for i in range(q)])
            if gated:
                openings = [emit.load(emit.at(gate, emit.times(gate_row, i), emit.times(gate_column, j))) for i in range(q)]
                columns[j] = [emit.where_positive(opening, x) for opening, x in zip(openings, columns[j], strict=True)]
        if total:
            emit.store(reduce(emit.add, (x for column in columns for x in column), emit.load(vector)), vector)
        shift = emit.load(vector) if bias else None
        columns = [_product(emit, M, column) for column in columns]
        for i in range(p):
            for j, value in enumerate(_product(emit, M, [column[i] for column in columns])):
                if bias:
                    value = emit.add(value, shift)
                if relu:
                    value = emit.at_least(value, emit.constant(0.0))
                store(value, emit.at(y, emit.times(y_row, i), emit.times(y_column, j)))

    @intrinsic
    def transform(typingctx, case, x, x_row, x_column, y, y_row, y_column, gate, gate_row, gate_column, vector, zero):  # type: ignore[no-untyped-def]
        if not isinstance(zero, types.Float):
            return None

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            emit = Emitter(builder, zero)
            emit.align_stack()
            done = builder.append_basic_block()
            choice = builder.switch(args[0], done)
            for number, matrix in matrices.items():
                block = builder.append_basic_block()
                choice.add_case(args[0].type(number), block)
                with builder.goto_block(block):
                    apply(emit, np.asarray(matrix, dtype=np.float64), args[1:])
                    builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return types.void(*([types.intp] * 11), zero), codegen

    return transform


@intrinsic
def transpose(typingctx, x, x_row, y, y_row, zero):  # type: ignore[no-untyped-def]
    """y[j, i] = x[i, j] for a square of as many rows as a vector has lanes; addresses and strides in elements.

    Step by step, 1, 2, 4 … rows apart, pairs of rows exchange their off-diagonal blocks.
    """
    if not isinstance(zero, types.Float):
        return None

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = Emitter(builder, zero)
        emit.align_stack()
        x, y = emit.pointer(args[0]), emit.pointer(args[2])
        n = emit.width
        rows = [emit.load(emit.at(x, emit.times(args[1], i))) for i in range(n)]
        step = 1
        while step < n:
            for i in range(n):
                if not i & step:
                    upper, lower = rows[i], rows[i + step]
                    rows[i] = emit.shuffle(upper, lower, [j if not j & step else j - step + n for j in range(n)])
                    rows[i + step] = emit.shuffle(upper, lower, [j + step if not j & step else j + n for j in range(n)])
            step *= 2
        for j, row in enumerate(rows):
            emit.store(row, emit.at(y, emit.times(args[3], j)))
        return context.get_dummy_value()

    return types.void(*([types.intp] * 4), zero), codegen


def _product(emit: Emitter, M: Any, xs: list[Any]) -> list[Any]:
    """M @ xs, a list of vectors."""
    if len(M) < M.shape[1]:
        M, xs = _join_columns(emit, M, xs)
    ys: list[Any] = [None] * len(M)
    for i, row in enumerate(M):
        if ys[i] is not None:
            continue
        for k in range(i + 1, len(M)):
            even, odd = (row + M[k]) / 2, (row - M[k]) / 2
            if even.any() and odd.any() and not (even * odd).any():
                lead = odd[np.flatnonzero(odd)[-1]]
                e, o = _combination(emit, even, xs), _combination(emit, odd / lead, xs)
                ys[i], ys[k] = emit.fma(emit.constant(lead), o, e), emit.fma(emit.constant(-lead), o, e)
                break
        else:
            ys[i] = _combination(emit, row, xs)
    return ys


def _join_columns(emit: Emitter, M: Any, xs: list[Any]) -> tuple[Any, list[Any]]:
    """Columns j and k that differ only in signs act on x_j + x_k and x_j − x_k."""
    columns, joined, used = [], [], set()
    for j in range(M.shape[1]):
        if j in used:
            continue
        partner = next((k for k in range(j + 1, M.shape[1]) if k not in used and (M[:, j] ** 2 == M[:, k] ** 2).all()), None)
        if partner is None:
            columns.append(M[:, j])
            joined.append(xs[j])
            continue
        used.add(partner)
        same = M[:, j] == M[:, partner]
        columns += [np.where(same, M[:, j], 0), np.where(same, 0, M[:, j])]
        joined += [emit.add(xs[j], xs[partner]), emit.builder.fsub(xs[j], xs[partner])]
    return np.stack(columns, axis=1), joined


def _combination(emit: Emitter, coefficients: Any, xs: list[Any]) -> Any:
    """Σ coefficient · x, starting from a term that needs no multiplication if there is one."""
    terms = sorted(((float(c), x) for c, x in zip(coefficients, xs, strict=True) if c), key=lambda term: term[0] != 1)
    if not terms:
        return emit.constant(0.0)
    first, x = terms[0]
    total = x if first == 1 else emit.builder.fmul(emit.constant(first), x)
    for c, x in terms[1:]:
        if c == 1:
            total = emit.add(total, x)
        elif c == -1:
            total = emit.builder.fsub(total, x)
        else:
            total = emit.fma(emit.constant(c), x, total)
    return total
