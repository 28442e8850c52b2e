"""What a person sees of a run: a live line during the epoch and a row of numbers after it; plain lines where there is no terminal."""

from __future__ import annotations

import math
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from minunet.kernels import log_compiled
from minunet.train.loop import Trainer

_PLAIN_EVERY = 30.0  # seconds between lines within an epoch, where there is no terminal


class LiveDisplay:
    """Draws a run on a rich console.

    show: the metrics in the row of an epoch, {name in the history: heading}.
    """

    def __init__(self, console: Console, show: dict[str, str]) -> None:
        self.console, self.show = console, show
        self._bar = Progress(
            TextColumn("  epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}  {task.fields[now]}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=1, epoch="", now="", visible=False)
        self._spoke = 0.0
        self._header_due = True
        self._start: tuple[float, float] | None = None  # seconds and epochs when the first batch of this sitting was done

    def begin(self, trainer: Trainer) -> None:
        self._spoke = time.monotonic()
        self._start = None
        if self.console.is_terminal:
            self._bar.start()

    def batch(self, trainer: Trainer) -> None:
        log_compiled()  # the first batch has called every kernel that training needs
        run = trainer.run
        self._start = self._start or (run.seconds, _epochs_done(trainer))
        if not run.images:  # a GPU's first loss is not read yet
            return
        now = f"loss {run.loss_sum / run.images:.4f}  {run.images / max(run.epoch_seconds, 1e-9):.1f} images/s  {self._left(trainer)} left"
        if self.console.is_terminal:
            total, epoch = len(trainer.loader), _count(trainer, run.epoch + 1)
            self._bar.update(self._task, completed=run.batch, total=total, epoch=epoch, now=now, visible=True)
        elif time.monotonic() - self._spoke > _PLAIN_EVERY:
            self._say(f"  epoch {_count(trainer, run.epoch + 1)}  batch {run.batch}/{len(trainer.loader)}  {now}")

    def epoch(self, trainer: Trainer, improved: bool) -> None:
        row = trainer.run.history[-1]
        if self._header_due:
            self._say("   epoch  train loss  " + "  ".join(f"{heading:>10}" for heading in self.show.values()) + "  images/s      left")
            self._header_due = False
        numbers = "  ".join(f"{row[name]:10.4f}" for name in self.show)
        count = _count(trainer, trainer.run.epoch)
        best = "  best" if improved else ""
        self._say(f"{count:>8}  {row['train_loss']:10.4f}  {numbers}  {row['images_per_second']:8.1f}  {self._left(trainer):>8}{best}")

    def end(self) -> None:
        self._bar.stop()

    def _left(self, trainer: Trainer) -> str:
        """'12:05' until the end of the run, at the speed since the first batch, which may have waited for kernels to be compiled."""
        seconds = math.inf
        if self._start and trainer.epochs is not None:
            (then, before), done = self._start, _epochs_done(trainer)
            if done > before:
                seconds = (trainer.run.seconds - then) / (done - before) * (trainer.epochs - done)
        if trainer.minutes:
            seconds = min(seconds, 60 * trainer.minutes - trainer.run.seconds)
        if math.isinf(seconds):
            return "?"
        minutes, second = divmod(max(round(seconds), 0), 60)
        hours, minute = divmod(minutes, 60)
        return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._spoke = time.monotonic()


def _count(trainer: Trainer, epoch: int) -> str:
    """'3/60', or '3' where only the clock ends the run."""
    return str(epoch) if trainer.epochs is None else f"{epoch}/{trainer.epochs}"


def _epochs_done(trainer: Trainer) -> float:
    return trainer.run.epoch + trainer.run.batch / len(trainer.loader)
