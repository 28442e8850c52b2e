"""Rows of convolution and transposed convolution."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minunet import functional as F
from minunet.testing.opcases.table import BadInput, OpCase, Sample, normal

Rng = np.random.Generator
SIZES = (9, 8, 5)


def _samples(rank: int, transposed: bool) -> Callable[[Rng], Iterator[Sample]]:
    def sample(rng: Rng, n: int, c: int, o: int, k: int | tuple[int, ...], bias: bool = True, **options: Any) -> Sample:
        groups = options.get("groups", 1)
        kernel = (k,) * rank if isinstance(k, int) else k
        weight = (c, o // groups, *kernel) if transposed else (o, c // groups, *kernel)
        spatial = SIZES[-rank:] if rank > 1 else SIZES[:1]
        return Sample(
            (normal(rng, n, c, *spatial), normal(rng, *weight), normal(rng, o) if bias else None),
            options,
            torch=options.get("padding") not in ("same", "valid") or (not transposed and options.get("stride", 1) == 1),
            keras=options.get("padding") in ("same", "valid") and groups == 1,
        )

    def draw(rng: Rng) -> Iterator[Sample]:
        yield sample(rng, 2, 3, 4, 3, padding=1)
        yield sample(rng, 1, 1, 1, 1, bias=False)
        yield sample(rng, 1, 2, 3, 2, stride=2)
        yield sample(rng, 1, 4, 6, 2, dilation=2, groups=2, bias=False)
        yield sample(rng, 1, 3, 3, 3, padding=2, groups=3)
        yield sample(rng, 1, 2, 17, 3, stride=3, padding=1, dilation=2)
        yield sample(rng, 0, 2, 3, 2)
        for padding in ("same", "valid"):
            for k, s in ((2, 2), (3, 2), (3, 1), (4, 3), (1, 2)):
                yield sample(rng, 1, 2, 2, k, stride=s, padding=padding)
        if rank == 2:
            yield sample(rng, 1, 2, 3, (3, 1), stride=(2, 1), padding=(1, 0))
            yield sample(rng, 1, 20, 70, 1)
            yield Sample((normal(rng, 2, 5, 5), normal(rng, 2, 2, 3, 3), None), keras=False)  # no batch axis
        yield Sample((normal(rng, 1, 2, *(1,) * rank), normal(rng, 2, 2, *(3,) * rank), None), {"padding": 1}, keras=False)  # one pixel
        ends = (9, 11) if transposed else (11, 9)  # channels that fill vectors, and leave a rest
        for n, spatial in ((1, (3, 5, 7)), (2, (1, 1, 1)), (0, (3, 5, 7))):
            x, w = normal(rng, n, 9, *spatial[-rank:]), normal(rng, *ends, *(3,) * rank)
            yield Sample((x, w, normal(rng, 11)), {"padding": 1}, keras=False)
        if transposed:
            yield sample(rng, 1, 2, 3, 3, stride=2, padding=1, output_padding=1)
            yield sample(rng, 1, 2, 2, 2, dilation=3, output_padding=2)
            pixel = {"stride": 3, "padding": 2, "dilation": 3, "output_padding": 1}  # what is left of the output meets no tap
            yield Sample((normal(rng, 1, 1, *(1,) * rank), normal(rng, 1, 1, *(2,) * rank), None), pixel, keras=False)

    return draw


def _torch(name: str) -> Callable[[Any], Callable[..., Any]]:
    def counterpart(torch: Any) -> Callable[..., Any]:
        function = getattr(torch.nn.functional, name)
        return lambda *tensors, activation=None, **options: (
            torch.relu(function(*tensors, **options)) if activation else function(*tensors, **options)
        )

    return counterpart


def _keras(transposed: bool) -> Callable[[Any, Sample], np.ndarray[Any, Any] | None]:
    def counterpart(keras: Any, sample: Sample) -> np.ndarray[Any, Any] | None:
        x, w, b = (None if a is None else np.asarray(a) for a in sample.inputs)
        if x is None or w is None or x.shape[0] == 0:
            return None
        last, kernel = np.moveaxis(x, 1, -1), np.moveaxis(w, (0, 1), (-1, -2))  # weight: (*kernel, in, out); transposed (*kernel, out, in)
        function = keras.ops.conv_transpose if transposed else keras.ops.conv
        y = np.asarray(
            function(last, kernel, strides=sample.options.get("stride", 1), padding=sample.options["padding"], data_format="channels_last")
        )
        return np.moveaxis(y if b is None else y + b, -1, 1)

    return counterpart


def _bad_conv() -> Iterator[BadInput]:
    x, w = np.ones((1, 3, 8, 8)), np.ones((4, 3, 3, 3))
    yield BadInput((np.ones((1, 2, 8, 8)), w, None), {}, ValueError, r"has 2 channels, the weight 4×3×3×3 with groups=1 expects 3")
    yield BadInput((x[0, 0], w, None), {}, ValueError, r"expects input \(N, C, H, W\) or \(C, H, W\), got 2 axes: 8×8")
    yield BadInput((x, w[0], None), {}, ValueError, r"weight \(O, C/groups, \*kernel\) with 2 kernel axes, got 3 axes")
    yield BadInput((x, w, np.ones(3)), {}, ValueError, r"bias must have shape \(4,\), got \(3,\)")
    yield BadInput((x[:, :, :2], w, None), {}, ValueError, "covers 3 elements but the padded input has 2")
    yield BadInput((x, w, None), {"stride": 0}, ValueError, "stride must be at least 1")
    yield BadInput((x, w, None), {"padding": "full"}, ValueError, "'same' or 'valid'; got 'full'")
    yield BadInput((x, w, None), {"groups": 2}, ValueError, "2 groups must divide the 3 input channels")
    yield BadInput((x, w, None), {"groups": 1.0}, TypeError, "groups is an int, got 1.0")
    yield BadInput((x, w, None), {"activation": "tanh"}, ValueError, "None or 'relu', got 'tanh'")
    yield BadInput((x.astype(np.float32), w, None), {}, TypeError, "mix float32 and float64")
    yield BadInput((x.astype(np.int64), w, None), {}, TypeError, "expects floating-point input, got int64")


def _bad_transpose() -> Iterator[BadInput]:
    x, w = np.ones((1, 3, 8, 8)), np.ones((3, 4, 3, 3))
    yield BadInput((x, w[:2], None), {}, ValueError, "has 3 channels, the weight 2×4×3×3 with groups=1 expects 2")
    yield BadInput((x, w, None), {"output_padding": 1}, ValueError, "output_padding .* must be smaller than the stride")
    yield BadInput((x, w, None), {"stride": 2, "padding": "same", "output_padding": 1}, ValueError, "fixes the output size")
    yield BadInput((x, w, None), {"padding": 9}, ValueError, "the output would be")


CASES = [
    OpCase(
        f"conv{'_transpose' * transposed}{rank}d",
        getattr(F, f"conv{'_transpose' * transposed}{rank}d"),
        _samples(rank, transposed),
        "conv_transpose" if transposed else "conv",
        _torch(f"conv{'_transpose' * transposed}{rank}d"),
        _keras(transposed),
        bad_inputs=(tuple if rank != 2 else _bad_transpose if transposed else _bad_conv),
        linear=(0, 1),
        images=(0,) if rank == 2 else (),
    )
    for transposed in (False, True)
    for rank in (1, 2, 3)
] + [
    OpCase(
        f"conv{'_transpose' * transposed}2d with relu",
        getattr(F, f"conv{'_transpose' * transposed}2d"),
        lambda rng: [
            Sample((normal(rng, n, c, 7, 5), normal(rng, c, c, 3, 3), normal(rng, c)), {"padding": 1, "activation": "relu"})
            for n, c in ((2, 2), (1, 1), (1, 9), (0, 9))
        ],
        "conv_transpose" if transposed else "conv",
        _torch(f"conv{'_transpose' * transposed}2d"),
        images=(0,),
    )
    for transposed in (False, True)
]
