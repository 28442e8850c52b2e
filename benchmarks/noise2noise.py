"""Noisy targets against clean ones, noise by noise: networks trained under one equal budget, told apart on Set12 and Kodak's pictures.

python benchmarks/noise2noise.py --jobs 2                    Gaussian noise of σ = 25, two cores, 45 minutes: results/noise2noise.json
python benchmarks/noise2noise.py --only text --steps 4000    a noise, for steps in place of time: the machine may do other things beside
python benchmarks/noise2noise.py --only "" --device cuda     all noises of the paper on a GPU: results/noise2noise-CARD.json

All begin with the same weights and see the same windows of the 400 pictures of BSD (MINUNET_DATA/bsd_train400, gray). Two networks of one
noise differ in the target: a second noisy draw, or the picture. Text and impulses are trained with losses that do not fit them too. Each
network has a process of its own, and on the processor cores of its own. There two networks of one thread, side by side, end in seven tenths
of the time that they take one after the other on two threads.

The curve is measured on held-out pictures of the training set, the last line on Set12 (MINUNET_DATA/set12) and on the luminance of Kodak's
24 pictures (MINUNET_DATA/kodak24, where it is): the noise at its tested strength, not clipped, the output clipped to [0, 1], PSNR and SSIM
of each picture, then their means. The file is written after each network; those of an earlier call that are not trained anew stay in it.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console

from minunet import checkpoint, data
from minunet.arrays import cupy_module
from minunet.bench.measure import cores, machine, write
from minunet.bench.on_gpu import in_file_names
from minunet.bench.session import answer_of
from minunet.inference import Denoiser
from minunet.train.display import LiveDisplay
from minunet.train.loop import Run
from minunet.train.noise2noise import Settings, evaluate, fit, prepare

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
NEEDED = ("bsd_train400", "set12")
SHOWN = ("learning_rate", "train_loss", "psnr", "ssim")  # of each epoch
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue, ITU-R BT.601


@dataclass(frozen=True)
class Trial:
    """A network. loss: None for the one that fits. strength: None for a range, as the paper has it."""

    noise: str
    target: str
    loss: str | None = None
    strength: float | None = None

    @property
    def label(self) -> str:
        noise = self.noise if self.strength is None else f"{self.noise} of {self.strength:g}"
        return f"{noise}, {self.target} targets" + (f", {self.loss}" if self.loss else "")


ALL_STRENGTHS = dict.fromkeys(("gaussian", "poisson", "bernoulli", "text", "impulse", "mri"))
KNOWN_STRENGTH = {name: data.NOISES[name].tested for name in ("gaussian", "text", "impulse")}  # what is learned in an hour is then enough
FASTER = {noise: {"learning_rate": 1e-3} for noise in ("text", "impulse")}  # text ends 1.5 dB higher: 29.3 on Set12, not 27.8
TRIALS = tuple(
    trial
    for strengths in (KNOWN_STRENGTH, ALL_STRENGTHS)
    for trial in (
        *(Trial(noise, target, strength=strength) for noise, strength in strengths.items() for target in ("noisy", "clean")),
        *(Trial(noise, "noisy", loss, strengths[noise]) for noise, loss in (("text", "l2"), ("impulse", "l1"), ("impulse", "l2"))),
    )
)


def folder(name: str) -> Path:
    """Of a data set below MINUNET_DATA."""
    return Path(os.environ.get("MINUNET_DATA", ROOT.parent / "shared" / "data")) / name


class Luminance(data.Pictures):
    """Colour pictures seen in gray."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.channels = 1

    def image(self, index: int) -> Any:
        return np.tensordot(LUMINANCE, super().image(index), 1)[None]  # (3, H, W) → (1, H, W)


# --- in a process that does nothing else


def run_trial(request: dict[str, Any]) -> dict[str, Any]:
    """Trains a network and judges it. request: what `requests` makes."""
    threads, device = request["threads"], request["settings"]["device"]
    if device == "cpu" and hasattr(os, "sched_setaffinity"):  # a core for each thread, none that the networks beside have
        first = threads * request["place"]
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[first : first + threads])
    settings = Settings(str(folder("bsd_train400")), **request["settings"])
    display = LiveDisplay(Console(), {"psnr": "PSNR", "ssim": "SSIM"})
    with TemporaryDirectory() as out:
        warm_up = replace(settings, steps=3, minutes=None)
        fit(warm_up, prepare(warm_up), Path(out, "warm-up"))  # compiles, starts threads
        run, _ = fit(settings, prepare(settings), Path(out, "run"), display=display)
        denoiser = Denoiser.load(Path(out, "run", checkpoint.LAST), device)
        about: dict[str, Any] = {"threads": threads, "jobs": request["jobs"], "set12": judged(denoiser, data.Pictures(folder("set12")))}
        if folder("kodak24").is_dir():
            about["kodak24"] = judged(denoiser, Luminance(folder("kodak24")))
    about |= {"date": date.today().isoformat(), "machine": machine(), "gpu": card() if device == "cuda" else None}
    return told(request["label"], run, {**about, "settings": denoiser.config["settings"]})


def judged(denoiser: Denoiser, pictures: data.Pictures) -> dict[str, Any]:
    """Means over the pictures, and the PSNR of each."""
    verdicts = list(evaluate(denoiser, pictures))
    mean = {
        f"{side} {name}": sum(getattr(v, side)[name] for v in verdicts) / len(verdicts)
        for side in ("before", "after")
        for name in ("psnr", "ssim")
    }
    return {**mean, "each psnr": {v.name: {"before": v.before["psnr"], "after": v.after["psnr"]} for v in verdicts}}


def card() -> dict[str, Any]:
    cupy = cupy_module()
    runtime = cupy.cuda.runtime
    name = runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode()
    return {"card": name, "cuda": {"driver": runtime.driverGetVersion(), "cupy": runtime.runtimeGetVersion()}, "cupy": cupy.__version__}


def told(label: str, run: Run, about: dict[str, Any]) -> dict[str, Any]:
    """{"run": …, "rows": a row for each epoch}; "seconds" is the time from the start of training to the end of that epoch."""
    rows, seconds = [], 0.0
    for row in run.history:
        seconds += row["seconds"]
        rows.append({"trial": label, "steps": row["epoch"] * about["settings"]["every"], "seconds": seconds, **{n: row[n] for n in SHOWN}})
    about["settings"].pop("images")  # a path of the machine
    return {"run": {"trial": label, "steps": rows[-1]["steps"], "seconds": run.seconds, **about}, "rows": rows}


# --- all of them


def requests(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """What each process is asked for: its network, and the settings of its training."""
    chosen = [trial for trial in TRIALS if any(text in trial.label for text in asked.only)]
    common = {"every": asked.every, "batch_size": asked.batch_size, "device": asked.device}
    limits = {"steps": 3, "every": 3} if asked.quick else {"steps": asked.steps} if asked.steps else {"minutes": asked.minutes}
    shared = {"threads": asked.threads, "jobs": asked.jobs}
    return [
        {"label": trial.label, **shared, "settings": {**asdict(trial), **FASTER.get(trial.noise, {}), **common, **limits}}
        for trial in chosen
    ]


def finished(wanted: list[dict[str, Any]], jobs: int) -> Iterator[dict[str, Any]]:
    """What `run_trial` returns, as it comes; one that fails is told and left out."""
    free: SimpleQueue[int] = SimpleQueue()  # places side by side
    for place in range(jobs):
        free.put(place)

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        place = free.get()
        try:
            return answer_of(__file__, {**request, "place": place})
        finally:
            free.put(place)

    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(answer, request): request["label"] for request in wanted}
        for future in as_completed(running):
            if problem := future.exception():
                print(f"{running[future]}: {problem}", flush=True)
            else:
                yield future.result()


def keep(answer: dict[str, Any], path: Path) -> None:
    """Enters a network into the file of results, in the order of the trials."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"quick": False, "runs": [], "rows": []}
    order = [trial.label for trial in TRIALS]
    runs, rows = (
        sorted([*(old for old in before[part] if old["trial"] != answer["run"]["trial"]), *new], key=lambda a: order.index(a["trial"]))
        for part, new in (("runs", [answer["run"]]), ("rows", answer["rows"]))
    )
    write(path, {"benchmark": "noise2noise", "quick": answer["quick"] or before["quick"], "runs": runs}, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", default=["gaussian of 25"], help='networks whose name holds one of these; "" is in all (gaussian of 25)'
    )
    parser.add_argument("--minutes", type=float, default=40, help="of training, for each network (default: 40)")
    parser.add_argument("--steps", type=int, help="of training, for each network, in place of minutes; whole points of the curve")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="networks side by side (default: 1)")
    parser.add_argument("--batch-size", type=int, default=4, help="windows of 64×64 a step (default: 4)")
    parser.add_argument("--threads", type=int, default=1, help="of each network, on the processor (default: 1)")
    parser.add_argument("--every", type=int, default=250, help="steps between two points of the curve (default: 250)")
    parser.add_argument("--quick", action="store_true", help="three steps a network: shows that all works, not what comes of it")
    parser.add_argument("--out", type=Path, help="the folder for the result; needed with --quick, which leaves the kept one alone")
    parser.add_argument("--request", type=json.loads, help=argparse.SUPPRESS)  # of `answer_of`
    asked = parser.parse_args()
    if asked.request:
        asked.out.write_text(json.dumps(run_trial(asked.request)), encoding="utf-8")
        return
    if asked.quick and asked.out is None:
        parser.error("--quick measures nothing that should be kept: say with --out DIR where its file goes.")
    if asked.device == "cpu" and asked.jobs * asked.threads > (there := cores()):
        taken = f"--jobs {asked.jobs} and --threads {asked.threads} take {asked.jobs * asked.threads} cores"
        parser.error(f"{taken}, and there are {there}: ask for less.")
    if asked.steps is not None and (asked.steps < 1 or asked.steps % asked.every):
        parser.error(f"--steps {asked.steps} is no multiple of --every {asked.every}, the steps between two points of the curve.")
    for name in NEEDED:  # before time is spent
        if not folder(name).is_dir():
            parser.error(f"There is no data set {name!r} in {str(folder(name).parent)!r}: set MINUNET_DATA to the folder that holds it.")
    wanted = requests(asked)
    if not wanted:
        parser.error(f"no network's name holds {' or '.join(asked.only)}: {'; '.join(trial.label for trial in TRIALS)}.")
    done = 0
    for answer in finished(wanted, asked.jobs):
        run, scores = answer["run"], answer["run"]["set12"]
        done += 1
        print(f"{run['trial']}: {run['steps']} steps, {run['seconds']:.0f} s; ", end="")
        print(f"Set12 {scores['before psnr']:.2f} → {scores['after psnr']:.2f} dB", flush=True)
        name = "noise2noise" if run["gpu"] is None else f"noise2noise-{in_file_names(run['gpu']['card'])}"
        keep(answer | {"quick": asked.quick}, (asked.out or RESULTS) / f"{name}.json")
    if done < len(wanted):
        raise SystemExit(f"{len(wanted) - done} of {len(wanted)} networks failed.")


if __name__ == "__main__":
    main()
