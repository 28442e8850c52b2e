"""Compiling in two processes: the first batch's forward in this one, its backward beside it.

The first training on a machine compiles some twenty kernels, one after the other as they are called, and half of them are for the
backward. So a second process builds the same network. It computes the forward by its definition, for which nothing is compiled, and
goes backwards with the fast kernels. When this process gets there, it finds them on the disk.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

import numpy as np

from minunet import kernels, losses, models, optim
from minunet.tensor import Tensor


@contextmanager
def compiling_ahead(model: Any, options: Any, optimizer: Any, loss: Any, inputs: Any, targets: Any) -> Iterator[None]:
    """If a kernel is compiled within the block, which takes a step with this batch, a second process begins at the step's other end.

    model: one of `minunet.models`, made with `options`; for others there is no second process. optimizer: one of `minunet.optim`. loss:
    its kernels are among those compiled ahead if it is one of `minunet.losses`. The process is stopped at the end of the block. There is
    none either where we may use one thread, or where kernels that two processes keep could mix up.
    """
    step = {
        "model": _name(type(model), models),
        "options": options,
        "optimizer": _name(type(optimizer), optim),
        "loss": _name(loss, losses),
        "inputs": _like_one(inputs),
        "targets": _like_one(targets),
    }
    helpers: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        with suppress(OSError):  # a system that lets us have no process: then all is compiled here
            helpers.append(_start(json.dumps(step)))

    known = step["model"] and step["optimizer"] and step["inputs"] and options is not None
    with kernels.when_compiling(start if known and kernels.write_in_turn() and _threads() > 1 else None):
        try:
            yield
        finally:
            for helper in helpers:
                helper.kill()
                helper.wait()


def _name(what: Any, module: ModuleType) -> str | None:
    name = getattr(what, "__name__", "")
    return name if getattr(module, name, None) is what else None


def _like_one(batch: Any) -> tuple[tuple[int, ...], str] | None:
    """The shape and dtype of a batch of one, None for what is no array."""
    return ((1, *batch.shape[1:]), batch.dtype.name) if isinstance(batch, np.ndarray) else None


def _start(step: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", __name__, step], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _threads() -> int:
    from numba import get_num_threads  # noqa: PLC0415  keeps `import minunet` light

    return int(get_num_threads())


def _backwards(step: dict[str, Any]) -> None:
    """A training step whose backward and update compile their kernels, and whose forward compiles none."""
    model = getattr(models, step["model"])(**step["options"])
    optimizer = getattr(optim, step["optimizer"])(model.parameters(), lr=1e-3)
    with kernels.use("ref"):
        result = model(Tensor(np.zeros(*step["inputs"])))
        if step["loss"] and step["targets"]:
            result = getattr(losses, step["loss"])(result, np.zeros(*step["targets"]))
    result.backward(np.ones_like(result.data))
    optimizer.step()


if __name__ == "__main__":
    _backwards(json.loads(sys.argv[1]))
