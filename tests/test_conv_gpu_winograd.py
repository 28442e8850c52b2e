"""Winograd's convolution on the GPU, run on the processor: against the definition, in chunks, and with planted faults."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minunet as mu
from minunet import cuda
from minunet import functional as F
from minunet.arrays import as_dtype, to_device
from minunet.ops.conv import Geometry, gpu, ref, winograd_gpu
from tests import host_gpu
from tests.host_gpu import KernelError
from tests.test_conv_gpu_tiled import draw, first, last, normal, slice_of_wider, sums

PADDED = Geometry((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
TOLERANCE = 4e-6  # of the largest result

# x, outputs, padding
CASES = [
    pytest.param((1, 32, 4, 4), 32, ((1, 1), (1, 1)), id="one tile"),
    pytest.param((2, 36, 9, 7), 40, ((1, 1), (1, 1)), id="odd sizes"),
    pytest.param((1, 32, 8, 11), 44, ((0, 0), (0, 0)), id="no padding"),
    pytest.param((1, 40, 7, 6), 32, ((0, 2), (3, 1)), id="asymmetric padding"),
    pytest.param((1, 32, 9, 8), 32, ((-2, 1), (-1, -2)), id="cropped before"),
    pytest.param((2, 32, 1, 3), 32, ((1, 1), (2, 2)), id="less than a tile"),
    pytest.param((1, 68, 5, 6), 132, ((1, 1), (1, 1)), id="more outputs than a tile of sums is wide"),
    pytest.param((1, 132, 5, 6), 68, ((1, 1), (1, 1)), id="more channels than a tile of sums is high"),
]


@pytest.fixture(autouse=True)
def _gpu():
    with host_gpu.installed():
        yield


def weights_of(shape: tuple[int, ...], outputs: int) -> tuple[int, ...]:
    return outputs, shape[1], 3, 3


def check(got: list[np.ndarray], arrays: list[np.ndarray], geometry: Geometry) -> None:
    exact = sums(np.asarray, [a.astype(np.float64) for a in arrays], geometry, ref)
    for i, (found, want) in enumerate(zip(got, exact, strict=True)):
        assert found.shape == want.shape
        assert found.dtype == np.float32
        assert np.abs(found - want).max() <= TOLERANCE * np.abs(want).max(), f"result {i}"


@pytest.mark.parametrize("place", [last, first, slice_of_wider])
@pytest.mark.parametrize(("shape", "outputs", "padding"), CASES)
def test_it_equals_the_definition(shape, outputs, padding, place):
    geometry = Geometry((1, 1), padding, (1, 1), 1)
    arrays = draw(shape, weights_of(shape, outputs), geometry, normal)
    check(sums(place, arrays, geometry), arrays, geometry)


def test_chunks_are_added_and_repeat_bit_by_bit(monkeypatch):
    """Of 13×21 tiles a chunk has 256, and the sums of ∂w have several parts."""
    arrays = draw((1, 32, 51, 83), (36, 32, 3, 3), PADDED, normal)
    at_once = sums(last, arrays, PADDED)
    monkeypatch.setattr(winograd_gpu, "WORKSPACE", 1)
    chunks = list(winograd_gpu._chunks(to_device(arrays[3], "cuda"), 32))
    assert [(chunk["first"], chunk["count"]) for chunk in chunks] == [(0, 256), (256, 17)]
    in_chunks = sums(last, arrays, PADDED)
    check(in_chunks, arrays, PADDED)
    again = gpu.grad_w(last(arrays[0]), last(arrays[3]), last(arrays[4]), PADDED, (3, 3), True)
    assert all(np.array_equal(a, b.get()) for a, b in zip(in_chunks[4:6], again, strict=True))
    for a, b in zip(in_chunks[:4], at_once[:4], strict=True):
        assert np.array_equal(a, b)  # a pixel's sum is the same in any chunk


def test_an_empty_batch():
    x, gy, w = last(np.zeros((0, 32, 5, 6), np.float32)), last(np.zeros((0, 32, 5, 6), np.float32)), last(normal((32, 32, 3, 3)))
    assert gpu.forward(x, w, None, PADDED, None, None).shape == (0, 32, 5, 6)
    assert gpu.grad_x(gy, None, w, None, PADDED, (5, 6), None, None).shape == (0, 32, 5, 6)
    gw, gb = gpu.grad_w(x, gy, None, PADDED, (3, 3), True)
    assert gw.shape == (32, 32, 3, 3)
    assert not gw.get().any()
    assert not gb.get().any()


@pytest.mark.parametrize("kind", ["channels last", "channels first", "backwards"])
def test_a_result_is_written_where_it_is_wanted(kind):
    x, w = last(normal((1, 32, 5, 5))), last(normal((36, 32, 3, 3)))
    room = (first if kind == "channels first" else last)(np.zeros((1, 43, 5, 5), np.float32))
    if kind == "backwards":
        room = room[:, :, ::-1]
    gpu.forward(x, w, None, PADDED, None, room[:, 3:39])
    assert np.array_equal(room.get()[:, 3:39], gpu.forward(x, w, None, PADDED, None, None).get())
    assert not room.get()[:, [0, 1, 2, 39, 40, 41, 42]].any()


def test_results_lie_with_channels_last():
    x, w = (mu.tensor(normal(shape), device="cuda", requires_grad=True) for shape in ((2, 32, 5, 6), (36, 32, 3, 3)))
    y = F.conv2d(x, w, padding=1)
    y.backward(y.data)
    for array in (y.data, x.grad):
        assert array.transpose(0, 2, 3, 1).flags.c_contiguous
    assert w.grad.transpose(2, 3, 1, 0).flags.c_contiguous


@pytest.mark.parametrize("channels", [128, 512])
def test_errors_are_few_times_those_of_the_tiles(channels, monkeypatch):
    """In float32, against float64. Measured: 2.2 times for y, 2.5 for ∂x, 6.6 for ∂w, with both numbers of channels."""
    x, w, gy = normal((1, channels, 8, 8)), normal((32, channels, 3, 3)), normal((1, 32, 8, 8))

    def three(place: Any, kernels: Any, *arrays: np.ndarray) -> list[np.ndarray]:
        x, w, gy = map(place, arrays)
        y = kernels.forward(x, w, None, PADDED, None, None)
        gx = kernels.grad_x(gy, None, w, None, PADDED, (8, 8), None, None)
        return [to_device(a, "cpu") for a in (y, gx, kernels.grad_w(x, gy, None, PADDED, (3, 3), False)[0])]

    exact = three(np.asarray, ref, *(a.astype(np.float64) for a in (x, w, gy)))
    fast = three(last, gpu, x, w, gy)
    monkeypatch.setattr(gpu, "is_winograd", lambda *_: False)
    for found, direct, want in zip(fast, three(last, gpu, x, w, gy), exact, strict=True):
        assert np.linalg.norm(found - want) <= 20 * np.linalg.norm(direct - want)


def test_what_goes_to_winograd():
    def goes(dtype="float32", kernel=(3, 3), stride=1, dilation=1, groups=1, channels=32, outputs=32):
        axes = len(kernel)
        geometry = Geometry((stride,) * axes, ((1, 1),) * axes, (dilation,) * axes, groups)
        return gpu.is_winograd(np.ones(1, as_dtype(dtype)), geometry, kernel, channels, outputs)

    assert goes()
    assert goes(channels=512, outputs=36)
    for dtype in ("float64", "float16", "bfloat16"):
        assert not goes(dtype)
    for kernel in ((3,), (3, 3, 3), (3, 1), (5, 5)):
        assert not goes(kernel=kernel)
    assert not any(goes(**{name: 2}) for name in ("stride", "dilation", "groups"))
    assert not any(goes(**{name: count}) for name in ("channels", "outputs") for count in (28, 34))
    with cuda.precision("tf32"):
        assert not goes()


def test_a_graph_repeats_it():
    """Its workspace is in the graph's pool."""
    w = mu.tensor(normal((32, 32, 3, 3)), device="cuda", requires_grad=True)

    def step(x: Any) -> Any:
        w.grad = None
        F.conv2d(mu.Tensor(x), w, padding=1, activation="relu").sum().backward()
        return w.grad

    repeated = cuda.graph(step)
    for seed in range(4):
        x = last(np.random.default_rng(seed).standard_normal((1, 32, 6, 6)).astype(np.float32))
        assert np.array_equal(repeated(x).get(), step(x).get())


# planted faults

FAULTS = [
    # what stands there, what is put there, how it is told
    pytest.param("if (s.number >= t.count) return;", "if (s.number > t.count) return;", KernelError, id="a tile too far"),
    pytest.param("h + i < height &&", "h + i <= height &&", (KernelError, AssertionError), id="past the edge"),
    pytest.param("s.w + j >= width", "s.w + j > width", (KernelError, AssertionError), id="past y"),
    pytest.param("relu && value < 0", "false", AssertionError, id="no ReLU"),
    pytest.param("y[3] = PP * odd_p + QQ * odd_q + m[5];", "y[3] = PP * odd_p + QQ * odd_q;", AssertionError, id="infinity left out"),
    pytest.param("slice += SLICE) < end", "slice += SLICE) < end - SLICE", AssertionError, id="a slice too few"),
    pytest.param("first + line < lines && term < terms", "term < terms", KernelError, id="a line too far"),
    pytest.param("first + line < lines && term < terms", "first + line < lines", (KernelError, AssertionError), id="terms too far"),
    pytest.param("line < lines && slice + term < terms", "slice + term < terms", KernelError, id="lines too far"),
    pytest.param("line < lines && slice + term < terms", "line < lines", (KernelError, AssertionError), id="a tile of the next part"),
    pytest.param("more ? *reinterpret_cast", "false ? *reinterpret_cast", AssertionError, id="a chunk forgotten"),
    pytest.param("int part = 0", "int part = 1", AssertionError, id="a part lost"),
    pytest.param("t.first + s.number) * outputs", "s.number) * outputs", AssertionError, id="totals of the first chunk alone"),
]  # fmt: skip


ALWAYS = "a tile too far", "a slice too few", "a line too far", "a chunk forgotten"  # each takes ten seconds; the others are slow tests


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [fault if fault.id in ALWAYS else pytest.param(*fault.values, id=fault.id, marks=pytest.mark.slow) for fault in FAULTS],
)
def test_a_fault_is_seen(right, wrong, told, tmp_path: Path, monkeypatch):
    for copied in ("winograd.cu", "tile.cuh"):
        shutil.copy(winograd_gpu.SOURCE.path.with_name(copied), tmp_path)
    source = tmp_path / "winograd.cu"
    assert right in source.read_text()
    source.write_text(source.read_text().replace(right, wrong))
    monkeypatch.setattr(winograd_gpu, "SOURCE", cuda.Source(str(tmp_path / "gpu.py"), "winograd.cu"))
    monkeypatch.setattr(winograd_gpu, "WORKSPACE", 1)
    arrays = draw((1, 32, 52, 82), (36, 32, 3, 3), PADDED, normal)  # 273 tiles, two chunks
    with host_gpu.pretended(), pytest.raises(AssertionError) as seen:
        check(sums(last, arrays, PADDED), arrays, PADDED)
    assert type(seen.value) in (told if isinstance(told, tuple) else (told,))  # and not that it does not compile
