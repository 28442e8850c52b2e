"""Hypothesis draws shapes, options and whole small graphs; PyTorch says what must come out, or that an error must."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import minunet as mu
from minunet import Tensor
from minunet import functional as F
from tests.conftest import require
from tests.running import assert_close

SEEDS = st.integers(0, 2**16)
KERNEL_SETS = st.sampled_from(["ref", "auto"])


def arrays(seed: int, *shapes: tuple[int, ...] | None) -> list[np.ndarray | None]:
    rng = np.random.default_rng(seed)
    return [None if shape is None else rng.standard_normal(shape) for shape in shapes]


def outcome(make: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return make(), None
    except (ValueError, RuntimeError, TypeError, NotImplementedError, IndexError) as problem:
        return None, problem


def same_as_torch(kernel_set: str, name: str, inputs: list[np.ndarray | None], **options: Any) -> None:
    """Equal values and gradients; or both refuse the call."""
    torch = require("torch")
    theirs = [None if a is None else torch.tensor(a, requires_grad=True) for a in inputs]
    ours = [None if a is None else Tensor(a.copy(), requires_grad=True) for a in inputs]
    want, refused = outcome(lambda: getattr(torch.nn.functional, name)(*theirs, **options))
    with mu.use(kernel_set):
        got, error = outcome(lambda: getattr(F, name)(*ours, **options))
        call = f"{name}({', '.join('None' if a is None else str(a.shape) for a in inputs)}, {options}) on {kernel_set}"
        if want is None:
            assert error is not None, f"{call}: PyTorch refuses ({refused}), we do not"
            return
        assert got is not None, f"{call}: {error!r}, PyTorch computes it"
        assert_close(got.data, want.detach().numpy(), 1e-9, call)
        if not np.isfinite(got.data).all():
            return  # a window of padding alone: max_pool's backward in PyTorch then writes outside its array
        gy = np.random.default_rng(1).standard_normal(got.shape)
        got.backward(gy)
    want.backward(torch.from_numpy(gy))
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a is not None:
            assert_close(a.grad, b.grad.numpy(), 1e-9, f"{call}: gradient {i}")


@st.composite
def windows(draw: Any, *, largest_padding: int = 3) -> tuple[int, dict[str, Any]]:
    """A rank, and kernel, stride, padding and dilation: one number for all axes, or one each."""
    rank = draw(st.sampled_from([1, 2, 2, 3]))

    def per_axis(low: int, high: int) -> Any:
        numbers = st.integers(low, high)
        return draw(st.one_of(numbers, st.tuples(*(numbers,) * rank)))

    return rank, {
        "kernel": tuple(draw(st.integers(1, 4)) for _ in range(rank)),
        "stride": per_axis(1, 3),
        "padding": per_axis(0, largest_padding),
        "dilation": per_axis(1, 3),
    }


@st.composite
def batches(draw: Any, rank: int, *, most: int = 7, fewest: int = 0) -> tuple[int, ...]:
    """N and the sizes of the spatial axes. fewest=1 where PyTorch treats an empty batch unlike any other."""
    return (draw(st.integers(fewest, 2)), *(draw(st.integers(1, most)) for _ in range(rank)))


@given(st.data(), windows(), SEEDS, KERNEL_SETS)
def test_convolution(data, window, seed, kernel_set):
    (rank, options), kernel = window, window[1].pop("kernel")
    n, *size = data.draw(batches(rank))
    groups, c, o = (data.draw(st.integers(1, 3)) for _ in range(3))
    bias = (o * groups,) if data.draw(st.booleans()) else None
    inputs = arrays(seed, (n, c * groups, *size), (o * groups, c, *kernel), bias)
    same_as_torch(kernel_set, f"conv{rank}d", inputs, **options, groups=groups)


@given(st.data(), windows(), SEEDS, KERNEL_SETS)
def test_transposed_convolution(data, window, seed, kernel_set):
    (rank, options), kernel = window, window[1].pop("kernel")
    n, *size = data.draw(batches(rank, most=4, fewest=1))
    groups, c, o = (data.draw(st.integers(1, 3)) for _ in range(3))
    bias = (o * groups,) if data.draw(st.booleans()) else None
    inputs = arrays(seed, (n, c * groups, *size), (c * groups, o, *kernel), bias)
    same_as_torch(kernel_set, f"conv_transpose{rank}d", inputs, **options, groups=groups, output_padding=data.draw(st.integers(0, 2)))


@given(st.data(), windows(), SEEDS, KERNEL_SETS)
def test_transposed_convolution_is_the_adjoint(data, window, seed, kernel_set):
    """⟨conv(x, w), y⟩ = ⟨x, conv_transpose(y, w)⟩: no reference needed."""
    rank, options = window
    kernel, padding = options.pop("kernel"), data.draw(st.sampled_from(["same", "valid", 0, 1]))
    n, *size = data.draw(batches(rank))
    options = {**options, "padding": padding}
    x, w = arrays(seed, (n, 2, *size), (3, 2, *kernel))
    conv, transposed = getattr(F, f"conv{rank}d"), getattr(F, f"conv_transpose{rank}d")
    with mu.use(kernel_set):
        t = Tensor(x, requires_grad=True)
        y, error = outcome(lambda: conv(t, Tensor(w), **options))
        if error is not None:
            return
        gy = np.random.default_rng(1).standard_normal(y.shape)
        y.backward(gy)
        assert np.isclose((y.data * gy).sum(), (x * t.grad).sum())
        if not isinstance(padding, str):
            back, error = outcome(lambda: transposed(Tensor(gy), Tensor(w), **options))
            if error is not None:  # nothing is left of x
                return
            reach = tuple(slice(0, min(a, b)) for a, b in zip(back.shape, x.shape, strict=True))
            # the windows reach so far; what is left of x meets none
            assert_close(back.data[reach], t.grad[reach], 1e-10, "conv_transpose against the gradient of conv")


@given(st.data(), windows(), SEEDS, KERNEL_SETS)
def test_same_padding_is_valid_on_a_padded_input(data, window, seed, kernel_set):
    rank, options = window
    n, *size = data.draw(batches(rank))
    kernel, s, d = options["kernel"], options["stride"], options["dilation"]
    s, d = (v if isinstance(v, tuple) else (v,) * rank for v in (s, d))
    x, w = arrays(seed, (n, 2, *size), (3, 2, *kernel))
    pads = []
    for m, k, stride, dilation in zip(size, kernel, s, d, strict=True):
        total = max((-(-m // stride) - 1) * stride + dilation * (k - 1) + 1 - m, 0)
        pads.append((total // 2, total - total // 2))
    conv = getattr(F, f"conv{rank}d")
    with mu.use(kernel_set):
        same = conv(Tensor(x), Tensor(w), stride=s, dilation=d, padding="same")
        padded = conv(Tensor(np.pad(x, [(0, 0), (0, 0), *pads])), Tensor(w), stride=s, dilation=d, padding="valid")
    assert same.shape == (n, 3, *(-(-m // stride) for m, stride in zip(size, s, strict=True)))
    assert_close(same.data, padded.data[tuple(slice(0, m) for m in same.shape)], 1e-11, "same")


@given(st.data(), windows(largest_padding=2), SEEDS, KERNEL_SETS)
def test_max_pooling(data, window, seed, kernel_set):
    (rank, options), kernel = window, window[1].pop("kernel")
    n, *size = data.draw(batches(rank))
    options |= {"kernel_size": kernel, "ceil_mode": data.draw(st.booleans())}
    same_as_torch(kernel_set, f"max_pool{rank}d", arrays(seed, (n, 2, *size)), **options)


@given(st.data(), windows(largest_padding=2), SEEDS, KERNEL_SETS)
def test_average_pooling(data, window, seed, kernel_set):
    (rank, options), kernel = window, window[1].pop("kernel")
    n, *size = data.draw(batches(rank))
    if rank == 3:  # PyTorch's 3-d pooling refuses a window larger than the unpadded input, its 1-d and 2-d pooling do not
        size = [max(m, k) for m, k in zip(size, kernel, strict=True)]
    options = {name: options[name] for name in ("stride", "padding")}
    options |= {"kernel_size": kernel, "ceil_mode": data.draw(st.booleans()), "count_include_pad": data.draw(st.booleans())}
    if rank > 1 and data.draw(st.booleans()):
        options["divisor_override"] = data.draw(st.integers(1, 5))
    same_as_torch(kernel_set, f"avg_pool{rank}d", arrays(seed, (n, 2, *size)), **options)


@given(st.data(), st.sampled_from([1, 2, 3]), SEEDS, KERNEL_SETS)
def test_interpolation(data, rank, seed, kernel_set):
    n, *size = data.draw(batches(rank))
    mode = data.draw(st.sampled_from(["nearest", ("linear", "bilinear", "trilinear")[rank - 1]]))
    options: dict[str, Any] = {"mode": mode}
    if data.draw(st.booleans()):
        options["size"] = tuple(data.draw(st.integers(1, 9)) for _ in range(rank))
    else:
        options["scale_factor"] = tuple(data.draw(st.sampled_from([0.4, 0.5, 0.75, 1.0, 1.3, 2.0, 2.05, 3.0])) for _ in range(rank))
        uneven = [m for m, s in zip(size, options["scale_factor"], strict=True) if int(m * s) in (m, 2 * m) and m * s not in (m, 2 * m)]
        assume(rank == 2 or mode != "nearest" or not uneven)  # PyTorch's 1-d and 3-d backward is then not that of its forward
    if mode != "nearest":
        options["align_corners"] = data.draw(st.booleans())
    same_as_torch(kernel_set, "interpolate", arrays(seed, (n, 2, *size)), **options)


@given(st.data(), st.sampled_from([1, 2, 3]), SEEDS, KERNEL_SETS)
def test_padding(data, rank, seed, kernel_set):
    n, *size = data.draw(batches(rank))
    mode = data.draw(st.sampled_from(["constant", "reflect", "replicate"]))
    low = -2 if mode == "constant" else 0
    pad = [data.draw(st.integers(low, 4)) for _ in range(2 * rank)]
    same_as_torch(kernel_set, "pad", arrays(seed, (n, 2, *size)), pad=pad, mode=mode)


@given(st.data(), st.sampled_from([0, 1, 2, 3]), SEEDS, KERNEL_SETS)
def test_batch_norm(data, rank, seed, kernel_set):
    n, *size = data.draw(batches(rank, most=5))
    c = data.draw(st.integers(1, 5))
    x, weight, bias, mean = arrays(seed, (n, c, *size), (c,), (c,), (c,))
    training = data.draw(st.booleans())
    torch = require("torch")
    ours, theirs = [mean.copy(), mean**2 + 0.5], [mean.copy(), mean**2 + 0.5]
    leaves, references = (
        [Tensor(a, requires_grad=True) for a in (x, weight, bias)],
        [torch.tensor(a, requires_grad=True) for a in (x, weight, bias)],
    )
    tx, tw, tb = references
    want, refused = outcome(
        lambda: torch.nn.functional.batch_norm(tx, *(torch.from_numpy(a) for a in theirs), tw, tb, training=training, momentum=0.3)
    )
    with mu.use(kernel_set):
        got, error = outcome(
            lambda: F.batch_norm(leaves[0], *(Tensor(a) for a in ours), leaves[1], leaves[2], training=training, momentum=0.3)
        )
        assert (got is None) == (want is None), f"we: {error}, PyTorch: {refused}"
        if got is None:
            return
        gy = np.random.default_rng(1).standard_normal(got.shape)
        got.backward(gy)
    want.backward(torch.from_numpy(gy))
    assert_close(got.data, want.detach().numpy(), 1e-9, "output")
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b, 1e-12, "running statistics")
    for a, b in zip(leaves, references, strict=True):
        assert_close(a.grad, b.grad.numpy(), 1e-8, "gradient")


@given(st.data(), st.sampled_from([1, 2, 3]), SEEDS, KERNEL_SETS)
def test_group_and_instance_norm(data, rank, seed, kernel_set):
    n, *size = data.draw(batches(rank, most=5, fewest=1))
    groups, per_group = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    c = groups * per_group
    if c == groups and np.prod(size) == 1:
        size[0] = 2  # one value in each group: we refuse, PyTorch does so only in a batch of one
    x, weight, bias = arrays(seed, (n, c, *size), (c,), (c,))
    if data.draw(st.booleans()):
        same_as_torch(kernel_set, "group_norm", [x], num_groups=groups, eps=1e-3)
    else:
        same_as_torch(kernel_set, "instance_norm", [x, None, None, weight, bias], eps=1e-3)


@given(st.data(), SEEDS)
def test_cross_entropy(data, seed):
    torch = require("torch")
    n, *size = data.draw(batches(data.draw(st.integers(0, 2)), most=3, fewest=1))
    classes = data.draw(st.integers(1, 4))
    rng = np.random.default_rng(seed)
    logits, target = 3 * rng.standard_normal((n, classes, *size)), rng.integers(0, classes, (n, *size))
    target[rng.random(target.shape) < 0.2] = -100
    target.flat[0] = 0  # the mean of nothing is NaN
    weight = rng.uniform(0.5, 2, classes) if data.draw(st.booleans()) else None
    options = {"reduction": data.draw(st.sampled_from(["mean", "sum", "none"])), "label_smoothing": data.draw(st.sampled_from([0.0, 0.1]))}
    x, reference = Tensor(logits, requires_grad=True), torch.tensor(logits, requires_grad=True)
    got = F.cross_entropy(x, Tensor(target), None if weight is None else Tensor(weight), **options)
    want = torch.nn.functional.cross_entropy(
        reference, torch.from_numpy(target), None if weight is None else torch.from_numpy(weight), **options
    )
    assert_close(got.data, want.detach().numpy(), 1e-10, "loss")
    got.sum().backward()
    want.sum().backward()
    assert_close(x.grad, reference.grad.numpy(), 1e-10, "gradient")


# whole graphs

SHAPE = (2, 3, 4, 4)

# f: our functional, or PyTorch's; a and b: earlier nodes; w: a weight (3, 3, 3, 3)
STEPS: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "add": lambda f, a, b, w: a + b,
    "sub": lambda f, a, b, w: 0.5 - a + b,
    "mul": lambda f, a, b, w: f.tanh(a) * b,
    "div": lambda f, a, b, w: a / (1.0 + b * b),
    "square": lambda f, a, b, w: f.sigmoid(a) ** 2,
    "relu": lambda f, a, b, w: f.relu(a),
    "elu": lambda f, a, b, w: f.elu(f.leaky_relu(a, 0.1)),
    "maximum": lambda f, a, b, w: f.maximum(a, 0.3 * b - 0.1),
    "softmax": lambda f, a, b, w: f.softmax(a, 1) * 3.0,
    "log_softmax": lambda f, a, b, w: f.log_softmax(a, -1),
    "matmul": lambda f, a, b, w: f.tanh(a @ b),
    "transpose": lambda f, a, b, w: a.transpose(2, 3),
    "reshape": lambda f, a, b, w: a.reshape(2, 3, 16).permute(0, 2, 1).reshape(2, 3, 4, 4),
    "centre": lambda f, a, b, w: a - a.mean((2, 3), keepdim=True),
    "total": lambda f, a, b, w: b + 0.1 * a.sum(1, keepdim=True),
    "spread": lambda f, a, b, w: a / (0.5 + a.var((0, 2), keepdim=True)),
    "pick": lambda f, a, b, w: a[:, 1:2] * b[..., :1],
    "cat": lambda f, a, b, w: f.conv2d(f.cat([a, b], 1), f.cat([w, w], 1)[:, :, 1:, 1:2], padding=(1, 0))[:, :, 1:],
    "conv": lambda f, a, b, w: f.tanh(f.conv2d(a, w, padding=1)),
    "strided": lambda f, a, b, w: f.interpolate(f.conv2d(a, w, stride=2, padding=1), scale_factor=2.0, mode="nearest"),
    "transposed": lambda f, a, b, w: f.tanh(f.conv_transpose2d(a, w, stride=1, padding=1)),
    "pool": lambda f, a, b, w: f.interpolate(f.max_pool2d(a, 2), size=(4, 4), mode="bilinear"),
    "average": lambda f, a, b, w: f.avg_pool2d(a, 3, stride=1, padding=1),
    "pad": lambda f, a, b, w: f.max_pool2d(f.pad(a, (1, 1, 1, 1), mode="reflect"), 3, stride=1),
    "norm": lambda f, a, b, w: f.instance_norm(a, eps=0.1),
    "linear": lambda f, a, b, w: f.tanh(f.linear(a, a.mean((0, 1)), b.mean((0, 1, 2)))),
}


class Torch:
    """PyTorch's functions under one roof, as minunet.functional has them."""

    def __getattr__(self, name: str) -> Any:
        torch = require("torch")
        return getattr(torch.nn.functional, name, None) or getattr(torch, name)


def evaluate(program: list[tuple[str, int, int]], f: Any, x: list[Any], w: Any, mixing: list[float]) -> Any:
    """Each step's result is a node; the loss mixes all of them, so that every node is used."""
    nodes, loss = list(x), 0.0
    for (step, i, j), share in zip(program, mixing, strict=True):
        y = STEPS[step](f, nodes[i % len(nodes)], nodes[j % len(nodes)], w)
        assert tuple(y.shape) == SHAPE or step == "pick", step
        nodes.append(y + 0.0 * nodes[0])  # back to the full shape
        loss = loss + share * (y * y).sum()
    return loss


PROGRAMS = st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=10)


@given(PROGRAMS, SEEDS, KERNEL_SETS)
def test_a_random_graph(program, seed, kernel_set):
    torch = require("torch")
    a, b, w = arrays(seed, SHAPE, SHAPE, (3, 3, 3, 3))
    mixing = np.random.default_rng(seed + 1).uniform(0.1, 1, len(program)).tolist()
    ours, theirs = [Tensor(v, requires_grad=True) for v in (a, b, w)], [torch.tensor(v, requires_grad=True) for v in (a, b, w)]
    with mu.use(kernel_set):
        got = evaluate(program, F, ours[:2], ours[2], mixing)
        got.backward()
    want = evaluate(program, Torch(), theirs[:2], theirs[2], mixing)
    want.backward()
    assert_close(got.data, want.detach().numpy(), 1e-9, "loss")
    for name, t, reference in zip("abw", ours, theirs, strict=True):
        expected = np.zeros(t.shape) if reference.grad is None else reference.grad.numpy()
        assert_close(np.zeros(t.shape) if t.grad is None else t.grad, expected, 1e-8, f"gradient of {name}")


@pytest.mark.parametrize("step", sorted(STEPS))
def test_each_step_of_the_graphs(step):
    """Every step is reached, whatever Hypothesis draws."""
    test_a_random_graph.hypothesis.inner_test([(step, 0, 1), (step, 2, 1)], 3, "auto")
