"""Noisy targets against clean ones: two networks trained for the same time, told apart on Set12.

python benchmarks/noise2noise.py      an hour and a half: results/noise2noise.json, one row an epoch of each side

Both begin with the same weights and see the same windows of the 400 pictures of BSD (MINUNET_DATA/bsd_train400), with Gaussian noise of a σ
drawn from 0 … 50 gray levels. They differ in the target: a second noisy draw, or the picture. Each runs in a process of its own, with the
whole machine. The curve is measured on held-out pictures of the training set, the last line on Set12 (MINUNET_DATA/set12): σ = 25, noise
not clipped, the output clipped to [0, 1], PSNR and SSIM of each picture, then their means.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from minunet import data
from minunet.bench.measure import write
from minunet.bench.session import answer_of
from minunet.inference import Denoiser
from minunet.train.display import LiveDisplay
from minunet.train.loop import Run
from minunet.train.noise2noise import Settings, evaluate, train

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TARGETS = ("noisy", "clean")
SHOWN = ("learning_rate", "train_loss", "psnr", "ssim")  # of each epoch


def folder(name: str) -> str:
    """Of a data set below MINUNET_DATA."""
    found = Path(os.environ.get("MINUNET_DATA", ROOT.parent / "shared" / "data")) / name
    if not found.is_dir():
        raise SystemExit(f"There is no data set {name!r} in {str(found.parent)!r}: set MINUNET_DATA to the folder that holds it.")
    return str(found)


def run_side(target: str, threads: int, minutes: float, every: int) -> dict[str, Any]:
    """In a process that does nothing else."""
    if hasattr(os, "sched_setaffinity"):  # no more cores than threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    settings = Settings(folder("bsd_train400"), noise="gaussian", target=target, minutes=minutes, every=every)
    display = LiveDisplay(Console(), {"psnr": "PSNR", "ssim": "SSIM"})
    with TemporaryDirectory() as out:
        train(Settings(settings.images, noise="gaussian", target=target, steps=2), Path(out, "warm-up"))  # compiles, starts threads
        run, _ = train(settings, Path(out, "run"), display=display)
        denoiser = Denoiser.load(Path(out, "run", "last.safetensors"))
        verdicts = list(evaluate(denoiser, data.Pictures(folder("set12"))))
    names = ("psnr", "ssim")
    mean = {
        f"{side} {name}": sum(getattr(v, side)[name] for v in verdicts) / len(verdicts) for side in ("before", "after") for name in names
    }
    each = {v.name: {"before": v.before["psnr"], "after": v.after["psnr"]} for v in verdicts}
    return told(
        target, run, {"threads": threads, "minutes": minutes, "set12": mean, "set12_psnr": each, "settings": denoiser.config["settings"]}
    )


def told(target: str, run: Run, about: dict[str, Any]) -> dict[str, Any]:
    """{"run": …, "rows": a row for each epoch}; "seconds" is the time from the start of training to the end of that epoch."""
    rows, seconds, steps = [], 0.0, 0
    for row in run.history:
        seconds += row["seconds"]
        steps += about["settings"]["every"]
        rows.append({"target": target, "steps": steps, "seconds": seconds, **{name: row[name] for name in SHOWN}})
    about["settings"].pop("images")  # a path of the machine
    return {"run": {"target": target, "steps": steps, "seconds": run.seconds, **about}, "rows": rows}


def in_a_process(**request: Any) -> dict[str, Any]:
    """What `run_side` returns."""
    print(f"{request['target']} targets: {request['minutes']:g} minutes", flush=True)
    return answer_of(__file__, request)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=40, help="of training, for each side (default: 40)")
    parser.add_argument("--threads", type=int, default=1, help="of both sides (default: 1)")
    parser.add_argument("--every", type=int, default=250, help="steps between two points of the curve (default: 250)")
    parser.add_argument("--quick", action="store_true", help="three steps a side: shows that all works, not what comes of it")
    parser.add_argument("--out", type=Path, help="the folder for the result; needed with --quick, which leaves the kept one alone")
    parser.add_argument("--request", type=json.loads, help=argparse.SUPPRESS)  # of `in_a_process`
    asked = parser.parse_args()
    if asked.request:
        asked.out.write_text(json.dumps(run_side(**asked.request)), encoding="utf-8")
        return
    if asked.quick and asked.out is None:
        parser.error("--quick measures nothing that should be kept: say with --out DIR where its file goes.")
    for name in ("bsd_train400", "set12"):
        folder(name)  # before time is spent
    minutes, every = (0.001, 3) if asked.quick else (asked.minutes, asked.every)
    found = [in_a_process(target=target, threads=asked.threads, minutes=minutes, every=every) for target in TARGETS]
    for run in (each["run"] for each in found):
        scores = run["set12"]
        print(f"{run['target']} targets, {run['steps']} steps: Set12 {scores['before psnr']:.2f} → {scores['after psnr']:.2f} dB")
    head = {"benchmark": "noise2noise", "quick": asked.quick, "runs": [each["run"] for each in found]}
    write((asked.out or RESULTS) / "noise2noise.json", head, [row for each in found for row in each["rows"]])


if __name__ == "__main__":
    main()
