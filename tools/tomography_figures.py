"""The figures of docs/tomography.md.

python tools/figures.py                                  those that are computed, with all others
python tools/tomography_figures.py PATH/tooth.h5         docs/images/tooth.png, from the scan
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from minunet.tomography import (
    Geometry,
    ellipses,
    fbp,
    find_centre,
    fista_tv,
    noisy,
    project,
    psnr,
    read_scan,
    shepp_logan,
    sirt,
    ssim,
    tilts,
)
from minunet.tomography.pictures import extent

IMAGES = Path(__file__).parents[1] / "docs" / "images"
ORANGE = "#d55e00"


def sinogram() -> Figure:
    """A head with a spot more, and its sinogram: the spot draws a sine."""
    size, row, column = 128, 40, 84
    image = shepp_logan(size)
    image[row - 1 : row + 2, column - 1 : column + 2] = 1.2
    angles = np.arange(180)
    seen = project(image, Geometry.over("figure", image.shape, angles.tolist()))
    theta = np.deg2rad(angles)
    path = (column - size // 2) * np.cos(theta) - (row - size // 2) * np.sin(theta) + size // 2
    figure = Figure(figsize=(8.4, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(image, cmap="gray")
    left.plot(column, row, "o", markersize=13, fillstyle="none", color=ORANGE)
    left.set(title="image x", xlabel="column u", ylabel="row v")
    right.imshow(seen, cmap="gray", aspect="auto", extent=(-0.5, size - 0.5, 180, 0))
    right.plot(path, angles + 0.5, ":", color=ORANGE, linewidth=1.5)
    right.set(title="sinogram y = A x", xlabel="detector", ylabel="angle, in degrees")
    return figure


def reconstructions() -> Figure:
    """A wedge of 60° is missing, 2 % noise."""
    truth = ellipses(128, seed=1)
    geometry = Geometry.over("figure", truth.shape, tilts(180, 60).tolist())
    scan = noisy(project(truth, geometry), 0.02, seed=0)
    images = {
        "filtered back-projection": fbp(scan, geometry, filter="hann"),
        "SIRT": sirt(scan, geometry, nonnegative=True),
        "SIRT-FISTA-TV": fista_tv(scan, geometry),
    }
    figure = Figure(figsize=(11, 3.3), layout="constrained")
    for axes, (name, image) in zip(figure.subplots(1, 4), {"truth": truth, **images}.items(), strict=True):
        axes.imshow(image, cmap="gray", vmin=0, vmax=float(truth.max()))
        scores = "" if image is truth else f"\n{psnr(image, truth):.1f} dB, SSIM {ssim(image, truth):.2f}"
        axes.set_title(name + scores, fontsize=10)
        axes.set_axis_off()
    return figure


def tooth(path: Path) -> Figure:
    """Two reconstructions of the scan: with the axis that was found, and with the middle of the detectors for an axis."""
    scan = read_scan(path)
    detectors = scan.sinogram.shape[1]
    found = find_centre(scan.sinogram, scan.angles)
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, *others = figure.subplots(1, 3)
    left.imshow(scan.sinogram, cmap="gray", aspect="auto")
    left.set(title="sinogram", xlabel="detector", ylabel="angle, in degrees")
    for axes, centre in zip(others, (detectors // 2, found), strict=True):
        geometry = Geometry.over("figure", (detectors, detectors), scan.angles.tolist(), detectors, centre)
        image = fbp(scan.sinogram, geometry, filter="hann")
        border = detectors // 5
        image = image[border:-border, border:-border]
        low, high = extent(image)
        axes.imshow(image, cmap="gray", vmin=low, vmax=high)
        axes.set_title(f"axis at detector {centre:.1f}", fontsize=10)
        axes.set_axis_off()
    return figure


FIGURES = {"sinogram": sinogram, "reconstructions": reconstructions}

if __name__ == "__main__":
    tooth(Path(sys.argv[1])).savefig(IMAGES / "tooth.png", dpi=90, metadata={"Software": None})
