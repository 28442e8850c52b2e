"""What the speed buys: ISBI 2012 trained by minunet, then by PyTorch for as long as that took.

python benchmarks/isbi2012.py      about a quarter of an hour: results/isbi2012.json and docs/images/isbi2012_time.png

The first run is `minunet train isbi2012`. The second has the same windows from the same loader, the same weights at the start, loss,
optimiser, loop and metrics. Its learning rate follows the clock, so that it is annealed when the time is over. Each has a process of
its own, and the whole machine.

The clock is that of `minunet.train.loop.Trainer`: training, validation and writing checkpoints. Before it starts, each process trains
for a short epoch and throws the weights away. By then all is imported, kernels are compiled, and memory and threads are there.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from minunet.bench.measure import Contestant, Effort, medians, take_turns, write
from minunet.bench.report import OURS, THEIRS
from minunet.bench.rivals import load, torch_unet
from minunet.bench.session import answer_of
from minunet.tensor import Tensor
from minunet.train.display import LiveDisplay
from minunet.train.loop import Display, Run, Trainer, one_cycle
from minunet.train.segmentation import Prepared, Settings, prepare, preset, train, validate

ROOT = Path(__file__).parents[1]
RESULTS, IMAGES = ROOT / "benchmarks" / "results", ROOT / "docs" / "images"
QUICK = {"epochs": 2, "repeats": 1, "crop": 64}
SIDES = MINUNET, SAME_TIME, ALL_EPOCHS = "minunet", "PyTorch, the same time", "PyTorch, all epochs"
SHOWN = ("learning_rate", "train_loss", "val_loss", "pixel_error", "dice_membrane")  # of each epoch
SCORES = {"pixel_error": "pixel error", "dice_membrane": "Dice of the membrane"}  # those of the figure
ORDERS = ("contiguous_format", "channels_last")  # PyTorch's, of an image in memory


# --- the same in PyTorch


def torch_network(torch: Any, prepared: Prepared, order: str) -> Any:
    """The network with our initial weights. It takes our tensors: a hook makes them PyTorch's, in its memory order."""
    layout = getattr(torch, order)
    shape = {name: value for name, value in prepared.config["model"].items() if name != "dropout"}
    network = load(torch_unet(torch, **shape), prepared.model, torch).to(memory_format=layout)
    network.register_forward_pre_hook(lambda _, inputs: torch.from_numpy(inputs[0].data).contiguous(memory_format=layout))
    return network


def torch_optimizer(torch: Any, network: Any, settings: Settings) -> Any:
    """Our defaults, written out."""
    options = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": settings.weight_decay}
    return torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, **options)


def torch_loss(torch: Any, logits: Any, masks: Any) -> Any:
    """`minunet.losses.dice_cross_entropy` of two classes: logits (N, 1, H, W), masks (N, H, W)."""
    z, t = logits[:, 0], torch.from_numpy(masks).float()
    p = torch.sigmoid(z)
    dice = (2 * (p * t).sum((1, 2)) + 1) / (p.sum((1, 2)) + t.sum((1, 2)) + 1)
    return torch.nn.functional.binary_cross_entropy_with_logits(z, t) + 1 - dice.mean()


class TorchTrainer(Trainer):
    """The same loop: a network and an optimiser of PyTorch have what it calls. What looks into their arrays is told anew."""

    def _weights_are_finite(self) -> bool:
        return all(value.isfinite().all() for value in self.model.state_dict().values())

    def _save(self, path: Path) -> None:
        import torch

        optimizer = self.optimizer.state_dict() if path == self.last else None
        torch.save({"model": self.model.state_dict(), "optimizer": optimizer}, path)


def torch_trainer(torch: Any, settings: Settings, order: str, out: Path, display: Display | None = None) -> TorchTrainer:
    prepared = prepare(settings)
    network = torch_network(torch, prepared, order)

    def predict(images: Any) -> Any:
        with torch.no_grad():
            return network(Tensor(images)).numpy()

    return TorchTrainer(
        network,
        torch_optimizer(torch, network, settings),
        lambda logits, masks: torch_loss(torch, logits, masks),
        prepared.loader,
        lambda _: validate(predict, prepared),
        out=out,
        epochs=settings.epochs,
        minutes=settings.minutes,
        monitor="dice",
        schedule=one_cycle,
        display=display,
    )


def seconds_a_step(torch: Any, settings: Settings, effort: Effort) -> dict[str, float]:
    """Of training with PyTorch in each memory order."""
    prepared = prepare(settings)
    images, masks = next(iter(prepared.loader))
    images = Tensor(images)

    def contestant(order: str) -> Contestant:
        network = torch_network(torch, prepared, order)
        optimizer = torch_optimizer(torch, network, settings)

        def step(_: Any) -> None:
            optimizer.zero_grad(set_to_none=True)
            torch_loss(torch, network(images), masks).backward()
            optimizer.step()

        return Contestant(step)

    return medians(take_turns({order: contestant(order) for order in ORDERS}, effort))


# --- a process for each run


def run_side(side: str, threads: int, quick: bool, minutes: float | None) -> dict[str, Any]:
    """In a process that does nothing else."""
    if hasattr(os, "sched_setaffinity"):  # no more cores than threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    torch = importlib.import_module("torch") if side != MINUNET else None
    settings = preset("isbi2012", **(QUICK if quick else {}))
    warm_up = replace(settings, epochs=1, repeats=1)
    settings = replace(settings, minutes=minutes)
    display = LiveDisplay(Console(), {"val_loss": "val loss", "pixel_error": "pixel error", "dice": "Dice"})
    about: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        if torch is None:
            train(warm_up, Path(folder, "warm-up"))
            run, _ = train(settings, Path(folder, "run"), display=display)
        else:
            torch.set_num_threads(threads)
            seconds = seconds_a_step(torch, settings, Effort(2 if quick else 7, 0))
            about = {"seconds_a_step": seconds, "order": min(seconds, key=seconds.__getitem__)}
            print("  " + ", ".join(f"{order}: {1000 * value:.0f} ms a step" for order, value in seconds.items()), flush=True)
            torch_trainer(torch, warm_up, about["order"], Path(folder, "warm-up")).fit()
            trainer = torch_trainer(torch, settings, about["order"], Path(folder, "run"), display)
            trainer.fit()
            run = trainer.run
    from minunet.bench.__main__ import settings as reported  # last: it starts Numba's threads

    return told(side, run, {**reported(threads, torch), **about, "minutes": minutes})


def told(side: str, run: Run, about: dict[str, Any]) -> dict[str, Any]:
    """{"run": …, "rows": a row for each epoch}; "seconds" is the time from the start of training to the end of that epoch."""
    rows, seconds = [], 0.0
    for row in run.history:
        seconds += row["seconds"]
        rows.append({"side": side, "epoch": row["epoch"], "seconds": seconds, **{name: row[name] for name in SHOWN}})
    return {"run": {"side": side, **about, "best_epoch": run.best_epoch}, "rows": rows}


def in_a_process(side: str, threads: int, quick: bool, minutes: float | None = None) -> dict[str, Any]:
    """What `run_side` returns."""
    print(side if minutes is None else f"{side}: {minutes:.1f} minutes", flush=True)
    # Idle threads sleep soon on both sides. PyTorch's own default lets them wait for long: alone a step is then 2 % faster, but they
    # take the core from the thread that prepares the next windows, and the whole run is 2 % slower.
    return answer_of(__file__, {"side": side, "threads": threads, "quick": quick, "minutes": minutes})


# --- the figure


def chart(rows: list[dict[str, Any]]) -> Figure:
    """Pixel error and Dice against the minutes; a dot at the best epoch of each run, the one with the highest Dice.

    The worst tenth of all epochs, the first ones, is out of sight.
    """
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    for axes, (score, title) in zip(figure.subplots(1, 2), SCORES.items(), strict=True):
        for side, colour, dash in zip(SIDES, (OURS, THEIRS, THEIRS), ("-", "-", ":"), strict=True):
            mine = [row for row in rows if row["side"] == side]
            if mine:
                axes.plot([row["seconds"] / 60 for row in mine], [row[score] for row in mine], dash, color=colour, label=side)
                best = max(mine, key=lambda row: row["dice_membrane"])
                axes.plot(best["seconds"] / 60, best[score], "o", color=colour)
        worst, best = np.quantile([row[score] for row in rows], (0.9, 0) if score == "pixel_error" else (0.1, 1))
        margin = 0.05 * abs(best - worst)
        axes.set(title=title, xlabel="minutes of training", xlim=(0, None), ylim=(min(worst, best) - margin, max(worst, best) + margin))
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="of both sides (default: 2)")
    parser.add_argument("--all-epochs", action="store_true", help="PyTorch runs once more, for all 60 epochs, however long they take")
    parser.add_argument("--quick", action="store_true", help="2 epochs of few small windows: shows that all works, not how fast")
    parser.add_argument("--out", type=Path, help="the folder for both files; needed with --quick, which leaves the kept ones alone")
    parser.add_argument("--request", type=json.loads, help=argparse.SUPPRESS)  # of `in_a_process`
    asked = parser.parse_args()
    if asked.request:
        asked.out.write_text(json.dumps(run_side(**asked.request)), encoding="utf-8")
        return
    if asked.quick and asked.out is None:
        parser.error("--quick measures nothing that should be kept: say with --out DIR where its files go.")
    found = [in_a_process(MINUNET, asked.threads, asked.quick)]
    minutes = found[0]["rows"][-1]["seconds"] / 60
    found.append(in_a_process(SAME_TIME, asked.threads, asked.quick, minutes))
    if asked.all_epochs:
        found.append(in_a_process(ALL_EPOCHS, asked.threads, asked.quick))
    rows = [row for each in found for row in each["rows"]]
    results, images = (asked.out, asked.out) if asked.out else (RESULTS, IMAGES)
    head = {"benchmark": "isbi2012", "quick": asked.quick, "runs": [each["run"] for each in found]}
    write(results / "isbi2012.json", head, rows)
    chart(json.loads((results / "isbi2012.json").read_text(encoding="utf-8"))["rows"]).savefig(
        images / "isbi2012_time.png", dpi=110, metadata={"Software": None}
    )


if __name__ == "__main__":
    main()
