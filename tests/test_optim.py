"""Optimisers, schedules and penalties against PyTorch, and continued from a saved state."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minunet as mu
from minunet import cuda, nn, optim
from minunet.arrays import cupy_module, is_array, to_device
from minunet.optim import gpu
from tests import host_gpu
from tests.host_gpu import stand_in

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


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "C": np.array,
    "F": lambda a: np.array(a, order="F"),
    "taps first": lambda a: np.array(a.transpose(2, 3, 1, 0), order="C").transpose(3, 2, 0, 1),
    "window": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "backwards": lambda a: np.array(a[:, ::-1])[:, ::-1],
}


@pytest.mark.parametrize("kernel_set", ["ref", "cpu"])
@pytest.mark.parametrize("of_gradient", LAYOUTS)
@pytest.mark.parametrize("of_weight", LAYOUTS)
def test_memory_order_does_not_change_the_result(of_weight: str, of_gradient: str, kernel_set: str) -> None:
    rng = np.random.default_rng(0)
    weight, grads = rng.standard_normal((6, 5, 3, 1)), rng.standard_normal((3, 6, 5, 3, 1))
    results = []
    for weight_order, gradient_order in (("C", "C"), (of_weight, of_gradient)):
        p = nn.Parameter(LAYOUTS[weight_order](weight))
        held, strides, adam = p.data, p.data.strides, optim.Adam([p], lr=0.1, amsgrad=True)
        for grad in grads:
            p.grad = LAYOUTS[gradient_order](grad)
            with mu.use(kernel_set):
                adam.step()
            adam.load_state_dict(copy.deepcopy(adam.state_dict()))
        assert p.data is held
        assert p.data.strides == strides
        results.append([p.data, *(adam.state[p][name] for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"))])
    for expected, came in zip(*results, strict=True):
        np.testing.assert_array_equal(came, expected)


def test_the_state_is_made_and_loaded_in_the_weights_memory_order() -> None:
    p = nn.Parameter(LAYOUTS["taps first"](np.ones((4, 3, 2, 2), np.float32)))
    adam = optim.Adam([p])
    p.grad = np.ones_like(p.data)
    adam.step()
    assert adam.state[p]["exp_avg"].strides == p.data.strides
    adam.load_state_dict({**adam.state_dict(), "state": {0: {"step": 1, "exp_avg": np.ones(p.shape), "exp_avg_sq": np.ones(p.shape)}}})
    assert adam.state[p]["exp_avg"].strides == p.data.strides
    kept = adam.state[p]["exp_avg"]
    adam.step()
    assert adam.state[p]["exp_avg"] is kept


def test_a_read_only_weight_is_refused() -> None:
    p = nn.Parameter(np.broadcast_to(np.float32(1), (3,)))
    p.grad = np.ones(3, np.float32)
    with pytest.raises(ValueError, match="read-only"):
        optim.Adam([p]).step()


MANY = [(16,), (3, 3), (), (40_000,), (0, 2), (70, 30, 3, 3), (1,)]


def many_steps(name: str, options: dict[str, Any], dtype: type, kernel_set: str) -> list[np.ndarray]:
    """Weights and state after some steps of many parameters: small and large, of two groups, some without a gradient in some steps."""
    rng = np.random.default_rng(4)
    place = "cuda" if kernel_set == "gpu" else "cpu"
    parameters = [nn.Parameter(to_device(rng.standard_normal(shape).astype(dtype), place)) for shape in MANY]
    optimiser = getattr(optim, name)([{"params": parameters[::2]}, {"params": parameters[1::2], "lr": 0.3}], **options)
    for i in range(4):
        for j, p in enumerate(parameters):
            p.grad = None if (i + j) % 4 == 3 else to_device(rng.standard_normal(p.shape).astype(dtype), place)
        with mu.use(kernel_set):
            optimiser.step()
    states = [a for p in parameters for a in optimiser.state[p].values() if is_array(a)]
    return [to_device(a, "cpu") for a in [*(p.data for p in parameters), *states]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "options"), [case for case in OPTIMISERS if case[0] != "RMSprop"], ids=[i for i in IDS if i[0] != "R"])
def test_the_one_kernel_equals_the_definition_bit_for_bit(name: str, options: dict[str, Any], dtype: type) -> None:
    expected = many_steps(name, options, dtype, "ref")
    for came, wanted in zip(many_steps(name, options, dtype, "cpu"), expected, strict=True):
        assert came.dtype == dtype
        np.testing.assert_array_equal(came, wanted)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "options"), OPTIMISERS, ids=IDS)
def test_the_kernels_for_the_gpu_equal_the_definition(name: str, options: dict[str, Any], dtype: type) -> None:
    expected = many_steps(name, options, dtype, "ref")
    with host_gpu.installed():
        results = [many_steps(name, options, dtype, "gpu") for _ in range(2)]
    for came, again in zip(*results, strict=True):
        assert came.dtype == dtype
        assert np.array_equal(came, again)
    weights, unit = len(MANY), np.finfo(dtype).eps
    largest = max(np.abs(a).max(initial=0) for a in expected[:weights])
    for i, (came, wanted) in enumerate(zip(results[0], expected, strict=True)):  # a GPU rounds a·b + c once where the definition does twice
        np.testing.assert_allclose(came, wanted, rtol=0 if i < weights else 25 * unit, atol=16 * unit * largest)


def on_the_gpu(name: str, options: dict[str, Any], sizes: list[int], alone: bool = False) -> list[np.ndarray]:
    """Weights after two steps of one optimiser for all parameters, or of one for each."""
    rng = np.random.default_rng(5)
    parameters = [nn.Parameter(to_device(rng.standard_normal(n).astype(np.float32), "cuda")) for n in sizes]
    optimisers = [getattr(optim, name)(group, **options) for group in ([[p] for p in parameters] if alone else [parameters])]
    for _ in range(2):
        for p in parameters:
            p.grad = to_device(rng.standard_normal(p.shape).astype(np.float32), "cuda")
        for optimiser in optimisers:
            optimiser.step()
    return [to_device(p.data, "cpu") for p in parameters]


PIECES = [1, gpu.PIECE - 1, gpu.PIECE, gpu.PIECE + 1, 0, 7, 2 * gpu.PIECE + 300]


@pytest.mark.parametrize(("name", "options"), [OPTIMISERS[i] for i in (0, 4, 7, 9, 13)], ids=[IDS[i] for i in (0, 4, 7, 9, 13)])
def test_on_the_gpu_all_parameters_are_one_launch_and_each_is_as_by_itself(name: str, options: dict[str, Any], monkeypatch: Any) -> None:
    launches: list[str] = []
    launch = cuda.Kernel.__call__
    monkeypatch.setattr(cuda.Kernel, "__call__", lambda self, *args, **rest: launches.append(self.name) or launch(self, *args, **rest))
    with host_gpu.installed():
        together = on_the_gpu(name, options, PIECES)
        assert len(launches) == 2
        for came, wanted in zip(together, on_the_gpu(name, options, PIECES, alone=True), strict=True):
            assert np.array_equal(came, wanted)


def test_each_gpu_has_tables_of_its_own(monkeypatch: Any) -> None:
    sent: list[Any] = []
    with host_gpu.pretended():
        p = nn.Parameter(to_device(np.ones(12345, np.float32), "cuda"))
        p.grad = p.data.copy()
        adam, asarray = optim.Adam([p]), cupy_module().asarray
        adam.step()
        monkeypatch.setattr(cupy_module(), "asarray", lambda a: sent.append(a) or asarray(a))
        for number, tables in ((1, 6), (0, 0), (1, 0)):  # weights, gradients, three of the state, pieces
            monkeypatch.setattr(stand_in, "NUMBER", number)
            adam.step()
            assert len(sent) == tables + 1  # and the numbers of the step
            sent.clear()


def test_on_the_gpu_the_tables_are_made_once(monkeypatch: Any) -> None:
    """While weights, gradients and state stay where they are, a step sends nothing but the numbers that change."""
    with host_gpu.installed():
        p = [nn.Parameter(to_device(np.ones(n, np.float32), "cuda")) for n in (5, 9)]
        for q in p:
            q.grad = to_device(np.ones(q.shape, np.float32), "cuda")
        adam, sent, asarray = optim.Adam(p), [], cupy_module().asarray
        adam.step()
        monkeypatch.setattr(cupy_module(), "asarray", lambda a: sent.append(a) or asarray(a))
        adam.step()
        assert [a.shape for a in sent] == [(2, 8)]  # a row of numbers for each parameter
        p[0].grad = p[0].grad.copy()
        adam.step()
        assert [a.shape for a in sent] == [(2, 8), (2, 8), (2,)]


FAULTS = {
    "pieces that are a number too long": (
        "(int)row[2]",
        "(int)row[2] + 1",
        "touches memory outside the argument '.*\\[[06]\\]', 1 elements",
    ),
    "pieces that are a number too short": ("(int)row[2]", "(int)row[2] - 1", "numbers are wrong"),
    "pieces of the next parameter": ("row[0], row[1]", "row[0] + 1, row[1]", "touches memory outside the argument"),
    "two swapped tables of the state": ("begin(means", "begin(squares", "numbers are wrong"),
    "weights taken for gradients": ("begin(grads", "begin(weights", "numbers are wrong"),
    "gradients taken for weights": (
        "begin(weights, piece)",
        "(REAL*)begin(grads, piece)",
        "which is const",
    ),
    "a state that is not in use": ("if (largest)", "if (true)", "uses a null pointer"),
    "two threads for each number": ("i = threadIdx.x", "i = threadIdx.x / 2", "numbers are wrong"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_in_the_one_launch_are_seen(fault: str, monkeypatch: Any, tmp_path: Any) -> None:
    right, wrong, told = FAULTS[fault]
    source = gpu.SOURCE.path.read_text(encoding="utf-8")
    assert right in source

    def same_numbers() -> None:
        assert all(map(np.array_equal, on_the_gpu("Adam", {}, PIECES), wanted)), "numbers are wrong"

    with host_gpu.pretended():
        wanted = on_the_gpu("Adam", {}, PIECES)
        (tmp_path / "optim.cu").write_text(source.replace(right, wrong), encoding="utf-8")
        monkeypatch.setattr(gpu, "SOURCE", cuda.Source(str(tmp_path / "gpu.py"), "optim.cu"))
        with pytest.raises(AssertionError, match=told):
            same_numbers()


@pytest.mark.parametrize("layout", ["F", "taps first", "window"])
def test_on_the_gpu_memory_order_does_not_change_the_result(layout: str) -> None:
    rng = np.random.default_rng(0)
    weight, grad = rng.standard_normal((6, 5, 3, 1)), rng.standard_normal((6, 5, 3, 1))
    results = []
    with host_gpu.installed():
        for order in ("C", layout):
            wide = to_device(np.repeat(weight, 2, axis=1) if order == "window" else LAYOUTS[order](weight), "cuda")
            p = nn.Parameter(wide[:, ::2] if order == "window" else wide)
            p.grad = to_device(grad, "cuda")
            optim.Adam([p], lr=0.1, amsgrad=True).step()
            results.append(to_device(p.data, "cpu"))
    assert np.array_equal(*results)


def test_the_result_does_not_depend_on_threads() -> None:
    numba = require("numba")
    results, before = [], numba.get_num_threads()
    for threads in range(1, min(3, numba.config.NUMBA_NUM_THREADS) + 1):
        numba.set_num_threads(threads)
        results.append(many_steps("AdamW", {}, np.float32, "cpu"))
    numba.set_num_threads(before)
    for result in results[1:]:
        for came, wanted in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(came, wanted)


def test_a_step_is_one_launch_for_each_dtype() -> None:
    dtypes = [np.float32] * 5 + [np.float64, np.float16]
    parameters = [nn.Parameter(np.ones((2, i + 1), dtype)) for i, dtype in enumerate(dtypes)]
    for p in parameters:
        p.grad = np.ones_like(p.data)
    adam = optim.Adam([{"params": parameters[::2]}, {"params": parameters[1::2], "amsgrad": True}], lr=0.5)
    with mu.recording() as choices:
        adam.step()
    assert sorted((c.kernel, c.served_by) for c in choices) == [("optim.adam", "cpu"), ("optim.adam", "cpu"), ("optim.adam", "ref")]
    for p, dtype in zip(parameters, dtypes, strict=True):
        assert p.dtype == dtype
        np.testing.assert_allclose(p.data, 0.5, rtol=1e-3)


@pytest.mark.parametrize("options", [{}, {"amsgrad": True, "weight_decay": 0.1, "maximize": True}], ids=str)
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_groups_and_what_is_not_finite_equal_pytorch_in_float32(name: str, options: dict[str, Any]) -> None:
    torch = require("torch")
    rng = np.random.default_rng(3)
    shapes = [(300, 70), (5,), (8, 4, 3, 3)]
    ours = [nn.Parameter(rng.standard_normal(shape).astype(np.float32)) for shape in shapes]
    theirs = [torch.nn.Parameter(torch.tensor(p.data)) for p in ours]
    a, b = (
        getattr(module, name)([{"params": ps[:1]}, {"params": ps[1:], "lr": 0.1, "betas": (0.7, 0.9)}], **options)
        for module, ps in ((optim, ours), (torch.optim, theirs))
    )
    for i in range(10):
        for j, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            p.grad = None if (i + j) % 3 == 2 else rng.standard_normal(p.shape).astype(np.float32)
            if i == 6 and j == 1:
                p.grad[:3] = np.nan, np.inf, -np.inf
            q.grad = None if p.grad is None else torch.tensor(p.grad)
        a.step()
        b.step()
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert np.isnan(ours[1].data[:3]).all()


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
