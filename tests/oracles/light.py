"""Oracles of the light operations: one element at a time where NumPy's own function is what the operation calls."""

import itertools
import math

import numpy as np


def _pointwise(f, *arrays):
    shape = np.broadcast_shapes(*(a.shape for a in arrays))
    repeated = [np.broadcast_to(a, shape) for a in arrays]
    y = np.empty(shape)
    for i in np.ndindex(*shape):
        y[i] = f(*(float(a[i]) for a in repeated))
    return y


def add(a, b):
    return _pointwise(lambda u, v: u + v, a, b)


def sub(a, b):
    return _pointwise(lambda u, v: u - v, a, b)


def mul(a, b):
    return _pointwise(lambda u, v: u * v, a, b)


def div_shifted(a, b):
    return _pointwise(lambda u, v: u / (v + 3), a, b)


def maximum(a, b):
    return _pointwise(lambda u, v: u if u > v else v, a, b)


def minimum(a, b):
    return _pointwise(lambda u, v: u if u < v else v, a, b)


def neg(x):
    return _pointwise(lambda u: -u, x)


def cube(x):
    return _pointwise(lambda u: u * u * u, x)


def exp(x):
    return _pointwise(math.exp, x)


def log(x):
    return _pointwise(math.log, x)


def sqrt(x):
    return _pointwise(math.sqrt, x)


def abs(x):  # noqa: A001
    return _pointwise(math.fabs, x)


def clip(x):
    return _pointwise(lambda u: -0.4 if u < -0.4 else 0.6 if u > 0.6 else u, x)


def _reduce(f, x, dim, keepdim):
    dims = range(x.ndim) if dim is None else [d % x.ndim for d in ((dim,) if isinstance(dim, int) else dim)]
    kept = [1 if axis in dims else n for axis, n in enumerate(x.shape)]
    groups = {}
    for i in np.ndindex(*x.shape):
        groups.setdefault(tuple(0 if axis in dims else k for axis, k in enumerate(i)), []).append(float(x[i]))
    y = np.empty(kept)
    for i in np.ndindex(*kept):
        y[i] = f(groups[i])
    return y if keepdim else y.reshape([n for axis, n in enumerate(x.shape) if axis not in dims])


def sum(x, dim=None, keepdim=False):  # noqa: A001
    return _reduce(math.fsum, x, dim, keepdim)


def mean(x, dim=None, keepdim=False):
    return _reduce(lambda values: math.fsum(values) / len(values), x, dim, keepdim)


def var(x, dim=None, keepdim=False, correction=1):
    def spread(values):
        centre = math.fsum(values) / len(values)
        return math.fsum((v - centre) ** 2 for v in values) / (len(values) - correction)

    return _reduce(spread, x, dim, keepdim)


def max(x, dim=None, keepdim=False):  # noqa: A001
    return _reduce(lambda values: sorted(values)[-1], x, dim, keepdim)


def min(x, dim=None, keepdim=False):  # noqa: A001
    return _reduce(lambda values: sorted(values)[0], x, dim, keepdim)


def matmul(a, b):
    if a.ndim == 1:
        return matmul(a[None], b)[..., 0, :] if b.ndim > 1 else matmul(a[None], b)[0]
    if b.ndim == 1:
        return matmul(a, b[:, None])[..., 0]
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = np.broadcast_to(a, lead + a.shape[-2:]), np.broadcast_to(b, lead + b.shape[-2:])
    y = np.zeros((*lead, a.shape[-2], b.shape[-1]))
    for n in np.ndindex(*lead):
        for i, j, k in itertools.product(range(a.shape[-2]), range(b.shape[-1]), range(a.shape[-1])):
            y[n][i, j] += a[n][i, k] * b[n][k, j]
    return y


def linear(x, weight, bias=None):
    y = np.zeros((*x.shape[:-1], weight.shape[0]))
    for n in np.ndindex(*x.shape[:-1]):
        for o, c in itertools.product(range(weight.shape[0]), range(weight.shape[1])):
            y[n][o] += x[n][c] * weight[o, c]
        if bias is not None:
            y[n] += bias
    return y


def cat(*arrays, dim):
    axis = dim % arrays[0].ndim
    shape = list(arrays[0].shape)
    shape[axis] = 0
    for a in arrays:
        shape[axis] += a.shape[axis]
    y, start = np.empty(shape), 0
    for a in arrays:
        for i in np.ndindex(*a.shape):
            y[(*i[:axis], start + i[axis], *i[axis + 1 :])] = a[i]
        start += a.shape[axis]
    return y


def center_crop(x, size):
    y = np.empty((*x.shape[:2], *size))
    for i in np.ndindex(*y.shape):
        y[i] = x[(*i[:2], *(k + (have - want) // 2 for k, have, want in zip(i[2:], x.shape[2:], size, strict=True)))]
    return y


def reshape(x, shape):
    size = -math.prod(shape) if -1 in shape else 0
    y = np.empty([x.size // size if n == -1 else n for n in shape])
    for here, there in zip(np.ndindex(*y.shape), np.ndindex(*x.shape), strict=True):
        y[here] = x[there]
    return y


def permute(x, dims):
    y = np.empty([x.shape[d] for d in dims])
    for i in np.ndindex(*x.shape):
        y[tuple(i[d] for d in dims)] = x[i]
    return y


def transpose(x, dim0, dim1):
    dims = list(range(x.ndim))
    dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
    return permute(x, dims)


def flatten(x, start_dim=0, end_dim=-1):
    first, last = start_dim, end_dim % (x.ndim or 1)
    return reshape(x, (*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :]))


def squeeze(x, dim):
    shape = list(x.shape)
    del shape[dim]
    return reshape(x, shape)


def unsqueeze(x, dim):
    shape = list(x.shape)
    shape.insert(dim % (x.ndim + 1), 1)
    return reshape(x, shape)


def broadcast_to(x, shape):
    y = np.empty(shape)
    for i in np.ndindex(*shape):
        y[i] = x[tuple(k if n > 1 else 0 for k, n in zip(i[len(shape) - x.ndim :], x.shape, strict=True))]
    return y


def getitem(x, index):
    places = np.arange(x.size).reshape(x.shape)[index]
    return np.array([x[np.unravel_index(p, x.shape)] for p in places.ravel()]).reshape(places.shape)
