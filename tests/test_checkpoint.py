"""Checkpoints: nothing is lost on the way, nothing half-written is left, nothing wrong is loaded."""

from __future__ import annotations

import copy
import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minunet as mu
from minunet import checkpoint, nn, optim, rng

from .conftest import require


def network(width: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(width, 1, 1))


class Run:
    """A small training run: network, optimiser, schedule."""

    def __init__(self) -> None:
        self.model = network()
        self.optimizer = optim.AdamW(self.model.parameters(), lr=0.01, amsgrad=True)
        self.schedule = optim.CosineAnnealingLR(self.optimizer, T_max=10)

    def epoch(self) -> None:
        x = mu.tensor(rng.generator().standard_normal((2, 1, 6, 6), dtype=np.float32))
        self.optimizer.zero_grad()
        out = self.model(x)
        (out * out).mean().backward()
        self.optimizer.step()
        self.schedule.step()

    @property
    def parts(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule}

    def everything(self) -> Any:
        weights = {name: value.data.copy() for name, value in self.model.state_dict().items()}
        return copy.deepcopy((weights, self.optimizer.state_dict(), self.schedule.state_dict(), rng.get_state()))


def test_a_resumed_run_ends_bit_identical(tmp_path: Path) -> None:
    mu.manual_seed(3)
    whole = Run()
    for i in range(7):
        whole.epoch()
        if i == 3:
            checkpoint.save(tmp_path / "c.safetensors", **whole.parts, epoch=4, config={"width": 3}, extra={"history": [0.5, 1e-9, None]})
    end = whole.everything()

    mu.manual_seed(99)
    resumed = Run()
    saved = checkpoint.load(tmp_path / "c.safetensors")
    saved.restore(**resumed.parts)
    assert (saved.epoch, saved.config, saved.extra) == (4, {"width": 3}, {"history": [0.5, 1e-9, None]})
    for _ in range(saved.epoch, 7):
        resumed.epoch()
    np.testing.assert_equal(resumed.everything(), end)
    assert os.listdir(tmp_path) == ["c.safetensors"]


def test_weights_are_plain_safetensors_and_the_model_alone_is_enough(tmp_path: Path) -> None:
    torch = require("torch")
    from safetensors.torch import load_file

    run = Run()
    run.epoch()
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, **run.parts)
    theirs = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3))
    theirs.load_state_dict({name: value for name, value in load_file(path).items() if name in theirs.state_dict()})
    np.testing.assert_array_equal(theirs[0].weight.detach().numpy(), run.model[0].weight.data)
    other, state = network(), rng.get_state()
    checkpoint.load(path).restore(model=other, rng=False)
    other.load_state_dict(checkpoint.load_weights(path))
    assert rng.get_state() == state
    np.testing.assert_array_equal(other[1].running_mean.data, run.model[1].running_mean.data)
    assert other[1].num_batches_tracked.item() == 1


def test_the_random_stream_goes_on(tmp_path: Path) -> None:
    mu.manual_seed(1)
    rng.generator().integers(0, 10, 3, dtype=np.uint32)  # leaves half a 64-bit word in the buffer
    checkpoint.save(tmp_path / "c", model=network())
    expected = rng.generator().integers(0, 1000, 5, dtype=np.uint32), rng.generator().standard_normal(5)
    mu.manual_seed(2)
    checkpoint.load(tmp_path / "c").restore(model=network())
    np.testing.assert_equal((rng.generator().integers(0, 1000, 5, dtype=np.uint32), rng.generator().standard_normal(5)), expected)


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.numpy

    path = tmp_path / "c.safetensors"
    checkpoint.save(path, model=network(), epoch=1)
    before = path.read_bytes()

    def fill(arrays: Any, filename: Path, metadata: Any) -> None:
        Path(filename).write_bytes(b"half a file")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", fill)
    with pytest.raises(OSError, match=r"c\.safetensors could not be written .*No space left.*before is untouched\. Free space"):
        checkpoint.save(path, model=network(), epoch=2)
    monkeypatch.undo()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, model=network(), epoch=2)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["c.safetensors"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of the file size are set by POSIX")
def test_a_write_the_system_refuses_midway(tmp_path: Path) -> None:
    """A real failing write: the process may write files of at most 2000 bytes."""
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, model=network(), epoch=1)
    before = path.read_bytes()
    program = f"""
        import resource, signal
        from minunet import checkpoint, nn
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        try:
            checkpoint.save({str(path)!r}, model=nn.Conv2d(64, 64, 3))
        except OSError as problem:
            print(problem)
        """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert "could not be written" in done.stdout
    assert done.stdout.count("\n") == 1
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["c.safetensors"]


def test_a_link_stays_a_link_and_a_missing_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real" / "c")
    checkpoint.save(link, model=network())
    assert link.is_symlink()
    assert (tmp_path / "real" / "c").is_file()
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        checkpoint.save(tmp_path / "nowhere" / "c", model=network())


def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="config and extra hold plain numbers"):
        checkpoint.save(tmp_path / "c", model=network(), extra={"loss": np.float32(1)})
    assert os.listdir(tmp_path) == []


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    run = Run()
    run.epoch()
    checkpoint.save(tmp_path / "c.safetensors", **run.parts, epoch=1, config={"width": 3})
    return tmp_path / "c.safetensors"


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 100, 0.5, 0.9, -1])
def test_a_file_cut_off_is_one_sentence(saved: Path, keep: float) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(
        checkpoint.CheckpointError, match=r"bytes\) is no readable safetensors file: cut off.*Use another copy\."
    ) as problem:
        checkpoint.load(saved)
    assert "\n" not in str(problem.value)


def test_flipped_bits_anywhere_are_found(saved: Path) -> None:
    whole = bytearray(saved.read_bytes())
    for place in np.random.default_rng(0).integers(0, len(whole), 60):
        damaged = whole.copy()
        damaged[place] ^= 1 << int(place) % 8
        saved.write_bytes(damaged)
        try:
            checkpoint.load(saved)
        except checkpoint.CheckpointError:
            continue
        pytest.fail(f"a flipped bit in byte {place} of {len(whole)} went unseen")


def test_other_files_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    plain = tmp_path / "plain.safetensors"
    save_file({"w": np.ones(3, np.float32)}, plain)
    with pytest.raises(checkpoint.CheckpointError, match=r"1 arrays but is no checkpoint of minunet.*load_weights\(path\)"):
        checkpoint.load(plain)
    np.testing.assert_equal(checkpoint.load_weights(plain), {"w": np.ones(3, np.float32)})
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(checkpoint.CheckpointError, match="no readable safetensors file"):
        checkpoint.load(picture)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        checkpoint.load(tmp_path / "none")


def test_weights_from_npz(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    np.savez(path, **{"0.weight": np.ones((2, 3)), "0.bias": np.zeros(2)})
    model = nn.Sequential(nn.Linear(3, 2))
    model.load_state_dict(checkpoint.load_weights(path))
    assert model[0].weight.data.tolist() == [[1, 1, 1], [1, 1, 1]]
    whole = path.read_bytes()
    for damaged in (whole[:50], whole[:-30], b"", b"nothing"):
        path.write_bytes(damaged)
        with pytest.raises(checkpoint.CheckpointError, match=r"no readable \.npz file"):
            checkpoint.load_weights(path)
    np.savez(path, objects=np.array([{}], dtype=object))
    with pytest.raises(checkpoint.CheckpointError, match=r"no readable \.npz file"):
        checkpoint.load_weights(path)


class Other(Run):
    def __init__(self, **change: Any) -> None:
        super().__init__()
        self.model = change.get("model", self.model)
        self.optimizer = change["optimizer"](self.model.parameters()) if "optimizer" in change else self.optimizer
        self.schedule = change["schedule"](self.optimizer) if "schedule" in change else self.schedule


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": network(4)}, r"7 of another shape: 0\.weight \(3×1×3×3 came, 4×1×3×3 expected\).*config=\{'width': 3\}\."),
        ({"model": nn.Sequential(nn.Linear(1, 1))}, r"this Sequential of 2 arrays: 7 unexpected: 1\.bias"),
        ({"optimizer": optim.SGD}, "holds the state of AdamW, not of SGD"),
        ({"schedule": lambda o: optim.StepLR(o, 3)}, "holds the state of CosineAnnealingLR, not of StepLR"),
    ],
)
def test_what_does_not_fit_changes_nothing(saved: Path, change: dict[str, Any], message: str) -> None:
    run = Other(**change)
    before = run.everything()
    with pytest.raises(checkpoint.CheckpointError, match=message):
        checkpoint.load(saved).restore(**run.parts)
    np.testing.assert_equal(run.everything(), before)


def test_an_optimiser_of_other_parameters_changes_nothing(saved: Path) -> None:
    run = Run()
    run.optimizer = optim.AdamW(list(run.model.parameters())[:2])
    before = run.everything()
    with pytest.raises(checkpoint.CheckpointError, match=r"AdamW: the saved state has groups of \[6\] parameters, this optimiser \[2\]"):
        checkpoint.load(saved).restore(model=run.model, optimizer=run.optimizer)
    np.testing.assert_equal(run.everything(), before)


def test_what_was_not_saved_cannot_be_restored(tmp_path: Path) -> None:
    run = Run()
    checkpoint.save(tmp_path / "c", model=run.model)
    with pytest.raises(checkpoint.CheckpointError, match="saved without optimizer"):
        checkpoint.load(tmp_path / "c").restore(**run.parts)


@pytest.mark.parametrize(
    ("config", "found"), [({"task": "denoising"}, "'denoising'"), ({}, "None"), (None, "None"), (["segmentation"], "None")]
)
def test_a_network_for_another_task_is_refused(tmp_path: Path, config: Any, found: str) -> None:
    checkpoint.save(tmp_path / checkpoint.BEST, model=nn.Linear(2, 1), config=config)
    for path in (tmp_path, tmp_path / checkpoint.BEST):
        with pytest.raises(ValueError, match=f"is no network for segmentation: its task is {found}. Name one that was"):
            checkpoint.load_trained(path, "segmentation")


def test_a_runs_folder_stands_for_its_best_epoch(tmp_path: Path) -> None:
    for name in (checkpoint.BEST, checkpoint.LAST):
        checkpoint.save(tmp_path / name, model=nn.Linear(2, 1), config={"task": "segmentation", "name": name})
    assert checkpoint.load_trained(tmp_path, "segmentation").config["name"] == checkpoint.BEST
    assert checkpoint.load_trained(tmp_path / checkpoint.LAST, "segmentation").config["name"] == checkpoint.LAST
