"""What a run looks like: curves.png over the epochs, predictions.png or denoised.png on images it did not train on. No window."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from minunet.files import replacing

if TYPE_CHECKING:
    from minunet.train.noise2noise import Restored

Array = np.ndarray[Any, Any]

# told apart with any kind of colour vision (Wong, Nature Methods 8:441, 2011)
GREEN, VERMILION, BLUE = "#009e73", "#d55e00", "#0072b2"


@dataclass(frozen=True)
class Example:
    """An image (C, H, W), its true classes (H, W) and the predicted probabilities (classes, H, W)."""

    name: str
    image: Array
    truth: Array
    probabilities: Array


def draw_curves(history: list[dict[str, float]], path: Path, *, losses: list[str], scores: list[str], best_epoch: int) -> None:
    """Losses on the left, scores on the right if there are any, over the epochs; a dotted line marks the best one."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    epochs = [row["epoch"] for row in history]
    panels = [(names, title) for names, title in ((losses, "loss"), (scores, "score on the validation images")) if names]
    for axes, (names, title) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name in names:
            axes.plot(epochs, [row[name] for row in history], marker="." if len(epochs) < 30 else None, label=name.replace("_", " "))
        axes.axvline(best_epoch, color="0.6", linestyle=":")
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, path)


def draw_restored(examples: list[Restored], path: Path) -> None:
    """A row for each example: noisy, denoised, clean, and the difference of the last two; where nothing clean is known, what was removed.

    Differences are shown in gray where there is none, and at full contrast where they reach a tenth of the range.
    """
    columns = 4 if any(example.clean is not None for example in examples) else 3
    figure = Figure(figsize=(3.1 * columns, 3.3 * len(examples)), layout="constrained")
    grid = figure.subplots(len(examples), columns, squeeze=False)
    for row, example in zip(grid, examples, strict=True):
        shown = [(example.name, example.noisy), ("denoised", example.denoised)]
        if example.clean is None:
            shown.append(("noisy − denoised", 0.5 + example.noisy - example.denoised))
        else:
            shown += [("clean", example.clean), ("denoised − clean, ×5", 0.5 + 5 * (example.denoised - example.clean))]
        for axes, (title, picture) in zip(row, shown, strict=False):
            axes.imshow(
                np.clip(np.moveaxis(picture, 0, -1) if len(picture) == 3 else picture.mean(axis=0), 0, 1), cmap="gray", vmin=0, vmax=1
            )
            axes.set_title(title, fontsize=10)
        for axes in row:
            axes.set_axis_off()
    _save(figure, path)


def draw_predictions(examples: list[Example], path: Path, *, class_names: list[str]) -> None:
    """A row for each example: image, truth, probability, and where truth and prediction agree and differ."""
    binary = len(class_names) == 2
    figure = Figure(figsize=(12, 3.05 * len(examples) + 0.5), layout="constrained")
    grid = figure.subplots(len(examples), 4, squeeze=False)
    palette = ListedColormap(["black", GREEN, VERMILION, BLUE, "gold", "orchid", "skyblue", "white"])
    for row, example in zip(grid, examples, strict=True):
        row[0].imshow(_displayable(example.image), cmap="gray")
        row[0].set_title(example.name, fontsize=10)
        row[1].set_title("truth", fontsize=10)
        row[2].set_title(f"probability of {class_names[1]}" if binary else "prediction", fontsize=10)
        if binary:
            row[1].imshow(example.truth, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            shown = row[2].imshow(example.probabilities[1], cmap="viridis", vmin=0, vmax=1)
            figure.colorbar(shown, ax=row[2], shrink=0.8)
        else:
            for axes, classes in ((row[1], example.truth), (row[2], example.probabilities.argmax(axis=0))):
                axes.imshow(classes % palette.N, cmap=palette, vmin=0, vmax=palette.N - 1, interpolation="nearest")
        row[3].imshow(overlay(example.image, example.truth, example.probabilities.argmax(axis=0), binary=binary))
        row[3].set_title("agreement", fontsize=10)
        for axes in row:
            axes.set_axis_off()
    figure.legend(handles=_legend(class_names, binary), loc="outside lower center", ncols=3, frameon=False)
    _save(figure, path)


def overlay(image: Array, truth: Array, predicted: Array, *, binary: bool) -> Array:
    """The image in gray under colours, (H, W, 3): green where an object was found, vermilion where one was invented, blue
    where one was missed. With more classes: green for the right class, vermilion for a wrong one."""
    gray = _displayable(image)
    base = np.repeat(gray[..., None], 3, axis=2) if gray.ndim == 2 else gray
    colored = base.copy()
    kinds = [((truth == predicted) & (truth > 0), GREEN), (truth != predicted, VERMILION)]
    if binary:
        kinds = [*kinds, ((truth == 1) & (predicted == 0), BLUE)]
    for where, color in kinds:
        colored[where] = 0.5 * base[where] + 0.5 * np.array(to_rgb(color))
    return colored


def _legend(class_names: list[str], binary: bool) -> list[Patch]:
    texts = [(GREEN, "right class"), (VERMILION, "wrong class")]
    if binary:
        name = class_names[1]
        texts = [
            (GREEN, f"{name}, found (true positive)"),
            (VERMILION, f"not {name} (false positive)"),
            (BLUE, f"{name}, missed (false negative)"),
        ]
    return [Patch(color=color, label=text) for color, text in texts]


def _displayable(image: Array) -> Array:
    """(C, H, W) → gray (H, W) or colour (H, W, 3) in [0, 1], stretched between the 1st and 99th percentile."""
    picture = np.moveaxis(image, 0, -1) if len(image) == 3 else image.mean(axis=0)
    low, high = np.percentile(picture, (1, 99))
    return np.clip((picture - low) / max(high - low, 1e-9), 0, 1)


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as beside:
        figure.savefig(beside, format="png", dpi=110)
