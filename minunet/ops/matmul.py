"""Matrix product y[…,i,j] = Σ_k a[…,i,k]·b[…,k,j]    ∂a = ∂y·bᵀ    ∂b = aᵀ·∂y    (leading axes broadcast)"""

from __future__ import annotations

from typing import Any

from minunet.arrays import sum_to_shape
from minunet.autograd import Function
from minunet.shapes import sizes_text
from minunet.tensor import Tensor, tensor_method


class MatMul(Function):
    def forward(ctx, a: Any, b: Any) -> Any:
        ctx.save(a, b)
        return a @ b

    def backward(ctx, gy: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        ga = sum_to_shape(gy @ b.swapaxes(-1, -2), a.shape) if ctx.needs[0] else None
        gb = sum_to_shape(a.swapaxes(-1, -2) @ gy, b.shape) if ctx.needs[1] else None
        return ga, gb


class Linear(Function):
    """y[n,o] = Σ_c x[n,c]·w[o,c] + b[o]    ∂x = ∂y·w    ∂w = ∂yᵀ·x    ∂b = Σ_n ∂y[n]    (n: all leading axes)"""

    def forward(ctx, x: Any, w: Any, b: Any) -> Any:
        ctx.save(x, w)
        y = x @ w.T
        return y if b is None else y + b

    def backward(ctx, gy: Any) -> tuple[Any, ...]:
        x, w = ctx.saved
        rows = gy.reshape(-1, gy.shape[-1])  # (…, O) → (n, O)
        gx = gy @ w if ctx.needs[0] else None
        gw = rows.T @ x.reshape(-1, x.shape[-1]) if ctx.needs[1] else None
        gb = rows.sum(axis=0) if ctx.needs[2] else None
        return gx, gw, gb


@tensor_method("__matmul__")
def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b: (…, I, K) and (…, K, J) → (…, I, J). A vector is a row on the left, a column on the right; its axis vanishes."""
    if a.ndim == 0 or b.ndim == 0 or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ValueError(f"matmul expects (…, I, K) @ (…, K, J); got {sizes_text(a.shape) or '()'} @ {sizes_text(b.shape) or '()'}.")
    if a.ndim == 1:
        return matmul(a.unsqueeze(0), b).squeeze(-2 if b.ndim > 1 else -1)
    if b.ndim == 1:
        return matmul(a, b.unsqueeze(1)).squeeze(-1)
    return MatMul.apply(a, b)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A fully connected layer: input (…, C), weight (O, C), bias (O) → (…, O)."""
    if input.ndim < 1 or weight.ndim != 2 or input.shape[-1] != weight.shape[1]:
        raise ValueError(f"linear expects input (…, C) and weight (O, C); got {sizes_text(input.shape)} and {sizes_text(weight.shape)}.")
    return Linear.apply(input, weight, bias)
