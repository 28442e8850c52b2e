"""The tiled kernels of convolution, run on the processor: against the definition, in every format, and with planted faults."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minunet as mu
from minunet import cuda
from minunet import functional as F
from minunet.arrays import HALF, as_dtype, channels_first, channels_last, computed_dtype, to_device
from minunet.ops.conv import Geometry, gpu, ref
from tests import host_gpu, test_docs
from tests.host_gpu import KernelError, stand_in

ROUNDING = {"float32": 2.0**-24, "tf32": 2.0**-11, "float16": 2.0**-11, "bfloat16": 2.0**-8}  # at most, relative to the number
IMAGES = (0, 3, 4)  # of the arrays that `draw` makes: x, ∂y and the gate, which may have 16 bits

# x, weight, stride, padding, dilation
CASES = [
    pytest.param((2, 17, 9, 7), (33, 17, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), id="tails everywhere"),
    pytest.param((1, 64, 6, 19), (64, 64, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), id="four channels at once"),
    pytest.param((1, 3, 13, 11), (65, 3, 3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), id="stride, and the wider tile"),
    pytest.param((1, 1, 12, 14), (4, 1, 5, 5), (1, 1), ((2, 2), (2, 2)), (1, 1), id="one channel"),
    pytest.param((1, 20, 11, 12), (8, 20, 3, 3), (1, 1), ((2, 2), (2, 2)), (2, 2), id="dilation"),
    pytest.param((1, 33, 12, 13), (2, 33, 1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), id="1×1"),
    pytest.param((2, 12, 8, 10), (64, 12, 2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1), id="2×2 with stride 2"),
    pytest.param((1, 4, 10, 9), (6, 4, 3, 2), (2, 3), ((0, 2), (1, -1)), (2, 1), id="everything uneven"),
    pytest.param((1, 8, 9, 10), (8, 8, 3, 3), (2, 1), ((-2, 1), (-1, -2)), (1, 1), id="cropped before"),
    pytest.param((1, 9, 5, 4, 6), (17, 9, 3, 3, 3), (1, 1, 1), ((1, 1), (1, 1), (1, 1)), (1, 1, 1), id="volume"),
    pytest.param((1, 8, 5, 6, 7), (8, 8, 2, 1, 3), (2, 1, 2), ((0, 1), (0, 0), (2, 1)), (1, 1, 2), id="volume, everything uneven"),
]


@pytest.fixture(autouse=True)
def _gpu(monkeypatch):
    monkeypatch.setattr(gpu, "is_winograd", lambda *_: False)  # test_conv_gpu_winograd.py is about those
    with host_gpu.installed():
        yield


def last(array: np.ndarray) -> Any:
    """On the GPU, channels last in memory."""
    return to_device(channels_first(channels_last(array)), "cuda")


def first(array: np.ndarray) -> Any:
    """On the GPU, channels first in memory."""
    return to_device(np.ascontiguousarray(array), "cuda")


def slice_of_wider(array: np.ndarray) -> Any:
    """On the GPU, channels last, some of the channels of a wider array, where sixteen bytes do not begin at a multiple of sixteen."""
    wider = np.zeros((array.shape[0], array.shape[1] + 5, *array.shape[2:]), array.dtype)
    wider[:, 1:-4] = array
    return last(wider)[:, 1:-4]


def sums(place: Callable[[np.ndarray], Any], arrays: list[np.ndarray], geometry: Geometry, kernels: Any = gpu) -> list[np.ndarray]:
    """y, ∂x through a gate, the transposed convolution with bias and ReLU, ∂w and ∂b: with and without a gate.

    The first four are images.
    """
    x, w, b, gy, gate, c = (place(a) if a.ndim > 1 else a if place is np.asarray else to_device(a, "cuda") for a in arrays)
    spatial, kernel = x.shape[2:], w.shape[2:]
    found = [
        kernels.forward(x, w, b, geometry, "relu", None),
        kernels.forward(x, w, None, geometry, None, None),
        kernels.grad_x(gy, gate, w, None, geometry, spatial, None, None),
        kernels.grad_x(gy, None, w, c, geometry, spatial, "relu", None),
        *kernels.grad_w(x, gy, gate, geometry, kernel, True),
        kernels.grad_w(x, gy, None, geometry, kernel, False)[0],
        kernels.grad_b(gy, gate),
    ]
    return [to_device(a, "cpu") for a in found]


def draw(shape: Any, weight: Any, geometry: Geometry, number: Callable[[tuple[int, ...]], np.ndarray]) -> list[np.ndarray]:
    y = (shape[0], weight[0], *geometry.outputs(shape[2:], weight[2:]))
    return [number(size) for size in (shape, weight, weight[:1], y, y, shape[1:2])]


def in_format(arrays: list[np.ndarray], name: str) -> list[np.ndarray]:
    """The images in a format of 16 bits."""
    return [a.astype(as_dtype(name)) if name in HALF and i in IMAGES else a for i, a in enumerate(arrays)]


def multiplying(name: str) -> Any:
    """A block in which float32 is multiplied so, where it is a way to multiply float32."""
    return cuda.precision(name) if name in cuda.PRECISIONS else nullcontext()


def normal(size: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(sum(size)).standard_normal(size).astype(np.float32)


def magnitudes(arrays: list[np.ndarray], geometry: Geometry) -> list[np.ndarray]:
    """For each of `sums` the sum of the sizes of its products, without ReLU: what rounding errors are measured against."""
    x, w, b, gy, gate, c = (np.abs(a).astype(np.float64) for a in arrays)
    gate = arrays[4]
    spatial, kernel = x.shape[2:], w.shape[2:]
    return [
        ref.forward(x, w, b, geometry, None, None),
        ref.forward(x, w, None, geometry, None, None),
        ref.grad_x(gy, gate, w, None, geometry, spatial, None, None),
        ref.grad_x(gy, None, w, c, geometry, spatial, None, None),
        *ref.grad_w(x, gy, gate, geometry, kernel, True),
        ref.grad_w(x, gy, None, geometry, kernel, False)[0],
        ref.grad_b(gy, gate),
    ]


def check_bounds(got: list[np.ndarray], arrays: list[np.ndarray], geometry: Geometry, name: str, *, factors: bool = True) -> None:
    """|got − exact| ≤ ((1 + u)² − 1 + (n + 1)·2⁻²⁴)·Σ|a·b|, where u is the rounding of a factor and n the number of products.

    A sum of n numbers in float32, in any order, is off by at most n·2⁻²⁴ of the sum of their sizes (to first order; Higham 2002, ch. 4).
    Images of 16 bits are exact factors. A weight is rounded for them, and so is a result that is an image: twice u again.
    FP16 also has a smallest number: a factor may be off by 2⁻²⁵, which in a product meets another factor, and so may a result.
    factors: False where they are exact.
    """
    exact = sums(np.asarray, [a.astype(np.float64) for a in arrays], geometry, ref)
    terms = max(a.size for a in arrays)  # more than any sum here has
    u = ROUNDING[name]
    limit = ((1 + u) ** 2 - 1 if factors else 0) + 1.01 * (terms + 1) * 2.0**-24
    tiny = 2.0**-25 * (1 + terms * max(float(np.abs(a).max()) for a in arrays)) if name == "float16" else 0.0
    for i, (found, want, size) in enumerate(zip(got, exact, magnitudes(arrays, geometry), strict=True)):
        assert found.shape == want.shape
        is_image = name in HALF and i < 4
        assert found.dtype == (name if is_image else "float32")
        bound = limit * size + tiny + (u * np.abs(want) if is_image else 0)
        assert (np.abs(found.astype(np.float64) - want) <= bound).all(), f"result {i} of {name}"


# values


@pytest.mark.parametrize("place", [last, first, slice_of_wider])
@pytest.mark.parametrize(("shape", "weight", "stride", "padding", "dilation"), CASES)
def test_tiles_equal_the_definition(shape, weight, stride, padding, dilation, place):
    geometry = Geometry(stride, padding, dilation, 1)
    arrays = draw(shape, weight, geometry, normal)
    check_bounds(sums(place, arrays, geometry), arrays, geometry, "float32")


def test_tiles_equal_the_readable_kernels(monkeypatch):
    geometry = Geometry((2, 1), ((1, 1), (0, 2)), (1, 2), 1)
    arrays = draw((1, 5, 9, 8), (7, 5, 3, 3), geometry, normal)
    tiled = sums(last, arrays, geometry)
    monkeypatch.setattr(gpu, "is_tiled", lambda array, geometry: False)
    for fast, readable in zip(tiled, sums(last, arrays, geometry), strict=True):
        np.testing.assert_allclose(fast, readable, rtol=1e-5, atol=1e-5)


def test_what_goes_to_tiles():
    one, two = (Geometry((1,), ((0, 0),), (1,), groups) for groups in (1, 2))
    x = np.ones((1, 2, 3), np.float32)
    assert gpu.is_tiled(x, one)
    assert not gpu.is_tiled(x, two)
    assert not gpu.is_tiled(x.astype(np.float64), one)


def test_results_lie_with_channels_last():
    x, w = (mu.tensor(normal(shape), device="cuda", requires_grad=True) for shape in ((2, 3, 5, 6), (4, 3, 3, 3)))
    y = F.conv2d(x, w)
    y.backward(y.data)
    for array in (y.data, x.grad):
        assert array.transpose(0, 2, 3, 1).flags.c_contiguous
    assert w.grad.transpose(2, 3, 1, 0).flags.c_contiguous  # outputs last, as the weights of a layer


@pytest.mark.parametrize("kind", ["channels last", "channels first", "backwards"])
def test_a_result_is_written_where_it_is_wanted(kind):
    x, w = last(normal((1, 8, 5, 5))), last(normal((6, 8, 3, 3)))
    geometry = Geometry((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    room = (first if kind == "channels first" else last)(np.zeros((1, 13, 5, 5), np.float32))
    if kind == "backwards":
        room = room[:, :, ::-1]
    assert gpu.forward(x, w, None, geometry, None, room[:, 3:9]) is not None
    assert np.array_equal(room.get()[:, 3:9], gpu.forward(x, w, None, geometry, None, None).get())
    assert not room.get()[:, [0, 1, 2, 9, 10, 11, 12]].any()


def test_weights_that_stand_at_no_multiple_of_sixteen_bytes():
    memory = to_device(normal((1 + 9 * 8 * 4,)), "cuda")[1:]
    backward, forward = (
        memory.reshape(3, 3, 8, 4).transpose(3, 2, 0, 1),
        memory.reshape(3, 3, 4, 8).transpose(2, 3, 0, 1),
    )  # neither is copied
    geometry = Geometry((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    x, gy = normal((1, 8, 5, 5)), normal((1, 4, 5, 5))
    y, gx = (
        gpu.forward(last(x), forward, None, geometry, None, None),
        gpu.grad_x(last(gy), None, backward, None, geometry, (5, 5), None, None),
    )
    np.testing.assert_allclose(y.get(), ref.forward(x, forward.get(), None, geometry, None, None), atol=1e-4)
    np.testing.assert_allclose(gx.get(), ref.grad_x(gy, None, backward.get(), None, geometry, (5, 5), None, None), atol=1e-4)


def test_the_parts_of_a_gradient_do_not_depend_on_the_gpu():
    """Each part is summed by one block, and the parts in order. How many there are is told by the sizes alone."""
    geometry = Geometry((1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    x, gy = normal((1, 1, 600, 3)), normal((1, 1, 600, 3))
    gw, gb = gpu.grad_w(last(x), last(gy), None, geometry, (1, 1), True)  # 600 lines, of which a block takes two
    np.testing.assert_allclose(gw.get(), (x * gy).sum(), rtol=1e-5)
    np.testing.assert_allclose(gb.get(), [gy.sum()], rtol=1e-5, atol=1e-5)


# formats


def rounded(x: np.ndarray, name: str) -> np.ndarray:
    """x as a format has it, in float32."""
    if name in HALF:
        with np.errstate(over="ignore"):
            return x.astype(as_dtype(name)).astype(np.float32)
    return ((x.view(np.uint32) + 0x1000) & 0xFFFFE000).astype(np.uint32).view(np.float32)  # halfway goes away from zero


GEOMETRY = Geometry((1, 2), ((1, 1), (1, 0)), (1, 1), 1)
SIZES = (1, 19, 5, 11), (67, 19, 3, 2)
FORMATS = ["tf32", *HALF]


@pytest.mark.parametrize("name", FORMATS)
def test_errors_are_those_of_the_format(name):
    arrays = in_format(draw(*SIZES, GEOMETRY, normal), name)
    with multiplying(name):
        got = sums(last, arrays, GEOMETRY)
    check_bounds(got, arrays, GEOMETRY, name)
    x, w, b, gy, gate, c = (a.astype(np.float32) for a in arrays)
    x, w, gy = (rounded(a, name) for a in (x, w, gy))
    check_bounds(got, [x, w, b, gy, gate, c], GEOMETRY, name, factors=False)  # products of rounded numbers are exact
    if name == "tf32":
        strict = sums(last, arrays, GEOMETRY)
        differ = [(a != b).any() for a, b in zip(got, strict, strict=True)]
        assert differ == [True, True, True, True, True, False, True, False]  # ∂b is a sum without factors


@pytest.mark.parametrize("place", [last, first, slice_of_wider])
@pytest.mark.parametrize(("shape", "weight", "stride", "padding", "dilation"), CASES)
def test_tiles_of_16_bits_equal_the_definition(shape, weight, stride, padding, dilation, place):
    geometry = Geometry(stride, padding, dilation, 1)
    arrays = in_format(draw(shape, weight, geometry, normal), "float16")
    check_bounds(sums(place, arrays, geometry), arrays, geometry, "float16")


@pytest.mark.parametrize("name", FORMATS)
def test_small_whole_numbers_are_exact(name):
    """So every number is where it belongs, among fragments, words and halves of words."""
    drawn = draw(*SIZES, GEOMETRY, lambda size: np.random.default_rng(sum(size)).integers(-9, 10, size).astype(np.float32))
    arrays = in_format(drawn, name)
    with multiplying(name):
        got = sums(first, arrays, GEOMETRY)
    for found, want in zip(got, sums(np.asarray, arrays, GEOMETRY, ref), strict=True):
        assert np.array_equal(found, want)  # of 16 bits both are rounded once


HALFWAY = np.array(
    [1 + 2.0**-11, 1 + 3 * 2.0**-11, 1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-11, 65519, 65520, 3e38, 2.0**-14 * (1 - 2.0**-12),
     2.0**-25, 3 * 2.0**-25, 5e-8, 1e-30, 0, -0.0, np.inf, -np.inf],
    np.float32,
)  # fmt: skip


def test_how_factors_are_rounded():
    """Each number times one: halfway cases, the largest, the smallest, infinity."""
    geometry = Geometry((1,), ((0, 0),), (1,), 1)
    with cuda.precision("tf32"):
        y = gpu.forward(last(HALFWAY[None, None]), last(np.ones((1, 1, 1), np.float32)), None, geometry, None, None)
    assert np.array_equal(y.get()[0, 0], rounded(HALFWAY, "tf32"))


@pytest.mark.parametrize("name", HALF)
def test_how_results_are_rounded(name):
    """Each number as a bias, and nothing else in the sum."""
    x, w = np.zeros((1, 1, 1), as_dtype(name)), np.zeros((len(HALFWAY), 1, 1), np.float32)
    y = gpu.forward(last(x), last(w), to_device(HALFWAY, "cuda"), Geometry((1,), ((0, 0),), (1,), 1), None, None)
    assert np.array_equal(y.get()[0, :, 0].astype(np.float32), rounded(HALFWAY, name))


def computed(*tensors: Any, **options: Any) -> np.ndarray:
    return F.conv2d(*tensors, **options).data.get()


def test_precision_is_a_setting_of_a_block():
    x, w = (mu.tensor(normal(shape), device="cuda") for shape in ((1, 16, 4, 4), (8, 16, 3, 3)))
    strict = computed(x, w)
    with cuda.precision("tf32"):
        rough = computed(x, w)
        with cuda.precision("float32"):
            assert np.array_equal(computed(x, w), strict)
        assert np.array_equal(computed(x, w), rough)
    assert np.array_equal(computed(x, w), strict)
    assert 2.0**-15 < np.linalg.norm(rough - strict) / np.linalg.norm(strict) < 2.0**-10
    with pytest.raises(ValueError, match="precision is one of float32, tf32; got 'fp16'"), cuda.precision("fp16"):
        pass


def test_other_dtypes_and_groups_are_not_touched_by_it():
    for dtype, groups in (("float64", 1), ("float32", 2), ("float16", 1)):
        x, w = (mu.tensor(normal(shape), device="cuda") for shape in ((1, 4, 4, 4), (4, 4 // groups, 3, 3)))
        x, w = x.astype(dtype), w.astype(computed_dtype(x.astype(dtype).data))
        strict = computed(x, w, groups=groups)
        with cuda.precision("tf32"):
            assert np.array_equal(computed(x, w, groups=groups), strict)


@pytest.mark.parametrize("name", ["tf32", "bfloat16"])
def test_a_gpu_that_lacks_the_numbers(name, monkeypatch):
    monkeypatch.setattr(stand_in, "CAPABILITY", "75")
    told = rf"{name} needs a GPU of compute capability 8\.0 or later, this one has 7\.5\. Use float32, or images of float16\."
    with host_gpu.pretended():
        x, w = (mu.tensor(normal(shape), device="cuda") for shape in ((1, 1, 4, 4), (1, 1, 3, 3)))
        with multiplying(name), pytest.raises(RuntimeError, match=told):
            F.conv2d(x.astype(name) if name in HALF else x, w)
        F.conv2d(x, w)
        F.conv2d(x.astype("float16"), w)


def test_each_gpu_is_asked_what_it_has(monkeypatch):
    with host_gpu.pretended(), cuda.precision("tf32"):
        x, w = (mu.tensor(normal(shape), device="cuda") for shape in ((1, 1, 4, 4), (1, 1, 3, 3)))
        F.conv2d(x, w)
        monkeypatch.setattr(stand_in, "NUMBER", 1)
        monkeypatch.setattr(stand_in, "CAPABILITY", "75")
        with pytest.raises(RuntimeError, match=r"needs a GPU of compute capability 8\.0 or later, this one has 7\.5"):
            F.conv2d(x, w)


# planted faults

FAULTS = {
    # format, file, how it is told: name, what stands there, what is put there
    ("float32", "tile.cuh", KernelError): [
        ("no barrier between copies and sums", "__syncthreads();", ""),
        ("a slice read before it has come", "wait_for_copies<STAGES - 2>", "wait_for_copies<STAGES - 1>"),
        (
            "waited for after the barrier",
            "        wait_for_copies<STAGES - 2>();\n        __syncthreads();",
            "        __syncthreads();\n        wait_for_copies<STAGES - 2>();",
        ),
        ("a stage filled while it is read", "i < STAGES - 1; i++) begin", "i < STAGES; i++) begin"),
        ("stages mixed up", "filled = (filled + 1) % STAGES", "filled = (filled + 1) % 2"),
        ("∂b from another stage", "see(stages[read].b)", "see(stages[filled].b)"),
    ],
    ("float32", "tiled.cu", AssertionError): [
        ("chunks that do not change places", "copy_chunk(b.chunk(line, number) + i", "copy_chunk(&b.chunks[line][number] + i"),
        ("one slice for each tap", "if (channel < channels) return true;", ""),
        ("a slice too few, by numbers", "return first < terms;", "return first + SLICE < terms;"),
        ("a slice too few for ∂w", "left(end - first)", "left(end - first - 1)"),
        ("slices counted twice", "min(first + slices_of_a_part, all)", "min(first + slices_of_a_part + 1, all)"),
        ("taps of other phases", "whole = whole && shift[axis] % s == 0;", ""),
        ("a part lost", "int part = 0", "int part = 1"),
        ("∂b missing", "first_row == 0 && rows > count", "rows < count"),
        ("∂b counted twice", "gb += *", "gb += 2 * *"),
        ("ReLU always", "relu ? 0 : -infinity()", "0"),
        ("the bias of another column", "sum + shifts[column]", "sum + shifts[0]"),
    ],
    ("float32", "tiled.cu", KernelError): [
        ("a column too far", "there && line + i * LINES < columns", "there && line + i * LINES <= columns"),
        ("a column too far, by numbers", "meets && column < columns ?", "meets && column <= columns ?"),
        ("a pixel too far", "number < count() ?", "number <= count() ?"),
        ("a channel too far", "channel + first < channels;", "channel + first <= channels;"),
        ("a term too far, by numbers", "term < terms &&", "term <= terms &&"),
        ("past the edge", "0 <= w && w < sizes[2]", "0 <= w && w <= sizes[2]"),
        ("past the edge for ∂w", "0 <= at && at < g.in[2]", "0 <= at && at <= g.in[2]"),
        ("past the end of a line for ∂w", "term < pixels_left && o < g.outputs", "o < g.outputs"),
        ("an output too far for ∂w", "pixels_left && o < g.outputs", "pixels_left && o <= g.outputs"),
        ("rows past the last weight", "weight.w != NOTHING &&", ""),
        ("results past the last pixel", "q.w < 0 ? NOWHERE :", "q.w < -1 ? NOWHERE :"),
        ("a column too far in the result", "column >= left) return", "column > left) return"),
        ("outputs too far in ∂b", "bias && first_column + threadIdx.x < g.outputs", "bias"),
    ],
    ("tf32", "tile.cuh", AssertionError): [
        ("B as A lies", "return of_b ? matrix / 2 : matrix % 2;", "return matrix % 2;"),
        ("halves of B exchanged", "{y[turn % 2][0], y[turn % 2][1]}", "{y[turn % 2][1], y[turn % 2][0]}"),
        ("half of the words twice", "lane % 4 + 4 * half_of_words<of_b>(i)", "lane % 4"),
        ("the same sums twice", "&of[i][j][2]", "&of[i][j][0]"),
    ],
    ("bfloat16", "tile.cuh", AssertionError): [
        ("a step too few", "turn < 8", "turn < 4"),
        ("the next columns of B too early", "y[next % 2]);", "y[turn % 2]);"),
        (
            "terms for lines",
            "lane % 8 + 8 * half_of_words<of_b>(matrix), line / WIDE + half_of_lines<of_b>(matrix)",
            "lane % 8 + 8 * half_of_lines<of_b>(matrix), line / WIDE + half_of_words<of_b>(matrix)",
        ),
    ],
}


def check_channels(name: str, channels: int, outputs: int) -> None:
    """Two phases, and in float32 more than one slice for a tap and two parts of ∂w."""
    geometry = Geometry((2, 1), ((1, 1), (1, 1)), (1, 1), 1)
    arrays = draw((1, channels, 9, 20), (outputs, channels, 3, 3), geometry, normal)
    arrays[4][:, :, ::2] *= -1  # a gate that is open and closed
    arrays = in_format(arrays, name)
    with multiplying(name):
        check_bounds(sums(last, arrays, geometry), arrays, geometry, name)


def check_both_readers(name: str) -> None:
    check_channels(name, 24, 8)  # chunks
    check_channels(name, 9, 3)  # numbers one by one


@pytest.mark.parametrize("name", ["float32", "tf32", "bfloat16"])
def test_what_is_right_tells_nothing(name):
    check_both_readers(name)


@pytest.mark.parametrize(
    ("name", "file", "told", "right", "wrong"),
    [
        pytest.param(*where, *change, id=fault, marks=[pytest.mark.slow] if i >= 3 else [])  # three of each kind in every run
        for where, faults in FAULTS.items()
        for i, (fault, *change) in enumerate(faults)
    ],
)
def test_a_fault_is_seen(name, file, told, right, wrong, tmp_path: Path, monkeypatch):
    for copied in ("tiled.cu", "tile.cuh", "geometry.cuh"):
        shutil.copy(gpu.TILED.path.with_name(copied), tmp_path)
    source = (tmp_path / file).read_text()
    assert right in source
    (tmp_path / file).write_text(source.replace(right, wrong))
    monkeypatch.setattr(gpu, "TILED", cuda.Source(str(tmp_path / "gpu.py"), "tiled.cu"))
    with host_gpu.pretended(), pytest.raises(AssertionError) as seen:
        check_both_readers(name)
    assert type(seen.value) is told  # and not that it does not compile


def test_a_gate_that_is_left_out_is_seen(monkeypatch):
    monkeypatch.setattr(gpu, "through_gate", lambda gy, gate: (gy, None))
    with pytest.raises(AssertionError, match="result 2 of float32"):
        check_channels("float32", 24, 8)


def test_excerpts_of_the_page_are_the_code():
    """A block of C++ that begins with a file's name shows what stands there."""
    shown = [text.partition("\n") for _, language, text in test_docs.blocks(test_docs.ROOT / "docs" / "cuda.md") if language == "cpp"]
    assert len(shown) > 5
    for name, _, excerpt in shown:
        assert excerpt.rstrip() in (test_docs.ROOT / name.removeprefix("// ")).read_text(), name
