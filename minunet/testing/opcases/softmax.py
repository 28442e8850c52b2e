"""Rows of softmax and its logarithm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minunet import functional as F
from minunet.testing.opcases.table import BadInput, OpCase, Sample, normal


def _samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample((normal(rng),), {"dim": 0}, keras=False)  # Keras has no softmax of a scalar
    yield Sample((normal(rng, 5),), {"dim": -1})
    yield Sample((normal(rng, 3, 4),), {"dim": 1})
    yield Sample((normal(rng, 3, 1),), {"dim": 1}, keras=False)  # Keras warns of an axis of one element
    yield Sample((normal(rng, 2, 3, 4, 3),), {"dim": 1})
    yield Sample((normal(rng, 2, 3, 2, 3, 2),), {"dim": -4})
    yield Sample((1000 + 300 * normal(rng, 4, 3),), {"dim": 0})  # e^x overflows
    yield Sample((normal(rng, 0, 3),), {"dim": 1}, keras=False)
    yield Sample((normal(rng, 2, 0),), {"dim": 1}, keras=False)


def _keras(name: str) -> Callable[[Any, Sample], np.ndarray[Any, Any] | None]:
    return lambda keras, sample: np.asarray(getattr(keras.ops, name)(sample.inputs[0], axis=sample.options["dim"]))


def _bad() -> Iterator[BadInput]:
    yield BadInput((np.ones((2, 3)),), {}, ValueError, "dim is missing")
    yield BadInput((np.ones((2, 3)),), {"dim": 2}, IndexError, "axis 2 does not exist, the tensor has 2 axes")


CASES = [
    OpCase("softmax", F.softmax, _samples, "softmax", lambda t: t.softmax, _keras("softmax"), _bad),
    OpCase("log_softmax", F.log_softmax, _samples, "log_softmax", lambda t: t.log_softmax, _keras("log_softmax"), _bad),
]
