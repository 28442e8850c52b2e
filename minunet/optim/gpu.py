"""The update rules on the GPU: one launch for all parameters that share their options, which is all of them in most trainings.

A UNet's parameters have from 16 numbers to 18 million. Each is cut into pieces, and a table tells each block which piece is its own.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import numpy as np

from minunet.arrays import array_module
from minunet.cuda import Source, current_gpu

SOURCE = Source(__file__, "optim.cu")
THREADS = 256
PIECE = 8 * THREADS  # numbers of a block


def _update(rule: str, names: str, weights: list[Any], grads: list[Any], slots: list[list[Any]], options: list[tuple[float, ...]]) -> None:
    """Changes weights and slots in place. slots: for each part of the state the arrays of all parameters, None where not in use.

    The arrays of a parameter lie in memory without gaps, in one order of the axes: what is side by side in one is so in all.
    """
    together: dict[tuple[float, ...], list[tuple[Any, ...]]] = {}
    for *arrays, chosen in zip(weights, grads, *slots, options, strict=True):
        together.setdefault(tuple(map(float, chosen)), []).append(tuple(arrays))
    for numbers, parameters in together.items():
        lists = [list(arrays) for arrays in zip(*parameters, strict=True)]
        pieces = _pieces(array_module(weights[0]), current_gpu(), tuple(w.size for w in lists[0]))
        told = dict(zip(names.split(), numbers, strict=True))
        SOURCE.kernel(f"optim_{rule}", weights[0].dtype)(len(pieces), THREADS, *lists, pieces, told)


@lru_cache(maxsize=128)  # a network asks for the same in every step, and the way to the GPU is long
def _pieces(xp: Any, gpu: int, sizes: tuple[int, ...]) -> Any:
    """(pieces, 3) on that GPU: of each piece the parameter, the first of its numbers and how many they are."""
    rows = [(i, first, min(PIECE, size - first)) for i, size in enumerate(sizes) for first in range(0, size, PIECE)]
    return xp.asarray(np.array(rows, np.int64).reshape(-1, 3))


sgd = partial(_update, "sgd", "sign decay lr momentum gain nesterov")
adam = partial(_update, "adam", "sign decay shrink gain beta2 gain2 rate eps")
rmsprop = partial(_update, "rmsprop", "sign decay lr alpha gain eps momentum")


def unscale(grads: list[Any], factor: float) -> bool:
    """Multiplies all numbers by `factor`, in place; whether all are finite then, the one number that is read from the GPU."""
    xp = array_module(grads[0])
    pieces, found = _pieces(xp, current_gpu(), tuple(g.size for g in grads)), xp.zeros(1, np.int32)
    SOURCE.kernel("optim_unscale", grads[0].dtype)(len(pieces), THREADS, grads, pieces, found, factor)
    return not found.item()
