"""eˣ and ln(1 + u) for Numba kernels, in float32 as arithmetic alone: a loop round them becomes vector code.

The C library's functions take one number a call. These take 16 at once where the machine has the vectors, and are as accurate: at
most 2 units in the last place. float64, which serves checks, keeps the library's functions.

Both use that a float32 is s·2ᵏ with the exponent k + 127 in bits 23 … 30: powers of two are made, and read, by integer arithmetic.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

_f, _i = np.float32, np.int32
_LOG2_E = _f(1 / math.log(2))
_LN2_HIGH, _LN2_LOW = _f(0.693359375), _f(math.log(2) - 0.693359375)  # the first has 9 bits: its products with small integers are exact
_ROUNDS = _f(1.5 * 2**23)  # so large that adding it drops a number's fraction: the sum's low bits are the nearest integer
_ROUNDS_BITS = _i(0x4B400000)
_TWO_THIRDS_BITS = _i(0x3F2AAAAB)
_LOWEST, _HIGHEST = _f(-104), _f(89)  # beyond: 0 and ∞
_EXP = tuple(_f(c) for c in (1.9875691e-4, 1.3981999e-3, 8.3334519e-3, 4.1665796e-2, 1.6666667e-1, 0.5))  # eʳ, |r| < 0.35: Cephes
_FUSED = {"contract"}  # a·b + c may be one instruction, which rounds once
_ATANH = tuple(_f(1 / n) for n in (9, 7, 5, 3))


def exp(x: Any) -> Any:
    """eˣ = 2ⁿ·eʳ with n the integer next to x/ln 2 and r = x − n·ln 2."""
    return np.exp(x)


def log1p(u: Any) -> Any:
    """ln(1 + u) for u ≥ 0, finite: 1 + u = 2ⁿ·(1 + f) with f from −1/3 to 1/3; ln(1 + f) = 2·artanh t, t = f/(2 + f), by its series."""
    return np.log1p(u)


@overload(exp, jit_options={"fastmath": _FUSED})
def _exp(x):  # type: ignore[no-untyped-def]
    if x != types.float32:
        return lambda x: math.exp(x)
    a5, a4, a3, a2, a1, a0 = _EXP

    def exp32(x):  # type: ignore[no-untyped-def]
        x = _LOWEST if x < _LOWEST else x  # NaN stays: its comparisons are false
        x = _HIGHEST if x > _HIGHEST else x
        shifted = x * _LOG2_E + _ROUNDS
        n = shifted - _ROUNDS
        r = (x - n * _LN2_HIGH) - n * _LN2_LOW
        p = ((((a5 * r + a4) * r + a3) * r + a2) * r + a1) * r + a0
        y = p * r * r + r + _f(1)
        power = _f(shifted).view(_i) - _ROUNDS_BITS
        half = power >> _i(1)  # 2ⁿ in two factors: n reaches from −150 to 128, a float's exponent does not
        rest = power - half
        return y * _i((half + _i(127)) << _i(23)).view(_f) * _i((rest + _i(127)) << _i(23)).view(_f)

    return exp32


@overload(log1p, jit_options={"error_model": "numpy", "fastmath": _FUSED})  # no test for a division by 0, which would be a branch
def _log1p(u):  # type: ignore[no-untyped-def]
    if u != types.float32:
        return lambda u: math.log1p(u)
    b3, b2, b1, b0 = _ATANH

    def log1p32(u):  # type: ignore[no-untyped-def]
        n = _i((_f(u + _f(1)).view(_i) - _TWO_THIRDS_BITS) >> _i(23))
        scale = _i((_i(127) - n) << _i(23)).view(_f)  # 2⁻ⁿ
        f = u * scale + (scale - _f(1))  # for n = 0 this is u itself: small u keep all digits
        t = f / (f + _f(2))
        w = t * t
        series = (((b3 * w + b2) * w + b1) * w + b0) * (w + w)
        return _f(n) * _LN2_HIGH + (_f(n) * _LN2_LOW + (f - t * (f - series)))  # 2t = f − t·f

    return log1p32
