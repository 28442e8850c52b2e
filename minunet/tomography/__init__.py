"""Tomography: from shadows of an object to its cross-section.

    geometry = Geometry.over("scan", (128, 128), tilts(180, wedge=60))
    sinogram = noisy(project(shepp_logan(128), geometry), 0.02, seed=0)
    image = fista_tv(sinogram, geometry)

The projector is an operation with a gradient, `minunet.ops.radon`. Here are phantoms, scans, and what inverts them.
"""

from minunet.ops.radon import project
from minunet.ops.radon.geometry import Geometry
from minunet.tomography.fbp import fbp
from minunet.tomography.fista_tv import fista_tv, total_variation
from minunet.tomography.methods import reconstruct
from minunet.tomography.phantoms import ellipses, noisy, shepp_logan, tilts
from minunet.tomography.scan import Scan, find_centre, read_scan
from minunet.tomography.scores import psnr, ssim
from minunet.tomography.sirt import sirt

__all__ = [
    "Geometry",
    "Scan",
    "ellipses",
    "fbp",
    "find_centre",
    "fista_tv",
    "noisy",
    "project",
    "psnr",
    "read_scan",
    "reconstruct",
    "shepp_logan",
    "sirt",
    "ssim",
    "tilts",
    "total_variation",
]
