"""Convolution and transposed convolution: one family of three sums, for any number of spatial axes.

    y[n,o,p] = b[o] + Σ_c Σ_k x̄[n,c,s·p+d·k]·w[o,c,k]          forward

x̄ is x with zero padding; p (output pixel) and k (kernel tap) are index vectors; s is the stride, d the dilation. With g groups
the sum over c runs over the C/g channels of o's group. Read the same sum as a linear map of x, and of w, and transpose it:

    ∂x̄[n,c,i] = Σ_o Σ_{p,k: s·p+d·k=i} ∂y[n,o,p]·w[o,c,k]       grad_x
    ∂w[o,c,k] = Σ_n Σ_p ∂y[n,o,p]·x̄[n,c,s·p+d·k]               grad_w
    ∂b[o]     = Σ_n Σ_p ∂y[n,o,p]

With a fused ReLU, y = max(…, 0), the gradients read ∂y only where y > 0: `gate` is y, or None. `through_gate` comes first, and may
apply it once for all of them.

Transposed convolution is `grad_x` used forwards: its weight is (in, out/g, *kernel), its own gradients are `forward` and `grad_w`.

Source: Dumoulin & Visin, A guide to convolution arithmetic for deep learning, arXiv:1603.07285.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from minunet.arrays import is_float
from minunet.autograd import Function
from minunet.kernels import Kernels
from minunet.shapes import Pairs, check_rank, ntuple, sizes_text, window_outputs, window_padding, window_span
from minunet.tensor import Tensor

K: Any = Kernels(__name__, "forward", "grad_x", "grad_w", "grad_b", "through_gate")

_AXES = {1: "L", 2: "H, W", 3: "D, H, W"}


@dataclass(frozen=True)
class Geometry:
    """How the window moves. padding: (before, after) for each axis; a negative number crops."""

    stride: tuple[int, ...]
    padding: Pairs
    dilation: tuple[int, ...]
    groups: int

    def outputs(self, spatial: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[int, ...]:
        return window_outputs("convolution", spatial, kernel, self.stride, self.padding, self.dilation)


class Conv(Function):
    """`forward` above; with activation="relu" the result is max(y, 0), in the same pass over memory."""

    takes_images = True

    def forward(ctx, x: Any, w: Any, b: Any, *, geometry: Geometry, activation: str | None, out: Any) -> Any:
        y = K.forward(x, w, b, geometry, activation, out)
        ctx.geometry, ctx.activation = geometry, activation
        ctx.save(x if ctx.needs[1] else None, w if ctx.needs[0] else None, y if activation else None)
        return y

    def backward(ctx, gy: Any) -> tuple[Any, ...]:
        x, w, y = ctx.saved  # y > 0 is where the fused ReLU let the value through, and lets the gradient
        if y is not None:
            gy, y = K.through_gate(gy, y)
        gx = K.grad_x(gy, y, w, None, ctx.geometry, ctx.shapes[0][2:], None, None) if ctx.needs[0] else None
        if ctx.needs[1]:
            return gx, *K.grad_w(x, gy, y, ctx.geometry, ctx.shapes[1][2:], ctx.needs[2])
        return gx, None, K.grad_b(gy, y) if ctx.needs[2] else None


class ConvTranspose(Function):
    """`grad_x` above, plus a bias. `geometry` is that of the convolution it transposes, from `spatial` to x."""

    takes_images = True

    def forward(ctx, x: Any, w: Any, b: Any, *, geometry: Geometry, spatial: tuple[int, ...], activation: str | None, out: Any) -> Any:
        y = K.grad_x(x, None, w, b, geometry, spatial, activation, out)
        ctx.geometry, ctx.activation = geometry, activation
        ctx.save(x if ctx.needs[1] else None, w if ctx.needs[0] else None, y if activation else None)
        return y

    def backward(ctx, gy: Any) -> tuple[Any, ...]:
        x, w, y = ctx.saved
        gy = gy if y is None else gy * (y > 0)
        gx = K.forward(gy, w, None, ctx.geometry, None, None) if ctx.needs[0] else None
        gw = K.grad_w(gy, x, None, ctx.geometry, ctx.shapes[1][2:], False)[0] if ctx.needs[1] else None
        gb = K.grad_b(gy, None) if ctx.needs[2] else None
        return gx, gw, gb


class _Fit(NamedTuple):
    """What follows from the shapes: the geometry, and the spatial sizes of the result."""

    geometry: Geometry
    sizes: tuple[int, ...]


def _operand(name: str, rank: int, x: Tensor, activation: str | None) -> Tensor:
    """x with a batch axis."""
    if activation not in (None, "relu"):
        raise ValueError(f"{name}: activation is None or 'relu', got {activation!r}.")
    if not is_float(x.data):
        raise TypeError(f"{name} expects floating-point input, got {x.dtype}. Convert it with .astype('float32').")
    if x.ndim == rank + 2:
        return x
    check_rank(name, x.shape, rank + 1, f"input (N, C, {_AXES[rank]}) or (C, {_AXES[rank]})")
    return x.unsqueeze(0)


def _whole(name: str, groups: Any) -> int:
    if not hasattr(groups, "__index__"):
        raise TypeError(f"{name}: groups is an int, got {groups!r}.")
    return int(groups)


def _check(name: str, rank: int, x: tuple[int, ...], weight: tuple[int, ...], bias: Any, groups: int, transposed: bool) -> None:
    """Do the shapes fit? Every way they can fail to is said in one sentence."""
    layout = "(C, O/groups, *kernel)" if transposed else "(O, C/groups, *kernel)"
    check_rank(name, weight, rank + 2, f"weight {layout} with {rank} kernel axes")
    if min(weight) < 1:
        raise ValueError(f"{name}: weight {sizes_text(weight)} has an empty axis.")
    channels = x[1]
    if groups < 1 or channels % groups or weight[0] % groups:
        raise ValueError(f"{name}: {groups} groups must divide the {channels} input channels and the {weight[0]} filters of the weight.")
    wanted = weight[0] if transposed else weight[1] * groups
    if channels != wanted:
        raise ValueError(
            f"{name}: the input has {channels} channels, the weight {sizes_text(weight)} with groups={groups} expects {wanted}."
        )
    outputs = weight[1] * groups if transposed else weight[0]
    if bias not in (None, (outputs,)):
        raise ValueError(f"{name}: bias must have shape ({outputs},), got {bias}.")


def _check_out(name: str, out: Any, shape: tuple[int, ...], x: Tensor) -> None:
    if out is not None and (out.shape != shape or out.dtype != x.dtype):
        raise ValueError(f"{name}: the result is {x.dtype} {sizes_text(shape)}; out is {out.dtype} {sizes_text(out.shape)}.")


def _conv(
    rank: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    activation: str | None,
    out: Any,
) -> Tensor:
    name = f"conv{rank}d"
    x, groups = _operand(name, rank, input, activation), _whole(name, groups)
    stride, dilation = ntuple(stride, rank, "stride", minimum=1), ntuple(dilation, rank, "dilation", minimum=1)
    padding = padding if isinstance(padding, str) else ntuple(padding, rank, "padding")
    shape_of_bias = None if bias is None else bias.shape
    geometry, sizes = _fit(name, rank, x.shape, weight.shape, shape_of_bias, stride, padding, dilation, groups)
    _check_out(name, out, (x.shape[0], weight.shape[0], *sizes), x)
    y = Conv.apply(x, weight, bias, geometry=geometry, activation=activation, out=out)
    return y if x is input else y.squeeze(0)


@lru_cache(maxsize=1024)  # a network meets the same shapes in every step, and to check them takes longer than a small layer
def _fit(
    name: str,
    rank: int,
    x: tuple[int, ...],
    weight: tuple[int, ...],
    bias: tuple[int, ...] | None,
    stride: tuple[int, ...],
    padding: Any,
    dilation: tuple[int, ...],
    groups: int,
) -> _Fit:
    _check(name, rank, x, weight, bias, groups, transposed=False)
    pairs = window_padding(padding, x[2:], weight[2:], stride, dilation)
    return _Fit(Geometry(stride, pairs, dilation, groups), window_outputs(name, x[2:], weight[2:], stride, pairs, dilation))


def _conv_transpose(
    rank: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
    activation: str | None,
    out: Any,
) -> Tensor:
    name = f"conv_transpose{rank}d"
    x, groups = _operand(name, rank, input, activation), _whole(name, groups)
    stride, dilation = ntuple(stride, rank, "stride", minimum=1), ntuple(dilation, rank, "dilation", minimum=1)
    padding = padding if isinstance(padding, str) else ntuple(padding, rank, "padding")
    extra = ntuple(output_padding, rank, "output_padding")
    shape_of_bias = None if bias is None else bias.shape
    geometry, sizes = _fit_transposed(name, rank, x.shape, weight.shape, shape_of_bias, stride, padding, extra, dilation, groups)
    _check_out(name, out, (x.shape[0], weight.shape[1] * groups, *sizes), x)
    y = ConvTranspose.apply(x, weight, bias, geometry=geometry, spatial=sizes, activation=activation, out=out)
    return y if x is input else y.squeeze(0)


@lru_cache(maxsize=1024)
def _fit_transposed(
    name: str,
    rank: int,
    x: tuple[int, ...],
    weight: tuple[int, ...],
    bias: tuple[int, ...] | None,
    stride: tuple[int, ...],
    padding: Any,
    extra: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> _Fit:
    _check(name, rank, x, weight, bias, groups, transposed=True)
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise ValueError(f"{name}: output_padding {extra} must be smaller than the stride {stride} or the dilation {dilation}.")
    if isinstance(padding, str) and any(extra):
        raise ValueError(f"{name}: padding={padding!r} fixes the output size; leave output_padding at 0, got {extra}.")
    sizes, pairs = [], []
    sides = (padding,) * rank if isinstance(padding, str) else padding
    for n, k, s, d, side, e in zip(x[2:], weight[2:], stride, dilation, sides, extra, strict=True):
        full = (n - 1) * s + window_span(k, d)  # what n windows reach when nothing is cropped
        if side == "same":
            size, front = s * n, max(window_span(k, d) - s, 0) // 2
        elif side == "valid":
            size, front = max(full, s * n), 0
        elif isinstance(side, str):
            raise ValueError(f"{name}: padding is an int, a tuple, 'same' or 'valid'; got {padding!r}.")
        else:
            size, front = full - 2 * side + e, side
        sizes.append(size)
        pairs.append((front, full - size - front))
    if min(sizes) < 1:
        raise ValueError(f"{name}: the output would be {sizes_text(sizes)}. Use less padding or a larger input.")
    return _Fit(Geometry(stride, tuple(pairs), dilation, groups), tuple(sizes))


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    activation: str | None = None,
    out: Any = None,
) -> Tensor:
    """Convolution over one axis: input (N, C, L), weight (O, C/groups, k) → (N, O, L'). See `conv2d`."""
    return _conv(1, input, weight, bias, stride, padding, dilation, groups, activation, out)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    activation: str | None = None,
    out: Any = None,
) -> Tensor:
    """Convolution: input (N, C, H, W), weight (O, C/groups, kh, kw), bias (O) → (N, O, H', W').

    H' = ⌊(H + before + after − dilation·(kh − 1) − 1)/stride⌋ + 1. An input without the batch axis is accepted.
    padding: an int or a pair (the same on both sides), "valid" (none) or "same" with Keras' meaning: H' = ⌈H/stride⌉, the odd
    row of zeros at the end. activation: None, or "relu" computed as the result is written. out: an array to write the result into, such as
    one half of a concatenation; nothing else may need what it holds.
    Raises ValueError where sizes, channels or groups do not fit, TypeError for integers or mixed dtypes.
    """
    return _conv(2, input, weight, bias, stride, padding, dilation, groups, activation, out)


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    activation: str | None = None,
    out: Any = None,
) -> Tensor:
    """Convolution over a volume: input (N, C, D, H, W), weight (O, C/groups, kd, kh, kw) → (N, O, D', H', W'). See `conv2d`."""
    return _conv(3, input, weight, bias, stride, padding, dilation, groups, activation, out)


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    activation: str | None = None,
    out: Any = None,
) -> Tensor:
    """Transposed convolution over one axis: input (N, C, L), weight (C, O/groups, k) → (N, O, L'). See `conv_transpose2d`."""
    return _conv_transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation, activation, out)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    activation: str | None = None,
    out: Any = None,
) -> Tensor:
    """Transposed convolution ("up-convolution"): input (N, C, H, W), weight (C, O/groups, kh, kw), bias (O) → (N, O, H', W').

    H' = (H − 1)·stride − 2·padding + dilation·(kh − 1) + output_padding + 1. UNet's 2×2 with stride 2 doubles the size.
    padding may be "same" (H' = stride·H) or "valid" with Keras' meaning: "same" crops max(k − stride, 0)//2 rows in front and the
    rest at the end, which is not PyTorch's padding=1, output_padding=1: that has the same shape but is one pixel off.
    """
    return _conv_transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation, activation, out)


def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    activation: str | None = None,
    out: Any = None,
) -> Tensor:
    """Transposed convolution of a volume: input (N, C, D, H, W), weight (C, O/groups, kd, kh, kw). See `conv_transpose2d`."""
    return _conv_transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation, activation, out)
