"""The tests of the operation table tested: an operation that breaks one promise is caught by the test of that promise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minunet import Tensor
from minunet import functional as F
from minunet.autograd import Function
from minunet.testing.opcases import BadInput, OpCase, Sample
from tests import test_opcases as walk
from tests.conftest import require
from tests.oracles import ORACLES


class Double(Function):
    """y = 2x, done right: the mutants below break one thing each."""

    def forward(ctx, x: Any) -> Any:
        ctx.save(x)
        return 2 * x

    def backward(ctx, gy: Any) -> Any:
        _ = ctx.saved
        return 2 * gy


def row(function: Callable[..., Any], **fields: Any) -> tuple[OpCase, int, Sample]:
    sample = Sample((np.random.default_rng(0).standard_normal((3, 4, 5)),))
    case = OpCase("double", function, lambda rng: [sample], "double", lambda t: lambda x: 2 * x, linear=(0,), **fields)
    return case, 0, sample


class WritesInput(Double):
    def forward(ctx, x):
        y = 2 * x
        x[0] = 0
        return y

    def backward(ctx, gy):
        return 2 * gy


class WritesGradient(Double):
    def backward(ctx, gy):
        gy *= 2
        return gy.copy()


class KeepsArrays(Double):
    def forward(ctx, x):
        ctx.hidden = x + 0
        return 2 * x

    def backward(ctx, gy):
        return 2 * gy


class HoldsItself(Double):
    def forward(ctx, x):
        ctx.me = ctx
        return 2 * x

    def backward(ctx, gy):
        return 2 * gy


class ReadsMemory(Double):
    """Takes the elements as they lie in memory, the classic error of a kernel that ignores strides."""

    def forward(ctx, x):
        return 2 * x.ravel(order="K").reshape(x.shape)

    def backward(ctx, gy):
        return 2 * gy


class BackwardReadsMemory(Double):
    def backward(ctx, gy):
        return 2 * gy.ravel(order="K").reshape(gy.shape)


class GrowsToDouble(Double):
    def forward(ctx, x):
        ctx.dtype = x.dtype
        return 2 * x.astype(np.float64)

    def backward(ctx, gy):
        return (2 * gy).astype(ctx.dtype)


class Unsteady(Double):
    calls = 0

    def forward(ctx, x):
        Unsteady.calls += 1
        return 2 * x * (1 + 1e-6 * Unsteady.calls)

    def backward(ctx, gy):
        return 2 * gy


class CountsThreads(Double):
    def forward(ctx, x):
        return 2 * x + np.float32(1e-6) * require("numba").get_num_threads()

    def backward(ctx, gy):
        return 2 * gy


class Imprecise(Double):
    def forward(ctx, x):
        return (2 * x).astype(np.float16).astype(x.dtype)

    def backward(ctx, gy):
        return 2 * gy


class Wrong(Double):
    def backward(ctx, gy):
        return 2.001 * gy


def with_layout(test: Callable[..., None], layout: Callable[[np.ndarray], np.ndarray]) -> Callable[..., None]:
    return lambda case, index, sample: test(case, index, sample, layout)


def in_float32(test: Callable[..., None]) -> Callable[..., None]:
    return lambda case, index, sample: test(case, index, sample, np.float32)


layouts = walk.test_memory_layout_does_not_matter
CAUGHT = [
    (WritesInput, walk.test_inputs_are_not_modified),
    (WritesGradient, walk.test_inputs_are_not_modified),
    (KeepsArrays, walk.test_saved_arrays_die_with_backward),
    (HoldsItself, walk.test_saved_arrays_die_with_backward),
    (ReadsMemory, with_layout(layouts, walk.channels_last)),
    (BackwardReadsMemory, with_layout(layouts, walk.channels_last)),
    (GrowsToDouble, in_float32(walk.test_dtypes_and_shapes)),
    (Unsteady, walk.test_two_runs_are_bit_identical),
    (CountsThreads, walk.test_threads_do_not_change_a_bit),
    (Imprecise, in_float32(walk.test_values_equal_the_oracle)),
    (Wrong, walk.test_gradients_equal_finite_differences),
    (Wrong, walk.test_linear_gradients_equal_differences_with_step_one_in_float32),
    (Wrong, walk.test_values_and_gradients_equal_torch),
]


@pytest.fixture
def double(monkeypatch):
    monkeypatch.setitem(ORACLES, "double", lambda x: 2 * x)


@pytest.mark.parametrize(("function", "test"), CAUGHT, ids=[f"{f.__name__}-{i}" for i, (f, _) in enumerate(CAUGHT)])
def test_a_broken_operation_is_caught(double, function, test):
    with pytest.raises(AssertionError):
        test(*row(function.apply))


@pytest.mark.parametrize("test", list(dict.fromkeys(test for _, test in CAUGHT)))
def test_the_right_operation_passes(double, test):
    test(*row(Double.apply))


def test_an_error_with_another_message_is_caught():
    bad = BadInput((np.ones((2, 3)), np.ones((2, 3))), {}, ValueError, "something else")
    with pytest.raises(AssertionError, match="Regex"):
        walk.test_bad_input_raises_its_sentence(OpCase("matmul", F.matmul, lambda rng: []), bad, "auto")


def test_a_call_that_should_fail_and_does_not_is_caught():
    bad = BadInput((np.ones((2, 3)),), {}, ValueError, "anything")
    with pytest.raises(pytest.fail.Exception):
        walk.test_bad_input_raises_its_sentence(OpCase("exp", F.exp, lambda rng: []), bad, "auto")


def test_a_missing_gradient_is_caught(double):
    with pytest.raises(AssertionError, match="got no gradient"):
        walk.test_dtypes_and_shapes(*row(lambda x: Tensor(2 * x.data)), np.float64)
