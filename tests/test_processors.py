"""The kernels as other processors run them: Numba is told which processor it compiles for, and to use more threads than there are cores.

For each, the operation table and the tests of the kernels run in a process of their own, without those that compare with other
frameworks. The first time takes minutes. A processor with vectors as wide as this machine's is this machine.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minunet.bench import session
from tests.conftest import require

ROOT = Path(__file__).parents[1]
PROCESSORS: dict[str, dict[str, str]] = {
    "avx2": {name: value for name, value in session._AVX2.items() if name.startswith("NUMBA")},
    "sse2": {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+64bit,+cmov,+cx8,+fxsr,+mmx,+sse,+sse2"},
    "native": {},
}
THREADS = {"avx2": (3,), "sse2": (3,), "native": (1,)}  # all other tests run with as many as there are cores
BYTES = {"avx2": 32, "sse2": 16}  # of a vector
WIDEST = {16: "xmm", 32: "ymm", 64: "zmm"}

FILES = ["opcases", "conv_cpu", "norm", "pool", "upsample", "cat", "activation", "dropout", "cross_entropy", "losses", "accumulate"]
FILES += ["explog", "memory", "optim"]
# What says nothing about compiled code, and what compiles for dtypes of labels.
LEFT_OUT = "torch or keras or monai or bad or public_function or labels or integers or more_places"

REGISTERS = """
import re
import numba
from minunet.explog import exp
from minunet.simd import VECTOR_BYTES
from minunet.simd.tile import tile_0

@numba.njit("void(intp, intp, intp, float32, float32[::1])")
def kernel(a, b, c, zero, x):
    tile_0(a, 1, 1, b, 1, c, 1, 9, 6, 1, zero)  # vectors that are written out
    for i in range(x.size):  # a loop that LLVM turns into vectors
        x[i] = exp(x[i])

(code,) = kernel.inspect_asm().values()
print(VECTOR_BYTES, *sorted(set(re.findall("[xyz]mm", code))), *set(re.findall("fmadd", code)))
"""


def run(processor: str, threads: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    from minunet.simd import VECTOR_BYTES

    told = {} if BYTES.get(processor) == VECTOR_BYTES else PROCESSORS[processor]
    environment = {**os.environ, **told, "NUMBA_NUM_THREADS": str(threads)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", cwd=ROOT, env=environment, check=False)


def runs_here(processor: str) -> bool:
    """Whether this machine has the instructions."""
    from minunet.simd import VECTOR_BYTES

    return processor == "native" or (platform.machine().lower() in ("x86_64", "amd64") and BYTES[processor] <= VECTOR_BYTES)


def need(processor: str) -> None:
    require("numba")
    if not runs_here(processor):
        pytest.skip(f"this machine cannot run code for {processor}")


@pytest.mark.parametrize("processor", PROCESSORS)
def test_code_has_the_vectors_of_its_processor_and_no_wider_ones(processor: str) -> None:
    need(processor)
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("registers have other names here")
    ran = run(processor, 1, "-c", REGISTERS)
    assert ran.returncode == 0, ran.stderr
    nbytes, *found = ran.stdout.split()
    assert int(nbytes) == BYTES.get(processor, int(nbytes))
    assert max(name for name in found if name.endswith("mm")) == WIDEST[int(nbytes)]
    assert processor == "native" or ("fmadd" in found) == (processor == "avx2")


def complaints(processor: str) -> list[str]:
    """The last lines of each run that failed, or in which there was hardly a test."""
    files, found = [f"tests/test_{name}.py" for name in FILES], []
    options = ["-q", "-n0", "--tb=short", "-p", "no:cacheprovider", "--cpu-kernels", "-k", f"not ({LEFT_OUT})"]
    for threads in THREADS[processor]:
        ran = run(processor, threads, "-m", "pytest", *options, *files)
        lines = ran.stdout.splitlines()
        if ran.returncode or not re.search(r"\b\d{4,} passed\b", lines[-1]):
            found.append("\n".join([f"{processor}, {threads} threads: pytest ended with {ran.returncode}", *lines[-40:], ran.stderr]))
    return found


@pytest.mark.timeout(1800)  # where nothing is compiled yet
@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_kernels_keep_their_promises(processor: str) -> None:
    need(processor)
    found = complaints(processor)
    assert not found, "\n\n".join(found)
