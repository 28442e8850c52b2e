"""The training loop: resumable at any moment, repeatable, and nothing is lost when something goes wrong."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import minunet as mu
from minunet import checkpoint, data, losses, nn, optim
from minunet.train import loop
from minunet.train.loop import Run, Trainer, TrainingError, one_cycle

TIMES = ("images_per_second", "seconds")


class Blobs:
    """Seven images of 8×8 whose bright half is class 1."""

    classes, channels = 2, 1
    names = [f"blob {i}" for i in range(7)]  # noqa: RUF012

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int):
        rng = np.random.default_rng(index)
        mask = np.zeros((8, 8), np.int64)
        mask[:, index % 4 : index % 4 + 4] = 1
        return (mask + 0.3 * rng.standard_normal((8, 8))).astype(np.float32)[None], mask


def trainer(out: Path, *, epochs: int = 3, seed: int = 0, channels: int = 4, loss=losses.dice_cross_entropy, **options) -> Trainer:
    """A net with everything that has a state: batch norm, dropout, Adam, shuffling, augmentation, a schedule."""
    mu.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(channels, 1, 1)
    )
    loader = data.DataLoader(Blobs(), 2, shuffle=True, augment=data.Augment(), seed=seed)

    def validate(model: nn.Module) -> dict[str, float]:
        with mu.no_grad():
            images, masks = (np.stack(part) for part in zip(*(Blobs()[i] for i in range(7)), strict=True))
            return {"val_loss": losses.dice_cross_entropy(model(mu.Tensor(images)), masks).item()}

    options = {"schedule": one_cycle, "monitor": "val_loss", "higher_is_better": False} | options
    return Trainer(net, optim.Adam(net.parameters(), lr=0.01), loss, loader, validate, out=out, epochs=epochs, **options)


def ending(run: Trainer) -> dict[str, np.ndarray]:
    """Everything a run ends with, but the clock: weights, optimiser, random stream, history."""
    saved = checkpoint.load(run.last)
    history = [{k: v for k, v in row.items() if k not in TIMES} for row in run.run.history]
    arrays = {name: np.array(value) for name, value in saved.weights.items()}
    arrays |= {f"best {name}": np.array(value) for name, value in checkpoint.load(run.best).weights.items()}
    arrays["random stream"] = mu.rng.generator().random(4)
    arrays["moments"] = np.concatenate([np.ravel(a) for a in flat(run.optimizer.state_dict())])
    arrays["history"] = np.array([list(row.values()) for row in history])
    arrays["best"] = np.array([run.run.best, run.run.best_epoch])
    return arrays


def flat(state) -> list:
    """The numbers in nested containers."""
    if isinstance(state, dict):
        return [leaf for key in sorted(state, key=str) for leaf in flat(state[key])]
    if isinstance(state, list | tuple):
        return [leaf for value in state for leaf in flat(value)]
    if state is None or isinstance(state, str):
        return []
    return [np.asarray(getattr(state, "data", state), np.float64)]


def assert_identical(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, np.ndarray]:
    """The ending of a run that nobody disturbed."""
    run = trainer(tmp_path_factory.mktemp("whole"))
    assert run.fit() == "finished"
    return ending(run)


class Killed(Exception):
    pass


def at_batch(number: int, action):
    """The loss, which calls `action` at its number-th call."""
    calls = iter(range(10**6))

    def loss(output, target):
        if next(calls) == number:
            action()
        return losses.dice_cross_entropy(output, target)

    return loss


def kill() -> None:
    raise Killed


def test_two_runs_with_one_seed_are_identical(tmp_path, whole):
    run = trainer(tmp_path)
    run.fit()
    assert_identical(ending(run), whole)


def test_another_seed_makes_another_run(tmp_path, whole):
    run = trainer(tmp_path, seed=1)
    run.fit()
    assert not np.array_equal(ending(run)["history"], whole["history"])


@pytest.mark.parametrize("batch", [4, 6, 11])  # the first of epoch 2, its middle, the last of epoch 3
def test_killed_and_resumed_is_identical(tmp_path, whole, batch):
    with pytest.raises(Killed):
        trainer(tmp_path, loss=at_batch(batch, kill)).fit()
    run = trainer(tmp_path, seed=5)  # whatever the new process drew before, the checkpoint decides
    run.loader.seed = 0
    run.resume()
    assert run.fit() == "finished"
    assert_identical(ending(run), whole)


def test_killed_while_saving_the_best_and_resumed_is_identical(tmp_path, whole, monkeypatch):
    save, saved = checkpoint.save, []

    def dying(path, **parts):
        saved.append(path)
        if len(saved) == 4:  # best and last of epoch 1, best of epoch 2, then
            raise Killed
        save(path, **parts)

    monkeypatch.setattr(checkpoint, "save", dying)
    with pytest.raises(Killed):
        trainer(tmp_path).fit()
    monkeypatch.undo()
    run = trainer(tmp_path)
    run.resume()
    run.fit()
    assert_identical(ending(run), whole)


def test_a_process_killed_by_the_system_and_resumed_is_identical(tmp_path, whole):
    script = f"""
        import os, signal
        from pathlib import Path
        from tests.test_train import at_batch, trainer
        trainer(Path({str(tmp_path)!r}), loss=at_batch(7, lambda: os.kill(os.getpid(), signal.SIGKILL))).fit()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == -signal.SIGKILL
    run = trainer(tmp_path)
    run.resume()
    assert run.run.epoch == 1
    run.fit()
    assert_identical(ending(run), whole)


@pytest.mark.parametrize("batch", [0, 5, 7])
def test_ctrl_c_saves_in_the_middle_of_an_epoch(tmp_path, whole, batch):
    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background of a shell
    stopped = trainer(tmp_path, loss=at_batch(batch, lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert stopped.fit() == "interrupted"
    assert signal.getsignal(signal.SIGINT) is before
    run = trainer(tmp_path)
    run.resume()
    assert (run.run.epoch, run.run.batch) == divmod(batch + 1, 4) or run.run.batch == 4
    assert run.fit() == "finished"
    assert_identical(ending(run), whole)


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, loss=at_batch(2, twice)).fit()


def test_a_finished_run_resumed_with_more_epochs_goes_on(tmp_path):
    trainer(tmp_path, epochs=1).fit()
    run = trainer(tmp_path, epochs=2)
    run.resume()
    assert run.fit() == "finished"
    assert [row["epoch"] for row in run.run.history] == [1, 2]


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(tmp_path):
    run = trainer(tmp_path, loss=lambda output, target: (output * float("nan")).sum() if run.run.epoch == 1 else (output**2).mean())
    with pytest.raises(
        TrainingError, match=r"epoch 2, batch 1 of 4: the loss became nan\. Try a smaller learning rate \(now 0\.01\).*epoch 1\)"
    ):
        run.fit()
    saved = checkpoint.load(run.last).weights
    for name, parameter in run.model.named_parameters():
        np.testing.assert_array_equal(saved[name], parameter.data)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    def spoil() -> None:
        next(run.model.parameters()).data[0] = np.inf

    run = trainer(tmp_path)
    run.fit()
    before = run.last.read_bytes()
    run = trainer(tmp_path, epochs=4)
    run.resume()
    run.loader = [batch for batch, _ in zip(run.loader, range(4), strict=False)]  # four prepared batches
    run.loader = type("Fixed", (list,), {"set_epoch": lambda self, epoch: None})(run.loader)
    step = run.optimizer.step
    run.optimizer.step = lambda: (step(), spoil() if run.run.batch == 3 else None)
    with pytest.raises(TrainingError, match="epoch 4, after its last batch: a weight became NaN or infinite"):
        run.fit()
    assert run.last.read_bytes() == before


def test_a_full_disk_leaves_the_old_checkpoint_and_no_rubbish(tmp_path, monkeypatch):
    run = trainer(tmp_path, epochs=1)
    run.fit()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    run = trainer(tmp_path, epochs=2)
    run.resume()
    with pytest.raises(OSError, match="No space left"):
        run.fit()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_another_architecture_cannot_resume(tmp_path):
    trainer(tmp_path, epochs=1).fit()
    with pytest.raises((ValueError, RuntimeError), match=r"0\.weight"):
        trainer(tmp_path, channels=8).resume()


def test_logs_hold_a_row_an_epoch_also_after_resuming(tmp_path):
    trainer(tmp_path, epochs=2).fit()
    run = trainer(tmp_path, epochs=3)
    run.resume()
    run.fit()
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert rows[0].keys() >= {"learning_rate", "train_loss", "val_loss", "images_per_second", "seconds"}
    summary = json.loads((tmp_path / "metrics.json").read_text())
    assert summary["history"] == run.run.history
    assert summary["best_epoch"] == run.run.best_epoch
    assert float(rows[-1]["val_loss"]) == run.run.history[-1]["val_loss"]


def test_early_stop(tmp_path):
    run = trainer(tmp_path, epochs=50, patience=3)
    values = iter([3, 2, 1, 5, 1.5, 1, *range(2, 50)])
    run.validate = lambda model: {"val_loss": float(next(values))}
    assert run.fit() == "no improvement"
    assert (run.run.epoch, run.run.best, run.run.best_epoch) == (6, 1.0, 3)


def test_a_time_limit_ends_before_an_epoch_that_would_not_fit(tmp_path, monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))  # a second a call: five an epoch
    run = trainer(tmp_path, epochs=100, minutes=0.5)
    assert run.fit() == "time"
    assert 0.8 * 30 <= run.run.seconds <= 30
    rates = [row["learning_rate"] for row in run.run.history]
    assert rates[-1] < 0.2 * max(rates)


@pytest.mark.parametrize("terminal", [False, True])
def test_the_display_shows_a_row_an_epoch(tmp_path, terminal, monkeypatch):
    from rich.console import Console

    from minunet.train import display

    monkeypatch.setattr(display, "_PLAIN_EVERY", 0.0)
    console = Console(file=io.StringIO(), force_terminal=terminal, width=140)
    run = trainer(tmp_path, minutes=60, display=display.LiveDisplay(console, {"val_loss": "val loss"}))
    run.fit()
    shown = console.file.getvalue()
    rows = [line for line in shown.splitlines() if "/3  " in line and "best" in line]
    assert rows
    assert all(f"{row['val_loss']:.4f}" in shown for row in run.run.history)
    assert "images/s" in shown
    assert ("\x1b" in shown) == terminal
    assert ("batch 2/4" in shown) != terminal


def test_the_time_that_is_left_does_not_count_the_compilation_of_the_first_batch(monkeypatch):
    from rich.console import Console

    from minunet.train import display

    monkeypatch.setattr(display, "_PLAIN_EVERY", -1.0)
    console = Console(file=io.StringIO(), width=140)
    shown = display.LiveDisplay(console, {})
    run = SimpleNamespace(run=Run(), loader=range(4), epochs=3, minutes=None)
    shown.begin(run)
    for run.run.batch, run.run.seconds in ((1, 100.0), (2, 101.0), (3, 102.0)):
        run.run.images = run.run.batch
        shown.batch(run)
    left = [line.split()[-2] for line in console.file.getvalue().splitlines()]
    assert left == ["?", "0:10", "0:09"]


def test_the_loader_must_have_a_batch(tmp_path):
    run = trainer(tmp_path)
    with pytest.raises(ValueError, match="the loader has no batch"):
        Trainer(run.model, run.optimizer, run.loss, [], run.validate, out=tmp_path, epochs=1, monitor="val_loss")


def test_a_run_must_have_an_end(tmp_path):
    with pytest.raises(ValueError, match="ends after epochs or after minutes"):
        trainer(tmp_path, epochs=None)


def test_one_cycle_rises_then_falls():
    factors = [one_cycle(p) for p in np.linspace(0, 1, 101)]
    assert factors[0] == pytest.approx(0.01)
    assert factors[10] == pytest.approx(1)
    assert factors[-1] == pytest.approx(0.01)
    assert all(a >= b for a, b in pairwise(factors[10:]))
