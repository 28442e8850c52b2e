"""A rule applied to one parameter after the other, with NumPy or CuPy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from minunet.arrays import array_module, device_of, to_device
from minunet.optim import rules

BLOCK = 1 << 15  # numbers: Adam's arrays take 640 KB, which stay in a core's cache through a chain of NumPy operations


def _update(rule: Callable[..., Any], weights: list[Any], grads: list[Any], slots: list[list[Any]], options: Any) -> None:
    """Changes weights and slots in place. slots: for each part of the state the arrays of all parameters, None where not in use.

    options: (parameters, numbers). The arrays of a parameter lie in memory without gaps, in one order of the axes: `ravel` is a view,
    and the order does not matter.
    """
    for *arrays, chosen in zip(weights, grads, *slots, to_device(options, "cpu"), strict=True):
        if device_of(arrays[0]) == "cuda":
            pieces = [arrays]
        else:
            flat = [None if a is None else a.ravel(order="K") for a in arrays]
            pieces = [[None if a is None else a[i : i + BLOCK] for a in flat] for i in range(0, arrays[0].size, BLOCK)]
        numbers = [float(number) for number in chosen]  # one of NumPy's would turn float32 into float64
        for w, g, *state in pieces:
            for array, new in zip((w, *state), rule(w, g, *state, *numbers), strict=True):
                if array is not None:
                    array[...] = new


sgd, adam, rmsprop = (partial(_update, rule) for rule in (rules.sgd, rules.adam, rules.rmsprop))


def unscale(grads: list[Any], factor: float) -> bool:
    """Multiplies all numbers by `factor`, in place; whether all are finite then."""
    finite = True
    for g in grads:
        g *= factor
        finite = bool(array_module(g).isfinite(g).all()) and finite
    return finite
