"""Results for the eye: a table on the screen, and the roofline plot."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Table

from minunet.bench.measure import in_threads
from minunet.kernels import RESTING_THREADS

OURS, THEIRS = "#0072b2", "#d55e00"  # told apart with any kind of colour vision (Wong, Nature Methods 8:441, 2011)
GOAL = 0.9  # no operation should be slower than this share of PyTorch's speed; below, the ratio is printed in red

Row = dict[str, Any]


def heading(run: dict[str, Any]) -> str:
    """What one process measured with."""
    peaks = run["peaks"]
    threads = in_threads(run["threads"])
    if run["torch_threads"] not in (None, run["numba_threads"]):
        threads = f"Numba {run['numba_threads']} threads, PyTorch {run['torch_threads']}"
    policy = ", ".join(f"{name}={run['environment'].get(name, 'unset')}" for name in RESTING_THREADS)
    instructions = f", PyTorch {run['torch_capability']}" if run["torch_capability"] else ""
    return (
        f"{threads}, {run['vector_bits']}-bit vectors{instructions}, {policy}; "
        f"the machine's peak: {peaks['gflops']:.0f} GFLOP/s, {peaks['gbytes']:.0f} GB/s"
    )


def table(run: dict[str, Any], rows: list[Row]) -> Table:
    """The rows of one number of threads."""
    rows = [row for row in rows if row["threads"] == run["threads"]]
    if "error" in rows[0]:
        return _errors(rows)
    return _operations(rows) if "operation" in rows[0] else _networks(rows)


def _operations(rows: list[Row]) -> Table:
    made = _table("operation", "shape", "ours, ms", "PyTorch", "ratio", "of peak")
    for row in rows:
        times = (row["seconds"]["cpu"], row["seconds"].get(row.get("against", "")))
        name = row["operation"] + _SIGNS[row["direction"]]
        made.add_row(name, row["shape"], *map(_milliseconds, times), _ratio(row.get("ratio")), f"{row['share']:.0%}")
    return made


def gpu_heading(run: dict[str, Any]) -> str:
    """Which card, and its limits."""
    limits = "; ".join(f"{name} {p['gflops'] / 1000:.1f} TFLOP/s, {p['gbytes']:.0f} GB/s" for name, p in run["peaks"].items())
    return f"{run['card']}, driver {run['driver']}, CuPy {run['cupy']}, PyTorch {run['torch']}; the card's peak: {limits}"


def gpu_table(rows: list[Row]) -> Table:
    """Operations and networks."""
    made = _table("on the GPU", "shape", "precision", "ours, ms", "PyTorch", "ratio", "GB/s", "TFLOP/s", "of peak")
    for row in rows:
        name = row["operation"] + _SIGNS[row["direction"]] if "operation" in row else f"{row['network']}: {row['mode']}"
        times = (row["seconds"]["ours"], row["seconds"].get(row.get("against", "")))
        traffic = f"{row['gbytes']:.0f}" if "gbytes" in row else "—"
        rates = traffic, f"{row['gflops'] / 1000:.3g}", f"{row['share']:.0%}"
        made.add_row(name, row["shape"], row["precision"], *map(_milliseconds, times), _ratio(row.get("ratio")), *rates)
    return made


_SIGNS = {"forward": "", "step": "", "backward": " ∂", "grad_x": " ∂x", "grad_w": " ∂w"}


def _networks(rows: list[Row]) -> Table:
    made = _table("network", "input", "ours", "PyTorch", "ratio", "of peak")
    for row in rows:
        name = f"{row['network']}: {row['mode']}"
        if row["mode"] == "memory":
            sides = (row["mib"]["ours"], row["mib"].get(row.get("against", "")))
            texts = ("—" if mib is None else f"{mib:.0f} MiB" for mib in sides)
            made.add_row(name, row["shape"], *texts, f"{row['ratio']:.2f}" if "ratio" in row else "—")
            continue
        times = (row["seconds"]["ours"], row["seconds"].get(row.get("against", "")))
        made.add_row(name, row["shape"], *(_milliseconds(t, " ms") for t in times), _ratio(row.get("ratio")), f"{row['share']:.0%}")
        for rival, found in row.get("rivals", {}).items():  # below, in PyTorch's column
            made.add_row(
                f"  {rival}", "", "", "failed" if "failed" in found else _milliseconds(found["seconds"], " ms"), _ratio(found.get("ratio"))
            )
    return made


def _errors(rows: list[Row]) -> Table:
    made = _table("operation", "shape", "ours", "PyTorch", "ours ÷ PyTorch's")
    for row in rows:
        numbers = [f"{row['error'][side]:.1e}" if side in row["error"] else "—" for side in ("ours", "torch")]
        made.add_row(row["operation"] + _SIGNS[row["direction"]], row["shape"], *numbers, f"{row['ratio']:.2f}" if "ratio" in row else "—")
    return made


def _table(*columns: str) -> Table:
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        made.add_column(column, justify="left" if i < 2 else "right", no_wrap=i > 0)
    return made


def _milliseconds(seconds: float | None, unit: str = "") -> str:
    if seconds is None:
        return "—"
    milliseconds = 1000 * seconds
    return (f"{milliseconds:.3g}" if milliseconds < 100 else f"{milliseconds:.0f}") + unit


def _ratio(spread: dict[str, float] | None) -> str:
    """The median, and half the distance of the quartiles."""
    if spread is None:
        return "—"
    text = f"{spread['median']:.2f} ±{(spread['high'] - spread['low']) / 2:.2f}"
    return f"[bold red]{text}[/]" if spread["median"] < GOAL else text


# ---- roofline ----


def draw_roofline(run: dict[str, Any], rows: list[Row], path: Path) -> None:
    """Arithmetic done a second, over the arithmetic that one byte of traffic allows. Rows without arithmetic are not on it.

    The roof is the machine: sloped where memory limits, flat where arithmetic does. Both marks of a pair stand at the same intensity.
    """
    rows = [row for row in rows if row["threads"] == run["threads"] and row["flops"]]
    parts = {"forward": [r for r in rows if r["direction"] == "forward"], "gradients": [r for r in rows if r["direction"] != "forward"]}
    figure = Figure(figsize=(13, 8.2), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=[3, 1])  # below each plot a strip with the operations' names
    for axes, strip, (title, part) in zip(*panels, parts.items(), strict=True):
        _roof(axes, run["peaks"], rows)
        _pairs(axes, part)
        _names(strip, part)
        axes.set_title(title, fontsize=13)
        axes.grid(alpha=0.25)
        axes.tick_params(labelbottom=True, labelsize=11)
        axes.set_xlabel("intensity: operations for each byte of least traffic", fontsize=12)
    panels[0, 0].set_ylabel("GFLOP/s, as the definition counts", fontsize=12)
    panels[0, 0].legend(loc="upper left", fontsize=11)
    figure.suptitle(heading(run), fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def _intensity(row: Row) -> float:
    return row["flops"] / row["bytes"]


def _roof(axes: Axes, peaks: dict[str, float], rows: list[Row]) -> None:
    intensities = [_intensity(row) for row in rows] or [1.0]
    ends = min(0.05, min(intensities) / 2), max(500.0, 2 * max(intensities))
    x = np.geomspace(*ends, 200)
    axes.loglog(x, np.minimum(peaks["gflops"], x * peaks["gbytes"]), color="0.15", linewidth=1.8, label="the machine's limit")
    axes.set_xlim(*ends)


def _pairs(axes: Axes, rows: list[Row]) -> None:
    size: dict[str, Any] = {"markersize": 6, "linestyle": "none"}
    paired = [row for row in rows if "against" in row]
    theirs = [row["flops"] / row["seconds"][row["against"]] / 1e9 for row in paired]
    for row, speed in zip(paired, theirs, strict=True):
        axes.plot([_intensity(row)] * 2, [row["gflops"], speed], color="0.6", linewidth=0.9, zorder=1)
    if paired:
        axes.plot([_intensity(r) for r in paired], theirs, marker="s", color=THEIRS, markerfacecolor="white", label="PyTorch", **size)
    if rows:
        axes.plot([_intensity(r) for r in rows], [r["gflops"] for r in rows], marker="o", color=OURS, label="minunet", **size)


LINE = 1.25  # by how much the intensity grows over the breadth of a line of the strip


def _names(strip: Axes, rows: list[Row]) -> None:
    """Each operation below its intensity, at the middle one if it has several; where it is crowded, a little to the right."""
    strip.axis("off")
    intensities: dict[str, list[float]] = {}
    for row in rows:
        intensities.setdefault(row["operation"], []).append(_intensity(row))
    middles = sorted((float(np.median(values)), name) for name, values in intensities.items())
    free = 0.0  # the intensity from which on nothing is written yet
    while middles:
        x = middles[0][0]
        near = [name for value, name in middles if value < 1.1 * x]
        middles = middles[len(near) :]
        lines = wrap(", ".join(near), 26)
        x = max(x, free * LINE ** (len(lines) / 2))
        free = x * LINE ** (len(lines) / 2)
        text = "\n".join(lines)
        strip.text(x, 1, text, transform=strip.get_xaxis_transform(), rotation=90, fontsize=9.5, linespacing=1, ha="center", va="top")
