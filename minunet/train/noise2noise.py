"""Training a network to denoise, mostly without clean images: to a checkpoint that `minunet.inference.Denoiser` reads.

    settings = Settings(images="photos", noise="gaussian", minutes=30)      clean photos, noise that is made
    settings = Settings(images="first", second="second", steps=20000)       two noisy photos of each scene
    settings = Settings(images="noisy", blind_spot=True, steps=20000)       one noisy photo of each

The last two see no clean image at all. Every number that decides the result stands in `Settings`, which is stored in the checkpoint.
Lehtinen et al. 2018, arXiv:1803.04189; for the third Krull et al. 2019, arXiv:1811.10980.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from minunet import data, losses
from minunet import functional as F
from minunet.arrays import check_device
from minunet.cuda import varying
from minunet.data.dataset import Image
from minunet.inference.denoiser import Denoiser, run_network
from minunet.metrics import psnr, ssim
from minunet.models import Noise2NoiseUNet
from minunet.models.noise2noise import MULTIPLE
from minunet.nn import Module
from minunet.optim import Adam
from minunet.rng import manual_seed
from minunet.tensor import Tensor
from minunet.train.loop import Display, Metrics, Run, Trainer, ramp_down, resumed_settings

Rng = np.random.Generator

STEPS = 20_000  # of a run that has no limit of its own
WORKERS = {"cpu": 1, "cuda": 4}  # threads that prepare batches: beside a GPU the processor has nothing else to do
_FREE_ON_RESUME = ("steps", "minutes", "device")  # settings that a resumed run may change


# --- losses: (network's output, targets as a task stacked them, what tells the progress of the run) → one number

Progress = Callable[[], float]


def _l2(output: Tensor, targets: Any, progress: Progress) -> Tensor:
    return losses.squared_error(output, targets)


def _l1(output: Tensor, targets: Any, progress: Progress) -> Tensor:
    return losses.absolute_error(output, targets)


def _l0(output: Tensor, targets: Any, progress: Progress) -> Tensor:
    dtype = output.dtype

    def gamma() -> Any:
        return np.array(2 * (1 - progress()), dtype)

    return losses.annealed_error(output, targets, gamma=varying(gamma(), gamma, output.data))


def _masked(output: Tensor, targets: Any, progress: Progress) -> Tensor:
    """targets: (N, 2, C, *spatial), values and which of them count."""
    return losses.squared_error(output, targets[:, 0], mask=targets[:, 1])


def _hdr(output: Tensor, targets: Any, progress: Progress) -> Tensor:
    return losses.hdr_error(output, targets)


def _mri(output: Tensor, targets: Any, progress: Progress) -> Tensor:
    """targets: (N, 3, C, *spatial), values, the measured frequencies as an image, and the gain that leaves these out."""
    return losses.squared_error(F.fourier_filter(output, Tensor(targets[:, 2])) + Tensor(targets[:, 1]), targets[:, 0])


def halfway() -> float:
    """The progress at which what is held out is judged: a loss that is annealed must be the same in every epoch."""
    return 0.5


Loss = Callable[[Tensor, Any, Progress], Tensor]
LOSSES: dict[str, Loss] = {
    "l2": _l2,
    "l1": _l1,
    "l0": _l0,
    "masked": _masked,
    "hdr": _hdr,
    "mri": _mri,
}
CHOICES = ("l2", "l1", "l0")  # those that a pair of noisy photos may be compared by


@dataclass(frozen=True)
class Settings:
    """All settings of a run.

    images: the folder. With `noise`, one of `minunet.data.NOISES`, its pictures are clean and noise is drawn anew for each visit; with
    `second`, a folder, pictures of the same name show one scene with independent noise; with `blind_spot` the pictures are noisy, and
    each is all there is. One of the three.
    strength: of `noise`, where it is known; None draws one for each image. target: "noisy", a second draw, or "clean", the picture.
    loss: l2, l1 or l0, where the noise has the right mean, median or mode. None takes l2 for `second`, and for `noise` the one that fits
    it; another shows what that is good for. Noises with a loss of their own, and `blind_spot`, leave no choice.
    val_fraction: the share of the pictures that is held out to measure on, 16 at most.
    steps, minutes: the run ends with whichever comes first, the learning rate ramped down over its last 30 %. Without both, 20,000 steps.
    every: steps after which the run is validated and saved, which is called an epoch.
    batch_size, crop: windows a step, and their extent in pixels, divisible by 32.
    learning_rate: of Adam with β = 0.9, 0.99. At 1e-3 a network is sometimes lost: on a few inputs its output grows without end.
    """

    images: str
    noise: str | None = None
    strength: float | None = None
    target: str = "noisy"
    second: str | None = None
    blind_spot: bool = False
    loss: str | None = None
    val_fraction: float = 0.1
    steps: int | None = None
    minutes: float | None = None
    every: int = 500
    batch_size: int = 4
    crop: int = 64
    learning_rate: float = 3e-4
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if (self.noise is not None) + (self.second is not None) + self.blind_spot != 1:
            raise ValueError(
                "say what the pictures are: clean ones that get --noise NAME, the first of two noisy ones with --second DIR, "
                "or single noisy ones with --blind-spot. One of the three."
            )
        if self.noise is not None and self.noise not in data.NOISES:
            raise ValueError(f"there is no noise {self.noise!r}: choose {', '.join(data.NOISES)}.")
        if self.strength is not None:
            if self.noise is None:
                raise ValueError("strength is that of a noise that is made: it needs clean pictures and --noise NAME.")
            data.NOISES[self.noise](self.strength)  # raises for one that this noise does not have
        if self.target not in ("noisy", "clean"):
            raise ValueError(f"target is 'noisy' or 'clean', got {self.target!r}.")
        if self.target == "clean" and self.noise is None:
            raise ValueError("target 'clean' needs clean pictures and --noise NAME: noisy photos have no clean target.")
        if self.loss is not None and self.loss not in CHOICES:
            raise ValueError(f"loss is one of {', '.join(CHOICES)}; got {self.loss!r}.")
        if self.loss is not None and (self.blind_spot or (self.noise is not None and data.NOISES[self.noise].loss not in CHOICES)):
            raise ValueError(f"loss {self.loss!r} cannot be chosen for {self.noise or 'single noisy photos'}, which has a loss of its own.")
        for name in ("steps", "batch_size", "every"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("learning_rate", "minutes"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0, got {getattr(self, name)}.")
        if self.crop < MULTIPLE or self.crop % MULTIPLE:
            fitting = max(-(-self.crop // MULTIPLE), 1) * MULTIPLE
            raise ValueError(f"five poolings need windows divisible by {MULTIPLE}: crop is {self.crop}, use {fitting}.")


# --- the three ways to train


class Task(Protocol):
    """Where targets come from. loss: a name in LOSSES. monitor: the metric that tells the best epoch."""

    @property
    def loss(self) -> str: ...
    @property
    def monitor(self) -> str: ...
    @property
    def higher_is_better(self) -> bool: ...

    def __call__(self, image: Image, other: Image, rng: Rng, size: Any) -> tuple[Image, Any]:
        """A sample of the dataset → (network's input, target), a random window of it; an `augment` of `DataLoader`."""
        ...

    def judge(self, network: Callable[[Image], Image], image: Image, other: Image, rng: Rng) -> Metrics:
        """Metrics on a whole sample that was held out."""
        ...


@dataclass(frozen=True)
class Made:
    """Clean pictures and noise that is made: measured against the clean picture."""

    noise: data.Noise
    loss: str
    clean: bool = False
    monitor = "psnr"
    higher_is_better = True

    def __call__(self, image: Image, other: Image, rng: Rng, size: Any) -> tuple[Image, Any]:
        (window,) = data.random_window([image], rng, size)
        return self.noise.pair(window, rng, clean=self.clean)

    def judge(self, network: Callable[[Image], Image], image: Image, other: Image, rng: Rng) -> Metrics:
        noisy, known = self.noise.trial(image, rng)
        return scores(inside(self.noise.restored(network(noisy), known) + 0.5), image + 0.5)


@dataclass(frozen=True)
class Pairs:
    """Two noisy photos of each scene; each is now the input, now the target. Measured by the loss between them."""

    loss: str
    monitor = "val_loss"
    higher_is_better = False

    def __call__(self, image: Image, other: Image, rng: Rng, size: Any) -> tuple[Image, Any]:
        one, two = data.random_window([image, other], rng, size)
        return (one, two) if rng.integers(2) else (two, one)

    def judge(self, network: Callable[[Image], Image], image: Image, other: Image, rng: Rng) -> Metrics:
        return {"val_loss": LOSSES[self.loss](Tensor(network(image)), other, halfway).item()}


@dataclass(frozen=True)
class Single:
    """One noisy photo of each scene, pixels hidden. Measured by the loss at hidden pixels."""

    hide: data.BlindSpot
    loss = "masked"
    monitor = "val_loss"
    higher_is_better = False

    def __call__(self, image: Image, other: Image, rng: Rng, size: Any) -> tuple[Image, Any]:
        (window,) = data.random_window([image], rng, size)
        return self.hide.pair(window, rng)

    def judge(self, network: Callable[[Image], Image], image: Image, other: Image, rng: Rng) -> Metrics:
        seen, targets = self.hide.pair(image, rng)
        return {"val_loss": LOSSES[self.loss](Tensor(network(seen)[None]), targets[None], halfway).item()}


def inside(picture: Image) -> Image:
    """Clipped to [0, 1], as any file would be."""
    return picture.clip(0, 1)


def scores(picture: Image, clean: Image) -> Metrics:
    """psnr and ssim of a picture against the clean one; both in [0, 1]. ssim is NaN for pictures of less than 11 pixels."""
    return {"psnr": psnr(picture, clean), "ssim": ssim(picture, clean) if min(clean.shape[1:]) >= 11 else float("nan")}


@dataclass(frozen=True)
class Prepared:
    """What a run starts with. config: what `Denoiser` and a resumed run need to know, stored in the checkpoints."""

    model: Noise2NoiseUNet
    loader: data.DataLoader
    validation_set: data.Subset
    task: Task
    epochs: int | None
    config: dict[str, Any]


def prepare(settings: Settings) -> Prepared:
    """Reads the pictures, seeds the random stream and builds the network: the same for the same settings."""
    task: Task
    pictures: data.Pictures | data.PicturePairs
    if settings.noise is not None:
        noise = data.NOISES[settings.noise](settings.strength)
        task, pictures = Made(noise, settings.loss or noise.loss, settings.target == "clean"), data.Pictures(settings.images)
    elif settings.second is not None:
        task, pictures = Pairs(settings.loss or "l2"), data.PicturePairs(settings.images, settings.second)
    else:
        task, pictures = Single(data.BlindSpot()), data.Pictures(settings.images)
    fraction = min(settings.val_fraction, 16 / len(pictures)) if 0 < settings.val_fraction < 1 else settings.val_fraction
    training_set, validation_set = data.split(pictures, fraction, settings.seed)
    manual_seed(settings.seed)
    shape = {"in_channels": pictures.channels, "out_channels": pictures.channels}
    steps = settings.steps or (None if settings.minutes else STEPS)
    epochs = -(-steps // settings.every) if steps else None
    loader = data.DataLoader(
        training_set,
        settings.batch_size,
        shuffle=True,
        augment=task,
        crop=(settings.crop,) * 2,
        seed=settings.seed,
        batches=-(-steps // epochs) if steps and epochs else settings.every,
        workers=WORKERS[settings.device],
        prefetch=2 * WORKERS[settings.device],
    )
    config = {
        "task": "denoising",
        "model": shape,
        "settings": asdict(settings),
        "span": asdict(pictures.span),
        "train": training_set.names,
        "validation": validation_set.names,
    }
    return Prepared(Noise2NoiseUNet(**shape), loader, validation_set, task, epochs, config)


def train(settings: Settings, out: Path, *, resume: bool = False, display: Display | None = None) -> tuple[Run, str]:
    """Trains, or continues the run in `out`; writes checkpoints, logs and pictures there. Returns the run and why it ended."""
    check_device(settings.device)  # before time is spent on the pictures
    prepared = prepare(settings)
    run, reason = fit(settings, prepared, out, resume=resume, display=display)
    if run.history:
        draw(run, Denoiser.load(out, settings.device), prepared, out)
    return run, reason


def fit(settings: Settings, prepared: Prepared, out: Path, *, resume: bool = False, display: Display | None = None) -> tuple[Run, str]:
    """`train` without the pictures it draws."""
    model, task = prepared.model, prepared.task
    loss = LOSSES[task.loss]
    trainer = Trainer(
        model,
        Adam(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99)),
        lambda output, targets: loss(output, targets, lambda: trainer.progress),
        prepared.loader,
        lambda network: validate(network, prepared),
        out=out,
        epochs=prepared.epochs,
        minutes=settings.minutes,
        monitor=task.monitor,
        higher_is_better=task.higher_is_better,
        schedule=ramp_down,
        config=prepared.config,
        device=settings.device,
        display=display,
    )
    if resume:
        trainer.resume(same=("span", "train", "validation"))
    reason = trainer.fit()
    return trainer.run, reason


def resumed(out: Path, changes: dict[str, Any]) -> Settings:
    """The settings of the run in `out`, with those changes that a run can take on its way."""
    return resumed_settings(Settings, out, changes, _FREE_ON_RESUME)


def validate(model: Module, prepared: Prepared) -> Metrics:
    """The means of the task's metrics over the held-out pictures, whole; with the same noise every time."""
    dataset = prepared.validation_set

    def network(image: Image) -> Image:
        return run_network(model, image, tile=1024)

    each = [prepared.task.judge(network, *dataset[i], np.random.default_rng(i)) for i in range(len(dataset))]
    return {name: float(np.mean([metrics[name] for metrics in each])) for name in each[0]}


@dataclass(frozen=True)
class Restored:
    """A noisy image (C, H, W), what the network made of it, and the clean one where it is known; values in [0, 1]."""

    name: str
    noisy: Image
    denoised: Image
    clean: Image | None = None


def draw(run: Run, denoiser: Denoiser, prepared: Prepared, out: Path, count: int = 3) -> None:
    """curves.png, and denoised.png for some of the held-out pictures."""
    from minunet.train.pictures import draw_curves, draw_restored  # noqa: PLC0415  loads matplotlib

    task, dataset = prepared.task, prepared.validation_set
    known = isinstance(task, Made)
    curves = {"losses": ["train_loss"] if known else ["train_loss", "val_loss"], "scores": ["psnr"] if known else []}
    draw_curves(run.history, out / "curves.png", best_epoch=run.best_epoch, **curves)
    examples = []
    for index in np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int).tolist():
        image, _ = dataset[index]
        if isinstance(task, Made):
            noisy, hidden = task.noise.trial(image, np.random.default_rng(index))
            denoised = task.noise.restored(denoiser.output(noisy), hidden)
            examples.append(Restored(dataset.names[index], noisy + 0.5, denoised + 0.5, image + 0.5))
        else:
            examples.append(Restored(dataset.names[index], image + 0.5, denoiser.output(image) + 0.5))
    draw_restored(examples, out / "denoised.png")


@dataclass(frozen=True)
class Verdict:
    """One picture, denoised and measured before and after: psnr and ssim."""

    name: str
    restored: Restored
    before: Metrics
    after: Metrics


def evaluate(
    denoiser: Denoiser, clean: data.Pictures | data.PicturePairs, *, noise: data.Noise | None = None, seed: int = 0
) -> Iterator[Verdict]:
    """PSNR and SSIM before and after, for each picture.

    clean: pictures, to which noise is added at its tested strength and not clipped; or pairs (noisy, clean). noise: None is the one that
    the network was trained to remove. The denoised picture is clipped to [0, 1], as any file would be; the noisy one is left as it is.
    """
    made = noise or denoiser.noise
    for index, name in enumerate(clean.names):
        noisy, image = clean[index]
        known = None
        if isinstance(clean, data.Pictures):
            noisy, known = made.trial(image, np.random.default_rng([seed, index]))
        known = known if type(made) is type(denoiser.noise) else None  # of another noise the network's output knows nothing
        denoised = denoiser.noise.restored(denoiser.output(noisy), known)
        restored = Restored(name, noisy + 0.5, inside(denoised + 0.5), image + 0.5)
        yield Verdict(name, restored, scores(noisy + 0.5, image + 0.5), scores(restored.denoised, image + 0.5))
