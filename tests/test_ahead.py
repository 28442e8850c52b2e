"""The second process that compiles the backward's kernels while the forward's are compiled."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minunet import Tensor, kernels, losses, nn, optim
from minunet.train import ahead

INPUTS, TARGETS = np.ones((4, 2, 4, 4), np.float32), np.zeros((4, 2, 4, 4), np.float32)


def network() -> tuple[nn.Module, optim.Optimizer]:
    model = nn.BatchNorm2d(2)
    return model, optim.SGD(model.parameters(), lr=0.1)


def numba_compiles() -> None:
    """What Numba says where it compiles one of our kernels."""
    dispatcher = SimpleNamespace(py_func=SimpleNamespace(__module__="minunet.ops.x"), stats=SimpleNamespace(cache_path="/x/y"))
    for is_start in (True, False):
        kernels._compilation.notify(SimpleNamespace(is_start=is_start, data={"dispatcher": dispatcher}))


class Helper:
    """In place of the second process: what it was sent, and whether it was stopped."""

    def __init__(self, step: bytes) -> None:
        self.model, self.optimizer, self.loss, self.inputs, self.targets = pickle.loads(step)
        self.calls: list[str] = []

    def kill(self) -> None:
        self.calls.append("kill")

    def wait(self) -> None:
        self.calls.append("wait")


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> list[Helper]:
    started: list[Helper] = []

    def start(step: bytes) -> Helper:
        started.append(Helper(step))
        return started[-1]

    monkeypatch.setattr(ahead, "_start", start)
    monkeypatch.setattr(ahead, "_threads", lambda: 2)
    monkeypatch.setattr(kernels, "_compilation", kernels._Compilation())
    return started


def test_the_second_process_compiles_the_backward_and_the_update_and_no_forward(tmp_path: Path) -> None:
    step = pickle.dumps((*network(), losses.squared_error, INPUTS, TARGETS))
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-m", ahead.__name__], input=step, env=environment, check=True, cwd=Path(__file__).parents[1])
    kept = {file.name.partition("-")[0] for file in tmp_path.rglob("*.nbi")}
    assert {"cpu._sums", "cpu._update"} <= kept
    assert not {"cpu._moments", "cpu._normalize"} & kept


def test_it_starts_with_the_first_kernel_alone_and_is_stopped_with_the_step(helpers: list[Helper]) -> None:
    with ahead.compiling_ahead(*network(), losses.cross_entropy, INPUTS, TARGETS):
        numba_compiles()
        numba_compiles()
        (helper,) = helpers
        assert helper.calls == []
    assert helper.calls == ["kill", "wait"]
    assert helper.inputs.shape == helper.targets.shape == (1, 2, 4, 4)
    assert helper.loss is losses.cross_entropy
    assert next(helper.model.parameters()) is helper.optimizer.param_groups[0]["params"][0]
    numba_compiles()
    assert len(helpers) == 1


def test_there_is_none_where_nothing_is_compiled_or_one_thread_is_all(helpers: list[Helper], monkeypatch: pytest.MonkeyPatch) -> None:
    with ahead.compiling_ahead(*network(), losses.cross_entropy, INPUTS, TARGETS):
        pass
    monkeypatch.setattr(ahead, "_threads", lambda: 1)
    with ahead.compiling_ahead(*network(), losses.cross_entropy, INPUTS, TARGETS):
        numba_compiles()
    assert not helpers


def test_what_cannot_be_sent_stays_here(helpers: list[Helper]) -> None:
    def loss(output: Tensor, targets: Any) -> Tensor:
        return losses.cross_entropy(output, targets)

    model, optimizer = network()
    with ahead.compiling_ahead(model, optimizer, loss, INPUTS, TARGETS):
        numba_compiles()
    assert [helper.loss for helper in helpers] == [None]
    model.forward = lambda x: x  # type: ignore[method-assign]
    with ahead.compiling_ahead(model, optimizer, loss, INPUTS, TARGETS):
        numba_compiles()
    assert len(helpers) == 1
