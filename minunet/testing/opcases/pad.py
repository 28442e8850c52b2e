"""Rows of padding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minunet import functional as F
from minunet.testing.opcases.table import BadInput, OpCase, Sample, normal


def _samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample((normal(rng, 2, 3, 4),), {"pad": (1, 2)})
    yield Sample((normal(rng, 2, 2, 3, 4),), {"pad": (1, 0, 2, 1), "value": -1.5})
    yield Sample((normal(rng, 1, 2, 3, 2, 4),), {"pad": (1, 1, 0, 2, 2, 1), "value": 3.0})
    yield Sample((normal(rng, 2, 3),), {"pad": (0, 1, 1, 0)})  # any axes
    yield Sample((normal(rng, 1, 2, 5, 6),), {"pad": (-1, -2, -1, 0)})  # crops
    yield Sample((normal(rng, 1, 2, 5, 6),), {"pad": (-2, 1, 1, -3), "value": 2.0})
    yield Sample((normal(rng, 0, 2, 3, 3),), {"pad": (1, 1, 1, 1)})
    yield Sample((normal(rng, 2, 3, 4),), {"pad": ()})
    for mode in ("reflect", "replicate", "circular"):
        yield Sample((normal(rng, 2, 3, 5),), {"pad": (4, 3), "mode": mode})
        yield Sample((normal(rng, 2, 5),), {"pad": (1, 2), "mode": mode})  # no batch
        yield Sample((normal(rng, 2, 2, 4, 3),), {"pad": (2, 1, 0, 3), "mode": mode})
        yield Sample((normal(rng, 3, 4, 5),), {"pad": (2, 1, 1, 0), "mode": mode})
        yield Sample((normal(rng, 1, 2, 3, 3, 4),), {"pad": (2, 2, 1, 0, 0, 2), "mode": mode})
        yield Sample((normal(rng, 1, 2, 5, 6),), {"pad": (-1, 1, -2, 1), "mode": mode})
        yield Sample((normal(rng, 0, 2, 3, 3),), {"pad": (1, 1, 1, 1), "mode": mode})
    yield Sample((normal(rng, 1, 2, 1, 1),), {"pad": (3, 2, 0, 1), "mode": "replicate"})


def _bad() -> Iterator[BadInput]:
    x = np.ones((1, 2, 3, 4))
    yield BadInput((x,), {"pad": (1, 1, 1)}, ValueError, "pair of ints for each of up to 4 axes")
    yield BadInput((x,), {"pad": 2}, ValueError, "pair of ints for each of up to 4 axes.* got 2")
    yield BadInput((x,), {"pad": (1,) * 10}, ValueError, "pair of ints for each of up to 4 axes")
    yield BadInput((x,), {"pad": (-3, -2)}, ValueError, r"leaves nothing of the input, which is 1×2×3×4")
    yield BadInput((x[..., :0],), {"pad": (1, 1, 1, 1), "mode": "replicate"}, ValueError, r"leaves nothing of the input, which is 1×2×3×0")
    yield BadInput((x,), {"pad": (4, 0, 0, 0), "mode": "reflect"}, ValueError, "can add at most 3 elements to an axis of 4, got 4")
    yield BadInput((x,), {"pad": (0, 0, 0, 4), "mode": "circular"}, ValueError, "can add at most 3 elements to an axis of 3, got 4")
    yield BadInput((x,), {"pad": (1, 1), "mode": "reflect"}, ValueError, r"pads all spatial axes .* got 2 amounts for 1×2×3×4")
    yield BadInput((x,), {"pad": (1, 1, 1, 1), "mode": "replicate", "value": 1.0}, ValueError, "value belongs to mode 'constant'")
    yield BadInput((x,), {"pad": (1, 1), "mode": "mirror"}, ValueError, "mode is 'constant', 'reflect'.* got 'mirror'")


CASES = [OpCase("pad", F.pad, _samples, "pad", lambda t: t.nn.functional.pad, bad_inputs=_bad)]
