"""Every `.cu` file compiled by NVIDIA's compiler for each GPU generation, with no GPU there. What the kernels do, test_opcases.py tells."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minunet import cuda
from tests import nvrtc
from tests.conftest import require


@pytest.fixture(autouse=True)
def _compiler():
    require("cupy_backends.cuda.libs.nvrtc")


def variants() -> Iterator[Any]:
    """Each file for each generation. For formats that came later the first generation that has them; the others are slow tests."""
    for path in nvrtc.sources():
        for stored, precision in nvrtc.variants(path):
            first = cuda.first_generation(stored, precision)
            for generation in nvrtc.GENERATIONS:
                if generation >= first:
                    name = f"{path.name}-{stored if precision == 'float32' else precision}-sm_{generation}"
                    marks = [pytest.mark.slow] if first and generation > first else []
                    yield pytest.param(path, stored, precision, generation, id=name, marks=marks)


@pytest.mark.parametrize(("path", "stored", "precision", "generation"), list(variants()))
def test_it_compiles(path: Path, stored: str, precision: str, generation: int):
    check(path, stored, *nvrtc.compiled(path, generation, stored, precision))


def check(path: Path, stored: str, usages: list[nvrtc.Usage], warnings: list[str]):
    """No warning, and each kernel found by minunet/cuda.py too. One with `__launch_bounds__` is meant to be fast: it spills nothing."""
    assert not warnings, "\n".join(warnings)
    assert {u.kernel for u in usages} == set(cuda.signatures(path, stored))
    fast = set(re.findall(r"__launch_bounds__\s*\([^)]*\)\s*(\w+)", cuda.read(path)))
    spilling = [f"{u.kernel} spills {u.spilled} bytes" for u in usages if u.spilled and u.kernel in fast]
    assert not spilling, ", ".join(spilling)
    assert all(u.registers for u in usages)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("y[0] = missing;", RuntimeError),
        ("y[0] = INFINITY;", RuntimeError),  # of <math.h>, which NVRTC does not have
        ("int unused;", AssertionError),
    ],
)
def test_errors_and_warnings_are_seen(tmp_path: Path, body: str, problem: type[Exception]):
    path = tmp_path / "f.cu"
    path.write_text(f'extern "C" __global__ void f(REAL* y) {{ {body} }}')
    with pytest.raises(problem, match=r"missing|INFINITY|never referenced"):
        check(path, "float32", *nvrtc.compiled(path, 90, "float32"))


def test_spills_are_seen(tmp_path: Path):
    """64 registers a thread are not enough for 200 numbers that are all needed to the end."""
    path = tmp_path / "f.cu"
    path.write_text("""
extern "C" __global__ void __launch_bounds__(1024) f(REAL* y) {
    REAL all[200];
    #pragma unroll
    for (int i = 0; i < 200; i++) all[i] = y[i * 1024 + threadIdx.x];
    for (int turn = 0; turn < 100; turn++) {
        #pragma unroll
        for (int i = 0; i < 200; i++) all[i] = all[i] * all[(i + 7) % 200] + turn;
    }
    #pragma unroll
    for (int i = 0; i < 200; i++) y[i * 1024 + threadIdx.x] = all[i];
}""")
    with pytest.raises(AssertionError, match=r"f spills \d+ bytes"):
        check(path, "float32", *nvrtc.compiled(path, 80, "float32"))
    usage = nvrtc.compiled(path, 80, "float32")[0][0]
    assert usage.spilled > 0
    assert usage.registers == 64


def test_a_table_is_printed():
    lines = nvrtc.table([path for path in nvrtc.sources() if path.name == "conv.cu"]).splitlines()
    assert lines[0].split() == ["kernel", "stored", "precision", "sm", "registers", "shared", "stack", "spilled"]
    assert any(line.split()[:4] == ["conv_grad_b", "float32", "float32", "90"] for line in lines)


@pytest.mark.parametrize(("stored", "precision"), [("float32", "tf32"), ("bfloat16", "float32")])
def test_turing_has_neither_tf32_nor_bfloat16(stored: str, precision: str):
    """It is refused by the compiler, and before that by minunet/cuda.py, in a sentence."""
    path = next(path for path in nvrtc.sources() if cuda.has_tensor_cores(path))
    assert cuda.first_generation(stored, precision) > 75
    with pytest.raises(RuntimeError, match=f"sm_75, {stored}, {precision}"):
        nvrtc.compiled(path, 75, stored, precision)
