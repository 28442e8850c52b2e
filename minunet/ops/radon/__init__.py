"""The Radon transform of parallel rays, and back-projection, its adjoint.

An image is seen from many angles θ. From each one a line of detectors counts, along parallel rays, what the rays pass. Pixel (v, u), row v
and column u, casts its shadow on the line at

    t = (u − ⌊W/2⌋)·cosθ − (v − ⌊H/2⌋)·sinθ + centre

and the shadow is a triangle of area 1, as wide as a pixel's projection on the axis that the ray crosses:

    A[θ,j; v,u] = Λ((j − t)/c)/c        Λ(s) = max(0, 1 − |s|)        c = max(|cosθ|, |sinθ|)

radon          y[n,θ,j] = Σ_v,u A[θ,j; v,u]·x[n,v,u]        ∂x = Aᵀ ∂y
back_project   x[n,v,u] = Σ_θ,j A[θ,j; v,u]·y[n,θ,j]        ∂y = A ∂x

Both sums are gathers. A ray meets each row (each column, where it is closer to a row's direction) between two pixels, and interpolates
linearly between them: this is Joseph's method (IEEE Trans. Med. Imaging 1:192, 1982). A pixel meets, at each angle, at most two
detectors, because c ≤ 1. So nothing depends on the number of threads, and A and Aᵀ have the same weights.

Shapes: images (…, H, W) ↔ sinograms (…, angles, detectors). Lengths are in pixels; detectors stand one pixel apart. Angles are in degrees
and turn as scikit-image's do: at 0° the rays run along the columns, and detector j sums column j.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minunet.arrays import is_float
from minunet.autograd import Function
from minunet.kernels import Kernels
from minunet.ops.radon.geometry import Geometry
from minunet.shapes import ntuple
from minunet.tensor import Tensor

K: Any = Kernels(__name__, "project", "back_project")


class Radon(Function):
    """y = A x    ∂x = Aᵀ ∂y"""

    def forward(ctx, x: Any, *, geometry: Geometry) -> Any:
        ctx.geometry = geometry
        return project(x, geometry)

    def backward(ctx, gy: Any) -> Any:
        return back_project_array(gy, ctx.geometry)


class BackProject(Function):
    """x = Aᵀ y    ∂y = A ∂x"""

    def forward(ctx, y: Any, *, geometry: Geometry) -> Any:
        ctx.geometry = geometry
        return back_project_array(y, geometry)

    def backward(ctx, gx: Any) -> Any:
        return project(gx, ctx.geometry)


def project(x: Any, geometry: Geometry) -> Any:
    """A x of an array: (…, H, W) → (…, angles, detectors)."""
    return K.project(x.reshape(-1, *geometry.size), geometry).reshape(*x.shape[:-2], *geometry.sinogram)


def back_project_array(y: Any, geometry: Geometry, *, linear: bool = False) -> Any:
    """Aᵀ y of an array: (…, angles, detectors) → (…, H, W).

    linear: not the adjoint, but what filtered back-projection wants: each pixel reads y at its place t by linear interpolation, c = 1.
    """
    return K.back_project(y.reshape(-1, *geometry.sinogram), geometry, linear).reshape(*y.shape[:-2], *geometry.size)


def radon(input: Tensor, angles: Sequence[float], detectors: int | None = None, centre: float | None = None) -> Tensor:
    """Line integrals: images (…, H, W) → sinograms (…, angles, detectors).

    angles: in degrees, any. A missing wedge is angles that are not there. detectors: how many stand on the line, max(H, W) where None;
    what falls beside them is lost. centre: the detector, or the place between two, that sees the axis of rotation, which runs through
    pixel (⌊H/2⌋, ⌊W/2⌋); ⌊detectors/2⌋ where None.
    """
    _check("radon", input, "(…, H, W)")
    return Radon.apply(input, geometry=Geometry.over("radon", (input.shape[-2], input.shape[-1]), angles, detectors, centre))


def back_project(input: Tensor, angles: Sequence[float], size: int | Sequence[int], centre: float | None = None) -> Tensor:
    """The adjoint of `radon`: each pixel sums what the detectors saw that its shadow fell on. (…, angles, detectors) → (…, H, W).

    size: of the image, a number or (H, W). It is no reconstruction: it blurs. `minunet.tomography` has those.
    """
    _check("back_project", input, "(…, angles, detectors)")
    geometry = Geometry.over("back_project", ntuple(size, 2, "size", minimum=1), angles, input.shape[-1], centre)
    geometry.check_sinogram("back_project", input.shape)
    return BackProject.apply(input, geometry=geometry)


def _check(name: str, x: Tensor, expected: str) -> None:
    if x.ndim < 2:
        raise ValueError(f"{name} expects {expected}, got {x.ndim} axes: {x.shape}.")
    if not is_float(x.data):
        raise TypeError(f"{name} needs floating-point numbers, got {x.dtype}. Convert with .astype('float32').")
