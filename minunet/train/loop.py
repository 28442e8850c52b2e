"""The training loop that every task shares.

A `Trainer` is given a model, an optimiser, a loss, a loader and a function that validates; it knows nothing of masks or
noise. What it promises:

- A run that was killed at any moment and is resumed from `last.safetensors` ends bit-identical to one that was not: the
  checkpoint holds weights, optimiser, random stream and the `Run` below, and the loader's batches depend on (seed, epoch) alone.
- Ctrl-C finishes the batch, saves, and stops; the run continues in the middle of the epoch.
- A loss that is not finite stops the run before the weights are touched; on a GPU, before anything is saved.
- A file is either the old one or the new one: checkpoints and logs are written beside and moved into place.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from minunet import checkpoint, cuda, rng
from minunet.arrays import to_device
from minunet.files import replacing
from minunet.nn import Module
from minunet.optim import Optimizer
from minunet.optim.scaling import LossScaler
from minunet.tensor import Tensor
from minunet.train.ahead import compiling_ahead
from minunet.train.precision import as_images, multiplying

Metrics = dict[str, float]
Settings = TypeVar("Settings")  # a frozen dataclass of plain numbers and texts

_log = logging.getLogger("minunet")


class TrainingError(RuntimeError):
    """Training cannot go on; the message says where, what to try and which checkpoint is good."""


@dataclass
class Run:
    """What grows during a run besides the weights: plain numbers, stored in every checkpoint."""

    epoch: int = 0  # completed epochs
    batch: int = 0  # completed batches of the epoch under way
    loss_sum: float = 0.0  # over the images of the epoch under way
    images: int = 0  # of the epoch under way
    epoch_seconds: float = 0.0
    seconds: float = 0.0  # of training, all sittings together
    best: float | None = None  # the best value of the monitored metric
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)  # one row an epoch

    @property
    def stale(self) -> int:
        """Epochs since the best one."""
        return self.epoch - self.best_epoch


class Display(Protocol):
    """Who watches a run. `minunet.train.display.LiveDisplay` draws it with rich."""

    def begin(self, trainer: Trainer) -> None: ...
    def batch(self, trainer: Trainer) -> None: ...
    def epoch(self, trainer: Trainer, improved: bool) -> None: ...
    def end(self) -> None: ...


class Silent:
    """A display that shows nothing."""

    def begin(self, trainer: Trainer) -> None: ...
    def batch(self, trainer: Trainer) -> None: ...
    def epoch(self, trainer: Trainer, improved: bool) -> None: ...
    def end(self) -> None: ...


class Loader(Protocol):
    """Iterating gives pairs (inputs, targets), the same for the same (seed, epoch) whatever happened before."""

    def set_epoch(self, epoch: int) -> None: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[tuple[Any, Any]]: ...


def one_cycle(progress: float, warm_up: float = 0.1, floor: float = 0.01) -> float:
    """The learning rate's factor: a linear warm-up, then a half cosine down to `floor`. progress: 0 at the start, 1 at the end."""
    if progress < warm_up:
        return floor + (1 - floor) * progress / warm_up
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min((progress - warm_up) / (1 - warm_up), 1)))


def ramp_down(progress: float, share: float = 0.3) -> float:
    """The learning rate's factor: 1, then over the last `share` of the run (½ + ½·cos πt)² down to 0, t from 0 to 1."""
    t = max(progress - (1 - share), 0) / share
    return (0.5 + 0.5 * math.cos(math.pi * min(t, 1))) ** 2


def constant(progress: float) -> float:
    """The learning rate's factor 1, throughout."""
    return 1.0


class Trainer:
    """Trains `model` for `epochs`, or until `minutes` are spent, or until `monitor` has not improved for `patience` epochs. Where the
    clock alone is to end it, `epochs` is None.

    loss: (model output, targets) → scalar tensor. validate: (model) → metrics, called after each epoch in eval mode.
    schedule: progress in [0, 1] → factor of the optimiser's learning rate, set before each batch. Progress is the share
    of the planned batches, or of the minutes where those pass faster.
    out: the folder that receives last.safetensors, best.safetensors, metrics.csv and metrics.json.
    config: what is needed to build the model again; stored in the checkpoints.
    precision: of the training, see `minunet.train.precision`. Validation is float32, as the weights are that it judges.

    On a GPU the step of all batches that have the first one's shape is one CUDA graph, where it can be (`cuda.graph`): not in fp16, which
    leaves some steps out. The loss of a batch is read when the next one is on its way: reading waits for the GPU.
    """

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer,
        loss: Callable[[Tensor, Any], Tensor],
        loader: Loader,
        validate: Callable[[Module], Metrics],
        *,
        out: Path,
        epochs: int | None,
        monitor: str,
        higher_is_better: bool = True,
        minutes: float | None = None,
        patience: int | None = None,
        schedule: Callable[[float], float] = constant,
        config: dict[str, Any] | None = None,
        device: str = "cpu",
        precision: str = "float32",
        display: Display | None = None,
    ) -> None:
        if len(loader) == 0:
            raise ValueError("Trainer: the loader has no batch. Use a smaller batch size or more images.")
        if epochs is None and minutes is None:
            raise ValueError("Trainer: a run ends after epochs or after minutes: give one of the two.")
        self.model, self.optimizer, self.loss, self.loader, self.validate = model.to(device), optimizer, loss, loader, validate
        self.out, self.epochs, self.minutes, self.patience = Path(out), epochs, minutes, patience
        self.monitor, self.higher_is_better = monitor, higher_is_better
        self.schedule, self.config, self.device = schedule, config or {}, device
        self.precision, self.scaler = precision, LossScaler() if precision == "fp16" else None
        self.display: Display = display or Silent()
        self.run = Run()
        self._peak_rates = [group["lr"] for group in optimizer.param_groups]
        self._graph: cuda.Graph | None = None
        self._first = True  # the next batch is the first one of this sitting
        self._clock = time.monotonic()

    @property
    def last(self) -> Path:
        """The checkpoint that `resume` continues from."""
        return self.out / checkpoint.LAST

    @property
    def best(self) -> Path:
        """The weights of the best epoch, without the optimiser."""
        return self.out / checkpoint.BEST

    @property
    def progress(self) -> float:
        """0 at the start of the run, 1 at its end."""
        done = 0.0 if self.epochs is None else (self.run.epoch + self.run.batch / len(self.loader)) / max(self.epochs, 1)
        return min(max(done, self.run.seconds / (60 * self.minutes) if self.minutes else 0.0), 1.0)

    def resume(self, same: Sequence[str] = ()) -> dict[str, Any]:
        """Continues where `last.safetensors` was saved. Returns the config it was saved with.

        same: entries of the config that tell of the images; where one has changed, ValueError is raised and nothing else happens.
        """
        saved = checkpoint.load(self.last)
        if any(saved.config[part] != self.config[part] for part in same):
            raise ValueError(
                f"the images are not those the run in {str(self.out)!r} began with: put them back, or start a new run with another --out."
            )
        saved.restore(model=self.model, optimizer=self.optimizer, rng=True)
        self.run = Run(**saved.extra["run"])
        if self.scaler is not None and saved.extra.get("scaler"):
            self.scaler.load_state_dict(saved.extra["scaler"])
        return saved.config

    def fit(self) -> str:
        """Trains. Returns why it ended: 'finished', 'time', 'no improvement' or 'interrupted'."""
        self.out.mkdir(parents=True, exist_ok=True)
        self._clock = time.monotonic()
        self._graph = cuda.graph(self._step) if self.device == "cuda" and self.scaler is None else None
        self.display.begin(self)
        try:
            with _ctrl_c() as asked_to_stop:
                while (reason := self._end_reason()) is None:
                    if not self._train_epoch(asked_to_stop):
                        self._save(self.last)
                        return "interrupted"
                    self._close_epoch()
                return reason
        finally:
            self.display.end()

    def _end_reason(self) -> str | None:
        run = self.run
        if run.batch:  # the middle of an epoch
            return None
        if self.epochs is not None and run.epoch >= self.epochs:
            return "finished"
        if self.minutes and run.history and run.seconds + run.history[-1]["seconds"] > 60 * self.minutes:
            return "time"  # another epoch would not fit
        if self.patience and run.history and run.stale >= self.patience:
            return "no improvement"
        return None

    def _train_epoch(self, asked_to_stop: threading.Event) -> bool:
        """The batches of an epoch that are left; False where Ctrl-C cut it short."""
        run = self.run
        unread: list[tuple[Any, int, int]] = []  # losses, images, numbers of the batches
        self.model.train()
        self.loader.set_epoch(run.epoch)
        for inputs, targets in islice(self.loader, run.batch, None):
            factor = self.schedule(self.progress)
            for group, peak in zip(self.optimizer.param_groups, self._peak_rates, strict=True):
                group["lr"] = peak * factor
            loss = self._launch(as_images(inputs, self.precision), targets)
            run.batch += 1
            unread.append((loss, len(inputs), run.batch))
            stop = asked_to_stop.is_set()
            more = not stop and run.batch < len(self.loader)
            self._read(unread, but=1 if more and self.device == "cuda" else 0)
            self._tick()
            self.display.batch(self)
            if stop:
                return False
        return True

    def _launch(self, inputs: Any, targets: Any) -> Any:
        """The step of one batch. Returns its loss, to be read with `item()`."""
        first, self._first = self._first, False
        if self.device == "cpu":
            options = self.config.get("model")
            with compiling_ahead(self.model, options, self.optimizer, self.loss, inputs, targets) if first else nullcontext():
                return self._step(inputs, targets)
        if self._graph is not None and self._graph.fits(inputs, targets):
            stream = rng.get_state()
            try:
                return cuda.Later(self._graph(inputs, targets))
            except cuda.CaptureError as problem:
                rng.set_state(stream)
                self._graph = None
                _log.info("Training goes on without a CUDA graph: %s", problem)
        return cuda.Later(self._step(to_device(inputs, "cuda"), to_device(targets, "cuda")))

    def _step(self, inputs: Any, targets: Any) -> Any:
        """Forward, loss, backward, update: returns the loss as an array."""
        self.optimizer.zero_grad()
        with multiplying(self.precision):
            loss = self.loss(self.model(Tensor(inputs)), targets)
            if self.device == "cpu":
                self._check_loss(loss.item(), self.run.batch + 1)
            self._update(loss)
        return loss.data

    def _read(self, unread: list[tuple[Any, int, int]], but: int = 0) -> None:
        """Enters the losses of all batches but the last `but`."""
        while len(unread) > but:
            loss, images, batch = unread.pop(0)
            value = float(loss.item())
            self._check_loss(value, batch)
            self.run.images += images
            self.run.loss_sum += value * images

    def _check_loss(self, value: float, batch: int) -> None:
        if not math.isfinite(value):
            raise self._not_finite(f"the loss became {value}", f"epoch {self.run.epoch + 1}, batch {batch} of {len(self.loader)}")

    def _update(self, loss: Tensor) -> None:
        """Backward, and a step unless the gradients of a scaled loss are not finite."""
        if self.scaler is None:
            loss.backward()
            self.optimizer.step()
            return
        (loss * self.scaler.scale).backward()
        if self.scaler.unscale(self.optimizer):
            self.optimizer.step()

    def _close_epoch(self) -> None:
        """Validates, enters a row into the history, saves."""
        run = self.run
        where = f"epoch {run.epoch + 1}, after its last batch"
        if not self._weights_are_finite():
            raise self._not_finite("a weight became NaN or infinite", where)
        images_per_second = run.images / max(run.epoch_seconds, 1e-9)
        self.model.eval()
        metrics = self.validate(self.model)
        self.model.train()
        value = metrics[self.monitor]
        if not math.isfinite(value):
            raise self._not_finite(f"the metric {self.monitor!r} became {value}", where)
        self._tick()
        rate = self.optimizer.param_groups[0]["lr"]
        row = {"epoch": run.epoch + 1, "learning_rate": rate, "train_loss": run.loss_sum / run.images, **metrics}
        run.history.append({**row, "images_per_second": images_per_second, "seconds": run.epoch_seconds})
        run.epoch, run.batch, run.images, run.loss_sum, run.epoch_seconds = run.epoch + 1, 0, 0, 0.0, 0.0
        improved = run.best is None or (value > run.best if self.higher_is_better else value < run.best)
        if improved:
            run.best, run.best_epoch = value, run.epoch
            self._save(self.best)
        self._save(self.last)
        self._write_logs()
        self.display.epoch(self, improved)

    def _tick(self) -> None:
        now = time.monotonic()
        self.run.seconds += now - self._clock
        self.run.epoch_seconds += now - self._clock
        self._clock = now

    def _weights_are_finite(self) -> bool:
        return all(np.isfinite(value.data).all() for value in self.model.state_dict().values())

    def _save(self, path: Path) -> None:
        optimizer = self.optimizer if path == self.last else None
        extra = {"run": asdict(self.run), "scaler": self.scaler and self.scaler.state_dict()}
        checkpoint.save(path, model=self.model, optimizer=optimizer, epoch=self.run.epoch, config=self.config, extra=extra)

    def _write_logs(self) -> None:
        """metrics.csv and metrics.json, always whole, so that a resumed run leaves no row twice."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.run.history[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.run.history)
        write_atomically(self.out / "metrics.csv", text.getvalue())
        summary = {"config": self.config, "best": self.run.best, "best_epoch": self.run.best_epoch, "history": self.run.history}
        write_atomically(self.out / "metrics.json", json.dumps(summary, indent=1) + "\n")

    def _not_finite(self, what: str, where: str) -> TrainingError:
        kept = (
            f"The last good checkpoint is {self.last} (epoch {self.run.epoch})" if self.last.exists() else "No checkpoint was written yet"
        )
        return TrainingError(
            f"Training stopped in {where}: {what}. Try a smaller learning rate (now {self._peak_rates[0]:g}) and look for NaN in "
            f"the images; minunet.debug() names the operation. {kept}."
        )


def resumed_settings(kind: type[Settings], out: Path, changes: dict[str, Any], free: Collection[str]) -> Settings:
    """The settings of the run in `out`, with those changes that a run can take on its way. free: their names."""
    stored = checkpoint.load(out / checkpoint.LAST).config["settings"]
    before = kind(**{f.name: stored[f.name] for f in fields(kind) if f.name in stored})  # type: ignore[arg-type]
    for name, value in changes.items():
        if name not in free and value != getattr(before, name):
            raise ValueError(
                f"the run in {str(out)!r} has {name}={getattr(before, name)!r} and cannot go on with {value!r}: leave the option out, "
                "or start a new run with another --out."
            )
    return replace(before, **changes)  # type: ignore[type-var]


def write_atomically(path: Path, text: str) -> None:
    """Writes the whole file or leaves the old one."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


@contextmanager
def _ctrl_c() -> Iterator[threading.Event]:
    """Within the block the first Ctrl-C only sets the event; the second interrupts at once, as usual."""
    asked = threading.Event()

    def note(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
