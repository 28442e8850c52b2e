"""Interpolation along one axis as a table: y[i] = Σ_t weight[i,t]·x[source[i,t]].

The gradient reads the transposed table, so it is the exact adjoint and a gather: ∂x[j] = Σ_t weightᵀ[j,t]·∂y[sourceᵀ[j,t]].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

_cached = lru_cache(maxsize=128)  # a network asks for the same few tables in every step


@dataclass(frozen=True, eq=False)
class Table:
    """source, weight: (outputs, terms). Outputs with fewer terms are filled up with weight 0."""

    source: np.ndarray[Any, Any]
    weight: np.ndarray[Any, Any]


def gather_table(source: np.ndarray[Any, Any]) -> Table:
    """y[i] = x[source[i]]"""
    return Table(source.reshape(-1, 1).astype(np.int64), np.ones((source.size, 1)))


@_cached
def nearest_table(n: int, out: int, step: float, centre: float) -> Table:
    """y[i] = x[⌊step·(i + centre)⌋]    centre: 0 in mode 'nearest', 1/2 in 'nearest-exact'

    n: size of the input. step: input elements for each output element. Computed in float32 whatever the tensor's dtype,
    because PyTorch does: at some sizes the last bit decides which neighbour is taken. In mode 'nearest' an output of n or 2n elements
    repeats each one evenly whatever the step is, as PyTorch's 2-d resampling does (its 1-d and 3-d ones do so in backward only).
    """
    if centre == 0 and out in (n, 2 * n):
        return gather_table(np.arange(out) // (out // n))
    position = (np.arange(out, dtype=np.float32) + np.float32(centre)) * np.float32(step)
    return gather_table(np.minimum(position.astype(np.int64), n - 1))


@_cached
def linear_table(n: int, out: int, step: float, align_corners: bool) -> Table:
    """y[i] = (1 − λ)·x[j] + λ·x[j + 1], j + λ = position of output i in the input

    position = i·(n − 1)/(out − 1) with align_corners (the centres of the outermost elements coincide),
    else step·(i + ½) − ½, held between 0 and n − 1 (the outer edges of the outermost elements coincide).
    """
    if out == n:
        return gather_table(np.arange(n))
    i = np.arange(out)
    position = np.clip(i * ((n - 1) / max(out - 1, 1)) if align_corners else step * (i + 0.5) - 0.5, 0, n - 1)
    low = position.astype(np.int64)
    fraction = position - low
    return Table(np.stack([low, np.minimum(low + 1, n - 1)], axis=1), np.stack([1 - fraction, fraction], axis=1))


@_cached
def transposed(table: Table, n: int) -> Table:
    """The table of the adjoint, from outputs back to the n inputs."""
    used = table.weight != 0
    outputs, _ = np.nonzero(used)
    inputs, weights = table.source[used], table.weight[used]
    order = np.argsort(inputs, kind="stable")  # terms of one input in the order of the outputs
    outputs, inputs, weights = outputs[order], inputs[order], weights[order]
    terms = np.bincount(inputs, minlength=n)
    slot = np.arange(inputs.size) - np.repeat(np.cumsum(terms) - terms, terms)
    result = Table(np.zeros((n, max(terms.max(), 1)), np.int64), np.zeros((n, max(terms.max(), 1))))
    result.source[inputs, slot], result.weight[inputs, slot] = outputs, weights
    return _filled(result)


def _filled(table: Table) -> Table:
    """The same table, where a term of weight 0 reads what the first term reads: it may multiply no other NaN."""
    return Table(np.where(table.weight == 0, table.source[:, :1], table.source), table.weight)
