"""Oracles of the losses: one pixel, one class at a time."""

import math

import numpy as np


def _log_probabilities(logits):
    largest = max(logits)
    total = math.fsum(math.exp(v - largest) for v in logits)
    return [v - largest - math.log(total) for v in logits]


def _reduce(losses, divisor, reduction):
    total = math.fsum(losses.reshape(-1))
    return {"none": lambda: losses, "sum": lambda: np.asarray(total), "mean": lambda: np.asarray(total / divisor)}[reduction]()


def cross_entropy(x, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0, log=True):
    if x.ndim == 1:
        x, target, single = x[None], target[None], True
    else:
        single = False
    classes = x.shape[1]
    weight = np.ones(classes) if weight is None else weight
    losses, divisor = np.zeros(x.shape[:1] + x.shape[2:]), 0.0
    for place in np.ndindex(*losses.shape):
        column = (place[0], slice(None), *place[1:])
        log_p = _log_probabilities(x[column]) if log else x[column]
        if target.dtype.kind == "f":
            wanted, share = target[column], 1.0
        elif target[place] == ignore_index:
            continue
        else:
            wanted, share = np.eye(classes)[target[place]], weight[target[place]]
        divisor += share
        wanted = [(1 - label_smoothing) * q + label_smoothing / classes for q in wanted]
        losses[place] = -math.fsum(weight[c] * wanted[c] * log_p[c] for c in range(classes))
    return _reduce(losses[0] if single else losses, divisor, reduction)


def nll_loss(x, target, weight=None, ignore_index=-100, reduction="mean"):
    return cross_entropy(x, target, weight, ignore_index, reduction, log=False)


def _elementwise(f, x, target, weight, reduction, divide_by_weights=False):
    weight = np.broadcast_to(1.0 if weight is None else weight, x.shape)
    losses = np.empty(x.shape)
    for i in np.ndindex(*x.shape):
        losses[i] = weight[i] * f(float(x[i]), float(target[i]), i)
    return _reduce(losses, weight.sum() if divide_by_weights else x.size, reduction)


def _log(v):
    return max(math.log(v), -100.0) if v > 0 else -100.0


def binary_cross_entropy(x, target, weight=None, reduction="mean"):
    return _elementwise(lambda p, t, i: -(t * _log(p) + (1 - t) * _log(1 - p)), x, target, weight, reduction)


def binary_cross_entropy_with_logits(x, target, weight=None, reduction="mean", pos_weight=None):
    positive = np.broadcast_to(1.0 if pos_weight is None else pos_weight, x.shape)

    def minus_log_sigmoid(v):
        return math.log1p(math.exp(-v)) if v > 0 else math.log1p(math.exp(v)) - v

    return _elementwise(
        lambda v, t, i: positive[i] * t * minus_log_sigmoid(v) + (1 - t) * minus_log_sigmoid(-v), x, target, weight, reduction
    )


def mse_loss(x, target, reduction="mean", weight=None):
    return _elementwise(lambda v, t, i: (v - t) ** 2, x, target, weight, reduction, divide_by_weights=True)


def l1_loss(x, target, reduction="mean", weight=None):
    return _elementwise(lambda v, t, i: abs(v - t), x, target, weight, reduction, divide_by_weights=True)
