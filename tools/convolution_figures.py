"""Figures of docs/fast_convolution.md; `tools/figures.py` draws them with the others."""

import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks import steps

BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"


def _bare(figure: Figure, width: float, height: float) -> Axes:
    """Axes without a frame, in units of boxes, y downwards."""
    axes = figure.add_subplot()
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    axes.set_axis_off()
    return axes


def _box(axes: Axes, x: float, y: float, text: str, colour: str, *, width: float = 1, height: float = 1, strong: float = 0.5) -> None:
    axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, alpha=strong, linewidth=0))
    axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor="0.4", linewidth=0.7))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8.5)


def _span(axes: Axes, left: float, right: float, y: float, text: str, colour: str) -> None:
    """A bracket below boxes."""
    axes.plot([left + 0.08, left + 0.08, right - 0.08, right - 0.08], [y - 0.25, y, y, y - 0.25], color=colour, linewidth=2)
    axes.text((left + right) / 2, y + 0.12, text, ha="center", va="top", fontsize=9, color=colour)


def memory_order() -> Figure:
    """One line of five pixels with three channels, as it lies in memory."""
    figure = Figure(figsize=(10, 4.1), layout="constrained")
    axes = _bare(figure, 15.2, 6.6)
    colours = (BLUE, ORANGE, GREEN)
    axes.text(0, 0.2, "channel after channel (N, C, H, W): the window of pixel 0 lies in three places", fontsize=10)
    axes.text(0, 3.2, "channels last (N, H, W, C): a window is one piece, and the next one begins C numbers later", fontsize=10)
    for pixel in range(5):
        for channel in range(3):
            name, seen = f"{pixel}{'abc'[channel]}", 0.75 if pixel < 3 else 0.25
            _box(axes, 0.1 + 5 * channel + pixel, 0.5, name, colours[channel], strong=seen)
            _box(axes, 0.1 + 3 * pixel + channel, 3.5, name, colours[channel], strong=seen)
    for channel in range(3):
        _span(axes, 0.1 + 5 * channel, 3.1 + 5 * channel, 1.9, "window of pixel 0" if channel == 0 else "", "0.2")
    _span(axes, 0.1, 9.1, 4.9, "window of pixel 0", "0.2")
    _span(axes, 3.1, 12.1, 5.8, "window of pixel 1", PURPLE)
    return figure


def register_block() -> Figure:
    """The micro-kernel: what it loads and what it keeps, at one step of the sum."""
    figure = Figure(figsize=(8.6, 4.4), layout="constrained")
    axes = _bare(figure, 19.5, 9.6)
    for v in range(4):
        _box(axes, 3.5 + 2.3 * v, 1, f"16 weights b{v}", BLUE, width=2.1, height=0.9)
        for r in range(6):
            _box(axes, 3.5 + 2.3 * v, 2.6 + 1.1 * r, f"sums {r}{v}", ORANGE, width=2.1, height=0.9)
    for r in range(6):
        _box(axes, 1.6, 2.6 + 1.1 * r, f"a{r}", GREEN, height=0.9)
        axes.text(1.4, 3.05 + 1.1 * r, f"pixel {r}", ha="right", va="center", fontsize=8.5)
    axes.text(8, 0.6, "one row of the weights: 64 outputs", ha="center", fontsize=9, color=BLUE)
    notes = (
        (3.2, "one step of the sum over (k, l, c):", "0.1"),
        (4.3, "4 loads of a vector of weights", BLUE),
        (5.2, "6 loads of a number of x, repeated 16 times", GREEN),
        (6.1, "24 multiply-adds: sums rv += ar · bv", ORANGE),
        (7.6, "24 + 4 + 1 of the 32 registers are used.", "0.1"),
        (8.5, "No sum goes to memory before the last step.", "0.1"),
    )
    for y, text, colour in notes:
        axes.text(12.9, y, text, fontsize=9, color=colour, va="center")
    return figure


def cache_levels() -> Figure:
    """The pyramid of memories: the sizes of one machine, and what the kernels keep at each level."""
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(-5, 13.4), ylim=(-5.1, 0.7))
    axes.set_axis_off()
    levels = (
        ("registers", "2 KB", "the block of sums, 6 × 64", ORANGE),
        ("L1", "48 KB for each core", "96 × 64 weights, used for 96 pixels; their sums", GREEN),
        ("L2", "1 MB for each core", "Winograd: a block of tiles, before and after the 36 products", BLUE),
        ("L3", "32 MB for all cores", "the transformed weights", PURPLE),
        ("memory", "gigabytes", "x is read once, y is written once", "0.5"),
    )
    for level, (name, size, kept, colour) in enumerate(levels):
        upper, lower = 0.75 + 0.85 * level, 0.75 + 0.85 * (level + 1)
        corners = [(-upper, -level), (upper, -level), (lower, -level - 0.92), (-lower, -level - 0.92)]
        axes.add_patch(Polygon(corners, facecolor=colour, alpha=0.45))
        axes.text(0, -level - 0.46, name, ha="center", va="center", fontsize=10)
        axes.text(lower + 0.3, -level - 0.3, kept, va="center", fontsize=9.5)
        axes.text(lower + 0.3, -level - 0.66, size, va="center", fontsize=8.5, color="0.4")
    return figure


def winograd_tiles() -> Figure:
    """Tiles of 6×6 pixels of x overlap by two; their 4×4 results do not."""
    figure = Figure(figsize=(8.4, 4.3), layout="constrained")
    axes = _bare(figure, 23, 11.4)
    for left, size, title in ((0.2, 10, "x: tiles of 6×6, 4 apart"), (14.2, 8, "y: tiles of 4×4")):
        top = 0.9 + (10 - size) / 2
        axes.text(left + size / 2, top - 0.3, title, ha="center", fontsize=10)
        for i in range(size):
            for j in range(size):
                axes.add_patch(Rectangle((left + j, top + i), 1, 1, facecolor="none", edgecolor="0.75", linewidth=0.7))
    for index, colour in enumerate((ORANGE, BLUE)):
        x, y = 0.2 + 4 * index, 0.9
        axes.add_patch(Rectangle((x, y), 6, 6, facecolor=colour, alpha=0.25, linewidth=0))
        axes.add_patch(Rectangle((x + 0.06 * index, y), 6, 6, fill=False, edgecolor=colour, linewidth=2.5))
        axes.add_patch(Rectangle((14.2 + 4 * index, 1.9), 4, 4, facecolor=colour, alpha=0.35, edgecolor=colour, linewidth=2.5))
    axes.annotate("", (13.9, 5.9), (10.6, 5.9), arrowprops={"arrowstyle": "->", "color": "0.3"})
    axes.text(12.2, 5.5, "36 products\nfor 16 results,\ninstead of 144", ha="center", va="bottom", fontsize=9)
    return figure


def winograd_error() -> Figure:
    """Error of the result, float32, for the points 0, ±a, ±2a, ∞ and for other tiles."""
    x, w, exact = steps.operands(64, 48)

    def error(points: tuple[float, ...] | None) -> float:
        y = np.empty(exact.shape, np.float32)
        if points is None:
            steps.shifted(x, w, y)
        else:
            steps.winograd(x, w, y, points)
        return float(np.linalg.norm(y - exact) / np.linalg.norm(exact))

    figure = Figure(figsize=(8.2, 3.8), layout="constrained")
    axes = figure.add_subplot()
    a = np.arange(0.3, 1.45, 0.025)
    axes.plot(a, [error((0, t, -t, 2 * t, -2 * t)) for t in a], color=BLUE, label="F(4×4), points 0, ±a, ±2a, ∞")
    for t, name in ((0.75, "±3/4, ±3/2"), (1.0, "±1, ±2"), (0.5, "±1/2, ±1")):
        value = error((0, t, -t, 2 * t, -2 * t))
        axes.plot(t, value, "o", color=BLUE)
        axes.annotate(
            f"{name}: {value:.1e}", (t, value), (4, -14) if t == 0.75 else (9, -9 if t == 1 else 2), textcoords="offset points", fontsize=9
        )
    others = ((None, "direct, nine products", "0.3"), ((0, 1, -1), "F(2×2), points 0, ±1, ∞", GREEN))
    for points, name, colour in (*others, ((0, 1, -1, 2, -2, 1 / 2, -1 / 2), "F(6×6), points 0, ±1, ±2, ±1/2, ∞", ORANGE)):
        axes.axhline(error(points), color=colour, linestyle="--", label=name)
    axes.set(xlabel="a", ylabel="‖y − exact‖ / ‖exact‖", yscale="log", xlim=(0.3, 1.43))
    axes.legend(fontsize=8.5, loc="upper center")
    axes.grid(alpha=0.3, which="both")
    return figure


FIGURES = {
    "memory_order": memory_order,
    "register_block": register_block,
    "cache_levels": cache_levels,
    "winograd_tiles": winograd_tiles,
    "winograd_error": winograd_error,
}
