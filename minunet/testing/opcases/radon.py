"""Rows of the Radon transform and its adjoint."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minunet import functional as F
from minunet.testing.opcases.table import BadInput, OpCase, Sample, normal

AROUND = (0.0, 20.0, 45.0, 71.5, 90.0, 135.0, 160.0, -33.0, 301.0)  # every octant, the axes and a diagonal


def _radon_samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample((normal(rng, 2, 2, 6, 6),), {"angles": AROUND})
    yield Sample((normal(rng, 5, 8),), {"angles": AROUND})  # wide, no batch
    yield Sample((normal(rng, 1, 7, 4),), {"angles": (10.0, 100.0), "detectors": 12})  # high, and nothing lost
    yield Sample((normal(rng, 1, 6, 7),), {"angles": AROUND, "detectors": 5, "centre": 1.3})  # much falls beside the detectors
    yield Sample((normal(rng, 1, 5, 5),), {"angles": (15.0, 80.0), "centre": -9.0})  # all of it
    yield Sample((normal(rng, 1, 1),), {"angles": (0.0, 45.0), "detectors": 3})  # one pixel
    yield Sample((normal(rng, 0, 1, 4, 4),), {"angles": (0.0,)})
    yield Sample((normal(rng, 1, 1, 19, 21),), {"angles": (0.0, 45.0, 33.0, 123.0)})


def _back_samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample((normal(rng, 2, 2, 9, 6),), {"angles": AROUND, "size": 6})
    yield Sample((normal(rng, 9, 8),), {"angles": AROUND, "size": (5, 8)})
    yield Sample((normal(rng, 1, 9, 5),), {"angles": AROUND, "size": (6, 7), "centre": 1.3})
    yield Sample((normal(rng, 1, 2, 5),), {"angles": (15.0, 80.0), "size": 5, "centre": -9.0})
    yield Sample((normal(rng, 2, 3),), {"angles": (0.0, 45.0), "size": 1})
    yield Sample((normal(rng, 0, 1, 4),), {"angles": (0.0,), "size": 4})
    yield Sample((normal(rng, 1, 4, 21),), {"angles": (0.0, 45.0, 33.0, 123.0), "size": (19, 21)})


def _bad_radon() -> Iterator[BadInput]:
    x = np.ones((4, 4))
    yield BadInput((x[0],), {"angles": (0.0,)}, ValueError, r"radon expects \(…, H, W\), got 1 axes")
    yield BadInput((x.astype(np.int64),), {"angles": (0.0,)}, TypeError, "radon needs floating-point numbers, got int64")
    yield BadInput((x,), {"angles": ()}, ValueError, r"radon: angles are one or more finite numbers, in degrees; got \(\)")
    yield BadInput((x,), {"angles": (0.0, float("nan"))}, ValueError, "radon: angles are one or more finite numbers")
    yield BadInput((x,), {"angles": (0.0,), "detectors": 0}, ValueError, "radon: there must be at least 1 detector, got 0")
    yield BadInput((x,), {"angles": (0.0,), "centre": float("inf")}, ValueError, "radon: centre is a place among the detectors")
    yield BadInput((x[:0],), {"angles": (0.0,)}, ValueError, "radon: the image has no pixels: its height and width are 0 and 4")


def _bad_back() -> Iterator[BadInput]:
    y = np.ones((2, 5))
    yield BadInput((y,), {"angles": (0.0,), "size": 4}, ValueError, r"back_project expects a sinogram \(…, 1 angles, 5 detectors\)")
    yield BadInput((y,), {"angles": (0.0, 1.0), "size": 0}, ValueError, "size must be at least 1, got 0")
    yield BadInput((y[0],), {"angles": (0.0,), "size": 4}, ValueError, "back_project expects .*, got 1 axes")


CASES = [
    OpCase("radon", F.radon, _radon_samples, "radon", bad_inputs=_bad_radon, linear=(0,)),
    OpCase("back_project", F.back_project, _back_samples, "back_project", bad_inputs=_bad_back, linear=(0,)),
]
