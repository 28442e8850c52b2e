"""The CPU kernels of convolution against the definition in float64: every algorithm, every way through its loops, both gates of a ReLU."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from minunet.ops.conv import Geometry, cpu, ref
from minunet.ops.conv.cpu import choice, direct, winograd
from minunet.ops.conv.cpu.images import in_whole_lines
from minunet.simd import CACHE_LINE, VECTOR_BYTES
from tests.conftest import require

SAME, NONE = (1, 1), (0, 0)


def geometry(rank: int, stride: int = 1, padding: tuple[int, int] = SAME) -> Geometry:
    return Geometry((stride,) * rank, (padding,) * rank, (1,) * rank, 1)


# x, outputs, kernel size, geometry; beside each the algorithm that takes it
CASES = [
    pytest.param((2, 16, 20, 24), 32, 3, geometry(2), id="winograd, tiles"),
    pytest.param((1, 64, 48, 48), 16, 3, geometry(2), id="winograd, many channels"),
    pytest.param((1, 70, 9, 13), 130, 3, geometry(2), id="winograd, panels, odd sizes"),
    pytest.param((1, 130, 30, 34), 70, 3, geometry(2), id="winograd, groups, odd sizes"),
    pytest.param((2, 97, 34, 36), 64, 3, geometry(2), id="winograd, two chunks"),
    pytest.param((1, 20, 9, 13), 97, 3, geometry(2), id="winograd, an odd number of vectors"),
    pytest.param((2, 8, 1, 1), 8, 3, geometry(2), id="winograd, one pixel"),
    pytest.param((1, 9, 6, 7), 11, 3, geometry(2, padding=NONE), id="winograd, no padding"),
    pytest.param((1, 8, 5, 5), 8, 3, geometry(2, padding=(4, 5)), id="winograd, padding beyond the window"),
    pytest.param((1, 12, 10, 11), 9, 3, geometry(2, padding=(-2, -1)), id="winograd, cropped"),
    pytest.param((1, 16, 7, 12, 10), 24, 3, geometry(3), id="winograd, volume"),
    pytest.param((1, 12, 3, 5, 4), 80, 3, geometry(3), id="winograd, small volume"),
    pytest.param((2, 17, 31, 36), 40, 5, geometry(2, padding=(2, 2)), id="winograd, 5×5, tiles"),
    pytest.param((1, 70, 5, 7), 130, 5, geometry(2, padding=(2, 2)), id="winograd, 5×5, panels and groups"),
    pytest.param((2, 16, 9, 8), 16, 5, geometry(2, padding=(-1, 6)), id="winograd, 5×5, cropped and padding beyond the window"),
    pytest.param((1, 24, 5, 10, 7), 20, 5, geometry(3, padding=(2, 2)), id="winograd, 5×5×5"),
    pytest.param((1, 70, 3, 3, 4), 66, 5, geometry(3, padding=(2, 2)), id="winograd, 5×5×5, small volume"),
    pytest.param((2, 1, 17, 30), 16, 3, geometry(2), id="direct, one channel"),
    pytest.param((2, 3, 9, 40), 20, 5, geometry(2, 2, (2, 1)), id="direct, three channels and a stride"),
    pytest.param((1, 10, 12, 11), 9, 5, geometry(2, 2, (-1, 2)), id="direct, cropped before"),
    pytest.param((2, 40, 11, 13), 2, 1, geometry(2, padding=NONE), id="direct, few outputs"),
    pytest.param((2, 150, 5, 6), 40, 1, geometry(2, padding=NONE), id="direct, 1×1"),
    pytest.param((2, 24, 8, 14), 36, 2, geometry(2, 2, NONE), id="direct, 2×2/2"),
    pytest.param((1, 20, 9, 15), 36, 2, geometry(2, 2, NONE), id="direct, a rest"),
    pytest.param((1, 6, 4, 6, 8), 10, 2, geometry(3, 2, NONE), id="direct, volume"),
    pytest.param((1, 40, 50), 30, 1, geometry(1, padding=NONE), id="direct, signal"),
    pytest.param((2, 10, 12, 11), 9, 5, geometry(2, padding=(2, 2)), id="direct, 5×5"),
    pytest.param((2, 10, 12, 11), 9, 3, geometry(2, 2), id="direct, stride 2"),
    pytest.param((2, 11, 30, 41), 17, 5, geometry(2, padding=(2, 2)), id="lines, 5×5"),
    pytest.param((1, 40, 5, 6, 20), 36, 4, geometry(3, padding=(2, 1)), id="lines, 4×4×4, several chunks"),
    pytest.param((2, 16, 20, 33), 32, 2, geometry(2, padding=NONE), id="lines, 2×2"),
    pytest.param((1, 70, 4, 5, 6), 66, 4, geometry(3, padding=(2, 1)), id="direct, 4×4×4, weights of several stages"),
    pytest.param((1, 300, 3, 4, 5), 1, 5, geometry(3, padding=(2, 2)), id="direct, one output, weights of several stages"),
    pytest.param((1, 300, 3, 4, 5), 2, 5, geometry(3, padding=(2, 2)), id="direct, two outputs, weights of several stages"),
    pytest.param((2, 70, 9, 7), 3, 1, geometry(2, padding=NONE), id="direct, three outputs"),
    pytest.param((2, 70, 9, 7), 4, 1, geometry(2, padding=NONE), id="direct, four outputs"),
]


@pytest.fixture
def own_plans():
    """What a test changes of `direct` becomes part of plans, which are kept."""
    direct._plan.cache_clear()
    yield
    direct._plan.cache_clear()


def channels_last(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    last = rng.standard_normal((shape[0], *shape[2:], shape[1])).astype(dtype)
    return np.moveaxis(last, -1, 1)


def slice_of_wider(a: np.ndarray) -> np.ndarray:
    """The same numbers, as some of the channels of a buffer that has more."""
    wider = np.full((a.shape[0], *a.shape[2:], a.shape[1] + 9), np.nan, a.dtype)
    view = np.moveaxis(wider, -1, 1)[:, 4 : 4 + a.shape[1]]
    view[...] = a
    return view


def relative_error(got: np.ndarray, exact: np.ndarray) -> float:
    assert got.shape == exact.shape
    return float(np.linalg.norm(got - exact) / max(np.linalg.norm(exact), 1e-30))


@pytest.mark.parametrize("lay", [np.asarray, np.ascontiguousarray, slice_of_wider], ids=["last", "first", "slice"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "outputs", "size", "geometry"), CASES)
def test_all_sums_equal_the_definition(shape, outputs, size, geometry, dtype, lay):
    rng = np.random.default_rng(0)
    rank = len(shape) - 2
    limit = 1e-5 if dtype == "float32" else 1e-13
    x = lay(channels_last(rng, shape, dtype))
    w = rng.standard_normal((outputs, shape[1], *(size,) * rank)).astype(dtype)
    w = lay(w) if lay is np.ascontiguousarray else np.moveaxis(np.ascontiguousarray(np.moveaxis(w, (0, 1), (-1, -2))), (-1, -2), (0, 1))
    b = rng.standard_normal(outputs).astype(dtype)
    exact = [a.astype("float64") for a in (x, w, b)]
    for bias, activation in ((b, "relu"), (None, None)):
        y = cpu.forward(x, w, bias, geometry, activation, None)
        assert relative_error(y, ref.forward(*exact[:2], None if bias is None else exact[2], geometry, activation, None)) < limit
        assert y.dtype == dtype
    room = slice_of_wider(np.zeros_like(y))
    assert cpu.forward(x, w, None, geometry, None, room) is room
    np.testing.assert_array_equal(room, y)
    gy = lay(channels_last(rng, y.shape, dtype))
    gate = lay(np.maximum(channels_last(rng, y.shape, dtype), 0))
    for opening in (None, gate):
        told = (gy.astype("float64"), opening)
        gx = cpu.grad_x(gy, opening, w, None, geometry, shape[2:], None, None)
        assert relative_error(gx, ref.grad_x(*told, exact[1], None, geometry, shape[2:], None, None)) < limit
        gw, gb = cpu.grad_w(x, gy, opening, geometry, w.shape[2:], True)
        exact_w, exact_b = ref.grad_w(exact[0], *told, geometry, w.shape[2:], True)
        assert relative_error(gw, exact_w) < limit
        assert relative_error(gb, exact_b) < limit
        assert cpu.grad_w(x, gy, opening, geometry, w.shape[2:], False)[1] is None


@pytest.mark.parametrize(("shape", "outputs", "size", "geometry"), CASES)
def test_an_empty_batch(shape, outputs, size, geometry):
    x = np.zeros((0, *shape[1:]), np.float32)
    w = np.ones((outputs, shape[1], *(size,) * (len(shape) - 2)), np.float32)
    y = cpu.forward(x, w, None, geometry, None, None)
    assert y.shape[0] == 0
    assert cpu.grad_x(y, None, w, None, geometry, shape[2:], None, None).shape == x.shape
    gw, gb = cpu.grad_w(x, y, None, geometry, w.shape[2:], True)
    assert not gw.any()
    assert not gb.any()


@pytest.mark.parametrize(("shape", "outputs", "size", "geometry"), CASES)
def test_the_number_of_threads_changes_no_bit(shape, outputs, size, geometry):
    rng = np.random.default_rng(1)
    x = channels_last(rng, shape, "float32")
    w = rng.standard_normal((outputs, shape[1], *(size,) * (len(shape) - 2))).astype("float32")
    most = numba.config.NUMBA_NUM_THREADS
    results = []
    try:
        for threads in range(1, min(most, 3) + 1):
            numba.set_num_threads(threads)
            y = cpu.forward(x, w, None, geometry, "relu", None)
            gx = cpu.grad_x(y, y, w, None, geometry, shape[2:], None, None)
            results.append((y, gx, *cpu.grad_w(x, y, y, geometry, w.shape[2:], True)))
    finally:
        numba.set_num_threads(most)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "padding", "groups"),
    [
        ((6, 6), (1, 1), (1, 1), (3, 2), 1),
        ((2, 2), (1, 1), (1, 1), (0, 1), 1),
        ((2, 3), (1, 1), (1, 1), (0, 0), 2),
        ((3, 3), (2, 1), (3, 1), (-1, 2), 2),
        ((1, 7), (1, 1), (1, 1), (9, -2), 1),
        ((4,), (1,), (1,), (3, 0), 2),
        ((2, 1, 3), (1, 2, 1), (2, 1, 1), (1, 1), 1),
    ],
    ids=str,
)
@pytest.mark.parametrize(("channels", "outputs"), [(8, 16), (9, 20), (64, 33), (17, 70)])
def test_weights_where_windows_overlap_along_lines(channels, outputs, kernel, stride, dilation, padding, groups, gated):
    """Runs that fill no whole number of rows, outputs that fill no vector, leftover pixels, and channels that are part of a wider array."""
    rng, rank = np.random.default_rng(9), len(kernel)
    how = Geometry(stride, (padding,) * rank, dilation, groups)
    x = channels_last(rng, (2, channels * groups + 3, *(14, 11, 31)[-rank:]), "float32")[:, 2:-1]
    w = rng.standard_normal((outputs * groups, channels, *kernel)).astype("float32")
    y = ref.forward(x, w, None, how, None, None)
    assert choice.fits_lines(kernel, how, channels, outputs, y.shape[-1])
    gy, gate = (channels_last(rng, y.shape, "float32") for _ in range(2))
    gate = gate if gated else None
    for bias in (True, False):
        gw, gb = cpu.grad_w(x, gy, gate, how, kernel, bias)
        exact_w, exact_b = ref.grad_w(x, gy, gate, how, kernel, bias)
        assert relative_error(gw, exact_w) < 1e-5
        assert (gb is None) == (not bias)
        assert gb is None or relative_error(gb, exact_b) < 1e-5


def unaligned(a: np.ndarray) -> np.ndarray:
    """The same numbers in the same order of axes, at addresses that are no multiple of their size."""
    room = np.zeros(a.nbytes + 1, np.uint8)
    last = room[1:].view(a.dtype).reshape(np.moveaxis(a, 1, -1).shape)
    last[...] = np.moveaxis(a, 1, -1)
    return np.moveaxis(last, -1, 1)


@pytest.mark.parametrize(("channels", "outputs", "size"), [(5, 7, 5), (16, 16, 3), (40, 1, 1)], ids=["direct", "winograd", "one output"])
def test_memory_that_is_not_aligned(channels, outputs, size):
    rng = np.random.default_rng(5)
    how = geometry(2, padding=(size // 2, size // 2))
    x, gy, gate = (channels_last(rng, (2, c, 9, 8), "float32") for c in (channels, outputs, outputs))
    w = rng.standard_normal((outputs, channels, size, size)).astype("float32")
    y = unaligned(np.zeros((2, outputs, 9, 8), np.float32))
    assert cpu.forward(unaligned(x), unaligned(w), None, how, None, y) is y
    assert relative_error(y, ref.forward(x, w, None, how, None, None)) < 1e-5
    for _ in range(5):  # memory that was given back too early holds other numbers sooner or later
        gx = cpu.grad_x(unaligned(gy), unaligned(gate), unaligned(w), None, how, (9, 8), None, None)
        assert relative_error(gx, ref.grad_x(gy, gate, w, None, how, (9, 8), None, None)) < 1e-5
        gw, gb = cpu.grad_w(unaligned(x), unaligned(gy), unaligned(gate), how, (size, size), True)
        exact_w, exact_b = ref.grad_w(x, gy, gate, how, (size, size), True)
        assert relative_error(gw, exact_w) < 1e-5
        assert relative_error(gb, exact_b) < 1e-5


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize(("stride", "size"), [(1, 3), (2, 2), (2, 3)])
@pytest.mark.parametrize("groups", [1, 2])
def test_few_outputs_of_many_channels(groups, stride, size, dilation):
    """Vectors along the window: in `forward` one output a group, in `grad_x` one channel a group, also of several remainders."""
    rng = np.random.default_rng(6)
    how = Geometry((stride,) * 2, ((1, 1),) * 2, (dilation,) * 2, groups)
    for channels, outputs in ((70 * groups, groups), (groups, 70 * groups)):
        x = channels_last(rng, (2, channels, 11, 14), "float32")
        w = rng.standard_normal((outputs, channels // groups, size, size)).astype("float32")
        y = ref.forward(x, w, None, how, None, None)
        assert relative_error(cpu.forward(x, w, None, how, None, None), y) < 1e-5
        gy = channels_last(rng, y.shape, "float32")
        exact = ref.grad_x(gy, None, w, None, how, (11, 14), None, None)
        assert relative_error(cpu.grad_x(gy, None, w, None, how, (11, 14), None, None), exact) < 1e-5


@pytest.mark.parametrize("lay", [np.ascontiguousarray, np.asarray], ids=["planes", "side by side"])
@pytest.mark.parametrize("outputs", [3, 4])
def test_vectors_along_the_window_are_of_channels_side_by_side(outputs, lay, monkeypatch, own_plans):
    """Where they cost nothing, they are taken wherever they can be."""
    monkeypatch.setattr(direct, "COSTS", ((0, 0), (0, 0)))
    rng = np.random.default_rng(8)
    x, w = lay(channels_last(rng, (2, 3, 9, 14), "float32")), rng.standard_normal((outputs, 3, 3, 3)).astype("float32")
    y = cpu.forward(x, w, None, geometry(2), None, None)
    assert relative_error(y, ref.forward(x, w, None, geometry(2), None, None)) < 1e-5


@pytest.mark.parametrize("padding", [NONE, (1, 2)])
@pytest.mark.parametrize(
    ("channels", "groups", "axes"), [(3, 1, (9, 14)), (6, 2, (9, 14)), (6, 1, (9, 90)), (4, 4, (40,)), (2, 1, (5, 6, 7))]
)
def test_channels_in_planes_give_the_same_bits(channels, groups, axes, padding):
    """Few channels are read where they lie: here one behind the other, there side by side."""
    rng, rank = np.random.default_rng(7), len(axes)
    how = Geometry((2,) * rank, (padding,) * rank, (1,) * rank, groups)
    x = rng.standard_normal((2, channels, *axes)).astype("float32")
    w = rng.standard_normal((20 * groups, channels // groups, *(3,) * rank)).astype("float32")
    y = cpu.forward(x, w, None, how, None, None)
    assert relative_error(y, ref.forward(x, w, None, how, None, None)) < 1e-5
    side_by_side = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    np.testing.assert_array_equal(y, cpu.forward(side_by_side, w, None, how, None, None))
    of_planes, of_pixels = (cpu.grad_w(image, y, None, how, w.shape[2:], True) for image in (x, side_by_side))
    assert relative_error(of_planes[0], ref.grad_w(x, y, None, how, w.shape[2:], True)[0]) < 1e-5
    for one, other in zip(of_planes, of_pixels, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_image_without_pixels():
    x, w = np.zeros((1, 2, 0, 3), np.float32), np.ones((2, 2, 1, 1), np.float32)
    y = cpu.forward(x, w, np.ones(2, np.float32), geometry(2), None, None)
    np.testing.assert_array_equal(y, np.ones((1, 2, 2, 5)))
    assert cpu.grad_x(y, None, w, None, geometry(2), (0, 3), None, None).shape == x.shape


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("channels", "outputs", "spatial"),
    [
        (1, 16, (13, 29)),
        (3, 5, (17, 24)),
        (1, 48, (5, 9, 21)),
        (4, 11, (64,)),
        (2, 16, (30, 3)),
        (2, 3, (9, 8, 5)),
        (1, 64, (21, 32)),
        (3, 32, (6, 43)),
    ],
)
@pytest.mark.parametrize("padding", [SAME, NONE])
def test_pixels_that_three_windows_share(channels, outputs, spatial, padding, dtype, monkeypatch):
    rng, rank, plans, make = np.random.default_rng(0), len(spatial), [], direct._plan
    windows = geometry(rank, padding=padding)

    def made(*shapes):
        plans.append(make(*shapes))
        return plans[-1]

    monkeypatch.setattr(direct, "_plan", made)
    x, w = rng.standard_normal((2, channels, *spatial)), rng.standard_normal((outputs, channels, *(3,) * rank))
    y = cpu.forward(x.astype(dtype), w.astype(dtype), None, windows, "relu", None)
    expected = ref.forward(x, w, None, windows, "relu", None)
    np.testing.assert_allclose(y, expected, rtol=0, atol=np.abs(expected).max() * (1e-6 if dtype == "float32" else 1e-14))
    assert plans[0].threes == channels


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("outputs", [1, 2, 3])
@pytest.mark.parametrize("gap", [0, 5])
def test_heads_write_their_results_and_nothing_else(outputs, gap, dtype):
    """Results of neighbouring windows go out together where they lie one behind the other; here also with `gap` pixels after a line."""
    rng = np.random.default_rng(0)
    x, w = channels_last(rng, (2, 70, 5, 13), dtype), rng.standard_normal((outputs, 70, 1, 1)).astype(dtype)
    room = np.full((4, 5, 13 + gap, outputs), np.nan, dtype)  # the first and the last are of nobody
    y = np.moveaxis(room[1:3, :, :13], -1, 1)
    assert cpu.forward(x, w, None, geometry(2, padding=NONE), "relu", y) is y
    assert relative_error(y, ref.forward(x, w, None, geometry(2, padding=NONE), "relu", None)) < 1e-5
    assert np.isnan(room).sum() == room.size - y.size


def test_plans_are_found_again():
    w = np.ones((4, 2, 1, 1), np.float32)
    for _ in range(2):
        before = direct._plan.cache_info().misses
        for width in range(1, 300):
            cpu.forward(np.ones((1, 2, 1, width), np.float32), w, None, geometry(2), None, None)
    assert direct._plan.cache_info().misses == before


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("window", [3, 5, 7])
@pytest.mark.parametrize(("outputs", "dtype", "whole"), [(32, "float32", True), (40, "float32", False), (24, "float64", True)])
def test_streamed_results_are_the_same_bits(outputs, dtype, whole, window, activation, monkeypatch, own_plans):
    algorithm = direct if window == 7 else winograd
    rng = np.random.default_rng(0)
    x, gate = (channels_last(rng, (2, 24, 34, 37), dtype) for _ in range(2))
    w, b = rng.standard_normal((outputs, 24, window, window)).astype(dtype), rng.standard_normal(outputs).astype(dtype)
    same = geometry(2, padding=(window // 2, window // 2))
    streamed = []

    def asked(*where):
        streamed.append(in_whole_lines(*where))
        return streamed[-1]

    def results():
        direct._plan.cache_clear()
        y = cpu.forward(x, w, b, same, activation, None)
        return y, cpu.grad_x(x, gate, w.swapaxes(0, 1), b, same, x.shape[2:], activation, None)

    monkeypatch.setattr(algorithm, "in_whole_lines", asked)
    at_once = results()
    assert not streamed
    monkeypatch.setattr(algorithm, "LARGE", 0)
    for one, other in zip(at_once, results(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert any(streamed) == (whole and VECTOR_BYTES == CACHE_LINE)


@pytest.mark.parametrize("window", [3, 5])
@pytest.mark.parametrize("channels", [16, 64, 256, 1024])
def test_winograd_s_error_is_at_most_twenty_times_pytorch_s(channels, window):
    torch = require("torch")
    rng = np.random.default_rng(2)
    x = channels_last(rng, (1, channels, 16, 16), "float32")
    w = rng.standard_normal((64, channels, window, window)).astype("float32") / np.float32(window * np.sqrt(channels))
    same = geometry(2, padding=(window // 2, window // 2))
    assert choice.fits_winograd((window, window), same, channels, 64)
    exact = ref.forward(x.astype("float64"), w.astype("float64"), None, same, None, None)
    ours = relative_error(cpu.forward(x, w, None, same, None, None), exact)
    theirs = relative_error(torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(w), padding="same").numpy(), exact)
    assert ours < 20 * theirs
    assert ours < 5e-6


def test_the_points_are_better_than_the_usual_ones():
    def error(points: tuple[float, ...]) -> float:
        """Of one tile with many channels, transformed in float32."""
        At, G, Bt = (m.astype(np.float32) for m in winograd.cook_toom(points, 4, 3))
        rng = np.random.default_rng(3)
        x, w = rng.standard_normal((200, 6, 6)), rng.standard_normal((200, 3, 3))
        exact = sum(
            np.array([[np.sum(a[i : i + 3, j : j + 3] * b) for j in range(4)] for i in range(4)]) for a, b in zip(x, w, strict=True)
        )
        x, w = x.astype(np.float32), w.astype(np.float32)
        return relative_error(At @ np.einsum("cij,cij->ij", Bt @ x @ Bt.T, G @ w @ G.T) @ At.T, exact)

    assert error(winograd.POINTS) < 0.8 * error((0, 1, -1, 2, -2))
