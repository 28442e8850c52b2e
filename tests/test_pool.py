"""Pooling: what the operation table cannot say."""

from __future__ import annotations

import numpy as np
import pytest

import minunet as mu
from minunet import functional as F
from tests.conftest import require

both_sets = pytest.mark.parametrize("kernel_set", ["ref", "cpu"])


@both_sets
def test_ties_go_to_the_first_element(kernel_set):
    x = mu.Tensor(np.zeros((1, 1, 2, 2)), requires_grad=True)
    with mu.use(kernel_set):
        y, indices = F.max_pool2d(x, 2, return_indices=True)
        y.backward(np.full((1, 1, 1, 1), 3.0))
    assert indices.item() == 0
    assert x.grad.tolist() == [[[[3, 0], [0, 0]]]]


@both_sets
@pytest.mark.parametrize("layout", [np.ascontiguousarray, lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)])
def test_nan_and_infinity_as_in_torch(kernel_set, layout):
    torch = require("torch")
    rng = np.random.default_rng(0)
    values = rng.choice([np.nan, np.inf, -np.inf, 1.0, 2.0], (2, 3, 9, 8), p=[0.1, 0.1, 0.4, 0.2, 0.2]).astype(np.float32)
    want, places = torch.nn.functional.max_pool2d(torch.from_numpy(values), 3, 2, 1, return_indices=True)
    with mu.use(kernel_set):
        y, indices = F.max_pool2d(mu.Tensor(layout(values)), 3, 2, 1, return_indices=True)
    assert np.array_equal(y.data, want.numpy(), equal_nan=True)
    assert np.array_equal(indices.data, places.numpy())


@both_sets
def test_a_dilated_window_that_misses_the_input(kernel_set):
    x = mu.Tensor(np.ones((1, 1, 2)), requires_grad=True)
    with mu.use(kernel_set):
        y, indices = F.max_pool1d(x, 2, padding=1, dilation=3, return_indices=True)
        y.backward(np.ones((1, 1, 1)))
    assert y.tolist() == [[[-np.inf]]]
    assert indices.tolist() == [[[-1]]]
    assert not x.grad.any()


@both_sets
def test_integers(kernel_set):
    x = np.arange(-16, 0).reshape(1, 1, 4, 4)
    with mu.use(kernel_set):
        y = F.max_pool2d(mu.Tensor(x), 3, 2, 1)
    assert y.dtype == x.dtype
    assert y.tolist() == [[[[-11, -9], [-3, -1]]]]


@pytest.mark.parametrize("kernel_size", [127, 128, 129, 300])
@both_sets
def test_windows_of_more_places_than_a_byte_counts(kernel_set, kernel_size):
    x = mu.Tensor(np.arange(600.0).reshape(1, 1, 600), requires_grad=True)
    with mu.use(kernel_set):
        y, indices = F.max_pool1d(x, kernel_size, stride=1, return_indices=True)
        y.backward(y.data)
    assert indices.data.ravel().tolist() == list(range(kernel_size - 1, 600))
    assert np.array_equal(x.grad[0, 0], np.where(np.arange(600) < kernel_size - 1, 0, np.arange(600)))


def test_names_and_defaults_are_torchs():
    torch = require("torch")
    x = np.random.default_rng(0).standard_normal((1, 2, 7, 7))
    want = torch.nn.functional.max_pool2d(torch.from_numpy(x), 3, 2, 1, 2, True)
    assert np.array_equal(F.max_pool2d(mu.Tensor(x), 3, 2, 1, 2, True).data, want.numpy())
    want = torch.nn.functional.avg_pool2d(torch.from_numpy(x), 3, 2, 1, True, False, 5)
    assert np.allclose(F.avg_pool2d(mu.Tensor(x), 3, 2, 1, True, False, 5).data, want.numpy(), atol=1e-14)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("layer", ["Max", "Average"])
def test_every_keras_case(padding, layer):
    """Kernels 1–5, strides 1–3, even and odd sizes."""
    keras = require("keras")
    rng = np.random.default_rng(0)
    function = F.max_pool2d if layer == "Max" else F.avg_pool2d
    for n in (6, 7):
        x = rng.standard_normal((1, 2, n, n + 1))
        for kernel in range(1, 6):
            for stride in range(1, 4):
                pool = getattr(keras.layers, f"{layer}Pooling2D")(kernel, stride, padding, dtype="float64")
                want = np.moveaxis(np.asarray(pool(np.moveaxis(x, 1, -1))), -1, 1)
                y = function(mu.Tensor(x), kernel, stride, padding)
                assert y.shape == want.shape, f"n={n} k={kernel} s={stride}"
                assert np.allclose(y.data, want, atol=1e-12), f"n={n} k={kernel} s={stride}"
