"""Oracles of the normalisations: a loop over the groups, each normalised by the definition."""

import numpy as np


def _normal(values, eps):
    mean = values.sum() / values.size
    var = ((values - mean) ** 2).sum() / values.size
    return (values - mean) / np.sqrt(var + eps)


def _affine(y, weight, bias, activation):
    for c in range(y.shape[1]):
        y[:, c] = y[:, c] * (1 if weight is None else weight[c]) + (0 if bias is None else bias[c])
    return np.maximum(y, 0) if activation == "relu" else y


def batch_norm(x, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5, activation=None):
    y = np.empty(x.shape)
    for c in range(x.shape[1]):
        y[:, c] = _normal(x[:, c], eps) if training else (x[:, c] - mean[c]) / np.sqrt(var[c] + eps)
    return _affine(y, weight, bias, activation)


def instance_norm(x, mean, var, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5, activation=None):
    if not use_input_stats:
        return batch_norm(x, mean, var, weight, bias, eps=eps, activation=activation)
    return group_norm(x, weight, bias, x.shape[1], eps, activation)


def group_norm(x, weight, bias, num_groups, eps=1e-5, activation=None):
    y, size = np.empty(x.shape), x.shape[1] // num_groups
    for n in range(x.shape[0]):
        for first in range(0, x.shape[1], size):
            y[n, first : first + size] = _normal(x[n, first : first + size], eps)
    return _affine(y, weight, bias, activation)


def layer_norm(x, weight, bias, normalized_shape, eps=1e-5):
    y = np.empty(x.shape)
    for i in np.ndindex(*x.shape[: x.ndim - len(normalized_shape)]):
        y[i] = _normal(x[i], eps) * (1 if weight is None else weight) + (0 if bias is None else bias)
    return y
