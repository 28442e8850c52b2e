"""benchmarks/isbi2012.py: both sides train the same, from the same start, and what they find is kept. No test looks at a time."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from benchmarks import isbi2012
from minunet import Tensor, losses
from minunet.bench import measure
from minunet.train.loop import Run
from minunet.train.segmentation import Settings, prepare, train
from tests.conftest import require

ROOT = Path(__file__).parents[1]


@pytest.fixture
def settings(tmp_path) -> Settings:
    """A made-up set: discs on noise."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:32, :32]
    for folder in ("image", "mask"):
        (tmp_path / folder).mkdir()
    for i in range(6):
        mask = (rows - rng.uniform(8, 24)) ** 2 + (columns - rng.uniform(8, 24)) ** 2 < rng.uniform(30, 90)
        for folder, values in (("image", 120 * mask + rng.uniform(0, 80, mask.shape)), ("mask", 255 * mask)):
            Picture.fromarray(values.astype(np.uint8)).save(tmp_path / folder / f"{i}.png")
    return Settings(
        images=str(tmp_path / "image"),
        masks=str(tmp_path / "mask"),
        binary=True,
        epochs=2,
        batch_size=2,
        crop=16,
        repeats=2,
        base_channels=4,
        depth=2,
        elastic=2.0,
    )


@pytest.mark.parametrize("order", isbi2012.ORDERS)
def test_both_sides_begin_with_the_same_loss_and_gradients(settings, order):
    torch = require("torch")
    prepared = prepare(settings)
    network = isbi2012.torch_network(torch, prepared, order)
    images, masks = next(iter(prepared.loader))
    ours = losses.dice_cross_entropy(prepared.model(Tensor(images)), masks)
    theirs = isbi2012.torch_loss(torch, network(Tensor(images)), masks)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    ours.backward()
    theirs.backward()
    wanted = {name: p.grad.numpy() for name, p in network.named_parameters()}
    found = {name: p.grad for name, p in prepared.model.named_parameters()}
    assert found.keys() == wanted.keys()
    assert measure.relative_error([found[name] for name in wanted], list(wanted.values())) < 1e-5


def test_both_sides_go_the_same_way(settings, tmp_path):
    """Optimiser, schedule, batch norm's statistics and validation agree too: the first epochs are the same but for rounding."""
    torch = require("torch")
    ours, _ = train(settings, tmp_path / "ours")
    trainer = isbi2012.torch_trainer(torch, settings, "channels_last", tmp_path / "theirs")
    assert trainer.fit() == "finished"
    assert trainer.last.exists()
    assert trainer.best.exists()
    assert [row["learning_rate"] for row in ours.history] == [row["learning_rate"] for row in trainer.run.history]
    for name in ("train_loss", "val_loss", "pixel_error", "dice_object"):
        assert [row[name] for row in trainer.run.history] == pytest.approx([row[name] for row in ours.history], rel=0.01), name


def found(side: str, seconds: float, errors: list[float]) -> dict:
    """What a process would say: an epoch each so many seconds, with these pixel errors."""
    rows = [
        dict.fromkeys(isbi2012.SHOWN, 0.0) | {"epoch": i + 1, "seconds": seconds, "pixel_error": error, "dice_membrane": 1 - error}
        for i, error in enumerate(errors)
    ]
    about = {"environment": {}, "vector_bits": 512, "numba_threads": 2, "torch_threads": 2, "minutes": None}
    if side != isbi2012.MINUNET:
        about |= {"order": "channels_last", "seconds_a_step": {"channels_last": 0.4, "contiguous_format": 0.6}}
    return isbi2012.told(side, Run(best_epoch=int(np.argmin(errors)) + 1, history=rows), about)


def test_the_table_and_the_figure_read_the_results(tmp_path):
    each = [
        found(isbi2012.MINUNET, 60, [0.4, 0.1, 0.2]),
        found(isbi2012.SAME_TIME, 90, [0.3, 0.25]),
        found(isbi2012.ALL_EPOCHS, 90, [0.4, 0.3, 0.1]),
    ]
    assert [row["seconds"] for row in each[0]["rows"]] == [60, 120, 180]
    path = tmp_path / "isbi2012.json"
    rows = [row for one in each for row in one["rows"]]
    measure.write(path, {"benchmark": "isbi2012", "quick": False, "runs": [one["run"] for one in each]}, rows)
    table = runpy.run_path(str(ROOT / "tools" / "benchmark_tables.py"))["table"](path)
    assert "| minunet | 3.0 | 3 | 2 | 0.1000 | 0.9000 | 0.2000 | 0.8000 |" in table
    assert "| PyTorch, the same time | 3.0 | 2 | 2 | 0.2500 | 0.7500 | 0.2500 | 0.7500 |" in table
    assert "| PyTorch, all epochs, when minunet had ended | 3.0 | 2 | 2 | 0.3000" in table
    assert "| PyTorch, all epochs | 4.5 | 3 | 3 | 0.1000" in table
    assert "channels last (a step: channels last 400 ms, contiguous format 600 ms)" in table
    panels = isbi2012.chart(rows).axes
    assert [axes.get_title() for axes in panels] == ["pixel error", "Dice of the membrane"]
    np.testing.assert_array_equal(panels[0].lines[0].get_xydata(), [[1, 0.4], [2, 0.1], [3, 0.2]])


def run_script(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "benchmarks" / "isbi2012.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment)


def test_quick_figures_are_not_kept():
    said = run_script("--quick")
    assert said.returncode == 2
    assert "say with --out DIR" in said.stderr


@pytest.mark.slow
def test_the_script_on_real_data(real_data, tmp_path):
    require("torch")
    said = run_script("--quick", "--all-epochs", "--out", tmp_path, MINUNET_DATA=str(real_data("isbi2012").parent))
    assert said.returncode == 0, said.stderr
    result = json.loads((tmp_path / "isbi2012.json").read_text(encoding="utf-8"))
    assert [run["side"] for run in result["runs"]] == list(isbi2012.SIDES)
    ours, same_time, all_epochs = ([row for row in result["rows"] if row["side"] == side] for side in isbi2012.SIDES)
    assert len(ours) == len(all_epochs) == 2
    assert len(same_time) in (1, 2)
    assert result["runs"][1]["minutes"] == pytest.approx(ours[-1]["seconds"] / 60, rel=1e-3)
    assert all_epochs[0]["train_loss"] == pytest.approx(ours[0]["train_loss"], rel=0.01)
    assert all_epochs[1]["pixel_error"] == pytest.approx(ours[1]["pixel_error"], abs=0.1)
    for run in result["runs"]:
        assert run["numba_threads"] == run["threads"] == (run["torch_threads"] or 2) == 2
    with Picture.open(tmp_path / "isbi2012_time.png") as picture:
        assert picture.width > 800


def test_what_is_kept_is_a_whole_run():
    path = isbi2012.RESULTS / "isbi2012.json"
    if not path.exists():
        pytest.skip("not measured yet")
    result = json.loads(path.read_text(encoding="utf-8"))
    assert not result["quick"]
    assert max(row["epoch"] for row in result["rows"] if row["side"] == isbi2012.MINUNET) == 60
