"""Rows of pooling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from minunet import functional as F
from minunet.testing.opcases.table import BadInput, OpCase, Sample, spaced

Rng = np.random.Generator
SHAPES = ((2, 3, 9), (2, 3, 7, 6), (1, 2, 5, 4, 6))


def _common(rng: Rng, rank: int) -> Iterator[Sample]:
    """What maximum and average share."""
    shape = SHAPES[rank - 1]

    def call(**options: Any) -> Sample:
        return Sample((spaced(rng, *shape),), options, torch=not isinstance(options.get("padding"), str))

    yield call(kernel_size=2)
    yield call(kernel_size=3, stride=2)
    yield call(kernel_size=(3, 2, 4)[:rank], stride=(1, 2, 1)[:rank], padding=(1, 0, 2)[:rank])  # windows overlap
    yield call(kernel_size=2, stride=3)  # elements between windows
    yield call(kernel_size=3, stride=2, padding=1, ceil_mode=True)
    yield call(kernel_size=2, stride=3, padding=1, ceil_mode=True)  # the last window would start in the padding
    yield call(kernel_size=4, stride=4, ceil_mode=True)
    for kernel, stride in ((2, 2), (3, 2), (3, 1), (2, 3)):
        yield call(kernel_size=kernel, stride=stride, padding="same")
    yield call(kernel_size=3, stride=2, padding="valid")
    yield Sample((spaced(rng, *shape[1:]),), {"kernel_size": 2, "stride": 1}, keras=False)  # no batch
    yield Sample((spaced(rng, 2, 1, *shape[2:]),), {"kernel_size": 3, "padding": 1})  # one channel
    yield Sample((spaced(rng, 1, 5, *(1,) * rank),), {"kernel_size": 1})  # one pixel
    yield Sample((spaced(rng, 0, *shape[1:]),), {"kernel_size": 2})
    for options in ({"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}):
        yield Sample((spaced(rng, 1, 17, *shape[2:]),), options, keras=False)  # channels that fill vectors, and leave a rest


def _max_samples(rng: Rng, rank: int) -> Iterator[Sample]:
    yield from _common(rng, rank)
    shape = SHAPES[rank - 1]
    yield Sample((spaced(rng, *shape),), {"kernel_size": 2, "stride": 1, "dilation": 2})
    yield Sample((spaced(rng, *shape),), {"kernel_size": 3, "padding": 1, "dilation": (2, 1, 1)[:rank]})
    yield Sample((spaced(rng, *shape),), {"kernel_size": 2, "padding": "same", "dilation": 2, "stride": 2}, torch=False)
    yield Sample((spaced(rng, *shape),), {"kernel_size": 3, "stride": 2, "padding": 1, "return_indices": True}, keras=False)
    yield Sample((spaced(rng, *shape),), {"kernel_size": 2, "ceil_mode": True, "return_indices": True}, keras=False)


def _average_samples(rng: Rng, rank: int) -> Iterator[Sample]:
    yield from _common(rng, rank)
    x = spaced(rng, *SHAPES[rank - 1])
    yield Sample((x,), {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False})
    yield Sample((x,), {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False, "ceil_mode": True})
    if rank > 1:
        yield Sample((x,), {"kernel_size": 3, "padding": 1, "divisor_override": 2})


def _keras(keras: Any, sample: Sample, layer: str) -> np.ndarray[Any, Any] | None:
    """The pooling layer: no padding, 'same' or 'valid'; no dilation, no ceil_mode."""
    options = dict(sample.options)
    kernel, stride, padding = options.pop("kernel_size"), options.pop("stride", None), options.pop("padding", "valid")
    (x,) = sample.inputs
    assert x is not None
    if options or padding not in ("same", "valid") or not x.size:
        return None
    pool = getattr(keras.layers, f"{layer}Pooling{x.ndim - 2}D")
    y = pool(kernel, stride, padding, data_format="channels_last", dtype="float64")(np.moveaxis(x, 1, -1))
    return np.moveaxis(np.asarray(y), -1, 1)


def _bad(name: str, rank: int) -> Iterator[BadInput]:
    x = np.ones((1, 2, *(4,) * rank))
    yield BadInput((x[0, 0],), {"kernel_size": 2}, ValueError, rf"{name} expects \(N, C, .*\) or \(C, .*\), got {rank} axes")
    yield BadInput((x,), {"kernel_size": 5}, ValueError, f"{name}: the window covers 5 elements but the padded input has 4")
    yield BadInput((x,), {"kernel_size": 3, "padding": 2}, ValueError, f"{name}: padding is at most half of kernel_size")
    yield BadInput((x,), {"kernel_size": 0}, ValueError, "kernel_size must be at least 1, got 0")
    yield BadInput((x,), {"kernel_size": 2, "stride": 0}, ValueError, "stride must be at least 1, got 0")
    yield BadInput((x,), {"kernel_size": (2,) * (rank + 1)}, ValueError, f"kernel_size is an int or {rank} ints")
    yield BadInput((x,), {"kernel_size": 2, "padding": "full"}, ValueError, "padding is an int, a tuple, 'same' or 'valid'; got 'full'")
    yield BadInput((x[..., :0],), {"kernel_size": 2, "padding": 1}, ValueError, f"{name}: the input has no elements to pool")


def _bad_average(name: str, rank: int) -> Iterator[BadInput]:
    yield from _bad(name, rank)
    x = np.ones((1, 2, *(4,) * rank))
    yield BadInput((x.astype(np.int64),), {"kernel_size": 2}, TypeError, f"{name} needs floating-point numbers, got int64")
    if rank > 1:
        yield BadInput((x,), {"kernel_size": 2, "divisor_override": 0}, ValueError, "must not be 0")


def _torch(name: str) -> Callable[[Any], Callable[..., Any]]:
    return lambda torch: getattr(torch.nn.functional, name)


def _row(name: str, rank: int) -> OpCase:
    largest = name.startswith("max")
    return OpCase(
        name,
        getattr(F, name),
        partial(_max_samples if largest else _average_samples, rank=rank),
        name,
        _torch(name),
        partial(_keras, layer="Max" if largest else "Average"),
        bad_inputs=partial(_bad if largest else _bad_average, name, rank),
        linear=() if largest else (0,),
        images=(0,) if rank == 2 else (),
    )


CASES = [_row(f"{kind}_pool{rank}d", rank) for kind in ("max", "avg") for rank in (1, 2, 3)]
