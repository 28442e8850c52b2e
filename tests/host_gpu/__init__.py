"""The GPU's code on the processor: within `installed()` minunet's `.cu` files and `gpu.py` wrappers run with no GPU.

    with host_gpu.installed():
        x = mu.tensor(array, device="cuda")
        F.conv2d(x, w)                       # launches the kernels of ops/conv/conv.cu

`import cupy` then finds stand_in.py. launch.py runs a kernel and watches it, translate.py makes g++ take its source, device.h says what
CUDA C++ means on the processor, runtime.cpp lets the threads of a block wait for one another.

With pytest's option --real-gpu the same tests run on a GPU, and CuPy is CuPy. What tests the stand-in itself takes `pretended()`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from minunet import cuda
from tests.host_gpu import capture, stand_in
from tests.host_gpu.launch import KernelError

__all__ = ["KernelError", "capture", "installed", "pretended"]

real = False  # pytest's option --real-gpu

_module = stand_in.module()


@contextmanager
def installed() -> Iterator[None]:
    """Within the block there is a GPU to test on: the stand-in, or a real one where it was asked for."""
    if real:
        yield
        return
    with pretended():
        yield


@contextmanager
def pretended() -> Iterator[None]:
    """Within the block `cupy` is the stand-in."""
    before = sys.modules.get("cupy")
    if before is _module:
        yield
        return
    sys.modules["cupy"] = _module
    cuda.forget()
    try:
        yield
    finally:
        cuda.forget()
        del sys.modules["cupy"]
        if before is not None:
            sys.modules["cupy"] = before
