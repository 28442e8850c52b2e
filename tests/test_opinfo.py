"""PyTorch's own samples (OpInfo) for every promised function: float64, values to 1e-7, gradients to 1e-6.

What the design leaves out stands in `LEFT_OUT`, with the reason. The table is exact: a sample in it that would pass, or an
entry that meets no sample, fails the test.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minunet as mu
from minunet import Tensor
from minunet import functional as F
from tests.conftest import require
from tests.running import assert_close
from tests.test_opcases import PROMISED

# (OpInfo's name, its variant, our function)
OPS: list[tuple[str, str, Callable[..., Any]]] = [
    *((f"nn.functional.{name}{rank}d", "", getattr(F, f"{name}{rank}d")) for name in ("conv", "conv_transpose") for rank in (1, 2, 3)),
    *((f"nn.functional.{name}{rank}d", "", getattr(F, f"{name}{rank}d")) for name in ("max_pool", "avg_pool") for rank in (1, 2, 3)),
    *(("nn.functional.interpolate", mode, F.interpolate) for mode in ("nearest", "linear", "bilinear", "trilinear")),
    *(("nn.functional.interpolate", mode, F.interpolate) for mode in ("nearest-exact", "bicubic", "area")),
    *(("nn.functional.pad", mode, F.pad) for mode in ("constant", "reflect", "replicate", "replicate_negative", "circular")),
    *((f"nn.functional.{name}", "", getattr(F, name)) for name in ("batch_norm", "instance_norm", "group_norm", "layer_norm")),
    *((f"nn.functional.{name}", "", getattr(F, name)) for name in ("relu", "leaky_relu", "prelu", "elu", "linear")),
    *((f"nn.functional.{name}", "", getattr(F, name)) for name in ("cross_entropy", "nll_loss", "mse_loss", "l1_loss")),
    *((f"nn.functional.{name}", "", getattr(F, name)) for name in ("binary_cross_entropy", "binary_cross_entropy_with_logits")),
    *((name, "", getattr(F, name)) for name in ("sigmoid", "tanh", "softmax", "log_softmax", "exp", "log", "sqrt", "abs")),
    *((name, "", getattr(F, name)) for name in ("maximum", "minimum", "matmul", "cat", "sum", "mean", "var")),
    *((name, "", getattr(F, name)) for name in ("reshape", "permute", "transpose", "flatten", "squeeze", "unsqueeze", "broadcast_to")),
    *((name, "with_dtype", getattr(F, name)) for name in ("softmax", "log_softmax")),
    ("var", "unbiased", F.var),
    ("amax", "", F.max),
    ("amin", "", F.min),
    ("max", "binary", F.maximum),
    ("min", "binary", F.minimum),
    ("max", "reduction_no_dim", F.max),
    ("min", "reduction_no_dim", F.min),
    ("clamp", "", F.clip),
    ("neg", "", lambda x: -x),
    ("pow", "", lambda x, p: x**p),
    ("add", "", lambda a, b: a + b),
    ("sub", "", lambda a, b: a - b),
    ("mul", "", lambda a, b: a * b),
    ("div", "no_rounding_mode", lambda a, b: a / b),
    ("__radd__", "", lambda a, b: b + a),
    ("__rsub__", "", lambda a, b: b - a),
    ("__rmul__", "", lambda a, b: b * a),
    ("__rdiv__", "", lambda a, b: b / a),
    ("__getitem__", "", lambda x, index: x[index]),
]


def always(sample: Any) -> bool:
    return True


def given(name: str) -> Callable[[Any], bool]:
    return lambda sample: name in sample.kwargs


def of_a_scalar(sample: Any) -> bool:
    return sample.input.ndim == 0


# OpInfo's name (and variant) → [(which samples, why)]
LEFT_OUT: dict[str, list[tuple[Callable[[Any], bool], str]]] = {
    "nn.functional.batch_norm": [(lambda s: s.input.ndim == 1, "input without a channel axis")],
    "cat": [(lambda s: any(t.ndim == 1 for t in s.input) and s.kwargs.get("dim") == 1, "an empty vector among matrices (PyTorch: legacy)")],
    "add": [(given("alpha"), "alpha: write a + 2 * b")],
    "sub": [(given("alpha"), "alpha: write a - 2 * b")],
    "var": [
        (given("unbiased"), "unbiased was replaced by correction"),
        (lambda s: s.kwargs.get("correction", 1) is None, "correction=None: leave it out"),
    ],
    "var-unbiased": [(always, "unbiased was replaced by correction")],
    "squeeze": [
        (lambda s: not s.args, "every axis of size 1 at once: a batch of one would lose its axis unseen; name the axis"),
        (lambda s: s.input.ndim and s.args and s.input.shape[s.args[0]] != 1, "an axis of another size raises instead of staying"),
        (of_a_scalar, "a scalar has no axis to remove"),
    ],
    "transpose": [(of_a_scalar, "a scalar has no axes to exchange")],
    "clamp": [(always, "bounds that are tensors: use maximum and minimum")],
    "pow": [(always, "an exponent that is a tensor: write (y * x.log()).exp()")],
    "nn.functional.interpolate-bicubic": [(always, "bicubic")],
    "nn.functional.interpolate-area": [(always, "area: use avg_pool")],
}


@pytest.fixture(scope="module")
def op_db() -> dict[tuple[str, str], Any]:
    require("torch")
    require("expecttest")
    operations = require("torch.testing._internal.common_methods_invocations").op_db
    return {(op.name, op.variant_test_name): op for op in operations}


def samples(op: Any) -> list[Any]:
    torch = require("torch")
    torch.manual_seed(0)
    return list(op.sample_inputs("cpu", torch.float64, requires_grad=True))


def ours(value: Any, pairs: list[tuple[Any, Tensor]]) -> Any:
    """PyTorch's tensors in an argument as ours; each pair is noted."""
    torch = require("torch")
    if isinstance(value, torch.Tensor):
        tensor = Tensor(value.detach().numpy().copy(), requires_grad=value.requires_grad)
        pairs.append((value, tensor))
        return tensor
    if isinstance(value, tuple | list):
        items = [ours(item, pairs) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return np.dtype(str(value).removeprefix("torch.")) if isinstance(value, torch.dtype) else value


def compare(op: Any, function: Callable[..., Any], sample: Any) -> None:
    """Raises where outputs, gradients, or arguments written in place (running statistics) differ."""
    torch = require("torch")
    pairs: list[tuple[Any, Tensor]] = []
    args = [ours(value, pairs) for value in (sample.input, *sample.args)]
    options = {name: ours(value, pairs) for name, value in sample.kwargs.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = op(sample.input, *sample.args, **sample.kwargs)
    got = function(*args, **options)
    wants, gots = (list(y) if isinstance(y, tuple | list) else [y] for y in (want, got))
    assert len(gots) == len(wants), f"{len(gots)} outputs, PyTorch gives {len(wants)}"
    for i, (y, expected) in enumerate(zip(gots, wants, strict=True)):
        assert isinstance(y, Tensor), f"output {i} is a {type(y).__name__}"
        assert str(y.dtype) == str(expected.dtype).removeprefix("torch."), f"output {i} is {y.dtype}, PyTorch gives {expected.dtype}"
        assert_close(y.data, expected.detach().numpy(), 1e-7, f"output {i}")
    assert gots[0].requires_grad == wants[0].requires_grad, f"requires_grad is {gots[0].requires_grad}"
    if gots[0].requires_grad:
        gy = np.random.default_rng(5).standard_normal(gots[0].shape)
        gots[0].backward(gy)
        leaves = [t for t, _ in pairs if t.requires_grad]
        grads = torch.autograd.grad(wants[0], leaves, torch.from_numpy(np.asarray(gy)), allow_unused=True)
        for i, ((_, tensor), grad) in enumerate(zip([p for p in pairs if p[0].requires_grad], grads, strict=True)):
            if grad is None:
                assert tensor.grad is None or not tensor.grad.any(), f"gradient {i} is there, PyTorch has none"
            else:
                computed = np.zeros(tensor.shape) if tensor.grad is None else tensor.grad
                assert_close(computed, grad.numpy(), 1e-6, f"gradient {i}")
    for original, tensor in pairs:
        assert_close(tensor.data, original.detach().numpy(), 1e-7, "an argument after the call")


def describe(sample: Any) -> str:
    torch = require("torch")

    def show(value: Any) -> str:
        if isinstance(value, torch.Tensor):
            return f"{str(value.dtype).removeprefix('torch.')}{tuple(value.shape)}"
        return f"[{', '.join(map(show, value))}]" if isinstance(value, tuple | list) else repr(value)

    return ", ".join([show(v) for v in (sample.input, *sample.args)] + [f"{k}={show(v)}" for k, v in sample.kwargs.items()])


def test_every_promised_function_has_its_samples():
    tried = {name.removeprefix("nn.functional.") for name, _, _ in OPS} | {"dropout", "dropout2d", "dropout3d"}
    assert set(PROMISED) <= tried, f"not tried: {set(PROMISED) - tried}"


@pytest.mark.parametrize(("name", "variant", "function"), OPS, ids=[f"{n}-{v}" if v else n for n, v, _ in OPS])
@pytest.mark.parametrize("kernel_set", ["ref", "auto"])
def test_pytorchs_own_samples(op_db, name, variant, function, kernel_set):
    op = op_db[name, variant]
    excluded = LEFT_OUT.get(f"{name}-{variant}" if variant else name, [])
    met, wrong = set(), []
    tried = samples(op)
    for sample in tried:
        reasons = [i for i, (applies, _) in enumerate(excluded) if applies(sample)]
        met.update(reasons)
        try:
            with np.errstate(all="ignore"), mu.use(kernel_set):
                compare(op, function, sample)
        except Exception as problem:
            if not reasons:
                wrong.append(f"({describe(sample)}): {type(problem).__name__}: {str(problem).splitlines()[0]}")
        else:
            wrong.extend(f"({describe(sample)}): left out ({excluded[i][1]}), but it passes" for i in reasons)
    wrong.extend(f"no sample is left out because of: {excluded[i][1]}" for i in range(len(excluded)) if i not in met)
    assert tried, "OpInfo has no samples"
    assert not wrong, f"{len(wrong)} of {len(tried)} samples:\n" + "\n".join(wrong)


@pytest.mark.parametrize(("name", "rank"), [("dropout", None), ("dropout2d", 2), ("dropout3d", 3)])
def test_pytorchs_own_dropout_samples(op_db, name, rank):
    """Random, so not compared number by number: what is kept is x/(1−p), in whole channels, and the gradient has the same mask."""
    for sample in samples(op_db[f"nn.functional.{name}", ""]):
        options = {"p": 0.5, "training": True} | sample.kwargs
        x = Tensor(sample.input.detach().numpy(), requires_grad=True)
        y = getattr(F, name)(x, *sample.args, **sample.kwargs)
        p = options["p"] if options["training"] else 0.0
        kept = y.data != 0
        gain = 1 / (1 - p) if p < 1 else 0.0
        assert_close(y.data, kept * x.data * gain, 1e-12, describe(sample))
        if p in (0, 1):
            assert np.all(kept == (p == 0)), describe(sample)
        if rank is not None:
            maps = kept.reshape(*kept.shape[: kept.ndim - rank], -1)
            assert np.all(maps == maps[..., :1]), f"{describe(sample)}: part of a channel was dropped"
        gy = np.random.default_rng(5).standard_normal(y.shape)
        y.backward(gy)
        assert_close(x.grad, kept * gy * gain, 1e-12, describe(sample))
