"""Writes the tables of the pages below from benchmarks/results, so that no figure there is typed by hand. A test holds them equal.

python tools/benchmark_tables.py

In a page a table stands between  <!-- table: NAME -->  and  <!-- end -->; NAME is a file of results without its ending.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minunet.bench.measure import in_threads
from minunet.kernels import RESTING_THREADS

ROOT = Path(__file__).parents[1]
PAGES = tuple(ROOT / "docs" / f"{name}.md" for name in ("benchmarks", "results", "noise2noise", "tomography"))
RESULTS = ROOT / "benchmarks" / "results"
_TABLE = re.compile(r"(<!-- table: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)

Row = dict[str, Any]


def filled(page: str, results: Path = RESULTS) -> str:
    """The page with its tables as the results say."""
    return _TABLE.sub(lambda match: match[1] + "\n" + _tables(results, match[2]) + "\n" + match[4], page)


def _tables(results: Path, name: str) -> str:
    """That of one file; for 'gpu' and 'noise2noise-gpu' those of all cards."""
    files = sorted(results.glob(f"{name.removesuffix('-gpu')}-*.json")) if name.endswith("gpu") else []
    return "\n".join(table(path) for path in files or [results / f"{name}.json"])


def table(path: Path) -> str:
    """Markdown for one file of results."""
    if not path.exists():
        return "*Not measured yet.*\n"
    result = json.loads(path.read_text(encoding="utf-8"))
    if result["benchmark"] == "isbi2012":
        return "\n".join([*_where(result), *_sides(result["runs"]), "", *_trainings(result), "", _TIME, ""])
    if result["benchmark"] == "noise2noise":
        return "\n".join(_denoised(result["runs"]))
    if result["benchmark"] == "tomography":
        return "\n".join([*_reconstructed(result), ""])
    if result["benchmark"] == "gpu":
        return "\n".join([*_card(result), *_part(result), *_on_gpu(result["rows"]), ""])
    lines = {"ops": _operations, "accuracy": _errors}.get(result["benchmark"].partition("-")[0], _networks)(result["rows"])
    return "\n".join([*_where(result), *_limits(result["runs"]), "", *lines, ""])


def _where(result: dict[str, Any]) -> Iterator[str]:
    machine = result["machine"]
    bits = result["runs"][0]["vector_bits"]
    software = ", ".join(
        f"{name} {machine[key]}" for name, key in (("NumPy", "numpy"), ("Numba", "numba"), ("PyTorch", "torch")) if machine[key]
    )
    yield f"{result['date']}, {machine['processor']}, {machine['cores']} cores, {bits}-bit vectors; {software}."
    yield ""


def _limits(runs: list[Row]) -> Iterator[str]:
    for run in runs:
        threads = f"{run['numba_threads']} threads of Numba, {run['torch_threads']} of PyTorch"
        yield f"- {threads}, {_waiting(run)}; peak {run['peaks']['gflops']:.0f} GFLOP/s, {run['peaks']['gbytes']:.0f} GB/s"


def _waiting(run: Row) -> str:
    return ", ".join(f"{name}={run['environment'].get(name, 'unset')}" for name in RESTING_THREADS)


def _operations(rows: list[Row]) -> Iterator[str]:
    """A line for each operation and direction: the ratios over all its shapes."""
    counts = sorted({row["threads"] for row in rows})
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["operation"], row["direction"]), []).append(row)
    yield from _head("Operation", "", "Shapes", *(f"ratio, {in_threads(count)}" for count in counts))
    for (operation, direction), members in groups.items():
        shapes = len({row["shape"] for row in members})
        yield _line(operation, direction, str(shapes), *(_range([r for r in members if r["threads"] == count]) for count in counts))


def _range(rows: list[Row]) -> str:
    ratios = sorted(row["ratio"]["median"] for row in rows if "ratio" in row)
    if not ratios:
        return "–"
    return f"{ratios[0]:.2f}" if len(ratios) == 1 else f"{ratios[0]:.2f} – {ratios[-1]:.2f}"


def _networks(rows: list[Row]) -> Iterator[str]:
    rivals = sorted({name for row in rows for name in row.get("rivals", ())})
    yield from _head("Network", "Input", "", "Threads", "minunet", "PyTorch", "Ratio", *(f"{name} (ratio)" for name in rivals))
    for row in rows:
        best = row.get("against", "")
        if row["mode"] == "memory":
            values = [f"{row['mib'][side]:.0f} MiB" if side in row["mib"] else "–" for side in ("ours", best)]
            ratio = f"{row['ratio']:.2f}" if "ratio" in row else "–"
        else:
            values = [_milliseconds(row["seconds"].get(side)) for side in ("ours", best)]
            ratio = f"{row['ratio']['median']:.2f} ({row['ratio']['low']:.2f}–{row['ratio']['high']:.2f})" if "ratio" in row else "–"
        extra = (_rival(row.get("rivals", {}).get(name)) for name in rivals)
        yield _line(row["network"], row["shape"], row["mode"], str(row["threads"]), *values, ratio, *extra)


def _card(result: Row) -> Iterator[str]:
    (run,) = result["runs"]
    cuda = f"CUDA {_cuda(run['cuda']['cupy'])} for CuPy {run['cupy']}, {run['cuda']['torch']} for PyTorch {run['torch']}"
    yield f"**{run['card']}**, {result['date']}; driver {run['driver']}, {cuda}."
    yield ""
    for precision, limits in run["peaks"].items():
        yield f"- {precision}: peak {limits['gflops'] / 1000:.1f} TFLOP/s, {limits['gbytes']:.0f} GB/s"
    yield ""


def _cuda(number: int) -> str:
    """13000 → '13.0'."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _part(result: Row) -> Iterator[str]:
    """What of the benchmark was measured, where that is not all."""
    if result["only"] or not result["complete"]:
        end = "" if result["complete"] else ", as far as the time on the card went"
        yield f"A part of the benchmark: rows with “{result['only']}”{end}."
        yield ""


def _on_gpu(rows: list[Row]) -> Iterator[str]:
    """The networks one by one; of each operation and direction the ratios and the shares of the peak over all its shapes."""
    yield from _head("Network", "Input", "", "Precision", "minunet", "PyTorch", "Ratio", "TFLOP/s")
    for row in (row for row in rows if "network" in row):
        values = [_milliseconds(row["seconds"].get(side)) for side in ("ours", row["against"])]
        labels = row["network"], row["shape"], row["mode"], row["precision"]
        yield _line(*labels, values[0], f"{values[1]} ({row['against']})", f"{row['ratio']['median']:.2f}", f"{row['gflops'] / 1000:.1f}")
    yield ""
    yield from _head("Operation", "", "Precision", "Shapes", "Ratio", "Of peak")
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in (row for row in rows if "operation" in row):
        groups.setdefault((row["operation"], row["direction"], row["precision"]), []).append(row)
    for labels, members in groups.items():
        shares = sorted(row["share"] for row in members)
        yield _line(*labels, str(len(members)), _range(members), f"{shares[0]:.0%} – {shares[-1]:.0%}")


def _rival(found: Row | None) -> str:
    if found is None or "failed" in found:
        return "failed" if found else "–"
    return f"{_milliseconds(found['seconds'])} ({found['ratio']['median']:.2f})"


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{1000 * seconds:.3g} ms" if seconds < 0.1 else f"{1000 * seconds:.0f} ms"


def _errors(rows: list[Row]) -> Iterator[str]:
    most = max(row["threads"] for row in rows)
    yield from _head("Operation", "Shape", "", "minunet", "PyTorch", "minunet ÷ PyTorch")
    for row in rows:
        if row["threads"] == most:
            values = [f"{row['error'][side]:.1e}" if side in row["error"] else "–" for side in ("ours", "torch")]
            yield _line(row["operation"], row["shape"], row["direction"], *values, f"{row['ratio']:.2f}" if "ratio" in row else "–")


_TIME = "![Pixel error and Dice of the membrane over the minutes, minunet and PyTorch](images/isbi2012_time.png)"


def _sides(runs: list[Row]) -> Iterator[str]:
    """A line for each process of benchmarks/isbi2012.py."""
    for run in runs:
        if run["side"] == "minunet":
            yield f"- minunet: {in_threads(run['numba_threads'])}, {_waiting(run)}"
        else:
            steps = ", ".join(f"{order.replace('_', ' ')} {1000 * seconds:.0f} ms" for order, seconds in run["seconds_a_step"].items())
            order = run["order"].replace("_", " ")
            yield f"- {run['side']}: {in_threads(run['torch_threads'])}, {_waiting(run)}; memory order: {order} (a step: {steps})"


def _trainings(result: Row) -> Iterator[str]:
    """Each run at its best and at its last epoch; PyTorch's over all epochs also where it was when minunet's ended."""
    rows = {run["side"]: [row for row in result["rows"] if row["side"] == run["side"]] for run in result["runs"]}
    limit = rows["minunet"][-1]["seconds"]
    yield from _head("Run", "Minutes", "Epochs", "Best epoch", "Pixel error", "Dice of the membrane", "Last epoch: pixel error", "Dice")
    for side, mine in rows.items():
        if side == "PyTorch, all epochs" and (early := [row for row in mine if row["seconds"] <= limit]):
            yield _training(f"{side}, when minunet had ended", early)
        yield _training(side, mine)


def _training(name: str, rows: list[Row]) -> str:
    best, last = max(rows, key=lambda row: row["dice_membrane"]), rows[-1]
    scores = (f"{row[score]:.4f}" for row in (best, last) for score in ("pixel_error", "dice_membrane"))
    return _line(name, f"{last['seconds'] / 60:.1f}", str(len(rows)), str(best["epoch"]), *scores)


_FITS = "that fits"  # the loss
_PAPER = {  # dB with noisy / with clean targets: Lehtinen et al. 2018, tables 1 and 2, section 3 and the captions of figures 3 and 4
    ("gaussian", _FITS): "31.61 / 31.63", ("poisson", _FITS): "30.57 / 30.59", ("bernoulli", _FITS): "32.02 / 31.85",
    ("text", _FITS): "35.75 / 35.82", ("text", "l2"): "26.89 / –", ("mri", _FITS): "31.74 / 31.77",
    ("impulse", _FITS): "28.43 / 28.86", ("impulse", "l1"): "16.36 / –", ("impulse", "l2"): "13.02 / –",
}  # fmt: skip
_TESTED = ("set12", "kodak24")


def _denoised(runs: list[Row]) -> Iterator[str]:
    """A table for each machine."""
    machines: dict[str, list[Row]] = {}
    for run in runs:
        beside = f", {run['jobs']} networks side by side" if run["jobs"] > 1 else ""
        where = run["gpu"]["card"] if run["gpu"] else f"{run['machine']['processor']}, {in_threads(run['threads'])} a network"
        machines.setdefault(where + beside, []).append(run)
    for where, there in machines.items():
        yield f"{', '.join(sorted({run['date'] for run in there}))}, {where}."
        yield ""
        yield from _restored(there)
        yield ""


def _restored(runs: list[Row]) -> Iterator[str]:
    """A line for each noise and loss: PSNR with noisy / with clean targets, on each set of pictures."""
    yield from _head(
        "Noise", "Loss", "Steps", "Windows a step", "Rate", "Seconds", "Set12, noisy", "denoised", "Kodak, noisy", "denoised", "Paper"
    )
    groups: dict[tuple[str, str], dict[str, Row]] = {}
    for run in runs:
        settings = run["settings"]
        groups.setdefault((run["trial"].partition(",")[0], settings["loss"] or _FITS), {})[settings["target"]] = run
    for (noise, loss), pair in groups.items():
        first = next(iter(pair.values()))

        def both(say: Any, pair: dict[str, Row] = pair) -> str:
            return " / ".join(say(pair[target]) if target in pair else "–" for target in ("noisy", "clean"))

        cells = []
        for name in _TESTED:
            cells.append(f"{first[name]['before psnr']:.2f}" if name in first else "–")
            cells.append(both(lambda run, name=name: f"{run[name]['after psnr']:.2f}" if name in run else "–"))
        paper = _PAPER.get((first["settings"]["noise"], loss), "–")
        size, rate = first["settings"]["batch_size"], first["settings"]["learning_rate"]
        counts = both(lambda run: str(run["steps"])), str(size), f"{rate:g}", both(lambda run: f"{run['seconds']:.0f}")
        yield _line(noise, loss, *counts, *cells, paper)


def _reconstructed(result: Row) -> Iterator[str]:
    """Scores of each method, then the speed beside scikit-image."""
    rows = {table: [row for row in result["rows"] if row["table"] == table] for table in ("quality", "speed")}
    yield f"{result['date']}, {result['machine']['processor']}, {in_threads(rows['speed'][0]['threads'])}."
    yield ""
    yield from _head("Method", "PSNR in dB", "SSIM", "Time an object")
    for row in rows["quality"]:
        behind = f", behind {row['behind']}" if "behind" in row else ""
        psnr, ssim = (
            f"{row[name]['mean']:.{digits}f} ± {row[name]['deviation']:.{digits}f}" for name, digits in (("psnr", 2), ("ssim", 3))
        )
        yield _line(row["method"] + behind, psnr, ssim, _milliseconds(row["seconds_an_object"]))
    yield ""
    yield from _head("Operation", "Image, angles", "minunet", "scikit-image", "Ratio")
    for row in rows["speed"]:
        times = (_milliseconds(row["seconds"][side]) for side in ("minunet", "scikit-image"))
        yield _line(row["operation"], f"{row['size']}², {row['angles']}", *times, f"{row['ratio']['median']:.1f}")


def _head(*cells: str) -> Iterator[str]:
    yield _line(*cells)
    yield "|" + "---|" * len(cells)


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
