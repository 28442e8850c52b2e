"""Rows of interpolation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minunet import functional as F
from minunet.testing.opcases.table import BadInput, OpCase, Sample, normal

SHAPES = ((2, 3, 5), (2, 2, 4, 3), (1, 2, 3, 2, 4))
LINEAR = ("linear", "bilinear", "trilinear")


def _samples(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, linear in zip(SHAPES, LINEAR, strict=True):
        rank = len(shape) - 2
        yield Sample((normal(rng, *shape),), {"scale_factor": 2})
        yield Sample((normal(rng, *shape),), {"size": (7, 2, 3)[:rank]})
        yield Sample((normal(rng, *shape),), {"scale_factor": 1.7, "mode": "nearest-exact"})
        yield Sample((normal(rng, *shape),), {"scale_factor": 2, "mode": linear})
        for align_corners in (False, True):
            options = {"mode": linear, "align_corners": align_corners}
            yield Sample((normal(rng, *shape),), {"size": (8, 3, 1)[:rank], **options})
            yield Sample((normal(rng, *shape),), {"scale_factor": (1.7, 0.6, 2.3)[:rank], **options})
            yield Sample((normal(rng, *shape),), {"scale_factor": (1.7, 0.6, 2.3)[:rank], "recompute_scale_factor": True, **options})
        for mode in ("nearest", linear):
            wide = normal(rng, 1, 17, *shape[2:])  # channels that fill vectors, and leave a rest
            yield Sample((wide,), {"scale_factor": 2, "mode": mode}, keras=False)
            yield Sample((wide,), {"size": (7, 2, 3)[:rank], "mode": mode}, keras=False)
            yield Sample((normal(rng, 1, 9, *(1,) * rank),), {"size": 3, "mode": mode})
            yield Sample((normal(rng, 0, *shape[1:]),), {"size": 3, "mode": mode})
            yield Sample((normal(rng, 1, 1, *shape[2:]),), {"size": 3, "mode": mode})
    for mode in ("nearest", "bilinear"):
        yield Sample((normal(rng, 1, 2, 6, 5),), {"size": 1, "mode": mode})
        yield Sample((normal(rng, 1, 2, 1, 1),), {"size": (3, 4), "mode": mode})
        yield Sample((normal(rng, 1, 1, 9, 7),), {"size": (2, 3), "mode": mode})
        yield Sample((normal(rng, 2, 1, 4, 5),), {"scale_factor": (3, 2), "mode": mode})
        yield Sample((normal(rng, 1, 2, 4, 5),), {"scale_factor": 1.1, "mode": mode})  # the size stays: a copy
        yield Sample((normal(rng, 0, 2, 4, 5),), {"scale_factor": 2, "mode": mode})


def _keras(keras: Any, sample: Sample) -> np.ndarray[Any, Any] | None:
    """The UpSampling layer: whole scale factors, nearest (1D, 2D, 3D) or bilinear (2D), never align_corners."""
    x, mode, scale = sample.inputs[0], sample.options.get("mode", "nearest"), sample.options.get("scale_factor")
    assert x is not None
    rank = x.ndim - 2
    scales = scale if isinstance(scale, tuple) else (scale,) * rank
    if (
        not all(isinstance(s, int) for s in scales)
        or mode not in ("nearest", "bilinear")
        or sample.options.get("align_corners")
        or not x.size
    ):
        return None
    layer = getattr(keras.layers, f"UpSampling{rank}D")
    options = {"interpolation": mode} if rank == 2 else {}
    y = layer(scales if rank > 1 else scales[0], dtype="float64", **options)(np.moveaxis(x, 1, -1))
    return np.moveaxis(np.asarray(y), -1, 1)


def _bad() -> Iterator[BadInput]:
    x = np.ones((1, 2, 3, 4))
    yield BadInput((x,), {}, ValueError, "give size or scale_factor, one of them; got size=None")
    yield BadInput((x,), {"size": 4, "scale_factor": 2}, ValueError, "give size or scale_factor, one of them; got size=4")
    yield BadInput((x,), {"size": (4, 4, 4)}, ValueError, "size is an int or 2 ints")
    yield BadInput((x,), {"scale_factor": (2, 2, 2)}, ValueError, "scale_factor is a positive number or 2 of them")
    yield BadInput((x,), {"scale_factor": 0.1}, ValueError, "sizes must be at least 1, got 3×4 → 0×0")
    yield BadInput((x,), {"size": 4, "mode": "bicubic"}, ValueError, "mode is one of nearest, nearest-exact, linear")
    yield BadInput((x,), {"size": 4, "mode": "linear"}, ValueError, "'linear' is for 1 spatial axes, the input has 2: use 'bilinear'")
    yield BadInput((x,), {"size": 4, "align_corners": False}, ValueError, "align_corners belongs to the linear modes")
    yield BadInput((x,), {"size": 4, "recompute_scale_factor": True}, ValueError, "recompute_scale_factor means nothing with size")
    yield BadInput((x,), {"size": 4, "mode": "bilinear", "antialias": True}, NotImplementedError, "antialias=True is not implemented")
    yield BadInput((x.astype(np.int64),), {"size": 4, "mode": "bilinear"}, TypeError, "needs floating-point numbers, got int64")
    yield BadInput((x[0, 0],), {"size": 4}, ValueError, r"expects \(N, C, L\).*got 3×4")


CASES = [
    OpCase(
        "interpolate",
        F.interpolate,
        _samples,
        "interpolate",
        lambda t: t.nn.functional.interpolate,
        _keras,
        bad_inputs=_bad,
        linear=(0,),
        images=(0,),
    )
]
