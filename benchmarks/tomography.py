"""Reconstructions of phantoms from a missing wedge, and projectors beside scikit-image.

python benchmarks/tomography.py             writes results/tomography.json; most of its time is the training of the network
python benchmarks/tomography.py --quick     tiny: that it works, not how well

Quality: twenty objects of random ellipses, 128², tilts from −60° to 60° in steps of 1°, 2 % of noise. The network sees the
reconstructions of SIRT-FISTA-TV and was trained on other ellipses. A second one is trained by Noise2Noise on filtered back-projections: it
never sees a phantom, cannot fill the wedge, and is judged by phantoms all the same.

Speed: projection and filtered back-projection at 512², 180 angles, float32, in turns with scikit-image in one process.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console

from minunet.bench.measure import FULL, QUICK, Contestant, compare, cores, medians, take_turns, write
from minunet.ops.radon import project
from minunet.ops.radon.geometry import Geometry
from minunet.tomography import ellipses, fbp, noisy, psnr, ssim
from minunet.tomography.methods import ITERATIONS, reconstruct
from minunet.tomography.network import Restorer, Settings, train
from minunet.train.display import LiveDisplay

RESULTS = Path(__file__).parent / "results"
SETTINGS = Settings(size=128, angles=180, wedge=60.0, noise=0.02, phantoms=400, epochs=40, seed=1)
TINY = replace(SETTINGS, size=32, method="fbp", phantoms=8, epochs=1, base_channels=4, depth=2)
TEST_SEED = 0  # of the objects that are judged; the network's have another


def objects(settings: Settings, count: int) -> tuple[Any, Any]:
    """Phantoms (count, size, size) and their noisy sinograms."""
    truths = np.stack([ellipses(settings.size, TEST_SEED, index) for index in range(count)])
    clean = project(truths, settings.geometry)
    return truths, np.stack([noisy(y, settings.noise, (TEST_SEED, index)) for index, y in enumerate(clean)])


def scores(images: Any, truths: Any) -> dict[str, Any]:
    """Mean over the objects, and how many of them differ by how much."""
    each = {name: [score(x, t) for x, t in zip(images, truths, strict=True)] for name, score in (("psnr", psnr), ("ssim", ssim))}
    return {name: {"mean": float(np.mean(values)), "deviation": float(np.std(values))} for name, values in each.items()}


def quality(settings: Settings, count: int, console: Console) -> list[dict[str, Any]]:
    truths, sinograms = objects(settings, count)
    rows: list[dict[str, Any]] = []

    def row(method: str, make: Any, **told: Any) -> Any:
        started = time.perf_counter()
        images = make()
        seconds = (time.perf_counter() - started) / count
        rows.append({"table": "quality", "method": method, **told, **scores(images, truths), "seconds_an_object": seconds})
        console.print(f"{method:24} PSNR {rows[-1]['psnr']['mean']:6.2f} dB  SSIM {rows[-1]['ssim']['mean']:.4f}", highlight=False)
        return images

    for method, iterations in ITERATIONS.items():
        row(method, lambda method=method: reconstruct(sinograms, settings.geometry, method), iterations=iterations)
    for name, own in (("network", settings), ("network, Noise2Noise", replace(settings, targets="noisy", method="fbp"))):
        with TemporaryDirectory() as folder:
            started = time.perf_counter()
            train(own, Path(folder), display=LiveDisplay(console, {"val_loss": "val loss", "psnr": "PSNR"}))
            minutes = (time.perf_counter() - started) / 60
            restorer = Restorer.load(folder)

        def both(own: Settings = own, restorer: Restorer = restorer) -> Any:
            return restorer(reconstruct(sinograms, own.geometry, own.method, own.iterations))

        row(name, both, behind=own.method, training_minutes=minutes)
    return rows


def speed(size: int, angles: int, effort: Any) -> list[dict[str, Any]]:
    from skimage.transform import iradon, radon

    theta = np.arange(angles) * 180 / angles
    geometry = Geometry.over("speed", (size, size), theta.tolist())
    image = ellipses(size, TEST_SEED)
    sinogram = project(image, geometry)
    columns = np.ascontiguousarray(sinogram.T)
    pairs = {
        "projection": (lambda _: project(image, geometry), lambda _: radon(image, theta, circle=True)),
        "filtered back-projection": (lambda _: fbp(sinogram, geometry), lambda _: iradon(columns, theta, filter_name="ramp")),
    }
    rows = []
    for name, (ours, theirs) in pairs.items():
        times = take_turns({"minunet": Contestant(ours), "scikit-image": Contestant(theirs)}, effort)
        told = {"table": "speed", "operation": name, "size": size, "angles": angles, "threads": cores()}
        rows.append({**told, "seconds": medians(times), **compare(times, "minunet", ["scikit-image"])})
    return rows


def main(quick: bool, out: Path) -> None:
    console = Console()
    settings = TINY if quick else SETTINGS
    rows = speed(64 if quick else 512, 18 if quick else 180, QUICK if quick else FULL)
    for row in rows:
        console.print(f"{row['operation']:26} {row['ratio']['median']:.1f} times as fast as scikit-image", highlight=False)
    rows += quality(settings, 2 if quick else 20, console)
    write(out / "tomography.json", {"benchmark": "tomography", "quick": quick, "settings": asdict(settings)}, rows)
    console.print(str(out / "tomography.json"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder for tomography.json")
    given = parser.parse_args()
    main(given.quick, given.out)
