"""Training to denoise over the GPU's code: each loss becomes a CUDA graph, and a graph trains as the steps without it."""

from __future__ import annotations

import argparse
import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minunet as mu
from benchmarks import noise2noise as benchmark
from minunet import checkpoint, cuda, data, models, nn, optim
from minunet.inference import Denoiser, denoiser, write_image
from minunet.train import noise2noise
from minunet.train.loop import Trainer
from minunet.train.noise2noise import LOSSES, Settings, prepare
from tests import host_gpu

WAYS: dict[str, dict[str, Any]] = {
    **{name: {"noise": name} for name in data.NOISES},
    "impulse by l2": {"noise": "impulse", "loss": "l2"},
    "single": {"blind_spot": True},
}
STEPS = 5
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("photos")
    y, x = np.mgrid[:40, :48]
    for i in range(4):
        write_image(folder / f"{i}.png", (0.5 + 0.3 * np.sin(x / (4 + i)) * np.cos(y / 5))[None].astype(np.float32), np.dtype(np.uint8))
    return str(folder)


class Short(nn.Module):
    """What the real network is made of, once each."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.first, self.pool, self.up = nn.Conv2d(in_channels, 4, 3, padding="same"), nn.MaxPool2d(2), nn.Upsample(scale_factor=2)
        self.head = nn.Conv2d(4 + in_channels, out_channels, 3, padding="same")

    def forward(self, x: mu.Tensor, pad: str | None = None) -> mu.Tensor:
        y = self.up(self.pool(mu.functional.leaky_relu(self.first(x), 0.1)))
        return self.head(mu.functional.cat([y, x], dim=1))


def ended(way: dict[str, Any], photos: str, out: Path, device: str = "cuda") -> dict[str, np.ndarray]:
    """Weights and losses of a run whose steps are others all the time: learning rate, batches, the power of L0."""
    prepared = prepare(Settings(photos, **way, steps=STEPS, every=STEPS, batch_size=2, crop=32, device=device))
    mu.manual_seed(0)
    model = Short(1, 1)
    loss = LOSSES[prepared.task.loss]
    trainer = Trainer(
        model, optim.Adam(model.parameters(), lr=1e-2), lambda output, targets: loss(output, targets, lambda: trainer.progress),
        prepared.loader, lambda model: {"score": 1.0}, out=out, epochs=1, monitor="score", schedule=noise2noise.ramp_down, device=device,
    )  # fmt: skip
    assert trainer.fit() == "finished"
    return {**checkpoint.load(trainer.last).weights, "loss": np.array(trainer.run.history[0]["train_loss"])}


ALWAYS = "impulse", "mri", "single"  # what changes in a graph, what is transformed, what is masked; the others are slow tests


@pytest.mark.parametrize("way", [pytest.param(way, marks=[] if way in ALWAYS else [pytest.mark.slow]) for way in WAYS])
def test_a_graph_trains_as_the_steps_without_it(way, photos, tmp_path, monkeypatch, caplog):
    with host_gpu.installed(), caplog.at_level("INFO", "minunet"):
        came = ended(WAYS[way], photos, tmp_path / "graph")
        assert not caplog.messages  # such as that it goes on without a graph
        monkeypatch.setattr(cuda.Graph, "fits", lambda self, *arrays: False)
        wanted = ended(WAYS[way], photos, tmp_path / "plain")
    for name in wanted:
        np.testing.assert_array_equal(came[name], wanted[name], err_msg=name)
    on_processor = ended(WAYS[way], photos, tmp_path / "cpu", "cpu")
    np.testing.assert_allclose(came["loss"], on_processor["loss"], rtol=2e-4)


def test_a_power_by_value_is_seen(photos, tmp_path, monkeypatch):
    """The fault that the test above is there for: L0 whose power stays what it was in the capture."""
    with host_gpu.pretended():
        wanted = ended(WAYS["impulse"], photos, tmp_path / "right")
        monkeypatch.setattr(noise2noise, "varying", lambda values, again, like: cuda.on_gpu(values))
        came = ended(WAYS["impulse"], photos, tmp_path / "wrong")
    assert came["loss"] != wanted["loss"]


@pytest.mark.parametrize("way", ["mri", "bernoulli", "single"])
def test_a_run_and_its_evaluation(way, photos, tmp_path, monkeypatch):
    """All that `minunet denoise train` does, with a short network; whole images pass through the GPU."""
    for place in (noise2noise, denoiser):
        monkeypatch.setattr(place, "Noise2NoiseUNet", Short)
    with host_gpu.installed(), mu.recording() as choices:
        settings = Settings(photos, **WAYS[way], steps=3, every=3, batch_size=2, crop=32, device="cuda")
        run, reason = noise2noise.train(settings, tmp_path)
        noise = None if settings.noise else data.NOISES["gaussian"]()
        verdicts = list(noise2noise.evaluate(Denoiser.load(tmp_path, "cuda"), data.Pictures(photos), noise=noise))
    assert (reason, run.epoch, len(verdicts)) == ("finished", 1, 4)
    assert {c.served_by for c in choices if c.kernel.startswith(("conv.", "pool.", "upsample.", "activation."))} == {"gpu"}
    assert all(np.isfinite(v.after["psnr"]) for v in verdicts)


@pytest.mark.slow
def test_the_benchmark_on_a_gpu(photos, tmp_path, monkeypatch):
    """All it does in a process of its own, and how the file of results grows."""
    for place in (noise2noise, denoiser):
        monkeypatch.setattr(place, "Noise2NoiseUNet", Short)
    monkeypatch.setenv("MINUNET_DATA", str(tmp_path))
    for name in benchmark.NEEDED:
        shutil.copytree(photos, tmp_path / name)
    (tmp_path / "kodak24").mkdir()
    gray = np.random.default_rng(0).uniform(0, 1, (1, 40, 48)).astype(np.float32)
    write_image(tmp_path / "kodak24" / "1.png", np.broadcast_to(gray, (3, 40, 48)), np.dtype(np.uint8))
    assert benchmark.Luminance(tmp_path / "kodak24")[0][0] == pytest.approx(gray - 0.5, abs=0.005)
    monkeypatch.setattr(benchmark, "card", lambda: {"card": "Card 1"})
    asked = argparse.Namespace(
        only=["impulse, noisy", "gaussian,"], minutes=1, steps=None, every=250, batch_size=2, device="cuda", quick=True, threads=1, jobs=3
    )
    path = tmp_path / "noise2noise-card-1.json"
    with host_gpu.installed():
        wanted = benchmark.requests(asked)
        for request in (wanted[3], wanted[0], wanted[3]):
            benchmark.keep(benchmark.run_trial(request) | {"quick": False}, path)
    found = json.loads(path.read_text())
    labels = ["gaussian, noisy targets", "impulse, noisy targets, l1"]
    assert [run["trial"] for run in found["runs"]] == [row["trial"] for row in found["rows"]] == labels
    run = found["runs"][1]
    assert (run["steps"], run["jobs"], run["gpu"], run["settings"]["loss"]) == (3, 3, {"card": "Card 1"}, "l1")
    assert {"date", "machine", "seconds", "set12", "kodak24"} <= run.keys()
    table = runpy.run_path(str(ROOT / "tools" / "benchmark_tables.py"))["table"](path)
    before, after = (run["kodak24"][f"{side} psnr"] for side in ("before", "after"))
    assert f"| impulse | l1 | 3 / – | 2 | 0.0003 | {run['seconds']:.0f} / – |" in table
    assert f"| {before:.2f} | {after:.2f} / – | 16.36 / – |" in table
    assert "| 31.61 / 31.63 |" in table


def test_kept_results_are_whole():
    for path in (ROOT / "benchmarks" / "results").glob("noise2noise*.json"):
        found = json.loads(path.read_text(encoding="utf-8"))
        assert not found["quick"], path
        pairs = {(run["settings"]["noise"], run["settings"]["target"]) for run in found["runs"]}
        assert {("gaussian", "noisy"), ("gaussian", "clean")} <= pairs, path


@pytest.mark.slow
def test_the_real_network(photos, tmp_path):
    with host_gpu.installed():
        run, _ = noise2noise.train(Settings(photos, noise="impulse", steps=3, every=3, batch_size=1, crop=32, device="cuda"), tmp_path)
        assert np.isfinite(run.history[0]["psnr"])
    assert isinstance(Denoiser.load(tmp_path).model, models.Noise2NoiseUNet)
