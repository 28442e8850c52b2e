"""Draws the figures of the documentation from the program itself, into docs/images.

python tools/figures.py                 all but the following
python tools/figures.py minunet-demo    demo.png and features.png, from the folder that `minunet demo` left
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import convolution_figures
import numpy as np
import tomography_figures
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image as Picture

import minunet as mu
from minunet import functional as F
from minunet import losses
from minunet.data import SegmentationDataset
from minunet.inference import Segmenter
from minunet.inspection import feature_maps, summary
from minunet.models import UNet
from minunet.train.pictures import Example, draw_predictions
from minunet.train.segmentation import open_known

IMAGES = Path(__file__).parents[1] / "docs" / "images"
BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"


def _grid(axes: Axes, values: np.ndarray, title: str, colours: np.ndarray | None = None, top: float = 1.0, form: str = "{:.0f}") -> None:
    """A grid of squares with a number in each; colours: 0 … top, from white to blue."""
    shades = ListedColormap([tuple(1 - t * (1 - np.array([0.35, 0.62, 0.85]))) for t in np.linspace(0, 1, 256)])
    axes.imshow(np.zeros_like(values) if colours is None else colours, cmap=shades, vmin=0, vmax=top)
    for (row, column), value in np.ndenumerate(values):
        axes.text(column, row, form.format(value), ha="center", va="center", fontsize=9)
    axes.set_xticks(np.arange(values.shape[1] + 1) - 0.5, [])
    axes.set_yticks(np.arange(values.shape[0] + 1) - 0.5, [])
    axes.grid(color="0.7", linewidth=0.8)
    axes.tick_params(length=0)
    axes.set_title(title, fontsize=10)


def convolution() -> Figure:
    """One window of a 3×3 convolution, and the number it gives."""
    x = np.zeros((6, 6))
    x[1:5, 2:5] = 1
    w = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    y = F.conv2d(mu.tensor(x[None, None]), mu.tensor(w[None, None].astype(float))).data[0, 0]
    figure = Figure(figsize=(8.6, 4.0), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[6, 3, 4])
    _grid(left, x, "input 6×6", x)
    _grid(middle, w, "weights 3×3")
    _grid(right, y, "output 4×4", np.abs(y), top=6)
    row, column = 1, 0
    left.add_patch(Rectangle((column - 0.5, row - 0.5), 3, 3, fill=False, edgecolor=ORANGE, linewidth=3))
    right.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=ORANGE, linewidth=3))
    return figure


def max_pool() -> Figure:
    """Forward: the largest of each window. Backward: its gradient goes to where it came from."""
    x = mu.tensor(np.array([[1.0, 3, 2, 2], [0, 2, 5, 1], [4, 1, 0, 1], [2, 2, 3, 2]])[None, None], requires_grad=True)
    y = F.max_pool2d(x, 2)
    gy = np.array([[10.0, 20], [30, 40]])
    y.backward(gy[None, None])
    figure = Figure(figsize=(9.6, 2.7), layout="constrained")
    plots = figure.subplots(1, 4, width_ratios=[4, 2.4, 2.4, 4])
    won = (x.grad[0, 0] > 0).astype(float)
    _grid(plots[0], x.data[0, 0], "input", won)
    _grid(plots[1], y.data[0, 0], "output", np.ones((2, 2)))
    _grid(plots[2], gy, "slope at the output", np.ones((2, 2)))
    _grid(plots[3], x.grad[0, 0], "slope at the input", won)
    for axes in (plots[0], plots[3]):
        axes.axhline(1.5, color="0.2", linewidth=2)
        axes.axvline(1.5, color="0.2", linewidth=2)
    return figure


def transposed_overlap() -> Figure:
    """How many windows of a transposed convolution reach each output pixel: ones in, ones as weights."""
    figure = Figure(figsize=(9.6, 3.5), layout="constrained")
    for axes, kernel in zip(figure.subplots(1, 3), (2, 3, 4), strict=True):
        ones = mu.tensor(np.ones((1, 1, 4, 4)))
        counts = F.conv_transpose2d(ones, mu.tensor(np.ones((1, 1, kernel, kernel))), stride=2).data[0, 0]
        _grid(axes, counts, f"{kernel}×{kernel} windows, stride 2", counts - 1, top=4)
    return figure


def unet_shapes() -> Figure:
    """The 2015 network for an input of 572×572: every box is a layer's output, its shape read from the network."""
    rows = summary(UNet(1, 2, padding="valid"), (1, 572, 572)).rows
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(-1.3, 33.2), ylim=(-4.75, 0.9))
    axes.set_axis_off()
    colours = {"Conv2d": BLUE, "MaxPool2d": ORANGE, "ConvTranspose2d": GREEN, "concatenate": "0.55", "input": "0.2"}

    def box(x: float, level: int, channels: int, size: int, kind: str) -> None:
        width, height = 0.12 + 0.06 * np.log2(channels), 0.25 + 0.55 * size / 572
        axes.add_patch(Rectangle((x, -level - height / 2), width, height, facecolor=colours[kind], alpha=0.75))
        axes.text(x + width / 2, -level + height / 2 + 0.03, str(channels), ha="center", va="bottom", fontsize=7.5)
        axes.text(x + width / 2, -level - height / 2 - 0.03, f"{size}²", ha="center", va="top", fontsize=7.5)

    x, level, skips = 0.0, 0, []
    box(-1, 0, 1, 572, "input")
    for row in rows:
        kind, (_, channels, size, _) = row.kind.split(" ")[0], row.output_shape
        if kind == "MaxPool2d":
            skips.append((x - 0.3, level))
            x, level = x - 0.2, level + 1
        elif kind == "ConvTranspose2d":
            x, level = x + 0.1, level - 1
        elif kind == "concatenate":
            start, at = skips.pop()
            arrow = {"arrowstyle": "->", "color": "0.55", "linestyle": "--"}
            axes.annotate("", (x - 1.2, -at + 0.12), (start, -at + 0.12), arrowprops=arrow)
            axes.text((start + x) / 2 - 0.5, -at + 0.15, f"crop to {size}²", ha="center", va="bottom", fontsize=7.5)
        box(x, level, channels, size, kind)
        x += 1.1
    names = {"3×3 convolution, ReLU (the last: 1×1)": BLUE, "2×2 max pooling": ORANGE, "2×2 up-convolution": GREEN, "concatenation": "0.55"}
    axes.legend(handles=[Rectangle((0, 0), 1, 1, color=c, alpha=0.75, label=n) for n, c in names.items()], loc="lower left", fontsize=8)
    return figure


def losses_compared() -> Figure:
    """Left: one pixel. Right: everything called background, against the object's share."""

    def logits(p: np.ndarray) -> mu.Tensor:
        """p: probabilities (pixels,) of class 1 → logits (1, 2, pixels)."""
        return mu.tensor(np.stack([np.zeros_like(p), np.log(p / (1 - p))])[None])

    kinds: list[tuple[str, str, str, Callable[[mu.Tensor, np.ndarray], mu.Tensor]]] = [
        ("cross-entropy", BLUE, "-", losses.categorical_cross_entropy),
        ("cross-entropy, lecture", BLUE, "--", lambda z, t: losses.categorical_cross_entropy(z, t, normalization="lecture")),
        ("Dice", ORANGE, "-", lambda z, t: losses.dice_loss(z, t, smooth=0)),
        ("Dice, lecture", ORANGE, "--", losses.lecture_dice_loss),
    ]
    figure = Figure(figsize=(9.6, 3.7), layout="constrained")
    left, right = figure.subplots(1, 2)
    p, shares = np.linspace(0.01, 0.999, 200), np.array([1, 2, 5, 10, 20, 50, 100, 200, 500]) / 1000
    nobody = logits(np.full(1000, 0.01))
    for name, colour, dash, loss in kinds:
        left.plot(p, [loss(logits(np.array([q])), np.ones((1, 1), int)).item() for q in p], dash, color=colour, label=name)
        targets = [(np.arange(1000) < 1000 * share).astype(int)[None] for share in shares]
        right.plot(shares, [loss(nobody, target).item() for target in targets], dash, color=colour, marker=".")
    left.set(title="one pixel", xlabel="probability of its true class", ylabel="loss", ylim=(0, 3))
    right.set(title="all called background (p = 0.01)", xlabel="share of the object in the image", xscale="log", ylim=(0, 3))
    right.set_xticks([0.001, 0.01, 0.1, 0.5], ["0.1 %", "1 %", "10 %", "50 %"])
    for axes in (left, right):
        axes.grid(alpha=0.3)
    left.legend()
    return figure


def noisy_targets() -> Figure:
    """Left: observations of one value, a quarter of them right. Right: the expected loss of each answer, and the answer that is best."""
    rng = np.random.default_rng(0)
    seen = np.where(rng.random(20_000) < 0.25, 0.2, rng.random(20_000))
    answers = np.linspace(0, 1, 201)
    kinds = [
        ("γ = 2 (L2): the mean", 2.0, BLUE),
        ("γ = 1 (L1): the median", 1.0, ORANGE),
        ("γ = 0.3, on the way to L0: the mode", 0.3, GREEN),
    ]
    figure = Figure(figsize=(9.6, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.hist(seen, bins=50, range=(0, 1), color="0.75")
    left.set(title="20,000 observations of 0.2", xlabel="observed", ylabel="how often")
    for name, gamma, colour in kinds:
        costs = np.array([losses.annealed_error(mu.tensor(np.full(seen.shape, f)), seen, gamma=gamma).item() for f in answers])
        costs = (costs - costs.min()) / (costs.max() - costs.min())
        best = answers[costs.argmin()]
        left.axvline(best, color=colour, linewidth=2)
        right.plot(answers, costs, color=colour, label=name)
        right.plot(best, 0, "o", color=colour)
    right.set(title="expected loss, scaled to 0 … 1", xlabel="answer f")
    right.grid(alpha=0.3)
    right.legend()
    return figure


def denoising_curves() -> Figure:
    """PSNR on held-out pictures over the steps, with noisy and with clean targets; a panel for each machine in benchmarks/results."""
    paths = sorted((IMAGES.parents[1] / "benchmarks" / "results").glob("noise2noise*.json"))
    figure = Figure(figsize=(5.2 * len(paths), 3.6), layout="constrained")
    for axes, path in zip(figure.subplots(1, len(paths), squeeze=False)[0], paths, strict=True):
        result = json.loads(path.read_text(encoding="utf-8"))
        noise = result["runs"][0]["trial"].partition(",")[0]
        for target, colour, line in (("noisy", ORANGE, "-"), ("clean", BLUE, "--")):
            _psnr_curve(axes, result["rows"], f"{noise}, {target} targets", line, color=colour, label=f"{target} targets")
        card = result["runs"][0]["gpu"]
        axes.set_title(f"{noise}, {card['card'] if card else 'on the processor'}")
        axes.legend()
    return figure


def _psnr_curve(axes: Axes, rows: list[dict], trial: str, line: str, **look: str) -> None:
    """That of one network, where it was trained."""
    if points := [(row["steps"], row["psnr"]) for row in rows if row["trial"] == trial]:
        axes.plot(*zip(*points, strict=True), line, **look)
    axes.set(xlabel="steps", ylabel="PSNR of held-out pictures, dB")
    axes.grid(visible=True, alpha=0.3)


def denoising_losses() -> Figure:
    """The same for text and impulses on the processor: noisy targets with losses that fit and that do not, and clean targets."""
    result = json.loads((IMAGES.parents[1] / "benchmarks" / "results" / "noise2noise.json").read_text(encoding="utf-8"))
    colours = {"l2": GREEN, "l1": ORANGE, "l0": PURPLE}
    panels = (("text of 0.25", ("l1", "l2")), ("impulse of 0.7", ("l0", "l1", "l2")))
    figure = Figure(figsize=(5.2 * len(panels), 4.2), layout="constrained")
    for axes, (noise, (fits, *others)) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        lines = [(f"{noise}, clean targets", f"{fits.upper()}, clean targets", BLUE, "--")]
        lines += [(f"{noise}, noisy targets", f"{fits.upper()}, noisy targets", colours[fits], "-")]
        lines += [(f"{noise}, noisy targets, {loss}", f"{loss.upper()}, noisy targets", colours[loss], "-") for loss in others]
        for trial, label, colour, line in lines:
            _psnr_curve(axes, result["rows"], trial, line, color=colour, label=label)
        axes.set_title(noise)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    return figure


def demo(segmenter: Segmenter, unseen: SegmentationDataset, path: Path) -> None:
    """Predictions on images that neither trained the model nor chose it."""
    examples = []
    for index in (0, 7):
        image, mask = unseen[index]
        examples.append(Example(f"new image {index}", image, mask, segmenter(image)))
    draw_predictions(examples, path, class_names=segmenter.class_names)


def features(segmenter: Segmenter, unseen: SegmentationDataset, path: Path) -> None:
    """Two maps of each level, those that vary most, on the way down (above) and up (below)."""
    image, _ = unseen[0]
    maps = feature_maps(segmenter.model, segmenter.standardize(image)[None])
    depth = segmenter.config["model"]["depth"]
    suffix = "norm2" if segmenter.config["model"]["norm"] else "conv2"
    down = [*(f"encoder.{level}" for level in range(depth)), "bottleneck"]
    up = [*(f"decoder.{level}" for level in reversed(range(depth)))]
    figure = Figure(figsize=(11, 7.6), layout="constrained")
    grid = figure.subplots(4, depth + 1)
    for axes in grid.ravel():
        axes.set_axis_off()
    for first, blocks in ((0, down), (2, up)):
        for column, block in enumerate(blocks):
            answer = maps[f"{block}.{suffix}"][0]  # (C, H, W)
            for row, channel in enumerate(np.argsort(answer.std(axis=(1, 2)))[:-3:-1]):
                grid[first + row, column].imshow(answer[channel], cmap="viridis")
            grid[first, column].set_title(f"{block}\n{answer.shape[0]} maps of {answer.shape[1]}×{answer.shape[2]}", fontsize=9)
    for row, picture, title in ((2, image[0], "image"), (3, segmenter(image)[1], "probability of cell")):
        grid[row, depth].imshow(picture, cmap="gray")
        grid[row, depth].set_title(title, fontsize=9)
    figure.savefig(path, dpi=90)


def shrink(path: Path) -> None:
    """At most 990 pixels wide, in 256 colours."""
    with Picture.open(path) as picture:
        smaller = picture.convert("RGB").resize((990, 990 * picture.height // picture.width))
    smaller.quantize(256, method=Picture.Quantize.MAXCOVERAGE, kmeans=8).save(path, optimize=True)


FIGURES = {
    "convolution": convolution,
    "max_pool": max_pool,
    "transposed_overlap": transposed_overlap,
    "unet_shapes": unet_shapes,
    "losses": losses_compared,
    "noisy_targets": noisy_targets,
    "denoising_curves": denoising_curves,
    "denoising_losses": denoising_losses,
    **convolution_figures.FIGURES,
    **tomography_figures.FIGURES,
}

if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    written = []
    for run in sys.argv[1:]:
        for draw_run in (demo, features):
            written.append(IMAGES / f"{draw_run.__name__}.png")
            draw_run(Segmenter.load(run), open_known("cells", "test"), written[-1])
            shrink(written[-1])
    for name, draw in FIGURES.items() if len(sys.argv) == 1 else ():
        written.append(IMAGES / f"{name}.png")
        draw().savefig(written[-1], dpi=110, metadata={"Software": None})
    for path in written:
        print(f"{path.stat().st_size / 1024:6.0f} KB  {path}")
