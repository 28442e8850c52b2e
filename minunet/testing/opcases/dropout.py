"""Rows of dropout. The statistics of its masks are tested beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from minunet import functional as F
from minunet.testing.opcases.table import BadInput, OpCase, Sample, normal


def _samples(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator], Iterator[Sample]]:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for shape in shapes:
            yield Sample((normal(rng, *shape),))
            yield Sample((normal(rng, *shape),), {"p": 0.2})
        for options in ({"p": 0.0}, {"p": 1.0}, {"training": False}):
            yield Sample((normal(rng, *shapes[0]),), options)

    return samples


def _bad(shape: tuple[int, ...]) -> Callable[[], Iterator[BadInput]]:
    def bad() -> Iterator[BadInput]:
        yield BadInput((np.ones(shape),), {"p": 1.5}, ValueError, r"between 0 and 1; got 1\.5")
        yield BadInput((np.ones(shape),), {"inplace": True}, ValueError, "inplace=True is not supported")
        if len(shape) > 2:
            yield BadInput((np.ones(()),), {}, ValueError, r"drops whole channels of input \(N, C, .*; got 0 axes: a scalar")

    return bad


def _row(rank: str, *shapes: tuple[int, ...]) -> OpCase:
    name = f"dropout{rank}"
    return OpCase(name, getattr(F, name), _samples(*shapes), bad_inputs=_bad(shapes[0]), linear=(0,), random=True, images=(0,))


CASES = [
    _row("", (4, 3), (2, 3, 4, 5), (), (0, 3), (2, 5, 57, 61)),  # the last fills several chunks of the cpu kernel
    _row("1d", (3, 4, 3), (5, 3)),
    _row("2d", (3, 4, 2, 3), (5, 3, 2), (0, 2, 2, 2)),
    _row("3d", (3, 4, 2, 1, 2), (5, 1, 2, 2)),
]
