"""The tester tested: gradients that are wrong in every way we could think of are caught, right ones pass."""

from __future__ import annotations

import numpy as np
import pytest

import minunet as mu
from minunet import Tensor
from minunet import functional as F
from minunet.autograd import Function
from minunet.testing import GradientError, gradcheck


def inputs(*shapes, seed=3, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [mu.tensor(rng.standard_normal(shape).astype(dtype), requires_grad=True) for shape in shapes]


def function(forward, backward):
    """An operation of two arrays-in, arrays-out functions: backward(gy, *inputs) → gradients."""

    class Made(Function):
        def forward(ctx, *arrays):
            ctx.save(*arrays)
            return forward(*arrays)

        def backward(ctx, gy):
            return backward(gy, *ctx.saved)

    return Made.apply


def gradients(call, gy, *arrays):
    """What the real operation's backward gives."""
    tensors = [Tensor(a, requires_grad=True) for a in arrays]
    call(*tensors).backward(gy)
    return tuple(t.grad for t in tensors)


def values(call, *arrays):
    with mu.no_grad():
        return call(*(Tensor(a) for a in arrays)).data


def at(array, index, change):
    changed = array.copy()
    changed[index] = change(changed[index])
    return changed


# elementwise mutants of y = x³: name → gradient

CUBES = {
    "ignores the output gradient": lambda gy, x: 3 * x**2,
    "uses ones for the output gradient": lambda gy, x: np.ones_like(gy) * 3 * x**2,
    "has a factor 2.001 instead of 2": lambda gy, x: gy * 3 * x**2 * 2.001 / 2,
    "has a relative error of 1e-5": lambda gy, x: gy * 3 * x**2 * (1 + 1e-5),
    "has the wrong sign": lambda gy, x: -gy * 3 * x**2,
    "has the wrong sign on one element": lambda gy, x: at(gy * 3 * x**2, (1, 2), lambda v: -v),
    "forgets one element": lambda gy, x: at(gy * 3 * x**2, (0, 0), lambda v: 0 * v),
    "is transposed": lambda gy, x: (gy * 3 * x**2).T,
    "is shifted by one": lambda gy, x: np.roll(gy * 3 * x**2, 1, axis=0),
    "is the mean over the batch": lambda gy, x: np.broadcast_to((gy * 3 * x**2).mean(axis=0), x.shape),
    "is zero": lambda gy, x: np.zeros_like(x),
    "is NaN in one element": lambda gy, x: at(gy * 3 * x**2, (2, 2), lambda v: v * np.nan),
    "is rounded to float16": lambda gy, x: (gy * 3 * x**2).astype(np.float16).astype(np.float64),
    "has noise of 1e-5": lambda gy, x: gy * 3 * x**2 + 1e-5 * np.random.default_rng(0).standard_normal(x.shape),
}


@pytest.mark.parametrize("mutant", CUBES.values(), ids=CUBES)
def test_a_wrong_elementwise_gradient_is_caught(mutant):
    with pytest.raises(GradientError, match="is wrong"):
        gradcheck(function(lambda x: x**3, mutant), inputs((3, 3)))


def test_the_right_elementwise_gradient_passes():
    assert gradcheck(function(lambda x: x**3, lambda gy, x: gy * 3 * x**2), inputs((3, 3))) < 1e-8


# convolution mutants: the forward is right, the backward is that of another convolution

X, W = (2, 3, 7, 7), (4, 3, 3, 3)


def conv(x, w):
    return F.conv2d(x, w, stride=(2, 1), padding=1)


def without_tap(w):
    return at(w, (slice(None), slice(None), 1, 2), lambda v: 0 * v)


def backward_of(call, change=lambda gy, x, w: (gy, x, w)):
    return lambda gy, x, w: gradients(call, *change(gy, x, w))


CONVOLUTIONS = {
    "drops a tap in the input's gradient": lambda gy, x, w: (gradients(conv, gy, x, without_tap(w))[0], gradients(conv, gy, x, w)[1]),
    "drops a tap in the weight's gradient": lambda gy, x, w: (gradients(conv, gy, x, w)[0], without_tap(gradients(conv, gy, x, w)[1])),
    "swaps the strides": backward_of(lambda x, w: F.conv2d(x, w, stride=(1, 2), padding=1), lambda gy, x, w: (gy.swapaxes(2, 3), x, w)),
    "is off by one pixel": backward_of(conv, lambda gy, x, w: (gy, np.roll(x, 1, axis=3), np.roll(w, 1, axis=3))),
    "flips the kernel": backward_of(conv, lambda gy, x, w: (gy, x, w[:, :, ::-1, ::-1])),
    "swaps the kernel's axes": backward_of(conv, lambda gy, x, w: (gy, x, w.swapaxes(2, 3))),
    "misses the weight's gradient": lambda gy, x, w: (gradients(conv, gy, x, w)[0], np.zeros_like(w)),
    "misses the input's gradient": lambda gy, x, w: (np.zeros_like(x), gradients(conv, gy, x, w)[1]),
    "ignores the last sample": lambda gy, x, w: gradients(conv, at(gy, 1, lambda v: 0 * v), x, w),
    "ignores the border": lambda gy, x, w: gradients(conv, at(gy, (..., 0), lambda v: 0 * v), x, w),
    "ignores one pixel of one channel": lambda gy, x, w: gradients(conv, at(gy, (0, 3, 2, 4), lambda v: 0 * v), x, w),
    "divides by the batch": lambda gy, x, w: gradients(conv, gy / 2, x, w),
}


@pytest.mark.parametrize("mutant", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_wrong_convolution_gradient_is_caught(mutant):
    with pytest.raises(GradientError):
        gradcheck(function(lambda x, w: values(conv, x, w), mutant), inputs(X, W))


@pytest.mark.parametrize("mutant", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("position", [0, 1])
def test_it_is_caught_in_float32_with_step_one(mutant, position):
    """One argument at a time: each mutant is wrong in one of the two, or in both."""
    call = function(lambda x, w: values(conv, x, w), lambda gy, x, w: tuple(np.asarray(g, np.float32) for g in mutant(gy, x, w)))
    wrong = []
    for alone in (0, 1):
        pair = [t if i == alone else Tensor(t.data) for i, t in enumerate(inputs(X, W, dtype=np.float32))]
        try:
            gradcheck(call, pair, step=1.0, tolerance=2e-5)
        except GradientError:
            wrong.append(alone)
    assert wrong


def test_the_right_convolution_gradient_passes():
    call = function(lambda x, w: values(conv, x, w), backward_of(conv))
    assert gradcheck(call, inputs(X, W)) < 1e-8
    assert gradcheck(lambda x: call(x, inputs(X, W)[1]), inputs(X), step=1.0, tolerance=1e-12) < 1e-12


def test_float32_noise_in_a_float64_gradient_is_caught():
    """A linear function has no truncation error at step 1, so that even the seventh digit is checked."""
    (w,) = inputs(W)

    def rounded(gy, x):
        return gradients(lambda t: conv(t, Tensor(w.data.astype(np.float32))), gy.astype(np.float32), x.astype(np.float32))[0].astype(float)

    call = function(lambda x: values(conv, x, w.data), rounded)
    with pytest.raises(GradientError):
        gradcheck(call, inputs(X), step=1.0, tolerance=1e-10)


# reductions, broadcasting, pooling, normalisation


def normalise(x):
    return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5)


def shift_window(gy, x):
    """Average pooling over 2, stride 2: the gradient of windows that start one element late."""
    return np.roll(np.repeat(gy, 2, axis=-1) / 2, 1, axis=-1)


def last_maximum(gy, x):
    gx = np.zeros_like(x)
    np.put_along_axis(gx, x.argmin(axis=1)[:, None], gy[:, None], axis=1)
    return gx


OTHERS = {
    "mean without its division": (lambda x: x.mean(axis=0), lambda gy, x: np.broadcast_to(gy, x.shape), [(5, 4)]),
    "broadcast summed over the wrong axis": (
        lambda x, b: x + b,
        lambda gy, x, b: (gy, gy.sum(axis=1)),
        [(4, 4), (4,)],
    ),
    "product with the factors exchanged": (lambda a, b: a * b, lambda gy, a, b: (gy * a, gy * b), [(3, 3), (3, 3)]),
    "one of two gradients left out": (lambda a, b: a * b, lambda gy, a, b: (gy * b, np.zeros_like(b)), [(3, 3), (3, 3)]),
    "matrix product not transposed": (lambda a, b: a @ b, lambda gy, a, b: (gy @ b, a.T @ gy), [(3, 3), (3, 3)]),
    "pooling window off by one": (lambda x: x.reshape(3, 4, 2).mean(axis=-1), shift_window, [(3, 8)]),
    "maximum sent to the smallest": (lambda x: x.max(axis=1), last_maximum, [(4, 5)]),
    "normalisation with the statistics held constant": (
        normalise,
        lambda gy, x: gy / np.sqrt(x.var(axis=0) + 1e-5),
        [(6, 3)],
    ),
    "normalisation with the variance held constant": (
        normalise,
        lambda gy, x: (gy - gy.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5),
        [(6, 3)],
    ),
    "softmax with the diagonal only": (
        lambda x: np.exp(x) / np.exp(x).sum(axis=1, keepdims=True),
        lambda gy, x: gy * (p := np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)) * (1 - p),
        [(3, 4)],
    ),
}


@pytest.mark.parametrize(("forward", "backward", "shapes"), OTHERS.values(), ids=OTHERS)
def test_a_wrong_gradient_is_caught(forward, backward, shapes):
    with pytest.raises(GradientError):
        gradcheck(function(forward, backward), inputs(*shapes))


# how it speaks


def test_the_error_gives_both_numbers_for_each_input():
    call = function(lambda a, b: a * b, lambda gy, a, b: (gy * b, 1.01 * gy * a))
    with pytest.raises(GradientError) as caught:
        gradcheck(call, inputs((3, 3), (3, 3)))
    text = str(caught.value)
    assert "along a random direction finite differences give" in text
    lines = text.splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("  input 0 (float64 (3, 3)): ")
    assert lines[2].startswith("  input 1 (float64 (3, 3)): ")
    error_of = [float(line.rpartition(" ")[2]) for line in lines[1:]]
    assert error_of[0] < 1e-8 < 1e-4 < error_of[1]


def test_small_steps_need_float64():
    with pytest.raises(ValueError, match=r"finite differences with step 1e-06 need float64 inputs, got float32"):
        gradcheck(F.exp, inputs((2,), dtype=np.float32))


def test_something_must_move():
    with pytest.raises(ValueError, match="no input requires a gradient"):
        gradcheck(F.exp, [mu.tensor(np.ones(2))])


def test_the_inputs_are_left_alone():
    x, w = inputs((1, 1, 4, 4), (1, 1, 3, 3))
    before = x.data.copy()
    gradcheck(F.conv2d, [x, w, None])
    assert np.array_equal(x.data, before)
    assert x.grad is None
    assert w.grad is None


def test_an_input_that_does_not_matter_has_gradient_zero():
    gradcheck(lambda a, b: a * 2.0, inputs((3,), (3,)))
