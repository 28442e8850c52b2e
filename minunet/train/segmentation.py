"""Training a UNet to segment: from a source of images and masks to a checkpoint that `minunet.inference.Segmenter` reads.

    settings = preset("isbi2012", epochs=40)
    run = train(settings, Path("minunet-isbi2012"))

Every number that decides the result stands in `Settings`, which is stored in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minunet import data, losses
from minunet.arrays import check_device, to_device
from minunet.autograd import no_grad
from minunet.inference.segmenter import Segmenter
from minunet.inference.tiles import predict_tiles
from minunet.metrics import Confusion, class_map
from minunet.models import UNet
from minunet.nn import Module
from minunet.optim import AdamW
from minunet.rng import manual_seed
from minunet.tensor import Tensor
from minunet.train.loop import Display, Metrics, Run, Trainer, one_cycle, resumed_settings
from minunet.train.precision import check_precision

Array = np.ndarray[Any, Any]
Dataset = data.SegmentationDataset

_FREE_ON_RESUME = ("epochs", "minutes", "patience", "device", "precision")  # settings that a resumed run may change


@dataclass(frozen=True)
class Settings:
    """All settings of a run, with the defaults for a folder of your own images.

    source: isbi2012, dsb2018, cells, or folder (then `images` and `masks` are the folders; binary: all mask values above 0
    are one class). val_fraction: the share of a folder that is held out; the known sets have their own split.
    epochs, minutes: the run ends with whichever comes first, its learning rate annealed. patience: it ends after so many epochs
    without a better one.
    batch_size, crop: images a batch, and the extent of the random window taken from each (0: whole images).
    repeats: how often an epoch visits each image, with another window each time.
    base_channels, depth, norm, up, dropout: of the UNet.
    learning_rate, weight_decay: of AdamW, at the peak of the one-cycle schedule.
    elastic, angle, scale, intensity: of the augmentation, see `minunet.data.Augment`; flips and quarter turns are always on.
    precision: float32, or on device cuda tf32, fp16 or bf16, see `minunet.train.precision`.
    """

    source: str = "folder"
    images: str | None = None
    masks: str | None = None
    binary: bool = False
    val_fraction: float = 0.2
    epochs: int = 60
    minutes: float | None = None
    patience: int | None = None
    batch_size: int = 4
    crop: int = 256
    repeats: int = 1
    base_channels: int = 16
    depth: int = 4
    norm: str | None = "batch"
    up: str = "transposed"
    dropout: float = 0.0
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    elastic: float = 0.0
    angle: float = 0.0
    scale: float = 0.0
    intensity: float = 0.1
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name, least in {"epochs": 1, "batch_size": 1, "crop": 0, "repeats": 1, "base_channels": 1, "depth": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")
        for name in ("learning_rate", "minutes"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0, got {getattr(self, name)}.")
        check_precision(self.precision, self.device)
        if self.batch_size == 1 and self.norm == "batch":
            raise ValueError(
                "batch norm in a batch of one image learns that image's statistics alone, which do not serve others: "
                "use a batch size of 4 or more, or norm 'instance', 'group' or 'none'."
            )
        if self.crop % 2**self.depth:
            raise ValueError(
                f"a UNet of depth {self.depth} needs windows divisible by {2**self.depth}: crop is {self.crop}, "
                f"use {-(-self.crop // 2**self.depth) * 2**self.depth}."
            )


PRESETS: dict[str, dict[str, Any]] = {
    "isbi2012": {"epochs": 60, "crop": 256, "batch_size": 4, "repeats": 4, "learning_rate": 5e-3, "elastic": 10.0, "intensity": 0.2},
    "dsb2018": {"epochs": 24, "crop": 256, "batch_size": 4, "learning_rate": 5e-3, "intensity": 0.2},
    "cells": {"epochs": 16, "crop": 128, "batch_size": 8, "base_channels": 8, "depth": 3, "learning_rate": 5e-3},
    "folder": {},
}


def preset(source: str, **changes: Any) -> Settings:
    """The settings for a source, with changes."""
    if source not in PRESETS:
        raise ValueError(f"there is no source {source!r}: choose {', '.join(KNOWN)}, or give --images DIR --masks DIR.")
    return Settings(source=source, **{**PRESETS[source], **changes})


KNOWN = {  # the sets that have a name, and the names of their classes
    "isbi2012": ["cell", "membrane"],
    "dsb2018": ["background", "nucleus"],
    "cells": ["background", "cell"],
}


def open_known(source: str, part: str) -> Dataset:
    """A part of a known set: 'train', 'validation' or 'test'."""
    if source == "isbi2012":
        return data.ISBI2012(split=part)
    if source == "dsb2018":
        return data.DSB2018(split=part)
    counts = {"train": 160, "validation": 16, "test": 16}  # other seeds make other cells
    return InMemory(data.GeneratedCells(counts[part], 128, seed=list(counts).index(part)))


def open_source(settings: Settings) -> tuple[Dataset, Dataset, list[str]]:
    """The images to train on, those to validate on, and the names of the classes."""
    if settings.source in KNOWN:
        return open_known(settings.source, "train"), open_known(settings.source, "validation"), KNOWN[settings.source]
    if settings.images is None or settings.masks is None:
        raise ValueError("name a source (isbi2012, dsb2018, cells), or your own folders with --images and --masks.")
    folder = data.ImageMaskFolder(settings.images, settings.masks, binary=settings.binary)
    names = ["background", "object"] if folder.classes == 2 else [f"class {i}" for i in range(folder.classes)]
    training, validation = data.split(folder, settings.val_fraction, settings.seed)
    return training, validation, names


@dataclass(frozen=True)
class Prepared:
    """What a run starts with. config: what `Segmenter` and a resumed run need to know, stored in the checkpoints."""

    model: UNet
    loader: data.DataLoader
    validation_set: Dataset
    standardize: data.Standardize
    class_names: list[str]
    config: dict[str, Any]


def prepare(settings: Settings) -> Prepared:
    """Opens the images, seeds the random stream and builds the network: the same for the same settings."""
    train_set, validation_set, class_names = open_source(settings)
    manual_seed(settings.seed)
    channels, classes = train_set.channels, train_set.classes
    shape: dict[str, Any] = {
        "in_channels": channels,
        "out_channels": 1 if classes == 2 else classes,
        "base_channels": settings.base_channels,
        "depth": settings.depth,
        "norm": settings.norm,
        "up": settings.up,
        "dropout": settings.dropout,
    }
    model = UNet(**shape)
    standardize = data.Standardize.fit(train_set)
    augment = data.Augment(elastic=settings.elastic, angle=settings.angle, scale=settings.scale, intensity=settings.intensity)
    visits = data.Subset(train_set, list(range(len(train_set))) * settings.repeats)
    loader = data.DataLoader(
        visits,
        min(settings.batch_size, len(visits)),
        shuffle=True,
        augment=augment,
        standardize=standardize,
        crop=(settings.crop,) * 2 if settings.crop else None,
        seed=settings.seed,
        drop_last=True,
    )
    config = {
        "task": "segmentation",
        "model": shape,
        "settings": asdict(settings),
        "standardize": standardize.to_dict(),
        "class_names": class_names,
        "masks": {"binary": getattr(data_of(train_set), "binary", False), "values": list(getattr(data_of(train_set), "values", ()))},
        "train": list(train_set.names),
        "validation": list(validation_set.names),
    }
    return Prepared(model, loader, validation_set, standardize, class_names, config)


def train(settings: Settings, out: Path, *, resume: bool = False, display: Display | None = None) -> tuple[Run, str]:
    """Trains, or continues the run in `out`; writes checkpoints, logs and pictures there. Returns the run and why it ended."""
    check_device(settings.device)  # before time is spent on the images
    prepared = prepare(settings)
    model, config = prepared.model, prepared.config
    trainer = Trainer(
        model,
        AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay),
        losses.dice_cross_entropy,
        prepared.loader,
        lambda network: validate(predictor(network), prepared),
        out=out,
        epochs=settings.epochs,
        minutes=settings.minutes,
        patience=settings.patience,
        monitor="dice",
        schedule=one_cycle,
        config=config,
        device=settings.device,
        precision=settings.precision,
        display=display,
    )
    if resume:
        trainer.resume(same=("standardize", "train", "validation"))
    reason = trainer.fit()
    if trainer.run.history:
        draw(trainer.run, Segmenter.load(trainer.best, settings.device), prepared.validation_set, out)
    return trainer.run, reason


def resumed(out: Path, changes: dict[str, Any]) -> Settings:
    """The settings of the run in `out`, with those changes that a run can take on its way."""
    return resumed_settings(Settings, out, changes, _FREE_ON_RESUME)


def predictor(model: Module) -> Callable[[Array], Array]:
    """The function from images (N, C, *spatial) to logits (N, K, *spatial), without a graph."""
    device = next(model.parameters()).device

    def predict(images: Array) -> Array:
        with no_grad():
            return to_device(model(Tensor(to_device(images, device))).data, "cpu")

    return predict


def validate(predict: Callable[[Array], Array], prepared: Prepared) -> Metrics:
    """val_loss, the mean over whole images, and the `scores` over the pixels of all of them. predict: see `predictor`."""
    dataset, multiple = prepared.validation_set, 2**prepared.model.depth
    confusion, loss = Confusion(len(prepared.class_names)), 0.0
    for image, mask in (dataset[i] for i in range(len(dataset))):
        logits = predict_tiles(predict, prepared.standardize(image), tile=1024, margin=0, multiple=multiple)[None]
        loss += losses.dice_cross_entropy(Tensor(logits), mask[None]).item() / len(dataset)
        confusion.add(class_map(logits)[0], mask)
    return {"val_loss": loss, **scores(confusion, prepared.class_names)}


def scores(confusion: Confusion, class_names: Sequence[str]) -> Metrics:
    """pixel_error; dice and iou, means over the classes but the background; then dice_NAME and iou_NAME of each class.

    A class that is in no mask and was found nowhere counts 1: nothing to find, nothing found.
    """
    each = {score: np.nan_to_num(getattr(confusion, score), nan=1.0) for score in ("dice", "iou")}
    means = {score: float(values[1:].mean()) for score, values in each.items()}
    named = {f"{score}_{name}": float(value) for score in each for name, value in zip(class_names, each[score], strict=True)}
    return {"pixel_error": confusion.pixel_error, **means, **named}


def evaluate(segmenter: Segmenter, dataset: Dataset, *, tta: bool = False) -> list[Confusion]:
    """The confusion matrix of each image, predicted whole as `minunet predict` does."""
    if dataset.classes != len(segmenter.class_names):
        raise ValueError(f"the model tells {len(segmenter.class_names)} classes apart, the masks hold {dataset.classes}.")
    samples = (dataset[i] for i in range(len(dataset)))
    return [Confusion(dataset.classes).add(segmenter.classes(segmenter(image, tta=tta)), mask) for image, mask in samples]


def pooled(confusions: Sequence[Confusion]) -> Confusion:
    """One matrix over the pixels of all images."""
    total = Confusion(confusions[0].classes)
    total.counts += np.sum([confusion.counts for confusion in confusions], axis=0)
    return total


def draw(run: Run, segmenter: Segmenter, dataset: Dataset, out: Path, count: int = 3) -> None:
    """curves.png, and predictions.png for some images of the dataset."""
    from minunet.train.pictures import Example, draw_curves, draw_predictions  # noqa: PLC0415  loads matplotlib

    shown = [f"dice_{name}" for name in segmenter.class_names]
    draw_curves(
        run.history, out / "curves.png", losses=["train_loss", "val_loss"], scores=[*shown, "pixel_error"], best_epoch=run.best_epoch
    )
    examples = []
    for index in np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int):
        image, mask = dataset[int(index)]
        examples.append(Example(dataset.names[int(index)], image, mask, segmenter(image)))
    draw_predictions(examples, out / "predictions.png", class_names=segmenter.class_names)


def data_of(dataset: Any) -> Any:
    """The dataset that a subset was taken from."""
    return data_of(dataset.dataset) if hasattr(dataset, "dataset") else dataset


class InMemory:
    """A dataset whose samples are made once and kept."""

    def __init__(self, dataset: Dataset) -> None:
        self.samples = [dataset[i] for i in range(len(dataset))]
        self.classes, self.channels, self.names = dataset.classes, dataset.channels, dataset.names

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        return self.samples[index]
