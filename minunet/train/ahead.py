"""Compiling in two processes: the first batch's forward in this one, its backward beside it.

The first training on a machine compiles some twenty kernels, one after the other as they are called, and half of them are for the
backward. So a second process is given the network and an image. It computes the forward by its definition, for which nothing is
compiled, and goes backwards with the fast kernels. When this process gets there, it finds them on the disk.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minunet import kernels
from minunet.nn import Module
from minunet.optim import Optimizer
from minunet.tensor import Tensor

Loss = Callable[[Tensor, Any], Tensor]


@contextmanager
def compiling_ahead(model: Module, optimizer: Optimizer, loss: Loss, inputs: Any, targets: Any) -> Iterator[None]:
    """If a kernel is compiled within the block, which takes a step with this batch, a second process begins at its other end.

    It is stopped at the end of the block. There is none where one thread is all we may use, or where kernels of two processes could mix up.
    """
    helpers: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        for sent in (loss, None):
            try:
                step = pickle.dumps((model, optimizer, sent, _first(inputs), _first(targets)))
            except (AttributeError, TypeError, pickle.PicklingError):
                continue  # something defined within a function cannot be sent: go on without the loss, or alone
            helpers.append(_start(step))
            return

    with kernels.when_compiling(start if kernels.write_in_turn() and _threads() > 1 else None):
        try:
            yield
        finally:
            for helper in helpers:
                helper.kill()
                helper.wait()


def _first(batch: Any) -> Any:
    return batch[:1] if isinstance(batch, np.ndarray) else batch


def _start(step: bytes) -> subprocess.Popen[bytes]:
    with tempfile.TemporaryFile() as file:
        file.write(step)
        file.seek(0)
        return subprocess.Popen([sys.executable, "-m", __name__], stdin=file, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _threads() -> int:
    from numba import get_num_threads  # noqa: PLC0415  keeps `import minunet` light

    return int(get_num_threads())


def _backwards(model: Module, optimizer: Optimizer, loss: Loss | None, inputs: Any, targets: Any) -> None:
    """A training step whose backward and update compile their kernels, and whose forward compiles none."""
    with kernels.use("ref"):
        result = model(Tensor(inputs))
        if loss is not None:
            result = loss(result, targets)
    result.backward(np.ones_like(result.data))
    optimizer.step()


if __name__ == "__main__":
    with os.fdopen(sys.stdin.fileno(), "rb") as sent:
        _backwards(*pickle.load(sent))
