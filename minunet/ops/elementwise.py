"""Elementwise arithmetic: y[i] = f(a[i], b[i]), with NumPy's broadcasting.

The gradient of a broadcast input is summed over the axes that broadcasting repeated (`sum_to_shape`).
A Python scalar takes the tensor's dtype, an integer tensor the floating-point dtype that it meets.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet.arrays import array_module, as_dtype, is_array, is_float, sum_to_shape
from minunet.arrays import to_device as _move
from minunet.autograd import Function
from minunet.tensor import Tensor, tensor_method


def as_tensor(value: Any, like: Tensor) -> Tensor:
    """`value` as a tensor: a Python number takes the dtype and device of `like`."""
    if isinstance(value, Tensor):
        return value
    if is_array(value) and value.ndim:
        return Tensor(value)
    dtype = like.dtype if is_float(like.data) or not isinstance(value, float) else np.float32
    xp = array_module(like.data)
    if is_array(value) or xp is np:
        return Tensor(xp.asarray(value, dtype=dtype))
    return Tensor(xp.full((), np.asarray(value, dtype).item(), dtype))  # handed to a kernel by value: a copy to the GPU takes longer


def operands(a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Both as tensors: a Python number takes the other's dtype, an integer tensor the floating-point dtype it meets."""
    if isinstance(a, Tensor):
        b = as_tensor(b, a)
    else:
        a = as_tensor(a, b)
    floats = [t.dtype for t in (a, b) if is_float(t.data)]
    if len(floats) == 1:
        a, b = (t if is_float(t.data) else Tensor(t.data.astype(floats[0])) for t in (a, b))
    return a, b


def _quotient(a: Any, b: Any) -> Tensor:
    """a / b; two integer tensors make float32."""
    a, b = operands(a, b)
    if not is_float(a.data):
        a, b = Tensor(a.data.astype(np.float32)), Tensor(b.data.astype(np.float32))
    return Div.apply(a, b)


class _Binary(Function):
    """y = f(a, b), broadcast. Subclasses give `value` and the two partial derivatives times gy."""

    def forward(ctx, a: Any, b: Any) -> Any:
        ctx.save(*ctx.wanted(a, b))
        return ctx.value(a, b)

    def backward(ctx, gy: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        partials = zip(ctx.needs, ctx.shapes, (ctx.grad_a, ctx.grad_b), strict=True)
        return tuple(sum_to_shape(partial(gy, a, b), shape) if need else None for need, shape, partial in partials)

    def wanted(ctx, a: Any, b: Any) -> tuple[Any, Any]:
        """What backward will read: a subclass that needs less says so."""
        return a, b

    def value(ctx, a: Any, b: Any) -> Any:
        raise NotImplementedError

    def grad_a(ctx, gy: Any, a: Any, b: Any) -> Any:
        raise NotImplementedError

    def grad_b(ctx, gy: Any, a: Any, b: Any) -> Any:
        raise NotImplementedError


class Add(Function):
    """y = a + b    ∂a = ∂y    ∂b = ∂y"""

    def forward(ctx, a: Any, b: Any) -> Any:
        return a + b

    def backward(ctx, gy: Any) -> tuple[Any, ...]:
        return tuple(sum_to_shape(gy, shape) if need else None for need, shape in zip(ctx.needs, ctx.shapes, strict=True))


class Sub(Function):
    """y = a − b    ∂a = ∂y    ∂b = −∂y"""

    def forward(ctx, a: Any, b: Any) -> Any:
        return a - b

    def backward(ctx, gy: Any) -> tuple[Any, ...]:
        shape_a, shape_b = ctx.shapes
        return sum_to_shape(gy, shape_a) if ctx.needs[0] else None, sum_to_shape(-gy, shape_b) if ctx.needs[1] else None


class Mul(_Binary):
    """y = a·b    ∂a = ∂y·b    ∂b = ∂y·a"""

    def value(ctx, a: Any, b: Any) -> Any:
        return a * b

    def wanted(ctx, a: Any, b: Any) -> tuple[Any, Any]:
        return a if ctx.needs[1] else None, b if ctx.needs[0] else None

    def grad_a(ctx, gy: Any, a: Any, b: Any) -> Any:
        return gy * b

    def grad_b(ctx, gy: Any, a: Any, b: Any) -> Any:
        return gy * a


class Div(_Binary):
    """y = a/b    ∂a = ∂y/b    ∂b = −∂y·a/b²"""

    def value(ctx, a: Any, b: Any) -> Any:
        return a / b

    def wanted(ctx, a: Any, b: Any) -> tuple[Any, Any]:
        return a if ctx.needs[1] else None, b

    def grad_a(ctx, gy: Any, a: Any, b: Any) -> Any:
        return gy / b

    def grad_b(ctx, gy: Any, a: Any, b: Any) -> Any:
        return -gy * a / (b * b)


class Maximum(_Binary):
    """y = max(a, b)    the gradient goes to the larger; a tie is shared in halves, as in PyTorch"""

    def value(ctx, a: Any, b: Any) -> Any:
        return array_module(a).maximum(a, b)

    def grad_a(ctx, gy: Any, a: Any, b: Any) -> Any:
        return gy * ((a > b) + (a == b) * gy.dtype.type(0.5)).astype(gy.dtype)

    def grad_b(ctx, gy: Any, a: Any, b: Any) -> Any:
        return ctx.grad_a(gy, b, a)


class Minimum(Maximum):
    """y = min(a, b)    the gradient goes to the smaller; a tie is shared in halves"""

    def value(ctx, a: Any, b: Any) -> Any:
        return array_module(a).minimum(a, b)

    def grad_a(ctx, gy: Any, a: Any, b: Any) -> Any:
        return super().grad_a(gy, -a, -b)


class Neg(Function):
    """y = −x    ∂x = −∂y"""

    def forward(ctx, x: Any) -> Any:
        return -x

    def backward(ctx, gy: Any) -> Any:
        return -gy


class Pow(Function):
    """y = xᵖ with a constant p    ∂x = ∂y·p·xᵖ⁻¹

    p is a number, or an array of one: a number on the GPU that nobody reads.
    """

    def forward(ctx, x: Any, *, exponent: Any) -> Any:
        ctx.exponent = exponent
        ctx.save(x)
        return x**exponent

    def backward(ctx, gy: Any) -> Any:
        (x,) = ctx.saved
        if not is_array(ctx.exponent) and ctx.exponent == 0:
            return array_module(x).zeros_like(x)  # at x = 0 too
        return gy * (ctx.exponent * x ** (ctx.exponent - 1))


class Exp(Function):
    """y = eˣ    ∂x = ∂y·y"""

    def forward(ctx, x: Any) -> Any:
        y = array_module(x).exp(x)
        ctx.save(y)
        return y

    def backward(ctx, gy: Any) -> Any:
        (y,) = ctx.saved
        return gy * y


class Log(Function):
    """y = ln x    ∂x = ∂y/x"""

    def forward(ctx, x: Any) -> Any:
        ctx.save(x)
        return array_module(x).log(x)

    def backward(ctx, gy: Any) -> Any:
        (x,) = ctx.saved
        return gy / x


class Sqrt(Function):
    """y = √x    ∂x = ∂y/(2y)"""

    def forward(ctx, x: Any) -> Any:
        y = array_module(x).sqrt(x)
        ctx.save(y)
        return y

    def backward(ctx, gy: Any) -> Any:
        (y,) = ctx.saved
        return gy / (2 * y)


class Abs(Function):
    """y = |x|    ∂x = ∂y·sign(x), 0 at 0"""

    def forward(ctx, x: Any) -> Any:
        ctx.save(x)
        return abs(x)

    def backward(ctx, gy: Any) -> Any:
        (x,) = ctx.saved
        return gy * array_module(x).sign(x)


class Clip(Function):
    """y = min(max(x, minimum), maximum)    ∂x = ∂y where minimum ≤ x ≤ maximum, else 0"""

    def forward(ctx, x: Any, *, minimum: float | None, maximum: float | None) -> Any:
        inside = array_module(x).ones(x.shape, dtype=bool)
        if minimum is not None:
            inside &= x >= minimum
        if maximum is not None:
            inside &= x <= maximum
        ctx.save(inside)
        return array_module(x).clip(x, minimum, maximum)

    def backward(ctx, gy: Any) -> Any:
        (inside,) = ctx.saved
        return gy * inside


class AsType(Function):
    """y = x in another dtype    ∂x = ∂y in x's dtype"""

    def forward(ctx, x: Any, *, dtype: Any) -> Any:
        ctx.dtype = x.dtype
        return x.astype(dtype)

    def backward(ctx, gy: Any) -> Any:
        return gy.astype(ctx.dtype)


class ToDevice(Function):
    """y = x on another device    ∂x = ∂y on x's device"""

    def forward(ctx, x: Any, *, device: str) -> Any:
        ctx.like = Tensor(x).device
        return _move(x, device)

    def backward(ctx, gy: Any) -> Any:
        return _move(gy, ctx.like)


@tensor_method("__add__", "__radd__")
def add(a: Tensor, b: Any) -> Tensor:
    """a + b, broadcast."""
    return Add.apply(*operands(a, b))


@tensor_method("__sub__")
def sub(a: Tensor, b: Any) -> Tensor:
    """a − b, broadcast."""
    return Sub.apply(*operands(a, b))


@tensor_method("__rsub__")
def _rsub(a: Tensor, b: Any) -> Tensor:
    return Sub.apply(*operands(b, a))


@tensor_method("__mul__", "__rmul__")
def mul(a: Tensor, b: Any) -> Tensor:
    """a · b, broadcast."""
    return Mul.apply(*operands(a, b))


@tensor_method("__truediv__")
def div(a: Tensor, b: Any) -> Tensor:
    """a / b, broadcast."""
    return _quotient(a, b)


@tensor_method("__rtruediv__")
def _rdiv(a: Tensor, b: Any) -> Tensor:
    return _quotient(b, a)


@tensor_method("__neg__")
def neg(x: Tensor) -> Tensor:
    """−x."""
    return Neg.apply(x)


@tensor_method("__pow__")
def power(x: Tensor, exponent: Any) -> Tensor:
    """xᵖ for a constant number p, or an array of one number on the device of x."""
    if isinstance(exponent, Tensor):
        raise TypeError("the exponent of ** is a Python number, not a tensor; write (y * x.log()).exp() for xʸ.")
    return Pow.apply(x, exponent=exponent)


def maximum(a: Tensor, b: Any) -> Tensor:
    """The larger of a and b, elementwise; a tie shares the gradient in halves."""
    return Maximum.apply(*operands(a, b))


def minimum(a: Tensor, b: Any) -> Tensor:
    """The smaller of a and b, elementwise; a tie shares the gradient in halves."""
    return Minimum.apply(*operands(a, b))


@tensor_method("exp")
def exp(x: Tensor) -> Tensor:
    """eˣ."""
    return Exp.apply(x)


@tensor_method("log")
def log(x: Tensor) -> Tensor:
    """The natural logarithm."""
    return Log.apply(x)


@tensor_method("sqrt")
def sqrt(x: Tensor) -> Tensor:
    """√x."""
    return Sqrt.apply(x)


@tensor_method("abs", "__abs__")
def absolute(x: Tensor) -> Tensor:
    """|x|; the gradient at 0 is 0."""
    return Abs.apply(x)


@tensor_method("clip")
def clip(x: Tensor, minimum: float | None = None, maximum: float | None = None) -> Tensor:
    """x held within [minimum, maximum]; the gradient passes inside the interval, bounds included."""
    return Clip.apply(x, minimum=minimum, maximum=maximum)


@tensor_method("astype")
def astype(x: Tensor, dtype: Any) -> Tensor:
    """x converted to another dtype; 'bfloat16' is one too."""
    return AsType.apply(x, dtype=as_dtype(dtype))


@tensor_method("to")
def to(x: Tensor, device: str) -> Tensor:
    """x on 'cpu' or 'cuda'."""
    return x if x.device == device else ToDevice.apply(x, device=device)
