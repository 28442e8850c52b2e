"""The Radon transform and its adjoint on the GPU: the grid for each kernel of radon.cu."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from minunet.arrays import array_module
from minunet.cuda import Source, blocks_for
from minunet.ops.radon.geometry import Geometry, rays

SOURCE = Source(__file__, "radon.cu")
THREADS = 256  # of a block


def project(x: Any, geometry: Geometry) -> Any:
    y = array_module(x).empty((len(x), *geometry.sinogram), dtype=x.dtype)
    kernel = SOURCE.kernel("project", x.dtype)
    kernel(blocks_for(y.size, THREADS), THREADS, x, _rays(array_module(x), geometry), y, _scan(len(x), geometry))
    return y


def back_project(y: Any, geometry: Geometry, linear: bool) -> Any:
    x = array_module(y).empty((len(y), *geometry.size), dtype=y.dtype)
    kernel = SOURCE.kernel("back_project", y.dtype)
    kernel(blocks_for(x.size, THREADS), THREADS, y, _rays(array_module(y), geometry), linear, x, _scan(len(y), geometry))
    return x


@lru_cache(maxsize=32)
def _rays(xp: Any, geometry: Geometry) -> Any:
    return xp.asarray(rays(geometry))


def _scan(images: int, geometry: Geometry) -> dict[str, int]:
    height, width = geometry.size
    return {"images": images, "height": height, "width": width, "angles": len(geometry.angles), "detectors": geometry.detectors}
