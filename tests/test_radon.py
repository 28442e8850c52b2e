"""The Radon transform and its adjoint: what the operation table cannot say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import minunet as mu
from minunet import cuda
from minunet import functional as F
from minunet.arrays import to_device
from minunet.ops import radon as ops
from minunet.ops.radon import back_project_array, gpu, project, ref
from minunet.ops.radon.geometry import Geometry
from tests import host_gpu, running
from tests.conftest import require
from tests.host_gpu.launch import KernelError
from tests.running import on

every_set = pytest.mark.parametrize("kernel_set", ["ref", "cpu", "gpu"])


def scan(size, angles, detectors=None, centre=None):
    return Geometry.over("scan", size, angles, detectors, centre)


WEDGE = scan((48, 40), np.linspace(-60, 60, 41).tolist())
AROUND = scan((33, 33), np.linspace(0, 360, 37).tolist(), 50, 23.7)


def inner(a, b):
    return float(np.vdot(a.astype(np.float64), b.astype(np.float64)))


@every_set
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-12)])
@pytest.mark.parametrize("geometry", [WEDGE, AROUND], ids=["wedge", "around"])
def test_the_adjoint_is_one(kernel_set, dtype, tolerance, geometry):
    """⟨A x, y⟩ = ⟨x, Aᵀ y⟩. Numbers of one sign: with both signs the product may be near 0, and relative to it anything is large."""
    rng = np.random.default_rng(0)
    x, y = rng.random((2, *geometry.size)).astype(dtype), rng.random((2, *geometry.sinogram)).astype(dtype)
    with on(kernel_set):
        there = to_device(project(to_device(x, running.device), geometry), "cpu")
        back = to_device(back_project_array(to_device(y, running.device), geometry), "cpu")
    assert there.dtype == back.dtype == dtype
    assert abs(inner(there, y) - inner(x, back)) <= tolerance * inner(there, y)


def test_the_adjoint_at_full_size():
    """Where places are large numbers, so that rounding them would show."""
    geometry = scan((512, 512), np.arange(0, 180, 3).tolist())
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(shape).astype(np.float32) for shape in (geometry.size, geometry.sinogram))
    there, back = project(x, geometry), back_project_array(y, geometry)
    assert abs(inner(there, y) - inner(x, back)) <= 1e-6 * np.linalg.norm(there) * np.linalg.norm(y)


def test_angles_of_a_quarter_turn_sum_rows_and_columns():
    x = np.random.default_rng(0).random((5, 5))
    y = project(x, scan((5, 5), [0, 90, 180, 270]))
    np.testing.assert_allclose(y[0], x.sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(y[1], x.sum(axis=1)[::-1], rtol=1e-12)  # the top row is seen by the last detector: y points upwards
    np.testing.assert_allclose(y[2], y[0][::-1], rtol=1e-12)
    np.testing.assert_allclose(y[3], y[1][::-1], rtol=1e-12)


def test_a_gaussian_casts_a_gaussian():
    """Its line integrals are known: exp(−(t − t₀)²/2σ²)·σ√2π."""
    size, sigma, (row, column) = 101, 5.0, (12.0, -20.0)  # of its middle, from the axis
    v, u = np.mgrid[:size, :size] - size // 2
    x = np.exp(-((v - row) ** 2 + (u - column) ** 2) / (2 * sigma**2))
    angles = np.arange(0, 360, 7.0)
    theta = np.deg2rad(angles)[:, None]
    t = np.arange(size) - size // 2 - (column * np.cos(theta) - row * np.sin(theta))
    want = np.exp(-(t**2) / (2 * sigma**2)) * sigma * np.sqrt(2 * np.pi)
    assert np.abs(project(x, scan((size, size), angles.tolist())) - want).max() < 0.01 * want.max()


def test_it_agrees_with_scikit_image():
    """On a smooth image, to a hundredth: scikit-image turns the image, interpolating between four pixels, and sums columns; here a ray
    interpolates between two. What differs is of the order of the second difference between pixels, an eighth of it for each method."""
    transform = require("skimage.transform")
    size = 64
    v, u = np.mgrid[:size, :size] - size // 2
    x = sum(w * np.exp(-((v - a) ** 2 + (u - b) ** 2) / (2 * s**2)) for w, a, b, s in ((1, 6, -9, 4), (0.6, -11, 3, 3), (-0.4, 2, 12, 5)))
    x *= np.hypot(v, u) < size // 2 - 1
    angles = np.linspace(0, 180, 45, endpoint=False)
    want = transform.radon(x, angles, circle=True).T
    got = project(x, scan((size, size), angles.tolist()))
    assert np.linalg.norm(got - want) < 0.01 * np.linalg.norm(want)


def test_linear_interpolation_is_asked_for():
    geometry = scan((9, 9), [45.0])
    y = np.zeros((1, 9))
    y[0, 4] = 1
    x = back_project_array(y, geometry, linear=True)
    assert x[4, 4] == 1
    assert x[4, 5] == pytest.approx(1 - np.sqrt(0.5))
    assert back_project_array(y, geometry)[4, 5] == 0  # the shadow of a pixel is no wider than its way across the ray


def test_gradients_are_transforms():
    x = mu.tensor(np.random.default_rng(0).random((1, 1, 8, 8)), requires_grad=True)
    y = F.radon(x, (0.0, 30.0, 60.0))
    gy = np.random.default_rng(1).random(y.shape)
    y.backward(gy)
    assert np.array_equal(x.grad, F.back_project(mu.Tensor(gy), (0.0, 30.0, 60.0), 8).data)


def test_rays_go_to_the_gpu_once():
    gpu._rays.cache_clear()
    with on("gpu"):
        for _ in range(3):
            project(to_device(np.ones((3, 4), np.float32), "cuda"), scan((3, 4), [0, 10]))
    assert gpu._rays.cache_info().misses == 1


MUTANTS = [
    pytest.param("low + 1 < pixels", "low + 1 <= pixels", (AssertionError, KernelError), id="a pixel too far"),
    pytest.param("place > -1 && place < pixels", "place > 0 && place < pixels", AssertionError, id="the first pixel cut in half"),
    pytest.param("t > -1 && t < scan.detectors", "t > 0 && t < scan.detectors", AssertionError, id="the first detector cut in half"),
    pytest.param("1 < scan.detectors && far > 0", "1 <= scan.detectors && far > 0", (AssertionError, KernelError), id="a detector too far"),
    pytest.param("sum * (REAL)fabs(step)", "sum", AssertionError, id="the way to the next row left out"),
    pytest.param("linear ? 1 : ray.width()", "1", AssertionError, id="always linear"),
    pytest.param("fabs(by_column) >= fabs(by_row)", "true", (AssertionError, KernelError), id="all rays cross rows"),
    pytest.param("low) : x_steps(n, low, line)", "low) : x_steps(n, line, low)", (AssertionError, KernelError), id="not turned"),
]  # fmt: skip


def gpu_equals_ref():
    rng = np.random.default_rng(0)
    for geometry in (scan((17, 12), np.arange(0, 360, 25).tolist()), scan((9, 14), np.arange(0, 180, 25).tolist(), 9, 3.2)):
        x, y = rng.random((2, *geometry.size)), rng.random((2, *geometry.sinogram))
        with on("gpu"):
            there = gpu.project(to_device(x, "cuda"), geometry).get()
            back = gpu.back_project(to_device(y, "cuda"), geometry, False).get()
        np.testing.assert_allclose(there, ref.project(x, geometry), rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(back, ref.back_project(y, geometry, False), rtol=1e-10, atol=1e-10)


def test_the_gpus_kernels_equal_the_definition():
    gpu_equals_ref()


@pytest.mark.parametrize(("right", "wrong", "told"), MUTANTS)
def test_a_wrong_kernel_is_seen(right, wrong, told, tmp_path, monkeypatch):
    with host_gpu.pretended():
        source = Path(ops.__file__).with_name("radon.cu")
        assert right in source.read_text(encoding="utf-8")
        (tmp_path / "radon.cu").write_text(source.read_text(encoding="utf-8").replace(right, wrong), encoding="utf-8")
        monkeypatch.setattr(gpu, "SOURCE", cuda.Source(str(tmp_path / "gpu.py"), "radon.cu"))
        with pytest.raises(told):
            gpu_equals_ref()
