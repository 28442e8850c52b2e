"""The update rules on the GPU: one launch for each parameter, which reads and writes its arrays once."""

from __future__ import annotations

from functools import partial
from typing import Any

from minunet.cuda import Source, blocks_for
from minunet.volumes import memory_order

SOURCE = Source(__file__, "optim.cu")
THREADS = 256


def _update(rule: str, names: str, weights: list[Any], grads: list[Any], slots: list[list[Any]], options: list[tuple[float, ...]]) -> None:
    """Changes weights and slots in place. slots: for each part of the state the arrays of all parameters, None where not in use.

    The arrays of a parameter lie in memory without gaps, in one order of the axes: transposed to that order they are one line.
    """
    for w, g, *state, chosen in zip(weights, grads, *slots, options, strict=True):
        arrays = [None if a is None else a.transpose(memory_order(a)) for a in (w, g, *state)]
        numbers = dict(zip(names.split(), map(float, chosen), strict=True))
        SOURCE.kernel(f"optim_{rule}", w.dtype)(blocks_for(w.size, THREADS), THREADS, *arrays, w.size, numbers)


sgd = partial(_update, "sgd", "sign decay lr momentum gain nesterov")
adam = partial(_update, "adam", "sign decay shrink gain beta2 gain2 rate eps")
rmsprop = partial(_update, "rmsprop", "sign decay lr alpha gain eps momentum")
