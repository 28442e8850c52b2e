"""Normalisation: each value is centred and scaled by the statistics of its group, then by the weight and bias of its channel.

    y = w[c]·(x − μ)·r + b[c]        r = 1/√(σ² + ε)        μ, σ² (biased): over the m values of the group

    batch_norm      a group is a channel, over all samples and pixels
    instance_norm   a channel of one sample
    group_norm      a bundle of channels of one sample
    layer_norm      all values of one sample, each with its own weight and bias

One piece of mathematics, four ways to group: x is seen as (B, P, C), that is B blocks of P pixels, and in each block the C channels form
G bundles. batch_norm is one block of N·pixels with G = C; the others have a block a sample, with G = C, G bundles, and G = 1.

Gradients, with sums over the pixels of a block A[b,c] = Σ_p ∂y and Q[b,c] = Σ_p ∂y·(x − μ):

    ∂b[c] = Σ_b A    ∂w[c] = Σ_b r·Q    ∂x = r·w·∂y − r³·(x − μ)·(Σ_g w·Q)/m − r·(Σ_g w·A)/m        Σ_g: over the channels of a group

and ∂x = r·w·∂y alone where μ and σ² are constants, as the running statistics are in evaluation.

With activation="relu" the result is max(y, 0), in the same pass over memory. ∂y then counts only where y > 0, and no mask is kept for
that: each kernel of the backward reads x anyway and computes the sign of y anew, by the forward's own operations. Both are one number
to the kernels, the floor that y cannot fall below: 0, or −∞ without activation.

(Ioffe and Szegedy 2015; Ba et al. 2016; Ulyanov et al. 2016; Wu and He 2018.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minunet.arrays import array_module, channels_first, computed_dtype, deliver, is_float
from minunet.autograd import Function
from minunet.kernels import Kernels
from minunet.shapes import sizes_text
from minunet.tensor import Tensor

K = Kernels(__name__, "moments", "normalize", "sums", "grad_x")


class Normalize(Function):
    """The formula above; returns y, and μ and σ² as (B, G). The small arrays of statistics are float64 whatever x is.

    x is centred by μ rounded to the dtype that is computed in, and the shift makes up for the rounding: float32 stays exact where the mean
    is large.

    across_batch: all samples are one block, else each is one. groups: G. fixed: (μ, σ²), (1, C) each, to use in place of x's own.
    out: the array to write y into, or None.
    """

    takes_images = True

    def forward(
        ctx,
        x: Any,
        w: Any,
        b: Any,
        *,
        across_batch: bool,
        groups: int,
        eps: float,
        activation: str | None = None,
        fixed: tuple[Any, Any] | None = None,
        out: Any = None,
    ) -> tuple[Any, ...]:
        ctx.across_batch, ctx.groups, ctx.fixed = across_batch, groups, fixed is not None
        ctx.floor = 0.0 if activation == "relu" else -math.inf
        rows = ctx.blocks(x)
        mean, var = fixed or K.moments(rows, groups)
        mu, r = _to_channels(mean, rows), _to_channels(1 / (var + eps) ** 0.5, rows)  # (B, G) → (B, C)
        line = array_module(x).empty((3, *mu.shape), computed_dtype(x))
        line[0] = mu
        rest = mu - line[0]
        line[1] = scale = r if w is None else r * w
        line[2] = (0 if b is None else b) - rest * scale
        y = K.normalize(rows, line, ctx.floor, None if out is None else ctx.blocks(out))
        ctx.save(rows, w, rest, r, line)
        y = channels_first(y.reshape(x.shape[0], *x.shape[2:], x.shape[1]))
        return deliver(y, out), mean, var

    def backward(ctx, gy: Any) -> tuple[Any, ...]:
        x, w, rest, r, line = ctx.saved
        g = ctx.blocks(gy)
        gx: Any = None
        a: Any = None
        q: Any = None
        if not ctx.fixed or any(ctx.needs[1:]):
            a, q = K.sums(g, x, line, ctx.floor)  # (B, C)
            q = r * (q - rest * a)
        if ctx.needs[0]:
            whole = array_module(x).empty((5, *r.shape), line.dtype)
            whole[:3] = line
            if ctx.fixed:
                whole[3:] = 0
            else:
                share = r * (-1 / max(x.shape[1] * x.shape[2] // ctx.groups, 1))
                whole[3] = slope = share * r * _group_sums(q if w is None else w * q, ctx.groups)
                whole[4] = share * _group_sums(a if w is None else w * a, ctx.groups) - slope * rest
            gx = K.grad_x(g, x, whole, ctx.floor)
        shape = ctx.shapes[0]
        return (
            None if gx is None else channels_first(gx.reshape(shape[0], *shape[2:], shape[1])),
            None if q is None else _over_blocks(q).astype(line.dtype),
            None if a is None else _over_blocks(a).astype(line.dtype),
        )

    def blocks(ctx, x: Any) -> Any:
        """(N, C, *spatial) → (B, P, C) with the channels side by side in memory, which a slice of a wider array has without a copy."""
        n, pixels = x.shape[0], math.prod(x.shape[2:])
        rows = x.transpose(0, *range(2, x.ndim), 1).reshape(*((1, n * pixels) if ctx.across_batch else (n, pixels)), x.shape[1])
        return rows if rows.strides[2] == rows.itemsize or rows.shape[2] == 1 else array_module(x).ascontiguousarray(rows)


def _to_channels(values: Any, rows: Any) -> Any:
    """One value a group, (B, G) → the same for each of its channels, (B, C)."""
    each = rows.shape[2] // values.shape[1]
    return values if each == 1 else array_module(values).repeat(values, each, axis=1)


def _group_sums(values: Any, groups: int) -> Any:
    """(B, C) → (B, C): each channel gets the sum over its group's channels."""
    blocks, channels = values.shape
    if groups == channels:
        return values
    sums = values.reshape(blocks, groups, channels // groups).sum(axis=2)
    return array_module(values).repeat(sums, channels // groups, axis=1)


def _over_blocks(values: Any) -> Any:
    """(B, C) → (C), the sum."""
    return values[0] if len(values) == 1 else values.sum(axis=0)


def _check(name: str, input: Tensor, minimum: int, layout: str, per_channel: dict[str, Any], activation: str | None) -> None:
    if activation not in (None, "relu"):
        raise ValueError(f"{name}: activation is None or 'relu', got {activation!r}.")
    if input.ndim < minimum:
        raise ValueError(f"{name} expects input {layout}, got {input.ndim} axes: {sizes_text(input.shape) or 'a scalar'}.")
    if not is_float(input.data):
        raise TypeError(f"{name} expects floating-point input, got {input.dtype}. Convert with input.astype('float32').")
    for what, value in per_channel.items():
        if value is not None and value.shape != (input.shape[1],):
            raise ValueError(
                f"{name}: {what} has one element for each of the {input.shape[1]} channels of input {sizes_text(input.shape)}; "
                f"got shape {sizes_text(value.shape) or '()'}."
            )


def _track(running: Any, values: Any, momentum: float) -> None:
    """running ← (1 − momentum)·running + momentum·values, in place; the statistics of several samples are averaged."""
    if running is not None and values.size:
        running += momentum * (_over_blocks(values) / len(values) - running)


def _with_running_statistics(
    name: str,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Any,
    running_var: Any,
    own: bool,
    across_batch: bool,
    momentum: float,
    eps: float,
    activation: str | None,
    out: Any,
) -> Tensor:
    """Batch and instance norm. own: normalise with the input's statistics and track them, else with the running ones."""
    n, channels = input.shape[:2]
    running_mean, running_var = (s.data if isinstance(s, Tensor) else s for s in (running_mean, running_var))
    if not own:
        if running_mean is None or running_var is None:
            raise ValueError(f"{name} without the input's own statistics needs running_mean and running_var; got None.")
        fixed = (running_mean[None].astype("float64"), running_var[None].astype("float64"))
        return Normalize.apply(
            input, weight, bias, across_batch=True, groups=channels, eps=eps, activation=activation, fixed=fixed, out=out
        )[0]
    m = math.prod(input.shape[2:]) * (n if across_batch else 1)
    if m == 1:
        raise ValueError(
            f"{name} in training needs more than one value for each channel to know its spread; input {sizes_text(input.shape)} has one. "
            "Use larger batches or images, or group_norm (or instance_norm, where there are several pixels), which needs no batch."
        )
    y, mean, var = Normalize.apply(input, weight, bias, across_batch=across_batch, groups=channels, eps=eps, activation=activation, out=out)
    if m > 1:
        _track(running_mean, mean.data, momentum)
        _track(running_var, var.data * (m / (m - 1)), momentum)
    return y


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    activation: str | None = None,
    out: Any = None,
) -> Tensor:
    """(N, C, …): each channel to mean 0 and variance 1 over the batch, times weight (C) plus bias (C).

    training: use the batch's statistics, and move the running ones (C) towards them in place: new = (1 − momentum)·old + momentum·batch's,
    the variance unbiased (divided by m − 1). Otherwise normalise with the running ones. activation: None, or "relu" computed as the
    result is written. out: an array to write the result into, such as one half of a concatenation.
    """
    per_channel = {"weight": weight, "bias": bias, "running_mean": running_mean, "running_var": running_var}
    _check("batch_norm", input, 2, "(N, C, …)", per_channel, activation)
    return _with_running_statistics(
        "batch_norm",
        input,
        weight,
        bias,
        running_mean,
        running_var,
        own=training,
        across_batch=True,
        momentum=momentum,
        eps=eps,
        activation=activation,
        out=out,
    )


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    activation: str | None = None,
    out: Any = None,
) -> Tensor:
    """(N, C, *spatial): each channel of each sample to mean 0 and variance 1 over its pixels, times weight (C) plus bias (C).

    The running statistics, where given, are moved in place as in `batch_norm`, and used where use_input_stats is False.
    activation, out: as in `batch_norm`.
    """
    per_channel = {"weight": weight, "bias": bias, "running_mean": running_mean, "running_var": running_var}
    _check("instance_norm", input, 3, "(N, C, *spatial)", per_channel, activation)
    return _with_running_statistics(
        "instance_norm",
        input,
        weight,
        bias,
        running_mean,
        running_var,
        own=use_input_stats,
        across_batch=False,
        momentum=momentum,
        eps=eps,
        activation=activation,
        out=out,
    )


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    activation: str | None = None,
    out: Any = None,
) -> Tensor:
    """(N, C, …): each of num_groups bundles of channels of each sample to mean 0 and variance 1, times weight (C) plus bias (C).

    activation, out: as in `batch_norm`.
    """
    _check("group_norm", input, 2, "(N, C, …)", {"weight": weight, "bias": bias}, activation)
    channels = input.shape[1]
    if num_groups < 1 or channels % num_groups:
        raise ValueError(f"group_norm: num_groups must divide the number of channels, {channels}; got {num_groups}.")
    if math.prod(input.shape[1:]) == num_groups:
        raise ValueError(
            f"group_norm needs more than one value in a group; {num_groups} groups of input {sizes_text(input.shape)} have one each. "
            "Use fewer groups or larger images."
        )
    return Normalize.apply(input, weight, bias, across_batch=False, groups=num_groups, eps=eps, activation=activation, out=out)[0]


def layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """(…, *normalized_shape): the last axes to mean 0 and variance 1, times weight plus bias, both of shape normalized_shape."""
    shape = tuple(normalized_shape)
    if not shape or input.shape[-len(shape) :] != shape:
        raise ValueError(f"layer_norm: input {sizes_text(input.shape)} does not end with normalized_shape {sizes_text(shape) or '()'}.")
    for what, value in (("weight", weight), ("bias", bias)):
        if value is not None and value.shape != shape:
            raise ValueError(f"layer_norm: {what} has the shape normalized_shape, {sizes_text(shape)}; got {sizes_text(value.shape)}.")
    flat = [None if t is None else t.reshape(math.prod(shape)) for t in (weight, bias)]
    y = input.reshape(math.prod(input.shape[: -len(shape)]), math.prod(shape))
    return Normalize.apply(y, *flat, across_batch=False, groups=1, eps=eps)[0].reshape(input.shape)
