"""A UNet behind a reconstruction: it learns what the noise and the missing angles did to an image, and takes it away.

    x̂ = x + s·UNet(x/s)        s = √(mean of x²), so that the unit of x does not matter

It is trained on pairs, with the mean square error. The input is the reconstruction of a noisy scan of random ellipses. The target is

    'phantom'   the ellipses themselves
    'noisy'     the reconstruction of a second scan of the same object with other noise: Noise2Noise (Lehtinen et al., ICML 2018)

The mean square error is least at the mean of all targets that fit an input. Filtered back-projection is linear, so the noise in such a
target has the mean 0, and the second network learns to remove noise without ever seeing the truth. What both scans miss, the wedge, it
cannot learn: its targets miss it too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minunet import checkpoint, data, nn
from minunet import functional as F
from minunet.autograd import no_grad
from minunet.models import UNet
from minunet.ops.radon import project
from minunet.ops.radon.geometry import Geometry
from minunet.optim import AdamW
from minunet.rng import manual_seed
from minunet.tensor import Tensor
from minunet.tomography.methods import check_method, reconstruct
from minunet.tomography.phantoms import ellipses, noisy, tilts
from minunet.tomography.scores import psnr
from minunet.train.loop import Display, Metrics, Run, Trainer, one_cycle

Array = np.ndarray[Any, Any]

TARGETS = ("phantom", "noisy")
_AT_ONCE = 8  # images that are reconstructed, or restored, together


@dataclass(frozen=True)
class Settings:
    """All settings of a run.

    size, angles, wedge, noise: of the scans, see `tilts` and `noisy`. method, iterations: of the reconstruction that the network gets.
    targets: 'phantom', or 'noisy' with method 'fbp'. phantoms: how many are trained on; a tenth as many more are for validation.
    base_channels, depth: of the UNet. learning_rate: of AdamW, at the peak of the one-cycle schedule.
    """

    size: int = 128
    angles: int = 180
    wedge: float = 60.0
    noise: float = 0.02
    method: str = "fista-tv"
    iterations: int | None = None
    targets: str = "phantom"
    phantoms: int = 200
    epochs: int = 30
    batch_size: int = 8
    base_channels: int = 16
    depth: int = 3
    learning_rate: float = 2e-3
    seed: int = 0

    def __post_init__(self) -> None:
        check_method(self.method, self.iterations)
        if self.targets not in TARGETS:
            raise ValueError(f"targets are 'phantom' or 'noisy', got {self.targets!r}.")
        if self.targets == "noisy" and self.method != "fbp":
            raise ValueError(
                f"the noise in a target has the mean 0 where fbp makes it, which is linear; {self.method} is not. Use method='fbp'."
            )
        for name in ("epochs", "batch_size", "base_channels", "depth", "phantoms"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.size % 2**self.depth:
            raise ValueError(
                f"a UNet of depth {self.depth} needs sizes divisible by {2**self.depth}: size is {self.size}, "
                f"use {-(-self.size // 2**self.depth) * 2**self.depth}."
            )

    @property
    def geometry(self) -> Geometry:
        return Geometry.over("network", (self.size, self.size), tilts(self.angles, self.wedge).tolist())


class Pairs:
    """Reconstructions of scanned ellipses and their targets, both (1, H, W) and divided by the input's scale. Made once and kept.

    first, count: which ellipses; all that is random depends on the settings' seed and an ellipse's number.
    """

    channels, classes = 1, 0

    def __init__(self, settings: Settings, first: int, count: int) -> None:
        self.names = [f"ellipses-{settings.seed}-{index:04d}" for index in range(first, first + count)]
        self.truths = np.stack([ellipses(settings.size, settings.seed, index) for index in range(first, first + count)])
        scans = [project(part, settings.geometry) for part in _parts(self.truths)]
        self.inputs = self._reconstructed(settings, scans, first, scan=1)
        self.scales = np.array([scale(image) for image in self.inputs])
        self.targets = self.truths if settings.targets == "phantom" else self._reconstructed(settings, scans, first, scan=2)

    @staticmethod
    def _reconstructed(settings: Settings, scans: list[Array], first: int, scan: int) -> Array:
        seeds = ((settings.seed, number, scan) for number in range(first, first + sum(map(len, scans))))
        with_noise = ([noisy(y, settings.noise, seed) for y, seed in zip(part, seeds, strict=False)] for part in scans)
        return np.concatenate([reconstruct(np.stack(y), settings.geometry, settings.method, settings.iterations) for y in with_noise])

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        return self.inputs[index, None] / self.scales[index], self.targets[index, None] / self.scales[index]


class Correction(nn.Module):
    """x + UNet(x), (N, 1, H, W): what the UNet learns is the error. It begins with weights of 0 in its last layer, where x̂ is x.

    pad: as in `UNet.forward`.
    """

    def __init__(self, base_channels: int, depth: int) -> None:
        super().__init__()
        self.unet = UNet(1, 1, base_channels=base_channels, depth=depth, norm="batch")
        nn.init.zeros_(self.unet.head.weight)

    def forward(self, x: Tensor, pad: str | None = None) -> Tensor:
        return x + self.unet(x, pad)


class Restorer:
    """Reconstructions → restored reconstructions.

        restorer = Restorer.load("minunet-network")
        image = restorer(fbp(sinogram, geometry, filter="hann"))

    settings: those it was trained with; it restores what `settings.method` makes of such scans.
    """

    def __init__(self, model: Correction, settings: Settings) -> None:
        self.model, self.settings = model.eval(), settings

    @classmethod
    def load(cls, path: str | Path) -> Restorer:
        """From a checkpoint of `train`, or the folder that holds best.safetensors."""
        saved = checkpoint.load_trained(path, "reconstruction")
        settings = Settings(**saved.config["settings"])
        model = Correction(settings.base_channels, settings.depth)
        saved.restore(model=model, rng=False)
        return cls(model, settings)

    def __call__(self, images: Array) -> Array:
        """(…, H, W) of any size → the same shape and dtype."""
        flat = images.reshape(-1, 1, *images.shape[-2:]).astype(np.float32)
        scales = np.array([scale(image) for image in flat], np.float32).reshape(-1, 1, 1, 1)
        with no_grad():
            restored = [self.model(Tensor(part), "reflect").data for part in _parts(flat / scales)]
        return (np.concatenate(restored) * scales).reshape(images.shape).astype(images.dtype)


def make_pairs(settings: Settings) -> tuple[Pairs, Pairs]:
    """For training and for validation."""
    return Pairs(settings, 0, settings.phantoms), Pairs(settings, settings.phantoms, max(settings.phantoms // 10, 1))


def train(settings: Settings, out: Path, *, pairs: tuple[Pairs, Pairs] | None = None, display: Display | None = None) -> tuple[Run, str]:
    """Trains the network and writes checkpoints and logs into `out`. Returns the run and why it ended.

    pairs: those of `make_pairs(settings)`, which are made here where None.
    """
    training, validation = pairs or make_pairs(settings)
    manual_seed(settings.seed)
    model = Correction(settings.base_channels, settings.depth)
    loader: Any = data.DataLoader(training, min(settings.batch_size, len(training)), shuffle=True, seed=settings.seed, drop_last=True)
    trainer = Trainer(
        model,
        AdamW(model.parameters(), lr=settings.learning_rate),
        lambda output, targets: F.mse_loss(output, Tensor(targets)),
        loader,
        lambda network: validate(network, validation),
        out=out,
        epochs=settings.epochs,
        monitor="val_loss",
        higher_is_better=False,
        schedule=one_cycle,
        config={"task": "reconstruction", "settings": asdict(settings)},
        display=display,
    )
    reason = trainer.fit()
    return trainer.run, reason


def validate(model: nn.Module, pairs: Pairs) -> Metrics:
    """val_loss against the targets, and the mean PSNR against the phantoms in dB."""
    inputs, targets = (np.stack(arrays) for arrays in zip(*(pairs[i] for i in range(len(pairs))), strict=True))
    with no_grad():
        outputs = np.concatenate([model(Tensor(part)).data for part in _parts(inputs)])
    images = outputs[:, 0] * pairs.scales[:, None, None]
    scores = [psnr(image, truth) for image, truth in zip(images, pairs.truths, strict=True)]
    return {"val_loss": float(np.mean((outputs - targets) ** 2)), "psnr": float(np.mean(scores))}


def scale(image: Array) -> np.float32:
    """√(mean of the squares); 1 for an image of zeros."""
    return np.float32(np.sqrt(np.mean(np.square(image, dtype=np.float64))) or 1)


def _parts(arrays: Array) -> Iterator[Array]:
    return (arrays[i : i + _AT_ONCE] for i in range(0, len(arrays), _AT_ONCE))
