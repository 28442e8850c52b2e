"""Activations: y[i] = f(x[i]), elementwise.

Each keeps the one array its gradient is cheapest from: the output where f' can be told from it (a following convolution
keeps the same array anyway), else a boolean mask. At the kink the slope is PyTorch's: 0 for ReLU, the left one for the others.

ReLU and leaky ReLU stand behind so many layers that they have kernels of their own; the others are the same few lines for NumPy and
CuPy. In these two branches are added, each zero where the other holds, because `where` branches at every element: NumPy's is ten times
slower.
"""

from __future__ import annotations

from typing import Any

from minunet.arrays import array_module, sum_to_shape
from minunet.autograd import Function
from minunet.kernels import Kernels
from minunet.shapes import sizes_text
from minunet.tensor import Tensor

K = Kernels(__name__, "relu", "relu_grad", "leaky_relu", "leaky_relu_grad")


class ReLU(Function):
    """y = max(x, 0)    ∂x = ∂y where y > 0, else 0"""

    def forward(ctx, x: Any) -> Any:
        y = K.relu(x)
        ctx.save(y)
        return y

    def backward(ctx, gy: Any) -> Any:
        (y,) = ctx.saved
        return K.relu_grad(gy, y)


class LeakyReLU(Function):
    """y = x where x > 0, else a·x    ∂x = ∂y where x > 0, else a·∂y

    Where a is not negative, y tells the sign of x, and a convolution that follows keeps y anyway.
    """

    def forward(ctx, x: Any, *, slope: float) -> Any:
        ctx.slope = slope
        y = K.leaky_relu(x, slope)
        ctx.save(y if slope >= 0 else x)
        return y

    def backward(ctx, gy: Any) -> Any:
        (signed,) = ctx.saved
        return K.leaky_relu_grad(gy, signed, ctx.slope)


class PReLU(Function):
    """y = x where x > 0, else a·x with a learned slope a, one or one a channel

    ∂x = ∂y where x > 0, else a·∂y    ∂a = Σ ∂y·x over the x ≤ 0 that share a
    """

    def forward(ctx, x: Any, a: Any) -> Any:
        ctx.save(x, a)
        xp = array_module(x)
        return xp.maximum(x, 0) + a * xp.minimum(x, 0)

    def backward(ctx, gy: Any) -> tuple[Any, ...]:
        x, a = ctx.saved
        positive = x > 0
        gx = gy * positive + a * gy * ~positive if ctx.needs[0] else None
        ga = sum_to_shape(gy * array_module(gy).minimum(x, 0), a.shape) if ctx.needs[1] else None
        return gx, ga


class ELU(Function):
    """y = x where x > 0, else α(eˣ − 1)    ∂x = ∂y where x > 0, else ∂y·α·eˣ"""

    def forward(ctx, x: Any, *, alpha: float) -> Any:
        ctx.alpha = alpha
        xp = array_module(x)
        negative = alpha * xp.expm1(xp.minimum(x, 0))
        ctx.save(x > 0, negative)
        return xp.maximum(x, 0) + negative

    def backward(ctx, gy: Any) -> Any:
        positive, negative = ctx.saved
        return gy * (positive + (negative + ctx.alpha) * ~positive)


class Sigmoid(Function):
    """y = 1/(1 + e⁻ˣ)    ∂x = ∂y·y·(1 − y)"""

    def forward(ctx, x: Any) -> Any:
        y = logistic(x)
        ctx.save(y)
        return y

    def backward(ctx, gy: Any) -> Any:
        (y,) = ctx.saved
        return gy * (y * (1 - y))


class Tanh(Function):
    """y = tanh x    ∂x = ∂y·(1 − y²)"""

    def forward(ctx, x: Any) -> Any:
        y = array_module(x).tanh(x)
        ctx.save(y)
        return y

    def backward(ctx, gy: Any) -> Any:
        (y,) = ctx.saved
        return gy * (1 - y * y)


def logistic(x: Any) -> Any:
    """1/(1 + e⁻ˣ) of an array; with e⁻|ˣ| nothing overflows and both tails keep their relative accuracy."""
    xp = array_module(x)
    e = xp.exp(-abs(x))
    return xp.maximum(e, x >= 0) / (1 + e)  # 1 or e, over 1 + e


def refuse_inplace(name: str, inplace: bool) -> None:
    """Raises ValueError where PyTorch's `inplace=True` is asked for."""
    if inplace:
        raise ValueError(f"{name}: inplace=True is not supported, tensors are never changed in place here. Leave the argument out.")


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0); the gradient at 0 is 0."""
    refuse_inplace("relu", inplace)
    return ReLU.apply(input)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0, else negative_slope·x."""
    refuse_inplace("leaky_relu", inplace)
    return LeakyReLU.apply(input, slope=negative_slope)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where x > 0, else weight·x; weight has one element, or one for each channel of input (N, C, …)."""
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.ndim > 1 or weight.size not in (1, channels):
        raise ValueError(
            f"prelu: weight has one element or one for each of the {channels} channels of input {sizes_text(input.shape) or '(scalar)'}; "
            f"got weight of shape {sizes_text(weight.shape)}."
        )
    if weight.size > 1:
        weight = weight.reshape(-1, *(1,) * (input.ndim - 2))  # (C) → (C, 1, …), against (N, C, …)
    elif weight.ndim > input.ndim:
        weight = weight.reshape(())
    return PReLU.apply(input, weight)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else alpha·(eˣ − 1)."""
    refuse_inplace("elu", inplace)
    return ELU.apply(input, alpha=alpha)


def sigmoid(input: Tensor) -> Tensor:
    """1/(1 + e⁻ˣ)."""
    return Sigmoid.apply(input)


def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return Tanh.apply(input)
