"""The tester tested: CUDA sources with planted faults run on the processor, and each fault is told in a sentence."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minunet as mu
from minunet import cuda
from minunet.arrays import cupy_module
from tests import host_gpu
from tests.host_gpu import KernelError, faults, stand_in, translate
from tests.host_gpu.faults import COPY, DOUBLE, LISTS, NEIGHBOUR, REVERSAL, TREE, cupy, empty, lists, row

Launch = Callable[..., Any]


@pytest.fixture
def launch() -> Iterator[Launch]:
    """launch(source, grid, block, *arguments): see `faults.launch`."""
    with host_gpu.pretended():
        yield faults.launch


WARP = """
#include "cuda.cuh"
extern "C" __global__ void f(const REAL* __restrict__ x, REAL* __restrict__ y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const REAL sum = block_sum(i < n ? x[i] : REAL(0));
    if (threadIdx.x == 0) y[blockIdx.x] = sum;
}
"""


# what is right runs


def test_shared_memory_and_a_barrier(launch):
    x, y = row(256), empty(256)
    launch(REVERSAL, 1, 256, x, y, 256)
    assert np.array_equal(y.get(), x.get()[::-1])


@pytest.mark.parametrize("n", [1, 100, 1000, 1024])
def test_sums_by_a_tree_and_by_shuffles(launch, n):
    x, by_tree, by_warps = row(n), empty(4), empty(4)
    launch(TREE, 4, 256, x, by_tree, n, shared=1024)
    launch(WARP, 4, 256, x, by_warps, n)
    want = [x.get()[i : i + 256].astype(np.float64).sum() for i in range(0, 1024, 256)]
    for y in (by_tree, by_warps):
        np.testing.assert_allclose(y.get(), want, atol=1e-5)


def test_blocks_and_threads_along_three_axes(launch):
    source = """
    extern "C" __global__ void f(int* y) {
        const int t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
        const int b = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
        y[b * blockDim.x * blockDim.y * blockDim.z + t] = 100 * b + t;
    }"""
    y = cupy.empty(24 * 24, np.int32)
    launch(source, (2, 3, 4), (4, 3, 2), y)
    assert np.array_equal(y.get(), [100 * b + t for b in range(24) for t in range(24)])


def test_shuffles_votes_and_atomics(launch):
    source = """
    extern "C" __global__ void f(int* y, int* count) {
        const int t = threadIdx.x;
        y[t] = __shfl_sync(0xffffffffu, t, 5, 8);
        y[32 + t] = __shfl_up_sync(0xffffffffu, t, 3);
        y[64 + t] = __shfl_xor_sync(0xffffffffu, t, 1);
        y[96 + t] = (int)__ballot_sync(0xffffffffu, t % 4 == 0) + (__any_sync(0xffffffffu, t == 7) && !__all_sync(0xffffffffu, t > 0));
        if (t < 16) y[128 + t] = __shfl_down_sync(0x0000ffffu, t, 1, 16);
        else y[128 + t] = __shfl_sync(0xffff0000u, t, 16);
        atomicAdd(count, t);
    }"""
    y, count = cupy.empty(160, np.int32), cupy.zeros(1, np.int32)
    launch(source, 1, 32, y, count)
    t = np.arange(32)
    votes = np.full(32, 0x11111111 + 1)
    halves = np.where(t < 15, t + 1, np.where(t == 15, 15, 16))
    assert np.array_equal(y.get(), np.concatenate([t // 8 * 8 + 5, np.where(t < 3, t, t - 3), t ^ 1, votes, halves]))
    assert count.get() == 496


def test_four_elements_at_once(launch):
    source = """
    extern "C" __global__ void f(const REAL* x, REAL* y, int n) {
        const int i = threadIdx.x;
        if (i < n / 4) {
            float4 v = reinterpret_cast<const float4*>(x)[i];
            v.x += v.w;
            reinterpret_cast<float4*>(y)[i] = v;
        } else if (i - n / 4 < n % 4) y[n / 4 * 3 + i] = x[n / 4 * 3 + i];
    }"""
    x, y = row(103), empty(103)
    launch(source, 1, 32, x, y, 103)
    want = x.get()
    want[:100:4] += want[3:100:4]
    assert np.array_equal(y.get(), want)


def test_no_blocks_launch_nothing(launch):
    y = empty(0)
    launch(DOUBLE, 0, 256, y, y, 0)
    launch(DOUBLE, (3, 0), 256, y, y, 0)


def test_steps_follow_their_array(launch):
    source = """
    #include "cuda.cuh"
    extern "C" __global__ void f(const REAL* x, const Steps<2> x_steps, REAL* y, const Steps<2> y_steps) {
        y[y_steps(blockIdx.x, threadIdx.x)] = x[x_steps(blockIdx.x, threadIdx.x)];
    }""".replace("\n    #", "\n#")
    x, wide = row(12).reshape(4, 3).T, cupy.zeros((3, 9), np.float32)
    y = wide[::-1, 1::2]
    launch(source, 3, 4, x, y)
    assert np.array_equal(y.get(), x.get())
    assert not wide.get()[:, ::2].any()


def test_a_pointer_may_be_null(launch):
    y = empty(3)
    launch('extern "C" __global__ void f(const REAL* x, REAL* y) { y[threadIdx.x] = x ? x[threadIdx.x] : REAL(7); }', 1, 3, None, y)
    assert np.array_equal(y.get(), [7, 7, 7])


def test_lists_of_arrays(launch):
    x, y, sizes = lists(5, 300, 1)
    x[2], y[1] = None, y[1].reshape(3, 100).T  # in any order of the axes
    launch(LISTS, 3, 32, x, y, sizes)
    assert np.array_equal(y[0].get(), 2 * x[0].get())
    assert np.array_equal(y[1].T.get().ravel(), 2 * x[1].get())
    assert y[2].get() == 7


def test_the_same_through_ucontext(tmp_path):
    """Where the switch between fibers is not written in assembler. In a process of its own: a runtime is loaded once."""
    probe = f"""
from tests.host_gpu import translate
translate.FLAGS += ("-DWITH_UCONTEXT",)
from tests import test_host_gpu as t
from minunet import cuda
from pathlib import Path
from tests import host_gpu
import numpy as np
with host_gpu.pretended():
    Path({str(tmp_path)!r}, "tree.cu").write_text(t.TREE)
    x, y = t.row(1000), t.empty(4)
    cuda.Source({str(tmp_path / "x.py")!r}, "tree.cu").kernel("f", np.float32)(4, 256, x, y, 1000, shared=1024)
    print(abs(y.get().sum() - x.get().sum()) < 1e-3)
"""
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    assert ran.stdout.strip() == "True", ran.stderr


# what is wrong is seen


@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_told(fault):
    assert re.search(fault.told, fault.sentence())


def test_a_planted_fault_never_reaches_a_real_gpu():
    """It would write where it likes, in the memory of others. So what launches a source of its own asks for the stand-in."""
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and "cuda.Source(" in (text := ast.unparse(node)):
                assert "host_gpu.pretended()" in text, f"{path.name}: {node.name}"


def test_the_page_shows_what_is_told():
    page = Path(__file__).parents[1] / "docs" / "gpu.md"
    filled = runpy.run_path(str(page.parents[1] / "tools" / "gpu_faults.py"))["filled"]
    text = page.read_text(encoding="utf-8")
    assert filled(text) == text, "run: python -m tools.gpu_faults"


def test_what_is_right_tells_nothing():
    """The sources that the faults are planted in."""
    assert not faults.Fault("", REVERSAL, lambda: (1, 256, row(256), empty(256), 256), "").sentence()
    assert not faults.Fault("", TREE, lambda: (4, 256, row(1000), empty(4), 1000), "", 1024).sentence()
    assert not faults.Fault("", COPY, lambda: (1, 32, row(128), empty(32)), "").sentence()
    assert not faults.Fault("", NEIGHBOUR, lambda: (2, 256, row(300), empty(300), 300), "").sentence()


def test_one_block_too_few(launch):
    y = empty(300)
    launch(DOUBLE, 300 // 256, 256, row(300), y, 300)
    assert np.isnan(y.get()[256:]).all()  # memory that no kernel wrote is poison: every comparison sees it
    assert not np.isnan(y.get()[:256]).any()


def test_unwritten_elements(launch):
    y = empty(256)
    launch(DOUBLE.replace("if (i < n)", "if (i < n && i != 17)"), 1, 256, row(256), y, 256)
    assert np.flatnonzero(np.isnan(y.get())).tolist() == [17]
    assert (cupy.empty(3, np.int16).get() == -1).all()


@pytest.mark.parametrize("n", [300, 301, 1024])
def test_a_write_one_too_far(launch, n):
    with pytest.raises(
        KernelError, match=r"kernel f, block \(\d, 0, 0\), thread .* touches memory outside the argument '[xy]', 1 elements after"
    ):
        launch(DOUBLE.replace("i < n", "i <= n"), n // 256 + 1, 256, row(n), empty(n), n)


def test_swapped_arguments(launch):
    x, y = row(64), empty(64)
    launch(DOUBLE, 1, 256, y, x, 64)
    assert np.isnan(y.get()).all()  # nobody wrote there
    with pytest.raises(TypeError, match="argument 'y' must be an array on the GPU, got int"):
        launch(DOUBLE, 1, 256, x, 64, y)


def test_swapped_lists(launch):
    x, y, sizes = lists(5, 300, 1)
    launch(LISTS, 3, 32, y, x, sizes)
    assert all(np.isnan(a.get()).all() for a in x + y)  # what nobody wrote, doubled


def test_a_table_that_outlives_its_arrays(launch):
    x, y, sizes = lists(5, 300, 1)
    kernel = host_gpu.launch.RawModule(code=LISTS, options=("-DREAL=float",)).get_function("f")
    tables = [cupy.asarray(np.array([a.data.ptr for a in arrays], np.uint64)) for arrays in (x, y)]
    kernel((3,), (32,), (*tables, sizes))
    y[1] = None
    with pytest.raises(KernelError, match=r"y\[1\] is the address of no array that is alive"):
        kernel((3,), (32,), (*tables, sizes))


def test_the_process_goes_on_after_a_fault(launch):
    for _ in range(3):
        with pytest.raises(KernelError):
            launch(DOUBLE.replace("i < n", "i <= n"), 2, 256, row(300), empty(300), 300)
        x, y = row(300), empty(300)
        launch(DOUBLE, 2, 256, x, y, 300)
        assert np.array_equal(y.get(), 2 * x.get())


def test_a_source_that_does_not_compile_is_shown(launch):
    with pytest.raises(translate.CompileError, match=r"error: .*missing"):
        launch(DOUBLE.replace("2 *", "missing *"), 1, 1, row(1), empty(1), 1)


# what minunet/cuda.py refuses before anything is launched


def launch_double(launch: Launch, *arguments: Any, grid: Any = 1, block: Any = 256) -> None:
    launch(DOUBLE, grid, block, *arguments)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: (row(3), empty(3)), TypeError, r"kernel f takes 3 arguments \(array x, array y, scalar n\), got 2"),
        (lambda: (row(3).get(), empty(3), 3), TypeError, "argument 'x' must be an array on the GPU, got ndarray"),
        (lambda: (row(3).astype(np.float64), empty(3), 3), TypeError, "argument 'x' must hold float32, got float64"),
        (lambda: (row(6)[::2], empty(3), 3), ValueError, r"argument 'x' must be C-contiguous, got shape \(3,\) with strides \(8,\)"),
        (lambda: (row(3), empty(3), 3.0), TypeError, "argument 'n' must be a number fit for int32, got 3.0"),
        (lambda: (row(3), empty(3), True), TypeError, "argument 'n' must be a number fit for int32, got True"),
        (lambda: (row(3), empty(3), 2**31), ValueError, "argument 'n' does not fit int32: 2147483648"),
    ],
)
def test_arguments_are_held_against_the_signature(launch, make, error, message):
    with pytest.raises(error, match=message):
        launch(DOUBLE, 1, 256, *make())


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (lambda: row(3), TypeError, "argument 'x' is a list of arrays, got ndarray"),
        (lambda: [row(3), row(3).get()], TypeError, r"argument 'x\[1\]' must be an array on the GPU, got ndarray"),
        (lambda: [row(3).astype(np.float64)], TypeError, r"argument 'x\[0\]' must hold float32, got float64"),
        (
            lambda: [None, row(6)[::2]],
            ValueError,
            r"argument 'x\[1\]' must lie in memory without gaps, got shape \(3,\) with strides \(8,\)",
        ),
    ],
)
def test_lists_are_held_against_the_signature(launch, x, error, message):
    _, y, sizes = lists(5, 300, 1)
    with pytest.raises(error, match=message):
        launch(LISTS, 1, 32, x(), y, sizes)


def test_a_table_of_addresses_goes_to_the_gpu_once(launch, monkeypatch):
    """And again when an array has moved."""
    sent: list[Any] = []
    monkeypatch.setattr(host_gpu._module, "asarray", lambda a: sent.append(a) or cupy.asarray(a))
    x, y, sizes = lists(5, 300, 1)
    for _ in range(3):
        launch(LISTS, 3, 32, x, y, sizes)
    assert len(sent) == 2
    moved = x[1].copy()
    launch(LISTS, 3, 32, [x[0], moved, x[2]], y, sizes)
    assert len(sent) == 3
    assert np.array_equal(y[1].get(), 2 * moved.get())


def test_each_gpu_has_tables_of_its_own(launch, monkeypatch):
    sent: list[Any] = []
    monkeypatch.setattr(host_gpu._module, "asarray", lambda a: sent.append(a) or cupy.asarray(a))
    x, y, sizes = lists(5, 300, 1)
    for number, tables in ((0, 2), (1, 4), (0, 4), (1, 4)):
        monkeypatch.setattr(stand_in, "NUMBER", number)
        launch(LISTS, 3, 32, x, y, sizes)
        assert len(sent) == tables


@pytest.mark.parametrize(
    ("grid", "block", "message"),
    [
        ((1, 65536), 1, "a grid has at most"),
        (-1, 1, "not negative"),
        ((1, 1, 1, 1), 1, "one to three numbers"),
        (1, 1025, "a block has 1 to 1024 threads"),
        (1, (1, 1, 65), "at most 64 along z"),
    ],
)
def test_sizes_that_no_gpu_takes(launch, grid, block, message):
    with pytest.raises(ValueError, match=message):
        launch(DOUBLE, grid, block, row(1), empty(1), 1)


STRUCT = """
struct Sizes { int n, of[2]; long long far; };
extern "C" __global__ void f(long long* y, const Sizes sizes) { y[0] = sizes.n + 10 * sizes.of[1] + sizes.far; }
"""


def test_a_struct_is_a_dict(launch):
    y = cupy.zeros(1, np.int64)
    launch(STRUCT, 1, 1, y, {"n": 1, "of": (2, 3), "far": 2**40})
    assert y.get() == 31 + 2**40
    with pytest.raises(TypeError, match="a dict with the keys n, of, far; got"):
        launch(STRUCT, 1, 1, y, {"n": 1, "of": (2, 3)})
    with pytest.raises(TypeError, match=r"'sizes\.of' is a tuple of 2 numbers, got \(1, 2, 3\)"):
        launch(STRUCT, 1, 1, y, {"n": 1, "of": (1, 2, 3), "far": 0})
    with pytest.raises(TypeError, match=r"'sizes\.of' is a tuple of 2 numbers, got \[2, 3\]"):
        launch(STRUCT, 1, 1, y, {"n": 1, "of": [2, 3], "far": 0})
    with pytest.raises(ValueError, match=r"'sizes\.n' does not fit int32"):
        launch(STRUCT, 1, 1, y, {"n": 2**40, "of": (2, 3), "far": 0})
    with pytest.raises(TypeError, match=r"'sizes\.n' must be a number fit for int32, got True"):
        launch(STRUCT, 1, 1, y, {"n": True, "of": (2, 3), "far": 2**40})  # equal to what came first, and of another kind


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("__global__ void f(int n) {}", ValueError, "not every kernel begins with"),
        ('extern "C" __global__ void f(std::vector<int> n) {}', ValueError, "the type of the parameter 'std::vector<int> n' is not known"),
        ('extern "C" __global__ void f(int n, const Steps<2> x_steps) {}', ValueError, "must follow the array whose steps it holds"),
        ('#include "nothing.cuh"', FileNotFoundError, "includes nothing.cuh, which is neither beside it nor in"),
        ('extern "C" __global__ void g(int n) {}', AttributeError, "has no kernel 'f'; it has g"),
    ],
)
def test_sources_that_cannot_be_read(launch, source, error, message):
    with pytest.raises(error, match=message):
        launch(source, 1, 1)


def test_kernels_are_compiled_for_floating_point_numbers(tmp_path):
    (tmp_path / "whole.cu").write_text('extern "C" __global__ void f(REAL* y) {}')
    with host_gpu.pretended(), pytest.raises(TypeError, match="compiled for float32, float64, float16, bfloat16, not for int32"):
        cuda.Source(str(tmp_path / "whole.py"), "whole.cu").kernel("f", np.int32)


# the stand-in for CuPy


def test_arrays_of_two_devices_do_not_mix():
    x = cupy.zeros(3)
    for mix in (
        lambda: x + np.zeros(3),
        lambda: np.zeros(3) + x,
        lambda: cupy.maximum(x, np.zeros(3)),
        lambda: x.__setitem__(0, np.zeros(())),
    ):
        with pytest.raises(TypeError, match="Unsupported type"):
            mix()
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(x)


def test_a_sum_is_an_array_without_axes():
    total = cupy.ones(3).sum()
    assert isinstance(total, cupy.ndarray)
    assert total.shape == ()
    assert float(total) == 3


def test_results_lie_in_the_order_of_their_axes():
    """Whatever the order of the arguments is, as CuPy's do. With --real-gpu CuPy is held to it."""
    host = np.moveaxis(np.arange(24, dtype=np.float32).reshape(2, 3, 4), 2, 1)  # (2, 4, 3)
    with host_gpu.installed():
        gpu = cupy_module()
        x = np.moveaxis(gpu.asarray(np.ascontiguousarray(np.moveaxis(host, 1, 2))), 2, 1)
        assert x.strides == host.strides
        for made in (x + 1, x * x, np.exp(x), x.clip(0, 1), x[:, [0, 2, 1, 3]], gpu.asarray(host), gpu.asarray(host.T), x.copy(), x.get()):
            assert made.flags.c_contiguous, made
        for view in (x[:, 1:], x.transpose(0, 2, 1).transpose(0, 2, 1)):
            assert view.strides == x.strides
        for made in (gpu.empty_like(x), gpu.zeros_like(x), x.astype(np.float64), gpu.copy(x)):
            assert made.strides == tuple(s * made.itemsize // 4 for s in x.strides), made
        with pytest.raises(ValueError, match="Invalid number of FFT data points"):
            gpu.fft.fftn(gpu.zeros((0, 4), np.float32), axes=(1,))


def test_small_numbers_count_as_zero(launch):
    """Below 2⁻¹²⁶, in arithmetic and comparisons of float: CuPy asks the compiler for it."""
    small = np.array([2.0**-130, -(2.0**-149), 2.0**-126], np.float32)
    source = """
    extern "C" __global__ void f(REAL* y) {
        const REAL x = y[threadIdx.x];
        y[threadIdx.x] = x == REAL(0) ? x : x * REAL(0.5);
    }"""
    y = cupy.asarray(small)
    launch(source, 1, 3, y)
    assert y.get().tolist() == [2.0**-130, -(2.0**-149), 0]


def test_tensors_on_the_gpu_that_is_none():
    with host_gpu.pretended():
        x = mu.tensor([1.0, 2.0], requires_grad=True, device="cuda")
        (x * x).sum().backward()
        assert (x.device, x.grad.get().tolist()) == ("cuda", [2, 4])
        assert x.to("cpu").device == "cpu"
        with pytest.raises(TypeError, match="arrays on different devices"):
            x + mu.tensor([1.0, 2.0])
    assert "cupy" not in sys.modules or sys.modules["cupy"] is not cupy


PROBE = """
import sys, cupy
names, methods = (line.split() for line in sys.stdin.read().splitlines())
print(*[n for n in names if not hasattr(cupy, n)], *[f"ndarray.{n}" for n in methods if not hasattr(cupy.ndarray, n)])
"""


def test_cupy_has_every_name_of_the_stand_in():
    names = [*stand_in.FUNCTIONS, *stand_in.VALUES, "ndarray", "asarray", "array", "empty", "empty_like", "asnumpy", "RawModule"]
    methods = [*stand_in.METHODS, *stand_in.PROPERTIES, "get", "set", "T", "base", "data"]
    told = "\n".join([" ".join(names), " ".join(methods)])
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", PROBE], input=told, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == []
