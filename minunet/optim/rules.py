"""The update rules: from a weight w, its gradient g and what is remembered of it, the new weight and what to remember now.

    rule(w, g, *state, *options) → (new w, *new state)        a part of the state that is not in use is None

Each is written once, for a number or a whole array. `ref.py` calls it with NumPy or CuPy arrays (which take over NumPy's functions);
`cpu.py` has Numba compile it and calls it number by number, so that memory is passed over once. The formulas stand with the
optimisers. Options are what is the same for all numbers of a parameter; `sign` is −1 to maximise.
After a change here save `cpu.py` anew with a change too: Numba's cache knows only the file that holds a kernel.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def sgd(w: Any, g: Any, b: Any, sign: float, decay: float, lr: float, momentum: float, gain: float, nesterov: bool) -> Any:
    g = sign * g
    if decay:
        g = g + decay * w
    if b is None:
        return w - lr * g, None
    b = momentum * b + gain * g
    return w - lr * (g + momentum * b if nesterov else b), b


def adam(
    w: Any, g: Any, m: Any, v: Any, largest: Any,
    sign: float, decay: float, shrink: float, gain: float, beta2: float, gain2: float, rate: float, eps: float,
) -> Any:  # fmt: skip
    """The corrections of m and v are in `rate` and `eps`: rate·m/(√v + eps) = η·m̂/(√v̂ + ε), with one division a number."""
    g = sign * g
    if decay:
        g = g + decay * w
    m = m + gain * (g - m)
    v = beta2 * v + gain2 * g * g
    top = v if largest is None else np.maximum(largest, v)
    return shrink * w - rate * m / (np.sqrt(top) + eps), m, v, top


def rmsprop(
    w: Any, g: Any, s: Any, b: Any, a: Any,
    sign: float, decay: float, lr: float, alpha: float, gain: float, eps: float, momentum: float,
) -> Any:  # fmt: skip
    g = sign * g
    if decay:
        g = g + decay * w
    s = alpha * s + gain * g * g
    mean = 0 if a is None else a + gain * (g - a)
    step = g / (np.sqrt(s - mean * mean) + eps)
    velocity = step if b is None else momentum * b + step
    return w - lr * velocity, s, velocity, mean
