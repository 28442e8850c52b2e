"""The losses as they are defined, on logits (N, C, P) and class numbers (N, P).

A channel less than there are classes means that the logits of class 0 are 0. Class numbers that are `ignored` count in nothing;
numbers of no class are counted, for the caller to refuse, and left out too. Logits of 16 bits are widened to float32, their gradient is
rounded once.
"""

from __future__ import annotations

from typing import Any

from minunet.arrays import array_module, rounded, widened


def entropy(x: Any, target: Any, weight: Any, scale: Any, *, smoothing: float, ignored: int, each: bool) -> tuple[Any, Any, Any]:
    """Losses ℓ[n, p] = s[n, p]·Σ_c q[c]·(−ln p[c]), or their sum; the sum of s·(the true class's weight); how many classes are unknown.

    q[c] = weight[c]·((1 − ε)·[c = target] + ε/C), ε = smoothing; s is `scale`, or 1.
    """
    hot, counted, unknown = _one_hot(target, len(weight), ignored)
    log_p = _log_softmax(x, len(weight))
    xp = array_module(x)
    true = xp.where(hot, log_p, 0).sum(axis=1)
    w = (hot * weight[:, None]).sum(axis=1).astype(weight.dtype)
    losses = -(1 - smoothing) * w * true
    if smoothing:
        losses -= (log_p * (weight * (smoothing / len(weight)))[:, None]).sum(axis=1)
    losses = xp.where(counted, losses, 0)
    if scale is not None:
        losses, w = losses * scale, w * scale
    return losses if each else losses.sum(dtype="float64"), w.sum(dtype="float64"), unknown


def grad_entropy(x: Any, target: Any, weight: Any, factor: Any, gain: Any, *, smoothing: float, ignored: int) -> Any:
    """∂x[c] = g·(p[c]·Σ_k q[k] − q[c]), g = gain·factor"""
    hot, counted, _ = _one_hot(target, len(weight), ignored)
    p = array_module(x).exp(_log_softmax(x, len(weight)))
    q = weight[:, None] * ((1 - smoothing) * hot + smoothing / max(len(weight), 1)).astype(weight.dtype)
    g = (counted * gain if factor is None else counted * gain * factor).astype(weight.dtype)
    return rounded((g[:, None] * (p * q.sum(axis=1, keepdims=True) - q))[:, -x.shape[1] :], x)


def overlap(x: Any, target: Any, classes: int, *, ignored: int) -> tuple[Any, Any]:
    """For each sample and class Σ p·[c = target], Σ p and Σ [c = target] as (3, N, C); how many classes are unknown."""
    xp = array_module(x)
    hot, counted, unknown = _one_hot(target, classes, ignored)
    p = xp.exp(_log_softmax(x, classes))
    return xp.stack([xp.where(of, p, 0).sum(axis=2, dtype="float64") for of in (hot, counted[:, None])] + [hot.sum(axis=2)]), unknown


def grad_overlap(x: Any, target: Any, hit: Any, size: Any, *, ignored: int) -> Any:
    """∂x[c] = p[c]·(d[c] − Σ_k d[k]·p[k]), d[c] = hit[n, c]·[c = target] + size[n, c]"""
    hot, counted, _ = _one_hot(target, hit.shape[1], ignored)
    p = array_module(x).exp(_log_softmax(x, hit.shape[1]))
    d = hot * hit[:, :, None] + size[:, :, None]
    return rounded(array_module(x).where(counted[:, None], p * (d - (d * p).sum(axis=1, keepdims=True)), 0)[:, -x.shape[1] :], x)


def binary_entropy(x: Any, target: Any, positive: Any, *, each: bool) -> Any:
    """Losses (1−t+v)·ln(1 + e^−|x|) + (where x > 0: (1−t)·x, else −v·x), or their sum; v = t·positive. All arrays are flat."""
    xp, x = array_module(x), widened(x)
    v = target if positive is None else target * positive
    losses = (1 - target + v) * xp.log1p(xp.exp(-abs(x))) + (1 - target) * xp.maximum(x, 0) - v * xp.minimum(x, 0)
    return losses if each else losses.sum(dtype="float64")


def grad_binary_entropy(x: Any, target: Any, positive: Any, factor: Any, gain: Any) -> Any:
    """∂x = g·((1−t+v)·σ(x) − v), g = gain·factor"""
    xp, wide = array_module(x), widened(x)
    v = target if positive is None else target * positive
    e = xp.exp(-abs(wide))
    gx = (1 - target + v) * (xp.maximum(e, wide >= 0) / (1 + e)) - v
    gain = xp.asarray(gain, dtype=wide.dtype)
    return rounded(gx * (gain if factor is None else gain * factor), x)


def _one_hot(target: Any, classes: int, ignored: int) -> tuple[Any, Any, Any]:
    """[c = target] as (N, C, P), which pixels count, and how many are of no class."""
    xp = array_module(target)
    left_out, exists = target == ignored, (target >= 0) & (target < classes)
    counted = exists & ~left_out
    return (target[:, None] == xp.arange(classes)[:, None]) & counted[:, None], counted, (~left_out & ~exists).sum()


def _log_softmax(x: Any, classes: int) -> Any:
    xp, x = array_module(x), widened(x)
    if x.shape[1] < classes:
        x = xp.concatenate([xp.zeros_like(x), x], axis=1)
    d = x - x.max(axis=1, keepdims=True)
    return d - xp.log(xp.exp(d).sum(axis=1, keepdims=True))
