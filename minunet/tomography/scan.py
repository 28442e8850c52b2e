"""A real scan: from counts in an HDF5 file to a sinogram, and the axis of rotation.

    y = −ln((data − dark)/(white − dark))        Beer and Lambert: the sum of the absorption along the ray

data are counts with the object in the beam, white without it, dark without the beam; of the last two the mean over all shots is taken. The
file is laid out as Data Exchange has it (De Carlo et al., J. Synchrotron Rad. 21:1224, 2014): exchange/data (angles, rows, detectors),
exchange/data_white, exchange/data_dark, exchange/theta in degrees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minunet.ops.radon.geometry import Geometry
from minunet.tomography.fbp import fbp

Array = np.ndarray[Any, Any]

_LEAST = 1e-4  # the least share of the beam that is believed to have come through
_COARSE = 160  # detectors that the first search for the axis works with


@dataclass(frozen=True)
class Scan:
    """sinogram: (angles, detectors) float32, absorption along each ray; angles in degrees."""

    sinogram: Array
    angles: Array


def read_scan(path: str | Path, row: int = 0) -> Scan:
    """One detector row of a scan in an HDF5 file, divided by the beam and turned into absorption. Needs h5py."""
    path = Path(path)
    try:
        import h5py  # noqa: PLC0415  optional
    except ModuleNotFoundError:
        raise RuntimeError("reading a scan needs h5py, which is not installed: pip install 'minunet[tomography]'.") from None
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}: check the path.")
    try:
        file = h5py.File(path, "r")
    except OSError:
        raise ValueError(f"{str(path)!r} is no HDF5 file, or a damaged one.") from None
    with file:
        data, white, dark = (_stack(file, path, f"exchange/{name}") for name in ("data", "data_white", "data_dark"))
        count, rows, detectors = data.shape
        if not 0 <= row < rows:
            raise ValueError(f"{str(path)!r} has the detector rows 0 … {rows - 1}, got {row}.")
        for name, other in (("data_white", white), ("data_dark", dark)):
            if other.shape[1:] != (rows, detectors) or not len(other):
                raise ValueError(f"{str(path)!r}: {name} has the shape {other.shape}, its last axes should be those of data, {data.shape}.")
        angles = np.asarray(file["exchange/theta"], float) if "exchange/theta" in file else 180 * np.arange(count) / count
        counts, beam, none = (np.asarray(shots[:, row], np.float64) for shots in (data, white, dark))
    if angles.shape != (count,):
        raise ValueError(f"{str(path)!r}: exchange/theta has the shape {angles.shape}, expected one for each of {count} projections.")
    return Scan(absorption(counts, beam.mean(axis=0), none.mean(axis=0)).astype(np.float32), angles)


def absorption(data: Array, white: Array, dark: Array) -> Array:
    """−ln((data − dark)/(white − dark)) for (angles, detectors) counts; white and dark: (detectors,) means.

    A detector that the beam does not reach knows nothing, and takes what lies between its neighbours. A ray of which nothing came through
    counts as one of which 10⁻⁴ did.
    """
    beam = white - dark
    alive = np.isfinite(beam) & (beam > 0)
    if not alive.any():
        raise ValueError("the white shots are nowhere brighter than the dark ones: are the two swapped?")
    through = (data - dark)[:, alive] / beam[alive]
    lost = -np.log(np.maximum(np.nan_to_num(through, nan=_LEAST, posinf=1.0), _LEAST))
    places = np.arange(len(beam))
    return np.stack([np.interp(places, places[alive], line) for line in lost])


def find_centre(sinogram: Array, angles: Array) -> float:
    """The detector, or the place between two, that sees the axis of rotation, to a tenth of a detector.

    An absorption is not negative, and where the axis is wrong, the filtered back-projection is: each edge becomes a pair of arcs, one of
    them dark. So the axis is where the sum of negative values is least (Donath, Beckmann & Schreyer, J. Opt. Soc. Am. A 23:1048, 2006: the
    integral of negativity). It is looked for over the middle half of the line on a coarse sinogram, then more and more finely about the
    best place. The angles must cover half a turn: from fewer the arcs do not close, and every axis looks alike.
    """
    covered = float(np.ptp(angles)) * len(angles) / max(len(angles) - 1, 1)
    if covered < 170:
        raise ValueError(f"the axis of rotation can be found from angles over 180°, these cover {covered:.0f}°: give the centre.")
    detectors = sinogram.shape[1]
    bins = max(detectors // _COARSE, 1)
    coarse = sinogram[:, : detectors // bins * bins].reshape(len(sinogram), -1, bins).mean(axis=2)
    best = _least_negative(coarse, angles, np.arange(coarse.shape[1] / 4, 3 * coarse.shape[1] / 4, 0.5))
    best = (best + 0.5) * bins - 0.5  # in the middle of what was one bin
    for step in (bins / 4, 0.5, 0.1):
        best = _least_negative(sinogram, angles, best + step * np.arange(-4, 5))
    return best


def _least_negative(sinogram: Array, angles: Array, centres: Array) -> float:
    """Of the centres, the one whose reconstruction has the least sum of negative values in the circle that all rays cross."""
    detectors = sinogram.shape[1]
    geometry = Geometry.over("find_centre", (detectors, detectors), angles.tolist(), detectors)
    place = np.arange(detectors) - detectors // 2
    radius = np.hypot(place[:, None], place)
    negative = []
    for centre in centres:
        image = fbp(sinogram, geometry.around(centre))
        seen = radius < math.floor(min(centre, detectors - 1 - centre)) - 1
        negative.append(float(np.minimum(image[seen], 0).sum()) / max(int(seen.sum()), 1))
    return float(centres[int(np.argmax(negative))])


def _stack(file: Any, path: Path, name: str) -> Any:
    found = file.get(name)
    if getattr(found, "ndim", None) != 3:
        what = "has no" if found is None else "has something else than three axes in"
        raise ValueError(f"{str(path)!r} {what} {name}: a scan has exchange/data, data_white and data_dark, each (shots, rows, detectors).")
    return found
