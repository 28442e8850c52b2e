"""Rows of the light operations: arithmetic, reductions, shapes, matrix products."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minunet import functional as F
from minunet.testing.opcases.table import BadInput, OpCase, Sample, normal, spaced

Rng = np.random.Generator


def _binary(rng: Rng) -> Iterator[Sample]:
    for a, b in (((3, 4), (3, 4)), ((2, 3, 4), (4,)), ((3, 1), (1, 5)), ((), (2, 2))):
        yield Sample((spaced(rng, *a), spaced(rng, *b)))


def _unary(rng: Rng) -> Iterator[Sample]:
    yield Sample((spaced(rng, 3, 4),))
    yield Sample((spaced(rng, 2, 1, 5),))


def _positive(rng: Rng) -> Iterator[Sample]:
    yield Sample((rng.uniform(0.5, 2, (3, 4)),))


def _reduction(rng: Rng) -> Iterator[Sample]:
    for dim in (None, 0, -1, (0, 2)):
        yield Sample((spaced(rng, 2, 3, 4),), {"dim": dim, "keepdim": dim == 0})


def _matmul(rng: Rng) -> Iterator[Sample]:
    yield Sample((normal(rng, 3, 4), normal(rng, 4, 5)))
    yield Sample((normal(rng, 2, 3, 4), normal(rng, 4, 5)))
    yield Sample((normal(rng, 2, 1, 3, 4), normal(rng, 5, 4, 2)))
    yield Sample((normal(rng, 4), normal(rng, 2, 4, 3)))
    yield Sample((normal(rng, 2, 3, 4), normal(rng, 4)))
    yield Sample((normal(rng, 4), normal(rng, 4)))


def _linear(rng: Rng) -> Iterator[Sample]:
    yield Sample((normal(rng, 3, 4), normal(rng, 5, 4), normal(rng, 5)))
    yield Sample((normal(rng, 2, 3, 4), normal(rng, 5, 4), None))


def _cat(rng: Rng) -> Iterator[Sample]:
    yield Sample((normal(rng, 2, 3, 4), normal(rng, 2, 1, 4)), {"dim": 1})
    yield Sample((normal(rng, 2, 3), normal(rng, 2, 3), normal(rng, 1, 3)), {"dim": -2})
    yield Sample((normal(rng, 1, 17, 3, 5), normal(rng, 1, 1, 3, 5), normal(rng, 1, 4, 3, 5)), {"dim": 1})
    yield Sample((normal(rng, 2, 1, 1, 1, 1), normal(rng, 2, 2, 1, 1, 1)), {"dim": 1})
    yield Sample((normal(rng, 0, 3, 4), normal(rng, 0, 1, 4)), {"dim": 1})


def _crop(rng: Rng) -> Iterator[Sample]:
    yield Sample((normal(rng, 2, 3, 7, 6),), {"size": (4, 3)})
    yield Sample((normal(rng, 1, 2, 5),), {"size": (5,)})


def _reshape(rng: Rng) -> Iterator[Sample]:
    yield Sample((normal(rng, 2, 3, 4),), {"shape": (4, 6)})
    yield Sample((normal(rng, 2, 6),), {"shape": (-1,)})
    yield Sample((normal(rng, 0, 6),), {"shape": (0, 3, 2)})


def _permute(rng: Rng) -> Iterator[Sample]:
    yield Sample((normal(rng, 2, 3, 4),), {"dims": (2, 0, 1)})
    yield Sample((normal(rng, 2, 3, 4, 1),), {"dims": (0, -1, 1, 2)})


def _transpose(rng: Rng) -> Iterator[Sample]:
    yield Sample((normal(rng, 2, 3, 4),), {"dim0": 0, "dim1": -1})
    yield Sample((normal(rng, 3, 2),), {"dim0": 1, "dim1": 1})


def _flatten(rng: Rng) -> Iterator[Sample]:
    yield Sample((normal(rng, 2, 3, 4),))
    yield Sample((normal(rng, 2, 3, 1, 4),), {"start_dim": 1, "end_dim": -2})
    yield Sample((normal(rng),))


def _squeeze(rng: Rng) -> Iterator[Sample]:
    yield Sample((normal(rng, 2, 1, 4),), {"dim": 1})
    yield Sample((normal(rng, 2, 3, 1),), {"dim": -1})


def _unsqueeze(rng: Rng) -> Iterator[Sample]:
    for dim in (0, 1, -1):
        yield Sample((normal(rng, 2, 3),), {"dim": dim})


def _broadcast_to(rng: Rng) -> Iterator[Sample]:
    yield Sample((normal(rng, 3, 1),), {"shape": (2, 3, 4)})
    yield Sample((normal(rng),), {"shape": (2,)})


def _getitem(rng: Rng) -> Iterator[Sample]:
    rows, mask = np.array([[2, 0], [2, 2]]), rng.random((3, 3, 4)) < 0.5
    indices = (
        *(1, (..., -1), (slice(None, None, 2), None, slice(3, 0, -1))),
        *(rows, (0, np.array([True, False, True])), mask, np.zeros((3, 3), bool), np.zeros(0, np.int64)),
        (slice(1, None), np.array([0, -1, 2, -3, -1, 0, 0]), np.array([[-1], [3]])),  # many of one place, under two numbers
    )
    for index in indices:
        yield Sample((normal(rng, 3, 3, 4),), {"index": index}, torch=not _has_negative_step(index))


def _has_negative_step(index: Any) -> bool:  # PyTorch refuses one
    return isinstance(index, tuple) and any(isinstance(p, slice) and (p.step or 1) < 0 for p in index)


def _bad_axis() -> Iterator[BadInput]:
    yield BadInput((np.ones((2, 3)),), {"dim": 2}, IndexError, "axis 2 does not exist, the tensor has 2 axes")


def _bad_squeeze() -> Iterator[BadInput]:
    yield BadInput((np.ones((2, 3)),), {"dim": 1}, ValueError, "axis 1 has size 3, only an axis of size 1")


def _bad_permute() -> Iterator[BadInput]:
    yield BadInput((np.ones((2, 3)),), {"dims": (0, 0)}, ValueError, "does not name each of the 2 axes once")


def _bad_matmul() -> Iterator[BadInput]:
    yield BadInput((np.ones((2, 3)), np.ones((2, 3))), {}, ValueError, "got 2×3 @ 2×3")
    yield BadInput((np.ones((2, 3)), np.ones(2)), {}, ValueError, "got 2×3 @ 2")
    yield BadInput((np.ones(()), np.ones((2, 3))), {}, ValueError, r"got \(\) @ 2×3")


def _bad_dtypes() -> Iterator[BadInput]:
    yield BadInput((np.ones(3), np.ones(3, np.float32)), {}, TypeError, "mix float32 and float64")


def _bad_cat() -> Iterator[BadInput]:
    yield BadInput((np.ones((1, 2, 3)), np.ones((1, 2, 4))), {"dim": 1}, ValueError, r"1×2×3, 1×2×4\. Crop or pad")


def _bad_crop() -> Iterator[BadInput]:
    yield BadInput((np.ones((1, 1, 3, 3)),), {"size": (4, 3)}, ValueError, "cannot cut 4×3 out of 3×3")


def _bad_linear() -> Iterator[BadInput]:
    yield BadInput((np.ones((2, 3)), np.ones((5, 4))), {}, ValueError, r"got 2×3 and 5×4")
    yield BadInput((np.ones((2, 4)), np.ones((5, 4), np.float32)), {}, TypeError, "mix float32 and float64")


CASES = [
    OpCase("add", lambda a, b: a + b, _binary, "add", lambda t: t.add, bad_inputs=_bad_dtypes),
    OpCase("sub", lambda a, b: a - b, _binary, "sub", lambda t: t.sub),
    OpCase("mul", lambda a, b: a * b, _binary, "mul", lambda t: t.mul, linear=(0, 1), bad_inputs=_bad_dtypes),
    OpCase("div", lambda a, b: a / (b + 3.0), _binary, "div_shifted", lambda t: lambda a, b: a / (b + 3.0), linear=(0,)),
    OpCase("maximum", F.maximum, _binary, "maximum", lambda t: t.maximum),
    OpCase("minimum", F.minimum, _binary, "minimum", lambda t: t.minimum),
    OpCase("neg", lambda x: -x, _unary, "neg", lambda t: t.neg, linear=(0,)),
    OpCase("power", lambda x: x**3, _unary, "cube", lambda t: lambda x: x**3),
    OpCase("exp", F.exp, _unary, "exp", lambda t: t.exp),
    OpCase("log", F.log, _positive, "log", lambda t: t.log),
    OpCase("sqrt", F.sqrt, _positive, "sqrt", lambda t: t.sqrt),
    OpCase("abs", F.abs, _unary, "abs", lambda t: t.abs),
    OpCase("clip", lambda x: F.clip(x, -0.4, 0.6), _unary, "clip", lambda t: lambda x: x.clip(-0.4, 0.6)),
    OpCase("sum", F.sum, _reduction, "sum", lambda t: t.sum, linear=(0,), bad_inputs=_bad_axis),
    OpCase("mean", F.mean, _reduction, "mean", lambda t: t.mean, linear=(0,)),
    OpCase("var", F.var, _reduction, "var", lambda t: t.var),
    OpCase("max", F.max, _reduction, "max", lambda t: lambda x, dim, keepdim: t.amax(x, () if dim is None else dim, keepdim)),
    OpCase("min", F.min, _reduction, "min", lambda t: lambda x, dim, keepdim: t.amin(x, () if dim is None else dim, keepdim)),
    OpCase("matmul", F.matmul, _matmul, "matmul", lambda t: t.matmul, linear=(0, 1), bad_inputs=_bad_matmul),
    OpCase("linear", F.linear, _linear, "linear", lambda t: t.nn.functional.linear, linear=(0, 1), bad_inputs=_bad_linear),
    OpCase(
        "cat",
        lambda *tensors, dim: F.cat(tensors, dim),
        _cat,
        "cat",
        lambda t: lambda *tensors, dim: t.cat(tensors, dim),
        linear=(),
        bad_inputs=_bad_cat,
        images=(0, 1, 2),
    ),
    OpCase("reshape", lambda x, shape: F.reshape(x, shape), _reshape, "reshape", lambda t: t.reshape, linear=(0,)),
    OpCase(
        "permute",
        lambda x, dims: F.permute(x, dims),
        _permute,
        "permute",
        lambda t: t.permute,
        linear=(0,),
        bad_inputs=_bad_permute,
    ),
    OpCase("transpose", F.transpose, _transpose, "transpose", lambda t: t.transpose, linear=(0,)),
    OpCase("flatten", F.flatten, _flatten, "flatten", lambda t: t.flatten, linear=(0,)),
    OpCase("squeeze", F.squeeze, _squeeze, "squeeze", lambda t: t.squeeze, linear=(0,), bad_inputs=_bad_squeeze),
    OpCase("unsqueeze", F.unsqueeze, _unsqueeze, "unsqueeze", lambda t: t.unsqueeze, linear=(0,)),
    OpCase("broadcast_to", F.broadcast_to, _broadcast_to, "broadcast_to", lambda t: lambda x, shape: t.broadcast_to(x, shape), linear=(0,)),
    OpCase("getitem", lambda x, index: x[index], _getitem, "getitem", lambda t: lambda x, index: x[index], linear=(0,)),
    OpCase("center_crop", F.center_crop, _crop, "center_crop", linear=(0,), bad_inputs=_bad_crop),
]
