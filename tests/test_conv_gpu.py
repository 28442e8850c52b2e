"""The GPU kernels of convolution, run on the processor, against the definition in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minunet as mu
from minunet import functional as F
from minunet.arrays import to_device
from minunet.ops.conv import Geometry, gpu, ref
from tests import host_gpu

# x, weight, stride, padding, dilation, groups
CASES = [
    pytest.param((2, 3, 9, 8), (4, 3, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1, id="the usual"),
    pytest.param((1, 4, 7, 9), (6, 2, 3, 2), (2, 3), ((0, 2), (3, 1)), (2, 1), 2, id="everything uneven"),
    pytest.param((1, 4, 9, 9), (4, 1, 3, 3), (1, 1), ((0, -2), (1, -1)), (1, 1), 4, id="cropped at the end, each channel alone"),
    pytest.param((1, 4, 9, 9), (6, 2, 3, 3), (2, 1), ((-2, 1), (-1, -2)), (1, 1), 2, id="cropped before"),
    pytest.param((3, 2, 11), (5, 2, 4), (2,), ((1, 2),), (1,), 1, id="signal"),
    pytest.param((1, 2, 5, 4, 6), (3, 2, 3, 1, 2), (1, 2, 1), ((1, 1), (0, 0), (1, 0)), (1, 1, 2), 1, id="volume"),
    pytest.param((1, 1, 30, 30), (1, 1, 1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1, id="more pixels than a block has threads"),
]


@pytest.fixture(autouse=True)
def _gpu():
    with host_gpu.installed():
        yield


def check(got: Any, want: np.ndarray, dtype: str) -> None:
    assert got.dtype == dtype
    assert got.shape == want.shape
    limit = 1e-5 if dtype == "float32" else 1e-13
    assert np.linalg.norm(to_device(got, "cpu") - want) <= limit * np.linalg.norm(want)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "weight", "stride", "padding", "dilation", "groups"), CASES)
def test_all_sums_equal_the_definition(shape, weight, stride, padding, dilation, groups, dtype):
    rng = np.random.default_rng(0)
    geometry = Geometry(stride, padding, dilation, groups)

    def both(*size: int) -> tuple[Any, np.ndarray]:
        """The same numbers on the GPU in `dtype`, and here in float64."""
        array = rng.standard_normal(size).astype(dtype)
        return to_device(array, "cuda"), array.astype("float64")

    (x, exact_x), (w, exact_w), (b, exact_b) = both(*shape), both(*weight), both(weight[0])
    for activation in (None, "relu"):
        y = gpu.forward(x, w, b, geometry, activation, None)
        check(y, ref.forward(exact_x, exact_w, exact_b, geometry, activation, None), dtype)
    (gy, exact_gy), (gate, exact_gate), (c, exact_c) = both(*y.shape), both(*y.shape), both(shape[1])
    for opening, exact in ((None, None), (gate, exact_gate)):
        gx = gpu.grad_x(gy, opening, w, c, geometry, shape[2:], "relu", None)
        check(gx, ref.grad_x(exact_gy, exact, exact_w, exact_c, geometry, shape[2:], "relu", None), dtype)
        for got, want in zip(
            gpu.grad_w(x, gy, opening, geometry, weight[2:], True),
            ref.grad_w(exact_x, exact_gy, exact, geometry, weight[2:], True),
            strict=True,
        ):
            check(got, want, dtype)
    assert gpu.grad_w(x, gy, None, geometry, weight[2:], False)[1] is None


def test_the_result_is_written_where_it_is_wanted():
    rng = np.random.default_rng(0)
    x, w = (to_device(rng.standard_normal(shape).astype("float32"), "cuda") for shape in ((1, 2, 4, 4), (3, 2, 3, 3)))
    geometry = Geometry((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    room = to_device(np.zeros((1, 8, 4, 4), "float32"), "cuda")
    half = room[:, 2:5]
    assert gpu.forward(x, w, None, geometry, None, half) is half
    assert np.array_equal(half.get(), gpu.forward(x, w, None, geometry, None, None).get())
    assert not room.get()[:, [0, 1, 5, 6, 7]].any()


def test_which_tells_that_the_gpu_kernels_serve():
    x, w = (mu.tensor(np.ones(shape, np.float32), device="cuda") for shape in ((1, 1, 4, 4), (1, 1, 3, 3)))
    (choice,) = mu.which(F.conv2d, x, w)
    assert str(choice) == "conv.forward: gpu (CuPy arrays)"
