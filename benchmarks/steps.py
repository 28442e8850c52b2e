"""A 3×3 convolution made fast, step by step; docs/fast_convolution.md explains the steps.

python benchmarks/steps.py      measures them in about two minutes: results/steps.json, the chart, the figures in the page

    y[n,i,j,o] = Σ_k Σ_l Σ_c x[n,i+k,j+l,c] · w[k,l,c,o]        k, l = 0, 1, 2

x (N, H+2, W+2, C), w (3, 3, C, O), y (N, H, W, O): channels last, float32, no padding, no bias.
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numba
import numpy as np
from matplotlib.figure import Figure
from numba import njit, prange
from numpy.lib.stride_tricks import sliding_window_view

from minunet import functional as F
from minunet.simd import block_for, lanes, multiply
from minunet.tensor import Tensor

ROOT = Path(__file__).parents[1]
RESULTS, CHART, PAGE = ROOT / "benchmarks/results/steps.json", ROOT / "docs/images/steps.png", ROOT / "docs/fast_convolution.md"
SHAPES = ((64, 256), (256, 64), (1024, 16))  # (channels in and out, height and width): the layers of a UNet, all the same work
SECONDS = 1.0  # for the runs of one step; at least three, unless that takes too long

BLOCK, ROWS, WIDTH = block_for(64, 4)  # the micro-kernel: ROWS × WIDTH sums in registers
PIXELS, DEPTH = 96, 96  # a block of PIXELS × WIDTH sums and DEPTH × WIDTH weights: 24 KB each where WIDTH is 64
POINTS = (0, 3 / 4, -3 / 4, 3 / 2, -3 / 2)  # and ∞
TILE_BYTES = 900_000  # transformed tiles and their products, of one block


# --- loops


def naive(x, w, y):
    """The sum as it is written."""
    N, H, W, O = y.shape
    for n in range(N):
        for i in range(H):
            for j in range(W):
                for o in range(O):
                    total = np.float32(0)
                    for k in range(3):
                        for l in range(3):
                            for c in range(x.shape[3]):
                                total += x[n, i + k, j + l, c] * w[k, l, c, o]
                    y[n, i, j, o] = total


def ordered(x, w, y):
    """The same sum: the loop over o is the innermost, and lines of pixels are independent tasks."""
    N, H, W, O = y.shape
    for line in prange(N * H):
        n, i = line // H, line % H
        for j in range(W):
            sums = y[n, i, j]
            sums[:] = 0
            for k in range(3):
                for l in range(3):
                    for c in range(x.shape[3]):
                        value = x[n, i + k, j + l, c]
                        for o in range(O):
                            sums[o] += value * w[k, l, c, o]


# --- matrix products


def im2col(x, w, y):
    """Every window copied into a row of a matrix, then one product."""
    windows = sliding_window_view(x, (3, 3), axis=(1, 2))  # (N, H, W, C, 3, 3), no copy yet
    rows = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 9 * x.shape[3])  # (N·H·W, 9·C), nine times x
    np.matmul(rows, w.reshape(-1, w.shape[3]), out=y.reshape(-1, w.shape[3]))


def shifted(x, w, y):
    """Nine products, each with the image shifted: no copy, but y is read and written nine times."""
    _, H, W, _ = y.shape
    y[:] = 0
    for k, l in product(range(3), range(3)):
        y += x[:, k : k + H, l : l + W] @ w[k, l]


# --- the micro-kernel


@njit
def at(array, a, b, c, d):
    """Address of array[a, b, c, d]."""
    return array.ctypes.data + a * array.strides[0] + b * array.strides[1] + c * array.strides[2] + d * array.strides[3]


@njit
def add_product(a, a_row, b, b_row, c, c_row, depth):
    """c += a @ b for ROWS × depth numbers at address a and depth × WIDTH numbers at b; rows of a begin a_row numbers apart."""
    multiply(BLOCK, a, a_row, 1, b, b_row, c, c_row, depth, ROWS, 0, np.float32(0))


@njit(parallel=True)
def registers(x, w, y):
    """ROWS pixels × WIDTH channels at a time. A window's row is 3·C neighbouring numbers; the next pixel's begins C later."""
    N, H, W, O = y.shape
    C = x.shape[3]
    for line in prange(N * H):
        n, i = line // H, line % H
        for first in range(0, W, ROWS):
            j = min(first, W - ROWS)  # the last block of a line does some pixels twice
            for o in range(0, O, WIDTH):
                y[n, i, j : j + ROWS, o : o + WIDTH] = 0
                for k in range(3):
                    add_product(at(x, n, i + k, j, 0), C, at(w, k, 0, 0, o), O, at(y, n, i, j, o), O, 3 * C)


def pack(w):
    """(3, 3, C, O) → (O / WIDTH, 3, 3·C, WIDTH): the weights in the order in which `blocked` reads them."""
    panels = w.reshape(3, 3 * w.shape[2], -1, WIDTH).transpose(2, 0, 1, 3)
    return np.ascontiguousarray(panels)


@njit(parallel=True)
def blocked(x, panels, y):
    """PIXELS pixels × WIDTH channels at a time, DEPTH terms of the sum at a time: what the inner loop touches stays in L1.

    Pixels are counted along the lines of x, which have two more than those of y: the sums of those two are dropped.
    """
    N, H, W, _ = y.shape
    C = x.shape[3]
    line = W + 2
    pixels = H * line - 2
    chunks = (pixels + PIXELS - 1) // PIXELS
    for task in prange(len(panels) * N * chunks):
        panel, n = task // (N * chunks), task // chunks % N
        first = min(task % chunks * PIXELS, pixels - PIXELS)
        sums = np.zeros((1, 1, PIXELS, WIDTH), y.dtype)
        for k in range(3):
            for part in range(0, 3 * C, DEPTH):
                depth = min(DEPTH, 3 * C - part)
                for p in range(0, PIXELS, ROWS):
                    window = at(x, n, k, first + p, part)  # pixel first + p counts from the start of line k
                    add_product(window, C, at(panels, panel, k, part, 0), WIDTH, at(sums, 0, 0, p, 0), WIDTH, depth)
        for p in range(PIXELS):
            i, j = (first + p) // line, (first + p) % line
            if j < W:
                y[n, i, j, panel * WIDTH : (panel + 1) * WIDTH] = sums[0, 0, p]


# --- Winograd


def cook_toom(points, outputs, taps):
    """A, G, B: the matrices with Σ_k d[i+k]·g[k] = A ((G g) · (B d)), for `outputs` results i, from len(points) + 1 products.

    A polynomial is evaluated at each point; its value at ∞ is the coefficient of its highest power.
    """

    def values(length):
        powers = np.array(points, float)[:, None] ** np.arange(length)
        return np.vstack([powers, np.eye(length)[-1]])  # (points + ∞, coefficients)

    size = [*(np.prod([p - q for q in points if q != p]) for p in points), 1.0]  # moved from B to G: w is transformed once, x always
    return values(outputs).T, values(taps) / np.array(size)[:, None], np.linalg.inv(values(len(points) + 1)).T * np.array(size)[:, None]


def sandwich(M, X):
    """M X Mᵀ for each of many X at once: (q, q, …) → (p, p, …)."""
    p, q = M.shape
    rows = (M @ X.reshape(q, -1)).reshape(p, q, -1)
    return (M @ rows).reshape(p, p, *X.shape[2:])


def winograd(x, w, y, points=POINTS):
    """Tiles of m × m outputs. All of them are transformed, then multiplied, then transformed back."""
    N, H, W, O = y.shape
    t, m = len(points) + 1, len(points) - 1  # side of a tile in x and in y
    A, G, B = (matrix.astype(x.dtype) for matrix in cook_toom(points, m, 3))
    tiles = sliding_window_view(x, (t, t), axis=(1, 2))[:, ::m, ::m]  # (N, H/m, W/m, C, t, t)
    tiles = tiles.transpose(4, 5, 0, 1, 2, 3).reshape(t, t, -1, x.shape[3])
    products = sandwich(B, tiles) @ sandwich(G, w)  # (t, t, tiles, C) @ (t, t, C, O): t² matrix products
    pixels = sandwich(A, products).reshape(m, m, N, H // m, W // m, O)
    y.reshape(N, H // m, m, W // m, m, O)[:] = pixels.transpose(2, 3, 0, 4, 1, 5)


@njit
def transform(M, X, i, j, Y, k, l):
    """The p × p pixels of Y from (k, l) on = M · (the q × q pixels of X from (i, j) on) · Mᵀ, all channels at once."""
    p, q = M.shape
    rows = np.zeros((p, q, X.shape[2]), X.dtype)
    for a in range(p):
        for s in range(q):
            if M[a, s] != 0:
                for b in range(q):
                    for c in range(X.shape[2]):
                        rows[a, b, c] += M[a, s] * X[i + s, j + b, c]
        for b in range(p):
            Y[k + a, l + b] = 0
            for s in range(q):
                if M[b, s] != 0:
                    for c in range(X.shape[2]):
                        Y[k + a, l + b, c] += M[b, s] * rows[a, s, c]


@njit(parallel=True)
def winograd_blocked(x, U, y, A, B):
    """The same for a block of tiles at a time, which stays in L2 from the first transform to the last. U = G w Gᵀ."""
    N, H, W, O = y.shape
    C = x.shape[3]
    high, wide = H // 4, W // 4  # tiles in an image
    total = N * high * wide
    count = max(min(TILE_BYTES // (36 * 4 * (C + O)), total) // ROWS, 1) * ROWS
    for block in prange((total + count - 1) // count):
        first = min(block * count, total - count)
        V, products = np.empty((count, 6, 6, C), x.dtype), np.zeros((count, 6, 6, O), x.dtype)
        for t in range(count):
            tile_number = first + t
            n, i, j = tile_number // (high * wide), tile_number // wide % high, tile_number % wide
            transform(B, x[n], 4 * i, 4 * j, V[t], 0, 0)
        for a in range(6):
            for b in range(6):
                for o in range(0, O, WIDTH):
                    for t in range(0, count, ROWS):
                        add_product(at(V, t, a, b, 0), 36 * C, at(U, a, b, 0, o), O, at(products, t, a, b, o), 36 * O, C)
        for t in range(count):
            tile_number = first + t
            n, i, j = tile_number // (high * wide), tile_number // wide % high, tile_number % wide
            transform(A, products[t], 0, 0, y[n], 4 * i, 4 * j)


# --- measuring


def steps() -> dict[str, tuple[str, Any]]:
    """Key → (title, function of x, w, y). A function may return its result instead of writing it into y."""
    alone, together = njit(ordered), njit(parallel=True)(ordered)
    A, G, B = (matrix.astype(np.float32) for matrix in cook_toom(POINTS, 4, 3))
    return {
        "naive": ("1 seven loops, one core", njit(naive)),
        "ordered": ("2 channels innermost, one core", alone),
        "parallel": ("2 the same, all cores", together),
        "im2col": ("3 im2col, one matrix product", im2col),
        "shifted": ("4 nine shifted products", shifted),
        "registers": ("5 micro-kernel, image in place", registers),
        "blocked": ("6 the same, blocked for the caches", lambda x, w, y: blocked(x, pack(w), y)),
        "winograd": ("7 Winograd, NumPy", winograd),
        "winograd_blocked": ("8 Winograd, blocked", lambda x, w, y: winograd_blocked(x, sandwich(G, w), y, A, B)),
        "minunet": ("9 F.conv2d", conv2d),
    }


def conv2d(x, w, y):
    """The project's own: (N, C, H, W) tensors that look at the same memory."""
    return F.conv2d(Tensor(x.transpose(0, 3, 1, 2)), Tensor(w.transpose(3, 2, 0, 1))).data.transpose(0, 2, 3, 1)


def pytorch(x: Any, w: Any) -> dict[str, tuple[str, Callable[[], Any]]]:
    """PyTorch's convolution, with either of its memory orders."""
    import torch

    torch.set_num_threads(numba.get_num_threads())
    found = {}
    for key, title, order in (
        ("torch", "PyTorch", torch.contiguous_format),
        ("torch_last", "PyTorch, channels last", torch.channels_last),
    ):
        a, b = (torch.from_numpy(array).contiguous(memory_format=order) for array in (x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1)))

        def run(a: Any = a, b: Any = b) -> Any:
            with torch.no_grad():
                return torch.nn.functional.conv2d(a, b).permute(0, 2, 3, 1).numpy()

        found[key] = (title, run)
    return found


def milliseconds(run: Callable[[], Any]) -> float:
    """The median of many runs. The caller has run it once before: that compiles and warms up."""
    times: list[float] = []
    while sum(times) < SECONDS or (len(times) < 3 and sum(times) < 10 * SECONDS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times))


def operands(channels: int, size: int, images: int = 1) -> tuple[Any, Any, Any]:
    """x, w and the exact y, computed in float64."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((images, size + 2, size + 2, channels)).astype(np.float32)
    w = (rng.standard_normal((3, 3, channels, channels)) / np.sqrt(9 * channels)).astype(np.float32)
    exact = np.empty((images, size, size, channels))
    shifted(x.astype(np.float64), w.astype(np.float64), exact)
    return x, w, exact


def measure() -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = {}
    load = os.getloadavg()[0]
    functions = steps()
    for channels, size in SHAPES:
        x, w, exact = operands(channels, size)
        y = np.empty(exact.shape, np.float32)
        runs = {key: (title, lambda f=f, x=x, w=w, y=y: f(x, w, y)) for key, (title, f) in functions.items()} | pytorch(x, w)
        for key, (title, run) in runs.items():
            y[:] = np.nan
            result = run()
            error = np.linalg.norm((y if result is None else result) - exact) / np.linalg.norm(exact)
            ms = milliseconds(run)
            row = rows.setdefault(key, {"title": title, "ms": [], "gflops": [], "error": []})
            row["ms"].append(float(f"{ms:.4g}"))
            row["gflops"].append(float(f"{2 * 9 * channels * exact.size / ms / 1e6:.4g}"))
            row["error"].append(float(f"{error:.3g}"))
            rate = row["gflops"][-1]
            print(f"{channels:5} channels, {size:3}²  {title:30} {ms:9.2f} ms {rate:7.1f} GFLOP/s   error {error:.1e}", flush=True)
    square = np.ones((2048, 2048), np.float32)
    square @ square
    return {
        "machine": _machine(),
        "threads": numba.get_num_threads(),
        "load_before": load,
        "shapes": [list(shape) for shape in SHAPES],
        "matrix_product_gflops": float(f"{2 * 2048**3 / milliseconds(lambda: square @ square) / 1e6:.4g}"),
        "steps": rows,
    }


def _machine() -> str:
    cpu = Path("/proc/cpuinfo")
    name = re.search(r"^model name\s*: (.*)$", cpu.read_text(), re.MULTILINE) if cpu.exists() else None
    processor = name[1] if name else platform.machine()
    return f"{processor}, vectors of {lanes(4)} float32, NumPy {np.__version__}, Numba {numba.__version__}"


# --- what the page shows of it


def written(page: str, results: dict[str, Any]) -> str:
    """The page with every measured figure taken from the results: what stands between <!-- measured KEY --> and <!-- end -->."""
    rows, keys = results["steps"], list(results["steps"])

    def measured(match: re.Match[str]) -> str:
        text = {"table": table, "torch": pytorch_line}.get(match[1], lambda: line(match[1]))()
        return f"<!-- measured {match[1]} -->\n\n{text}\n\n<!-- end -->"

    def line(key: str) -> str:
        rates = ", ".join(f"**{short(rate)}**" for rate in rows[key]["gflops"])
        if key == keys[0]:
            return f"Measured: {rates} GFLOP/s."
        before = rows[keys[keys.index(key) - 1]]
        return f"Measured: {rates} GFLOP/s. Gain over the step before: {ratios(rows[key]['gflops'], before['gflops'])}."

    def pytorch_line() -> str:
        best = [max(pair) for pair in zip(rows["torch"]["gflops"], rows["torch_last"]["gflops"], strict=True)]
        rates = ", ".join(f"**{short(rate)}**" for rate in best)
        return f"Measured: {rates} GFLOP/s. `F.conv2d` ÷ PyTorch: {ratios(rows['minunet']['gflops'], best)}."

    def short(number: float) -> str:
        return f"{number:.0f}" if number >= 100 else f"{number:.3g}"

    def ratios(rates: list[float], others: list[float]) -> str:
        return ", ".join(short(float(f"{a / b:.2g}")) for a, b in zip(rates, others, strict=True))

    def table() -> str:
        head = ["step", *(f"{c} channels, {s}²" for c, s in results["shapes"]), "error"]
        body = [
            [
                row["title"],
                *(f"**{short(g)}** ({short(m)} ms)" for m, g in zip(row["ms"], row["gflops"], strict=True)),
                f"{max(row['error']):.1e}",
            ]
            for row in rows.values()
        ]
        lines = "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *body))
        return (
            f"{lines}\n\nGFLOP/s of useful work, and the median time. Error: ‖y − exact‖ / ‖exact‖, the largest of the three. "
            f"{results['threads']} threads; {results['machine']}. "
            f"One large matrix product of NumPy: {short(results['matrix_product_gflops'])} GFLOP/s."
        )

    return re.sub(r"<!-- measured (\w+) -->.*?<!-- end -->", measured, page, flags=re.DOTALL)


def chart(results: dict[str, Any]) -> Figure:
    rows = list(results["steps"].items())
    figure = Figure(figsize=(10.5, 4.6), layout="constrained")
    plots = figure.subplots(1, len(results["shapes"]), sharey=True)
    for index, (axes, (channels, size)) in enumerate(zip(plots, results["shapes"], strict=True)):
        rates = [row["gflops"][index] for _, row in rows]
        colours = ["0.6" if key.startswith("torch") else "#d55e00" if key == "minunet" else "#0072b2" for key, _ in rows]
        axes.barh(range(len(rows)), rates, color=colours)
        for place, rate in enumerate(rates):
            axes.text(rate * 1.08, place, f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}", va="center", fontsize=8)
        axes.axvline(results["matrix_product_gflops"], color="0.3", linestyle=":", linewidth=1)
        axes.set(title=f"{channels} channels, {size}²", xscale="log", xlim=(0.1, 5000), xlabel="GFLOP/s of useful work")
        axes.set_yticks(range(len(rows)), [row["title"] for _, row in rows], fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    plots[0].invert_yaxis()
    return figure


def main() -> None:
    results = measure()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    chart(results).savefig(CHART, dpi=110, metadata={"Software": None})
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")


if __name__ == "__main__":
    main()
