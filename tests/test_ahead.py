"""The second process that compiles the backward's kernels while the forward's are compiled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minunet as mu
from minunet import Tensor, kernels, losses, models, nn, optim
from minunet.train import ahead
from tests.test_kernels import compiled

SHAPE = {"in_channels": 1, "out_channels": 1, "base_channels": 1, "depth": 1, "norm": "batch"}
INPUTS, TARGETS = np.ones((4, 1, 8, 8), np.float32), np.zeros((4, 8, 8), np.uint8)


def batch(loss: Any = losses.dice_cross_entropy) -> tuple[Any, ...]:
    """What `compiling_ahead` is told."""
    model = models.UNet(**SHAPE)
    return model, SHAPE, optim.Adam(model.parameters(), lr=0.1), loss, INPUTS, TARGETS


def numba_compiles() -> None:
    """What Numba says where it compiles one of our kernels."""
    for event in compiled("minunet.ops.x"):
        kernels._compilation.notify(event)


class Helper:
    """In place of the second process: what it was told, and whether it was stopped."""

    def __init__(self, step: str) -> None:
        self.step: dict[str, Any] = json.loads(step)
        self.calls: list[str] = []

    def kill(self) -> None:
        self.calls.append("kill")

    def wait(self) -> None:
        self.calls.append("wait")


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> list[Helper]:
    started: list[Helper] = []

    def start(step: str) -> Helper:
        started.append(Helper(step))
        return started[-1]

    monkeypatch.setattr(ahead, "_start", start)
    monkeypatch.setattr(ahead, "_threads", lambda: 2)
    monkeypatch.setattr(kernels, "_compilation", kernels._Compilation())
    return started


def test_it_starts_with_the_first_kernel_alone_and_is_stopped_with_the_step(helpers: list[Helper]) -> None:
    with ahead.compiling_ahead(*batch()):
        numba_compiles()
        numba_compiles()
        (helper,) = helpers
        assert helper.calls == []
    assert helper.calls == ["kill", "wait"]
    numba_compiles()
    assert len(helpers) == 1


def test_the_second_process_calls_the_fast_kernels_of_the_backward_and_the_update_alone(helpers: list[Helper]) -> None:
    with ahead.compiling_ahead(*batch()):
        numba_compiles()
    step = helpers[0].step
    with mu.recording() as choices:
        ahead._backwards(step)
    turn = next(i for i, choice in enumerate(choices) if choice.kernel.startswith("losses.grad"))
    assert {choice.served_by for choice in choices[:turn]} == {"ref"}
    assert {choice.served_by for choice in choices[turn:]} == {"cpu"}
    called = {choice.kernel for choice in choices[turn:]}
    assert {"conv.grad_w", "norm.grad_x", "pool.max_backward", "losses.grad_entropy", "losses.grad_overlap", "optim.adam"} <= called


def test_the_second_process_ends_well(helpers: list[Helper], monkeypatch: pytest.MonkeyPatch) -> None:
    with ahead.compiling_ahead(*batch()):
        numba_compiles()
    monkeypatch.undo()
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    assert ahead._start(json.dumps(helpers[0].step)).wait() == 0


def test_there_is_none_where_nothing_is_compiled_or_one_thread_is_all(helpers: list[Helper], monkeypatch: pytest.MonkeyPatch) -> None:
    with ahead.compiling_ahead(*batch()):
        pass
    monkeypatch.setattr(ahead, "_threads", lambda: 1)
    with ahead.compiling_ahead(*batch()):
        numba_compiles()
    assert not helpers


def test_a_system_that_refuses_a_process_lets_the_step_go_on(helpers: list[Helper], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(step: str) -> Helper:
        raise OSError("no memory")

    monkeypatch.setattr(ahead, "_start", refuse)
    with ahead.compiling_ahead(*batch()):
        numba_compiles()
    assert kernels._compilation.kernels == 1


def test_a_loss_or_a_network_that_is_not_ours(helpers: list[Helper]) -> None:
    def cross_entropy(output: Tensor, targets: Any) -> Tensor:
        return losses.cross_entropy(output, targets)

    with ahead.compiling_ahead(*batch(cross_entropy)):
        numba_compiles()
    assert [helper.step["loss"] for helper in helpers] == [None]
    ours = batch()
    with ahead.compiling_ahead(nn.Conv2d(1, 1, 3), *ours[1:]):
        numba_compiles()
    with ahead.compiling_ahead(ours[0], None, *ours[2:]):  # a network whose arguments nobody told
        numba_compiles()
    assert len(helpers) == 1
