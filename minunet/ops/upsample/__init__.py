"""Resampling of the spatial axes: nearest and linear interpolation, separable, one table for each axis.

y[n,c,i₁,i₂,…] = Σ_{t₁,t₂,…} w₁[i₁,t₁]·w₂[i₂,t₂]·… · x[n,c, j₁[i₁,t₁], j₂[i₂,t₂], …]
∂x             = the same sum over the transposed tables

`tables.py` says what source j and weight w are. Nearest has one term an axis, linear two: bilinear reads 4 elements, trilinear 8.
Shapes: (N, C, *spatial) → (N, C, *size).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minunet.arrays import is_float
from minunet.autograd import Function
from minunet.kernels import Kernels
from minunet.ops.upsample.tables import Table, linear_table, nearest_table, transposed
from minunet.shapes import ntuple, sizes_text
from minunet.tensor import Tensor

K = Kernels(__name__, "resample")

LINEAR = {"linear": 1, "bilinear": 2, "trilinear": 3}  # mode: the rank it is for
NEAREST = {"nearest": 0.0, "nearest-exact": 0.5}  # mode: where in an output element its position is taken


class Resample(Function):
    """y[n,c,i] = Σ_t w[i,t]·x[n,c,j[i,t]] along each spatial axis    ∂x = the same with transposed tables"""

    def forward(ctx, x: Any, *, tables: tuple[Table, ...]) -> Any:
        ctx.tables = tables
        return K.resample(x, tables)

    def backward(ctx, gy: Any) -> Any:
        return K.resample(gy, tuple(map(transposed, ctx.tables, ctx.shapes[0][2:])))


def interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Resamples the spatial axes: (N, C, *spatial) → (N, C, *size).

    size or scale_factor: one of them; a number for all axes or one for each. With scale_factor the size is ⌊n·scale_factor⌋, and the
    positions are computed from scale_factor itself, or from the two sizes if recompute_scale_factor.
    mode: 'nearest' or 'nearest-exact' (any rank, any dtype), 'linear', 'bilinear' or 'trilinear' (rank 1, 2, 3).
    align_corners: linear modes only. True makes the centres of the corner elements coincide, False (the default, and Keras' way)
    the outer edges of the image.
    """
    rank = input.ndim - 2
    if antialias:
        raise NotImplementedError("interpolate: antialias=True is not implemented; smooth the input before shrinking it instead.")
    if mode not in LINEAR and mode not in NEAREST:
        raise ValueError(f"interpolate: mode is one of {', '.join([*NEAREST, *LINEAR])}; got {mode!r}.")
    if rank not in (1, 2, 3):
        raise ValueError(f"interpolate expects (N, C, L), (N, C, H, W) or (N, C, D, H, W), got {sizes_text(input.shape) or 'a scalar'}.")
    if LINEAR.get(mode, rank) != rank:
        fitting = next(name for name, of_rank in LINEAR.items() if of_rank == rank)
        raise ValueError(f"interpolate: mode {mode!r} is for {LINEAR[mode]} spatial axes, the input has {rank}: use {fitting!r}.")
    if mode in NEAREST and align_corners is not None:
        raise ValueError(f"interpolate: align_corners belongs to the linear modes; mode is {mode!r}. Leave it out.")
    if mode in LINEAR and not is_float(input.data):
        raise TypeError(f"interpolate: mode {mode!r} needs floating-point numbers, got {input.dtype}. Use 'nearest' for labels.")
    spatial = input.shape[2:]
    sizes, steps = _sizes_and_steps(spatial, size, scale_factor, bool(recompute_scale_factor))
    if min(sizes) < 1 or min(spatial) < 1:
        raise ValueError(f"interpolate: sizes must be at least 1, got {sizes_text(spatial)} → {sizes_text(sizes)}.")
    if mode in NEAREST:
        tables = tuple(nearest_table(n, out, step, NEAREST[mode]) for n, out, step in zip(spatial, sizes, steps, strict=True))
    else:
        tables = tuple(linear_table(n, out, step, bool(align_corners)) for n, out, step in zip(spatial, sizes, steps, strict=True))
    return Resample.apply(input, tables=tables)


def _sizes_and_steps(spatial: tuple[int, ...], size: Any, scale_factor: Any, recompute: bool) -> tuple[tuple[int, ...], list[float]]:
    """The output's size, and the input elements for each output element, on each axis."""
    if (size is None) == (scale_factor is None):
        raise ValueError(f"interpolate: give size or scale_factor, one of them; got size={size} and scale_factor={scale_factor}.")
    if scale_factor is None:
        if recompute:
            raise ValueError("interpolate: recompute_scale_factor means nothing with size. Leave it out, or give scale_factor instead.")
        sizes = ntuple(size, len(spatial), "interpolate: size", minimum=1)
    else:
        scales = tuple(scale_factor) if isinstance(scale_factor, Sequence) else (scale_factor,) * len(spatial)
        if len(scales) != len(spatial) or not all(s > 0 for s in scales):
            raise ValueError(f"interpolate: scale_factor is a positive number or {len(spatial)} of them, got {scale_factor!r}.")
        sizes = tuple(int(n * float(s)) for n, s in zip(spatial, scales, strict=True))
        if not recompute:
            return sizes, [1 / float(s) for s in scales]
    return sizes, [n / max(out, 1) for n, out in zip(spatial, sizes, strict=True)]
