"""One parallel pass over the memory of all parameters.

A UNet's parameters have from 16 numbers to 18 million. Laid end to end they are one row, which is cut into pieces of PIECE; a
piece may lie in several parameters, and a parameter in many pieces. Weights, gradients and state are read once and written once.
Within a parameter the order is that of memory, whatever the order of the axes: the optimiser has brought all arrays into the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit, types
from numba.extending import intrinsic
from numba.np.unsafe.ndarray import to_fixed_tuple

from minunet.optim import rules
from minunet.simd import address, all_tasks, share

PIECE = 1 << 14

_sgd_rule = njit(error_model="numpy")(rules.sgd)  # numpy: a division by zero is no exception
_adam_rule = njit(error_model="numpy")(rules.adam)
_SGD, _ADAM = 0, 1


def sgd(weights: list[Any], grads: list[Any], slots: list[list[Any]], options: Any) -> None:
    _launch(_SGD, weights, grads, [*slots, [None] * len(weights), [None] * len(weights)], options)


def adam(weights: list[Any], grads: list[Any], slots: list[list[Any]], options: Any) -> None:
    _launch(_ADAM, weights, grads, slots, options)


def _launch(rule: int, weights: list[Any], grads: list[Any], slots: list[list[Any]], options: Any) -> None:
    table = [
        (w.size, *[0 if a is None else address(a) for a in (w, g, *state)]) for w, g, *state in zip(weights, grads, *slots, strict=True)
    ]
    dtype = weights[0].dtype
    _update(all_tasks(), rule, sum(row[0] for row in table), np.array(table), options, dtype.type(0))


@intrinsic
def _pointer(typingctx, address, zero):  # type: ignore[no-untyped-def]
    """An address as a pointer to numbers of the type of `zero`."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(zero)(address, zero), codegen


@njit
def _numbers(address, count, zero):  # type: ignore[no-untyped-def]
    return carray(_pointer(address, zero), count)


@njit(nogil=True, cache=True)
def _update(mine, rule, numbers, table, options, zero):  # type: ignore[no-untyped-def]
    """table: of each parameter its size and the addresses of w, g and the state, 0 where a part of the state is not in use."""
    for piece in share(mine, (numbers + PIECE - 1) // PIECE):
        begin = piece * PIECE  # counted from the parameter's first number
        for t in range(len(table)):
            first, last = max(begin, 0), min(begin + PIECE, table[t, 0])
            begin -= table[t, 0]
            if first >= last:
                continue
            count, skip = last - first, options.itemsize * first
            w = _numbers(table[t, 1] + skip, count, zero)
            g = _numbers(table[t, 2] + skip, count, zero)
            a = _numbers(table[t, 3] + skip, count, zero)
            b = _numbers(table[t, 4] + skip, count, zero)
            c = _numbers(table[t, 5] + skip, count, zero)
            if rule == _SGD:
                for_sgd = to_fixed_tuple(options[t], 6)
                if table[t, 3]:
                    for i in range(count):
                        w[i], a[i] = _sgd_rule(w[i], g[i], a[i], *for_sgd)
                else:
                    for i in range(count):
                        w[i], _ = _sgd_rule(w[i], g[i], None, *for_sgd)
            else:
                for_adam = to_fixed_tuple(options[t], 8)
                if table[t, 5]:
                    for i in range(count):
                        w[i], a[i], b[i], c[i] = _adam_rule(w[i], g[i], a[i], b[i], c[i], *for_adam)
                else:
                    for i in range(count):
                        w[i], a[i], b[i], _ = _adam_rule(w[i], g[i], a[i], b[i], None, *for_adam)
