"""Pooling: what the operation table cannot say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minunet as mu
from minunet import functional as F
from minunet.arrays import to_device
from minunet.ops.pool import gpu, ref
from minunet.ops.pool.windows import Windows
from minunet.volumes import is_wide
from tests import running
from tests.conftest import require
from tests.running import on

every_set = pytest.mark.parametrize("kernel_set", ["ref", "cpu", "gpu"])


def tensor(array: np.ndarray, **options: Any) -> mu.Tensor:
    """Where the kernel set computes."""
    return mu.Tensor(to_device(array, running.device), **options)


def host(array: Any) -> np.ndarray:
    array = array.data if isinstance(array, mu.Tensor) else array
    return array.get() if hasattr(array, "get") else array


def channels_last(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


@every_set
def test_ties_go_to_the_first_element(kernel_set):
    with on(kernel_set):
        x = tensor(np.zeros((1, 1, 2, 2)), requires_grad=True)
        y, indices = F.max_pool2d(x, 2, return_indices=True)
        y.backward(to_device(np.full((1, 1, 1, 1), 3.0), running.device))
    assert host(indices).item() == 0
    assert host(x.grad).tolist() == [[[[3, 0], [0, 0]]]]


@every_set
@pytest.mark.parametrize("layout", [np.ascontiguousarray, channels_last])
def test_nan_and_infinity_as_in_torch(kernel_set, layout):
    torch = require("torch")
    rng = np.random.default_rng(0)
    values = rng.choice([np.nan, np.inf, -np.inf, 1.0, 2.0], (2, 3, 9, 8), p=[0.1, 0.1, 0.4, 0.2, 0.2]).astype(np.float32)
    want, places = torch.nn.functional.max_pool2d(torch.from_numpy(values), 3, 2, 1, return_indices=True)
    with on(kernel_set):
        y, indices = F.max_pool2d(tensor(layout(values)), 3, 2, 1, return_indices=True)
    assert np.array_equal(host(y), want.numpy(), equal_nan=True)
    assert np.array_equal(host(indices), places.numpy())


@every_set
def test_a_dilated_window_that_misses_the_input(kernel_set):
    with on(kernel_set):
        x = tensor(np.ones((1, 1, 2)), requires_grad=True)
        y, indices = F.max_pool1d(x, 2, padding=1, dilation=3, return_indices=True)
        y.backward(to_device(np.ones((1, 1, 1)), running.device))
    assert host(y).tolist() == [[[-np.inf]]]
    assert host(indices).tolist() == [[[-1]]]
    assert not host(x.grad).any()


@every_set
def test_integers(kernel_set):
    x = np.arange(-16, 0).reshape(1, 1, 4, 4)
    with on(kernel_set):
        y = host(F.max_pool2d(tensor(x), 3, 2, 1))
    assert y.dtype == x.dtype
    assert y.tolist() == [[[[-11, -9], [-3, -1]]]]


@pytest.mark.parametrize("kernel_size", [127, 128, 129, 300])
@every_set
def test_windows_of_more_places_than_a_byte_counts(kernel_set, kernel_size):
    with on(kernel_set):
        x = tensor(np.arange(600.0).reshape(1, 1, 600), requires_grad=True)
        y, indices = F.max_pool1d(x, kernel_size, stride=1, return_indices=True)
        y.backward(y.data)
    assert host(indices).ravel().tolist() == list(range(kernel_size - 1, 600))
    assert np.array_equal(host(x.grad)[0, 0], np.where(np.arange(600) < kernel_size - 1, 0, np.arange(600)))


@pytest.mark.parametrize("kernel_size", [32768, 32769])
def test_windows_of_more_places_than_two_bytes_count(kernel_size):
    with on("gpu"):
        x = tensor(np.arange(32771.0).reshape(1, 1, -1), requires_grad=True)
        y, indices = F.max_pool1d(x, kernel_size, stride=1, return_indices=True)
        y.backward(y.data)
    assert host(indices).ravel().tolist() == list(range(kernel_size - 1, 32771))
    assert np.array_equal(host(x.grad)[0, 0], np.where(np.arange(32771) < kernel_size - 1, 0, np.arange(32771)))


@pytest.mark.parametrize("layout", [np.ascontiguousarray, channels_last])
@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((2, 5, 11), {"kernel_size": 3, "stride": 2, "padding": 1}),
        ((2, 5, 9, 8), {"kernel_size": 2}),
        ((1, 3, 9, 8), {"kernel_size": (3, 2), "stride": 1, "padding": 1, "dilation": (2, 3)}),
        ((1, 3, 5, 4, 6), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
        ((1, 2, 14, 13), {"kernel_size": (12, 11), "stride": 1}),  # 132 places
        # channels that a thread takes four of
        ((2, 8, 9, 8), {"kernel_size": 2}),
        ((2, 4, 11), {"kernel_size": 2, "stride": 3}),
        ((1, 8, 9, 8), {"kernel_size": (3, 2), "stride": 1, "padding": 1, "dilation": (2, 3)}),
        ((1, 4, 5, 4, 6), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
        ((1, 4, 14, 13), {"kernel_size": (12, 11), "stride": 1}),
    ],
    ids=str,
)
def test_the_gpu_agrees_with_the_definition_in_every_bit_and_keeps_the_order_in_memory(shape, window, layout):
    rng = np.random.default_rng(0)
    x = layout(rng.choice([-np.inf, -1, 0, 1, 2, np.nan], shape, p=[0.5, 0.1, 0.1, 0.1, 0.1, 0.1]).astype(np.float32))  # ties
    options = {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False, **window}
    windows = Windows.over("max_pool", shape[2:], **options)
    y, winners = ref.max_forward(x, windows)
    gy = layout(rng.standard_normal(y.shape).astype(np.float32))
    want = y, winners, ref.max_backward(gy, winners, windows)
    with on("gpu"):
        y, winners = gpu.max_forward(to_device(x, "cuda"), windows)
        got = y, winners, gpu.max_backward(to_device(gy, "cuda"), winners, windows)
    for ours, expected in zip(got, want, strict=True):
        assert (ours.dtype, ours.shape) == (expected.dtype, expected.shape)
        assert host(ours).tobytes() == expected.tobytes()
        assert ours.strides == layout(expected).strides


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_on_the_gpu_some_channels_of_a_wider_array(dtype):
    """A thread takes 16 bytes of channels at once where they begin at a multiple of that."""
    buffer = np.random.default_rng(0).standard_normal((2, 6, 6, 24)).astype(dtype)
    windows = Windows.over("max_pool", (6, 6), 2, None, 0, 1, False)
    for first, wide in ((0, True), (16 // buffer.itemsize, True), (1, False)):
        channels = np.s_[:, first : first + 8]
        with on("gpu"):
            x = np.moveaxis(to_device(buffer, "cuda"), 3, 1)[channels]
            assert is_wide(x) == wide
            y, winners = gpu.max_forward(x, windows)
            gx = gpu.max_backward(x[:, :, ::2, ::2], winners, windows)
            found = [to_device(a, "cpu") for a in (y, winners, gx)]
        x = np.moveaxis(buffer, 3, 1)[channels]
        want = [*ref.max_forward(x, windows), ref.max_backward(x[:, :, ::2, ::2], found[1], windows)]
        for ours, expected in zip(found, want, strict=True):
            assert np.array_equal(ours, expected)


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
