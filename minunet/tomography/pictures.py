"""What a reconstruction leaves: the image as numbers and as a picture, and a picture of it beside the sinogram and the truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from matplotlib.figure import Figure
from PIL import Image as Picture

from minunet.files import replacing

Array = np.ndarray[Any, Any]


def write(image: Array, out: Path, *, low: float, high: float) -> None:
    """reconstruction.tif, (H, W) float32 as it is, and reconstruction.png, 8 bits from `low`, black, to `high`, white."""
    shown = np.rint(255 * np.clip((image - low) / max(high - low, 1e-12), 0, 1)).astype(np.uint8)
    with replacing(out / "reconstruction.tif") as path:
        tifffile.imwrite(path, image.astype(np.float32))
    with replacing(out / "reconstruction.png") as path:
        Picture.fromarray(shown).save(path, format="PNG")


def draw(
    path: Path, sinogram: Array, angles: Sequence[float], image: Array, title: str, truth: Array | None, *, low: float, high: float
) -> None:
    """Sinogram and reconstruction; with a truth also that, and the difference."""
    figure = Figure(figsize=(7.2 if truth is None else 14, 3.9), layout="constrained")
    axes = figure.subplots(1, 2 if truth is None else 4)
    axes[0].imshow(sinogram, cmap="gray", aspect="auto", extent=(-0.5, sinogram.shape[1] - 0.5, len(angles) - 0.5, -0.5))
    axes[0].set(title="sinogram", xlabel="detector", ylabel="angle")
    ticks = np.linspace(0, len(angles) - 1, min(len(angles), 5)).astype(int)
    axes[0].set_yticks(ticks, [f"{angles[i]:.0f}°" for i in ticks])
    panels = [(image, title, "gray", low, high)]
    if truth is not None:
        reach = (high - low) / 2
        panels = [(truth, "truth", "gray", low, high), *panels, (image - truth, "reconstruction − truth", "RdBu_r", -reach, reach)]
    for place, (array, name, colours, least, most) in zip(axes[1:], panels, strict=True):
        shown = place.imshow(array, cmap=colours, vmin=least, vmax=most)
        place.set_title(name)
        place.set_axis_off()
    figure.colorbar(shown, ax=axes[-1], shrink=0.8)
    with replacing(path) as beside:
        figure.savefig(beside, format="png", dpi=110)


def extent(image: Array) -> tuple[float, float]:
    """Black and white for an image of which nothing is known: its 0.5th and 99.5th percentile."""
    low, high = np.percentile(image, (0.5, 99.5))
    return float(low), float(high)
