"""The update rules on the GPU: one launch for all parameters.

A UNet's parameters have from 16 numbers to 18 million. Each is cut into pieces, and a table tells each block which piece is its own.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import numpy as np

from minunet.arrays import array_module
from minunet.cuda import Source, current_gpu, held

SOURCE = Source(__file__, "optim.cu")
THREADS = 256
PIECE = 8 * THREADS  # numbers of a block


def _update(rule: str, weights: list[Any], grads: list[Any], slots: list[list[Any]], options: Any) -> None:
    """Changes weights and slots in place. slots: for each part of the state the arrays of all parameters, None where not in use.

    options: (parameters, numbers) on the GPU, in the order of the rule's `struct`.

    The arrays of a parameter lie in memory without gaps, in one order of the axes: what is side by side in one is so in all.
    """
    pieces = held(_pieces(array_module(weights[0]), current_gpu(), tuple(w.size for w in weights)))
    SOURCE.kernel(f"optim_{rule}", weights[0].dtype)(len(pieces), THREADS, weights, grads, *slots, pieces, options)


@lru_cache(maxsize=128)  # a network asks for the same in every step, and the way to the GPU is long
def _pieces(xp: Any, gpu: int, sizes: tuple[int, ...]) -> Any:
    """(pieces, 3) on that GPU: of each piece the parameter, the first of its numbers and how many they are."""
    rows = [(i, first, min(PIECE, size - first)) for i, size in enumerate(sizes) for first in range(0, size, PIECE)]
    return xp.asarray(np.array(rows, np.int64).reshape(-1, 3))


sgd, adam, rmsprop = (partial(_update, rule) for rule in ("sgd", "adam", "rmsprop"))


def unscale(grads: list[Any], factor: float) -> bool:
    """Multiplies all numbers by `factor`, in place; whether all are finite then, the one number that is read from the GPU."""
    xp = array_module(grads[0])
    pieces, found = _pieces(xp, current_gpu(), tuple(g.size for g in grads)), xp.zeros(1, np.int32)
    SOURCE.kernel("optim_unscale", grads[0].dtype)(len(pieces), THREADS, grads, pieces, found, factor)
    return not found.item()
