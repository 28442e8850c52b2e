"""Keras' meaning of `same` and `valid` wherever a window slides: kernels 1–5, strides 1–3, odd and even sizes, ranks 1–3.

Values, and gradients of input and kernel, in float64. JAX compiles all cases of one kernel size together, which is what makes
several hundred of them affordable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pytest

import minunet as mu
from minunet import Tensor
from minunet import functional as F
from minunet.shapes import window_span
from tests.conftest import require
from tests.running import assert_close

KINDS = ("conv", "conv_transpose", "max_pool", "avg_pool")
SIZES = {1: [(6,), (7,), (3,)], 2: [(6, 7)], 3: [(4, 5, 3)]}


@dataclass(frozen=True)
class Case:
    kind: str
    size: tuple[int, ...]
    kernel: int
    stride: int
    padding: str
    dilation: int = 1

    @property
    def rank(self) -> int:
        return len(self.size)

    def arrays(self) -> list[np.ndarray]:
        """The input (N, C, *size), and for convolutions the weight: 2 → 3 channels, as F takes it."""
        rng = np.random.default_rng(self.kernel)
        x = rng.standard_normal((2, 2, *self.size))
        if self.kind.endswith("pool"):
            return [x]
        outer = (2, 3) if self.kind == "conv_transpose" else (3, 2)
        return [x, rng.standard_normal((*outer, *(self.kernel,) * self.rank))]

    def ours(self, tensors: list[Tensor]) -> Tensor:
        function = getattr(F, f"{self.kind}{self.rank}d")
        if self.kind.endswith("pool"):
            return function(*tensors, kernel_size=self.kernel, stride=self.stride, padding=self.padding)
        return function(*tensors, stride=self.stride, padding=self.padding, dilation=self.dilation)

    def keras(self, arrays: list[Any]) -> Any:
        """The same in Keras; arrays are in its layout, (N, *size, C) and (*kernel, in, out), transposed (*kernel, out, in)."""
        ops, options = require("keras").ops, {"strides": self.stride, "padding": self.padding, "data_format": "channels_last"}
        if self.kind == "max_pool":
            return ops.max_pool(*arrays, (self.kernel,) * self.rank, **options)
        if self.kind == "avg_pool":
            return ops.average_pool(*arrays, (self.kernel,) * self.rank, **options)
        function = ops.conv if self.kind == "conv" else ops.conv_transpose
        return function(*arrays, **options, dilation_rate=self.dilation)


def cases(kind: str, rank: int, kernel: int) -> list[Case]:
    strides, dilations = ((1, 2, 3), (2, 3)) if rank < 3 else ((1, 2), (2,))
    drawn = [Case(kind, size, kernel, s, p) for size in SIZES[rank] for s in strides for p in ("same", "valid")]
    if kind == "conv":
        drawn += [Case(kind, size, kernel, 1, p, d) for size in SIZES[rank] for d in dilations for p in ("same", "valid")]
    fits = lambda c: c.padding == "same" or c.kind == "conv_transpose" or window_span(c.kernel, c.dilation) <= min(c.size)  # noqa: E731
    return [case for case in drawn if fits(case)]


def to_keras(arrays: list[np.ndarray]) -> list[np.ndarray]:
    x, *weights = arrays
    return [np.moveaxis(x, 1, -1), *(np.moveaxis(w, (0, 1), (-1, -2)) for w in weights)]


def from_keras(arrays: list[Any]) -> list[np.ndarray]:
    x, *weights = (np.asarray(a) for a in arrays)
    return [np.moveaxis(x, -1, 1), *(np.moveaxis(w, (-1, -2), (0, 1)) for w in weights)]


def forward_and_backward(function: Callable[[list[Tensor]], Tensor], arrays: list[np.ndarray], gy: np.ndarray | None = None) -> list[Any]:
    """[y, a gradient for each array]; without gy, y alone."""
    tensors = [Tensor(a, requires_grad=gy is not None) for a in arrays]
    y = function(tensors)
    if gy is not None:
        y.backward(gy)
    return [y.data, *(t.grad for t in tensors if gy is not None)]


def in_jax(functions: list[Callable[[list[Any]], Any]], arrays: list[list[np.ndarray]], gys: list[np.ndarray]) -> Iterator[list[Any]]:
    """[y, gradients] of each function, all compiled in one piece."""
    jax = require("jax")

    def everything(arrays: list[Any], gys: list[Any]) -> list[Any]:
        results = []
        for function, args, gy in zip(functions, arrays, gys, strict=True):
            y, pull = jax.vjp(function, args)
            results.append([y, *pull(gy)[0]])
        return results

    return iter(jax.jit(everything)(arrays, gys))


@pytest.mark.parametrize(("rank", "kernel"), [*((rank, k) for rank in (1, 2) for k in (1, 2, 3, 4, 5)), (3, 2), (3, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_same_and_valid(kind, rank, kernel):
    drawn = cases(kind, rank, kernel)
    arrays = [case.arrays() for case in drawn]
    with mu.no_grad():
        shapes = [case.ours([Tensor(a) for a in own]).shape for case, own in zip(drawn, arrays, strict=True)]
    gys = [np.random.default_rng(9).standard_normal(shape) for shape in shapes]
    wanted = in_jax([case.keras for case in drawn], [to_keras(a) for a in arrays], [np.moveaxis(gy, 1, -1) for gy in gys])
    for case, own, gy, (y, *grads) in zip(drawn, arrays, gys, wanted, strict=True):
        want = [np.moveaxis(np.asarray(y), -1, 1), *from_keras(grads)]
        for kernel_set in ("ref", "auto"):
            with mu.use(kernel_set):
                got = forward_and_backward(case.ours, own, gy)
            for what, a, b in zip(("output", "input's gradient", "kernel's gradient"), got, want, strict=False):
                assert_close(a, b, 1e-11, f"{case} on {kernel_set}: {what}")


def test_every_case_is_drawn():
    for kind, rank in product(KINDS, (1, 2)):
        drawn = {(c.kernel, c.stride, c.padding) for k in range(1, 6) for c in cases(kind, rank, k)}
        assert drawn == set(product(range(1, 6), (1, 2, 3), ("same", "valid")))


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [2, 3, (2, 3)])
def test_upsampling(mode, size):
    factor = size if isinstance(size, tuple) else (size, size)
    layer = require("keras").layers.UpSampling2D(size, interpolation=mode, data_format="channels_last", dtype="float64")
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    gy = np.random.default_rng(1).standard_normal((2, 3, 4 * factor[0], 5 * factor[1]))
    ((y, gx),) = in_jax([lambda arrays: layer(arrays[0])], [[np.moveaxis(x, 1, -1)]], [np.moveaxis(gy, 1, -1)])
    got = forward_and_backward(lambda t: F.interpolate(t[0], scale_factor=factor, mode=mode), [x], gy)
    assert_close(got[0], np.moveaxis(np.asarray(y), -1, 1), 1e-6, "output")  # Keras computes its weights in float32
    assert_close(got[1], np.moveaxis(np.asarray(gx), -1, 1), 1e-6, "gradient")


def test_batch_normalization_keeps_the_biased_variance_and_the_old_share():
    """Keras' momentum is the share of the old statistics, ours (PyTorch's) that of the new; Keras keeps the biased variance."""
    layer = require("keras").layers.BatchNormalization(axis=1, momentum=0.8, epsilon=1e-5, dtype="float64")
    x = np.random.default_rng(0).standard_normal((4, 3, 5)) * 2 + 1
    y = np.asarray(layer(x, training=True))
    mean, var = Tensor(np.zeros(3)), Tensor(np.ones(3))
    got = F.batch_norm(Tensor(x), mean, var, training=True, momentum=0.2, eps=1e-5)
    assert_close(got.data, y, 1e-6, "output: both normalise with the biased variance")
    n = x.size // 3
    assert_close(mean.data, np.asarray(layer.moving_mean), 1e-6, "running mean")
    ours_biased = 0.8 + (var.data - 0.8) * (n - 1) / n
    assert_close(ours_biased, np.asarray(layer.moving_variance), 1e-6, "running variance, ours turned into the biased one")
    assert np.abs(var.data - np.asarray(layer.moving_variance)).max() > 1e-3
    default = require("keras").layers.BatchNormalization()
    assert (default.momentum, default.epsilon) == (0.99, 1e-3)
