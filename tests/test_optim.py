"""Optimisers, schedules and penalties against PyTorch, and continued from a saved state."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minunet as mu
from minunet import nn, optim

from .conftest import require

SHAPES = [(3, 4), (5,), (), (2, 1, 3, 3)]
OPTIMISERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.05, "maximize": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05}),
    ("Adam", {}),
    ("Adam", {"lr": 0.02, "betas": (0.8, 0.99), "eps": 1e-4, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.02, "amsgrad": True, "maximize": True}),
    ("AdamW", {"lr": 0.02}),
    ("AdamW", {"lr": 0.02, "weight_decay": 0.2, "amsgrad": True, "betas": (0.5, 0.9)}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.02, "alpha": 0.9, "eps": 1e-4, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.02, "centered": True}),
    ("RMSprop", {"lr": 0.02, "centered": True, "momentum": 0.8, "maximize": True}),
]
IDS = [f"{name}({', '.join(f'{k}={v}' for k, v in options.items())})" for name, options in OPTIMISERS]


def start(dtype: type = np.float64) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]


def gradients(steps: int) -> list[list[np.ndarray]]:
    """Gradients of every step; the second parameter gets none in every third step."""
    rng = np.random.default_rng(2)
    return [[None if i % 3 == 2 and j == 1 else rng.standard_normal(shape) for j, shape in enumerate(SHAPES)] for i in range(steps)]


def feed(parameters: list[nn.Parameter], grads: list[np.ndarray]) -> None:
    for p, g in zip(parameters, grads, strict=True):
        p.grad = None if g is None else g.astype(p.dtype)


@pytest.mark.parametrize(("name", "options"), OPTIMISERS, ids=IDS)
def test_twenty_steps_equal_pytorch(name: str, options: dict[str, Any]) -> None:
    torch = require("torch")
    ours = [nn.Parameter(w) for w in start()]
    theirs = [torch.nn.Parameter(torch.tensor(w)) for w in start()]
    a, b = getattr(optim, name)(ours, **options), getattr(torch.optim, name)(theirs, **options)
    for grads in gradients(20):
        feed(ours, grads)
        for p, g in zip(theirs, grads, strict=True):
            p.grad = None if g is None else torch.tensor(g)
        a.step()
        b.step()
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-12, atol=1e-14)
    for i, state in b.state_dict()["state"].items():
        for key, value in state.items():
            if value is not None:
                np.testing.assert_allclose(a.state_dict()["state"][i][key], value, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("name", "options"), OPTIMISERS, ids=IDS)
def test_a_saved_state_continues_bit_for_bit_in_float32(name: str, options: dict[str, Any]) -> None:
    kind = getattr(optim, name)
    once = [nn.Parameter(w) for w in start(np.float32)]
    whole = kind(once, **options)
    for i, grads in enumerate(gradients(12)):
        feed(once, grads)
        whole.step()
        if i == 6:
            weights, state = [p.data.copy() for p in once], copy.deepcopy(whole.state_dict())
    twice = [nn.Parameter(w) for w in weights]
    resumed = kind(twice, lr=123.0)
    resumed.load_state_dict(state)
    for grads in gradients(12)[7:]:
        feed(twice, grads)
        resumed.step()
    for p, q in zip(once, twice, strict=True):
        assert p.dtype == np.float32
        np.testing.assert_array_equal(p.data, q.data)
    arrays = [v for s in whole.state_dict()["state"].values() for v in s.values() if isinstance(v, np.ndarray)]
    assert all(a.dtype == np.float32 for a in arrays)


@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop"])
def test_pytorchs_state_is_taken_over(name: str) -> None:
    torch = require("torch")
    options = {"momentum": 0.9} if name != "AdamW" else {}
    theirs = [torch.nn.Parameter(torch.tensor(w)) for w in start()]
    b = getattr(torch.optim, name)(theirs, **options)
    steps = gradients(4)
    for grads in steps[:2]:
        for p, g in zip(theirs, grads, strict=True):
            p.grad = torch.tensor(g)
        b.step()
    ours = [nn.Parameter(p.detach().numpy().copy()) for p in theirs]
    a = getattr(optim, name)(ours)
    a.load_state_dict(b.state_dict())
    for grads in steps[2:]:
        feed(ours, grads)
        a.step()
        for p, g in zip(theirs, grads, strict=True):
            p.grad = None if g is None else torch.tensor(g)
        b.step()
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-12)


def test_blocks_and_layouts_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.random.default_rng(0).standard_normal((50, 7, 3)).astype(np.float32)
    results = []
    for block, order in ((1 << 15, "C"), (13, "C"), (13, "F")):
        monkeypatch.setattr(optim, "_BLOCK", block)
        p = nn.Parameter(weights.copy(order=order))
        adam = optim.Adam([p], lr=0.1)
        for _ in range(3):
            p.grad = np.asarray(np.sin(weights), order="F")
            adam.step()
        results.append(p.data)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_groups_override_and_learning_rates_of_numpy_stay_float32() -> None:
    a, b = nn.Parameter(np.ones(2, np.float32)), nn.Parameter(np.ones(2, np.float32))
    sgd = optim.SGD([{"params": [a], "lr": np.float64(0.5)}, {"params": b}], lr=0.1)
    feed([a, b], [np.ones(2), np.ones(2)])
    sgd.step()
    np.testing.assert_allclose(a.data, 0.5)
    np.testing.assert_allclose(b.data, 0.9)
    assert a.dtype == np.float32
    sgd.zero_grad()
    assert a.grad is None
    assert sgd.state_dict()["param_groups"][1]["params"] == [1]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: optim.SGD([]), ValueError, "got no parameters"),
        (lambda p: optim.SGD([p, p]), ValueError, "twice"),
        (lambda p: optim.SGD([("name", p)]), TypeError, r"got tuple\. Pass model\.parameters\(\)"),
        (lambda p: optim.SGD([p], lr=-1), ValueError, "lr must be at least 0, got -1"),
        (lambda p: optim.SGD([p], nesterov=True), ValueError, "nesterov needs momentum"),
        (lambda p: optim.Adam([p], betas=(0.9, 1.0)), ValueError, "betas must lie"),
        (lambda p: optim.Adam([{"params": [p], "momentum": 1}]), ValueError, "Adam has no option momentum; it has lr, betas"),
        (lambda p: optim.StepLR(optim.SGD([p]), 0), ValueError, "step_size is a number of epochs"),
        (lambda p: optim.ReduceLROnPlateau(optim.SGD([p])).step(), TypeError, "needs the metric"),
        (lambda p: optim.L2(-1), ValueError, "at least 0"),
    ],
)
def test_bad_arguments(call: Callable[[nn.Parameter], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(nn.Parameter(np.ones(2)))


def test_a_state_of_another_optimiser_or_model_is_refused_and_nothing_changes() -> None:
    p, q = nn.Parameter(np.ones(2)), nn.Parameter(np.ones(3))
    adam, sgd, other = optim.Adam([p]), optim.SGD([p], momentum=0.9), optim.Adam([q])
    for optimiser, parameter in ((adam, p), (other, q)):
        feed([parameter], [np.ones(parameter.shape)])
        optimiser.step()
    before = copy.deepcopy(adam.state_dict())
    with pytest.raises(ValueError, match="no amsgrad, betas, eps: it is another optimiser's"):
        adam.load_state_dict(sgd.state_dict())
    with pytest.raises(ValueError, match="exp_avg of parameter 0 is 3, the parameter 2"):
        adam.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match=r"groups of \[2\] parameters, this optimiser \[1\]"):
        adam.load_state_dict(optim.Adam([p, q]).state_dict())
    np.testing.assert_equal(adam.state_dict(), before)


SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("StepLR", {"step_size": 7, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [30, 5, 5, 12]}),
    ("CosineAnnealingLR", {"T_max": 20, "eta_min": 1e-3}),
    ("CosineAnnealingLR", {"T_max": 50}),
    ("PolynomialLR", {"total_iters": 40, "power": 0.9}),
    ("LinearLR", {}),
    ("LinearLR", {"start_factor": 0.1, "end_factor": 0.7, "total_iters": 9}),
    ("LambdaLR", {"lr_lambda": lambda epoch: 0.95**epoch}),
    ("LambdaLR", {"lr_lambda": [lambda epoch: 0.95**epoch, lambda epoch: 1 / (1 + epoch)]}),
]


@pytest.mark.parametrize(("name", "options"), SCHEDULES, ids=lambda v: v if isinstance(v, str) else ", ".join(v))
def test_fifty_epochs_of_each_schedule_equal_pytorch(name: str, options: dict[str, Any]) -> None:
    torch = require("torch")
    ours = optim.SGD([{"params": [nn.Parameter(np.ones(1))]}, {"params": [nn.Parameter(np.ones(1))], "lr": 0.4}], lr=0.1)
    p, q = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    theirs = torch.optim.SGD([{"params": [p]}, {"params": [q], "lr": 0.4}], lr=0.1)
    a, b = getattr(optim, name)(ours, **options), getattr(torch.optim.lr_scheduler, name)(theirs, **options)
    for epoch in range(50):
        np.testing.assert_allclose(a.get_last_lr(), [g["lr"] for g in theirs.param_groups], rtol=1e-9, atol=1e-12)
        theirs.step()
        b.step()
        a.step()
        if epoch == 20:  # a new schedule continues the saved one
            state, rates = a.state_dict(), ours.state_dict()
            ours = optim.SGD([{"params": [nn.Parameter(np.ones(1))]}, {"params": [nn.Parameter(np.ones(1))], "lr": 0.4}], lr=0.1)
            a = getattr(optim, name)(ours, **options)
            a.load_state_dict(state)
            ours.load_state_dict(rates)


@pytest.mark.parametrize(
    "options",
    [
        {"patience": 2},
        {"patience": 0, "factor": 0.5, "cooldown": 3, "min_lr": 0.01},
        {"mode": "max", "patience": 1, "threshold": 0.3, "threshold_mode": "abs"},
        {"mode": "max", "patience": 1, "threshold": 0.2},
    ],
    ids=str,
)
def test_plateau_equals_pytorch(options: dict[str, Any]) -> None:
    torch = require("torch")
    ours, theirs = optim.SGD([nn.Parameter(np.ones(1))], lr=0.1), torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    a, b = optim.ReduceLROnPlateau(ours, **options), torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **options)
    rng = np.random.default_rng(5)
    for epoch in range(50):
        metric = float(rng.uniform(0.5, 1.5)) + 2 / (1 + epoch)
        a.step(metric)
        b.step(metric)
        assert a.get_last_lr() == pytest.approx([g["lr"] for g in theirs.param_groups], rel=1e-12)
        if epoch == 20:
            state = a.state_dict()
            a = optim.ReduceLROnPlateau(ours, **options)
            a.load_state_dict(state)


def test_another_schedules_state_is_refused() -> None:
    sgd = optim.SGD([nn.Parameter(np.ones(1))])
    with pytest.raises(ValueError, match=r"StepLR: the saved schedule has .*T_max.*Build the same kind"):
        optim.StepLR(sgd, 3).load_state_dict(optim.CosineAnnealingLR(sgd, 5).state_dict())


def model() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.PReLU(2), nn.Linear(2, 3))


@pytest.mark.parametrize("penalty", [optim.L1(0.3), optim.L2(0.2), optim.ElasticNet(0.3, 0.2)], ids=str)
def test_penalties_act_on_kernels_only_and_add_their_gradient(penalty: optim.ElasticNet) -> None:
    net = model()
    assert list(optim.kernels(net)) == ["0.weight", "3.weight"]
    for p in net.parameters():
        p.grad = np.ones_like(p.data)
    net[3].weight.grad = None
    penalty.add_gradients(net)
    for name, p in net.named_parameters():
        slope = penalty.l1 * np.sign(p.data) + 2 * penalty.l2 * p.data if name in ("0.weight", "3.weight") else 0 * p.data
        np.testing.assert_allclose(p.grad, (name != "3.weight") + slope, rtol=1e-6)
        assert p.grad.dtype == np.float32
    expected = sum(penalty.l1 * abs(w.data).sum() + penalty.l2 * (w.data**2).sum() for w in (net[0].weight, net[3].weight))
    assert penalty.value(net) == pytest.approx(expected, rel=1e-6)
    net[0].requires_grad_(False)
    assert list(optim.kernels(net)) == ["3.weight"]


def test_l2_of_keras_is_twice_the_weight_decay_of_sgd() -> None:
    a, b = nn.Linear(3, 2, bias=False), nn.Linear(3, 2, bias=False)
    b.load_state_dict(a.state_dict())
    for layer, decay in ((a, 0.0), (b, 0.08)):
        layer.weight.grad = np.zeros_like(layer.weight.data)
        if not decay:
            optim.L2(0.04).add_gradients(layer)
        optim.SGD(layer.parameters(), lr=0.1, weight_decay=decay).step()
    np.testing.assert_allclose(a.weight.data, b.weight.data, rtol=1e-6)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, np.inf])
@pytest.mark.parametrize("max_norm", [0.7, 1e3])
def test_clip_grad_norm_equals_pytorch(norm_type: float, max_norm: float) -> None:
    torch = require("torch")
    (grads,) = gradients(1)
    ours, theirs = [nn.Parameter(w) for w in start()], [torch.nn.Parameter(torch.tensor(w)) for w in start()]
    feed(ours, grads)
    for p, g in zip(theirs, grads, strict=True):
        p.grad = torch.tensor(g)
    norm = optim.clip_grad_norm_(ours, max_norm, norm_type)
    assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)), rel=1e-12)
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-12)


def test_a_norm_that_is_not_finite_can_raise() -> None:
    p = nn.Parameter(np.ones(2))
    p.grad = np.array([1.0, np.nan])
    with pytest.raises(RuntimeError, match=r"norm is nan.*mu\.debug"):
        optim.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)


def test_training_a_line() -> None:
    mu.manual_seed(0)
    layer = nn.Linear(1, 1)
    x = mu.tensor(np.linspace(-1, 1, 9, dtype=np.float32).reshape(-1, 1))
    adam = optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(200):
        adam.zero_grad()
        error = layer(x) - (x * 3.0 - 1.0)
        (error * error).mean().backward()
        adam.step()
    np.testing.assert_allclose([layer.weight.item(), layer.bias.item()], [3, -1], atol=1e-3)
