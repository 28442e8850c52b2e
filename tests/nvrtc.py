"""NVRTC, NVIDIA's compiler as a library: what it makes of our `.cu` files, with no GPU and no driver.

`python -m tests.nvrtc` prints, for each kernel and GPU generation, registers, shared memory, stack and spills: what decides how many
threads a multiprocessor holds.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import minunet
from minunet import cuda

ROOT = Path(minunet.__file__).parent
GENERATIONS = {75: "Turing", 80: "Ampere", 90: "Hopper", 100: "Blackwell, data centre", 120: "Blackwell, desktop"}
CUPY_ADDS = ("-ftz=true", "--device-as-default-execution-space")
ANEW = "--no-cache"  # where there is a driver NVRTC keeps what it compiled, of another dtype too; then its log is empty


@dataclass(frozen=True)
class Usage:
    """What one kernel needs. shared: bytes a block, stack and spills: bytes a thread."""

    kernel: str
    registers: int
    shared: int
    stack: int
    spilled: int


def sources() -> list[Path]:
    return sorted(ROOT.rglob("*.cu"))


def variants(path: Path) -> list[tuple[str, str]]:
    """What a file is compiled for: the dtypes of images, float32 in each precision where it has code for the tensor cores."""
    if path.name == "winograd.cu":
        return [("float32", "float32")]  # its factors are not to be rounded: ops/conv/gpu.py
    if cuda.has_tensor_cores(path):
        return [*(("float32", precision) for precision in cuda.PRECISIONS), ("float16", "float32"), ("bfloat16", "float32")]
    return [(stored, "float32") for stored in cuda.REALS]


@cache
def compiled(path: Path, generation: int, stored: str, precision: str = "float32") -> tuple[list[Usage], list[str]]:
    """The kernels of a file, and the compiler's warnings. Raises RuntimeError with its errors."""
    nvrtc: Any = importlib.import_module("cupy_backends.cuda.libs.nvrtc")
    program = nvrtc.createProgram(cuda.read(path), path.name, (), ())
    options = (*cuda.options(stored, precision), *CUPY_ADDS, f"-arch=sm_{generation}", "--ptxas-options=-v", ANEW)
    try:
        nvrtc.compileProgram(program, options)
    except nvrtc.NVRTCError:
        raise RuntimeError(f"{path.name} for sm_{generation}, {stored}, {precision}:\n{nvrtc.getProgramLog(program)}") from None
    log = nvrtc.getProgramLog(program)
    assert nvrtc.getCUBIN(program)
    nvrtc.destroyProgram(program)
    warnings = [line for line in log.splitlines() if "warning" in line.lower()]
    return [_usage(name, told) for name, told in re.findall(r"Compiling entry function '(\w+)'(.*?)Compile time", log, re.DOTALL)], warnings


def _usage(kernel: str, told: str) -> Usage:
    def number(pattern: str) -> int:
        found = re.search(pattern, told)
        return int(found[1]) if found else 0

    spilled = number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads")
    return Usage(kernel, number(r"Used (\d+) registers"), number(r"(\d+) bytes smem"), number(r"(\d+) bytes stack frame"), spilled)


def table(paths: list[Path]) -> str:
    lines = [f"{'kernel':24} {'stored':8} {'precision':9} {'sm':>4} {'registers':>9} {'shared':>7} {'stack':>6} {'spilled':>7}"]
    for path in paths:
        for stored, precision in variants(path):
            for generation in GENERATIONS:
                if generation < cuda.first_generation(stored, precision):
                    continue
                for u in compiled(path, generation, stored, precision)[0]:
                    lines.append(
                        f"{u.kernel:24} {stored:8} {precision:9} {generation:>4} {u.registers:>9} {u.shared:>7} {u.stack:>6} {u.spilled:>7}"
                    )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(sources()))
