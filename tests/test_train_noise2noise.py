"""Training to denoise, and `minunet denoise`: what is learned, what is written, and one sentence for what can be put right."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as Picture

import minunet as mu
from minunet import checkpoint, cli, data, metrics, nn
from minunet.bench.measure import cores
from minunet.data import NOISES, DataError, PicturePairs, Pictures, Span
from minunet.data.noise.rendering import light
from minunet.inference import Denoiser, write_image
from minunet.models import Noise2NoiseUNet
from minunet.train import noise2noise
from minunet.train.loop import ramp_down
from minunet.train.noise2noise import LOSSES, Made, Pairs, Settings, evaluate, prepare, train
from tests.conftest import assert_refused

ROOT = Path(__file__).parents[1]
TINY = ["--steps", "2", "--batch-size", "2", "--crop", "32"]


def scene(index: int, size: tuple[int, int] = (40, 48), channels: int = 1):
    """Smooth waves in [0, 1], (C, H, W)."""
    y, x = np.mgrid[: size[0], : size[1]]
    waves = [0.5 + 0.35 * np.sin(x / (4 + index + c) + index) * np.cos(y / (5 + c)) for c in range(channels)]
    return np.stack(waves).astype(np.float32)


def make_folder(folder: Path, noise: float = 0.0, seed: int = 0, count: int = 5, suffix: str = ".png", **options) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        image = scene(i, **options)
        write_image(folder / f"scene{i}{suffix}", image + noise * rng.standard_normal(image.shape), np.dtype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return make_folder(tmp_path_factory.mktemp("photos") / "clean")


@pytest.fixture(scope="module")
def model(photos, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "model"
    with pytest.raises(SystemExit) as ended:
        cli.main(["denoise", "train", str(photos), "--noise", "gaussian", "--out", str(out), *TINY])
    assert not ended.value.code
    return out


# the schedule and the losses


def test_ramp_down():
    assert ramp_down(0) == ramp_down(0.7) == 1
    assert ramp_down(0.85) == pytest.approx(0.25)
    assert ramp_down(1) == pytest.approx(0)


def test_l0_is_annealed_with_the_progress_of_the_run():
    rng = np.random.default_rng(0)
    f, y = mu.Tensor(rng.normal(size=(1, 1, 3, 3))), rng.normal(size=(1, 1, 3, 3))
    assert LOSSES["l0"](f, y, lambda: 0.0).item() == pytest.approx(((f.data - y) ** 2).mean(), rel=1e-6)
    assert LOSSES["l0"](f, y, lambda: 0.5).item() == pytest.approx(abs(f.data - y).mean(), rel=1e-6)
    assert LOSSES["l0"](f, y, lambda: 1.0).item() == pytest.approx(1)


@pytest.mark.parametrize("name", NOISES)
def test_a_noise_has_a_loss_that_takes_its_targets(name):
    """And the loss is least at the clean picture, where the target is clean."""
    task = Made(NOISES[name](), NOISES[name].loss, clean=True)
    image = np.random.default_rng(0).uniform(-0.4, 0.4, (2, 32, 32)).astype(np.float32)
    seen, target = task(image, image, np.random.default_rng(0), (32, 32))
    clean = mu.Tensor((target[0] if task.loss in ("masked", "mri") else target)[None])
    loss = LOSSES[task.loss]
    wrong = 0.05 * np.random.default_rng(1).standard_normal(clean.shape).astype(np.float32)
    at_clean, beside = (loss(clean + mu.Tensor(shift), target[None], lambda: 0.25).item() for shift in (0 * wrong, wrong))
    assert seen.shape == image.shape
    assert at_clean < 1e-6 < beside


def test_either_of_a_pair_is_the_target():
    one, two, rng = scene(0), scene(0) + 2, np.random.default_rng(0)
    drawn = [Pairs("l2")(one, two, rng, (32, 32)) for _ in range(20)]
    np.testing.assert_allclose([abs(target - seen) for seen, target in drawn], 2, atol=1e-6)
    assert 3 < sum(target.mean() > seen.mean() for seen, target in drawn) < 17


def test_target_clean_reaches_the_loader(photos):
    for target, spread in (("clean", False), ("noisy", True)):
        prepared = prepare(Settings(str(photos), noise="gaussian", target=target, steps=3, batch_size=4, crop=32))
        targets = np.concatenate([targets for _, targets in prepared.loader])
        inputs = np.concatenate([inputs for inputs, _ in prepared.loader])
        assert (abs(targets).max() > 0.6) == spread
        assert abs(inputs).max() > 0.6


# the task as a whole


def settings_of(way: str, photos: Path, tmp_path: Path, **options) -> Settings:
    if way == "noise":
        return Settings(str(photos), noise="gaussian", **options)
    if way == "pairs":
        first, second = (make_folder(tmp_path / name, 0.1, seed) for seed, name in enumerate(("first", "second")))
        return Settings(str(first), second=str(second), **options)
    return Settings(str(make_folder(tmp_path / "noisy", 0.1)), blind_spot=True, **options)


@pytest.mark.parametrize("way", ["noise", "pairs", "single"])
def test_a_run_that_was_killed_and_resumed_ends_as_one_that_was_not(way, photos, tmp_path, monkeypatch):
    settings = settings_of(way, photos, tmp_path, steps=4, every=2, batch_size=2, crop=32)
    train(settings, tmp_path / "whole")
    task = prepare(settings).task
    real, calls = LOSSES[task.loss], iter(range(100))

    def dying(*arguments):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setitem(LOSSES, task.loss, dying)
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "killed")
    monkeypatch.undo()
    run, reason = train(settings, tmp_path / "killed", resume=True)
    assert reason == "finished"
    assert run.epoch == 2
    whole, resumed = (checkpoint.load(tmp_path / name / "last.safetensors").weights for name in ("whole", "killed"))
    for name in whole:
        np.testing.assert_array_equal(whole[name], resumed[name], err_msg=name)


@pytest.mark.parametrize("way", ["noise", "pairs", "single"])
def test_what_a_run_measures_and_writes(way, photos, tmp_path):
    out = tmp_path / "run"
    run, _ = train(settings_of(way, photos, tmp_path, steps=1, batch_size=2, crop=32), out)
    assert ("psnr" in run.history[0], "val_loss" in run.history[0]) == (way == "noise", way != "noise")
    written = {path.name for path in out.iterdir()}
    assert written == {"best.safetensors", "last.safetensors", "metrics.csv", "metrics.json", "curves.png", "denoised.png"}
    denoiser = Denoiser.load(out)
    assert denoiser.config["task"] == "denoising"
    assert denoiser(scene(0)).shape == (1, 40, 48)


def test_noisy_targets_teach_as_clean_ones_do(photos, tmp_path):
    """A few steps on few pictures: both must beat the noisy picture, which has 20.2 dB."""
    for target in ("noisy", "clean"):
        settings = Settings(str(photos), noise="gaussian", target=target, steps=60, batch_size=4, crop=32, learning_rate=2e-3)
        run, _ = train(settings, tmp_path / target)
        assert run.history[-1]["psnr"] > 21.5, target


def test_the_validation_noise_is_the_same_every_time(photos):
    prepared = prepare(Settings(str(photos), noise="gaussian", steps=1, batch_size=2, crop=32))
    assert noise2noise.validate(prepared.model, prepared) == noise2noise.validate(prepared.model, prepared)


def test_a_known_strength(photos, tmp_path):
    """It is that of every draw, and of every judgement."""
    settings = Settings(str(photos), noise="gaussian", strength=10.0, steps=1, every=1, batch_size=2, crop=32)
    train(settings, tmp_path)
    made = prepare(settings).task.noise
    flat = np.zeros((1, 64, 64), np.float32)
    for seed in range(3):
        for noisy in (*made.pair(flat, np.random.default_rng(seed)), made.trial(flat, np.random.default_rng(seed))[0]):
            assert noisy.std() * 255 == pytest.approx(10, rel=0.05)
    denoiser = Denoiser.load(tmp_path)
    assert denoiser.noise.tested == 10
    for verdict in evaluate(denoiser, data.Pictures(photos)):
        assert verdict.before["psnr"] == pytest.approx(28.1, abs=0.3)


def test_a_run_that_the_clock_ends(minunet, photos, tmp_path):
    settings = Settings(str(photos), noise="gaussian", minutes=0.02, every=1, batch_size=2, crop=32)
    run, reason = train(settings, tmp_path / "run")
    assert reason == "time"
    factors = [row["learning_rate"] / settings.learning_rate for row in run.history]
    assert factors[0] == 1
    assert sorted(factors, reverse=True) == factors
    said = minunet("denoise", "train", "--resume", "--out", tmp_path / "run", "--minutes", 0.025)
    assert said.code == 0, said.err
    assert "another epoch would not fit" in said.out


def test_a_limit_of_time_alone_has_no_limit_of_steps(photos):
    timed = prepare(Settings(str(photos), noise="gaussian", minutes=1.0))
    assert (timed.epochs, len(timed.loader)) == (None, 500)
    prepared = prepare(Settings(str(photos), noise="gaussian", steps=1201))
    assert (prepared.epochs, len(prepared.loader)) == (3, 401)


# pictures


def test_pictures_of_8_bits_keep_their_scale_and_others_are_spread(tmp_path):
    assert Pictures(make_folder(tmp_path / "eight")).span == Span()
    (tmp_path / "deep").mkdir()
    for i in range(2):
        tifffile.imwrite(tmp_path / "deep" / f"{i}.tif", np.uint16(1000 * (i + 1) + np.arange(30).reshape(5, 6)))
    deep = Pictures(tmp_path / "deep")
    assert (deep.image(0).min(), deep.image(1).max()) == pytest.approx((-0.5, 0.5))
    assert deep.span.outward(deep.image(1)) * 65535 == pytest.approx(np.float32(2000 + np.arange(30).reshape(1, 5, 6)), abs=0.01)


def test_pictures_that_do_not_go_together(tmp_path):
    folder = make_folder(tmp_path / "mixed")
    write_image(folder / "colour.png", scene(0, channels=3), np.dtype(np.uint8))
    with pytest.raises(DataError, match=r"'colour.png' has 3 channel.*'scene0.png' has 1|'scene0.png' has 1 channel.*"):
        Pictures(folder)
    first, second = make_folder(tmp_path / "first"), make_folder(tmp_path / "second", count=4)
    with pytest.raises(DataError, match=r"'scene4' in .*first' has no partner of that name in .*second"):
        PicturePairs(first, second)
    with pytest.raises(DataError, match="both pictures of each pair are looked for in"):
        PicturePairs(first, first)
    (first / "scene4.png").unlink()
    write_image(second / "scene1.png", scene(1, size=(20, 20)), np.dtype(np.uint8))
    with pytest.raises(DataError, match="the pair 'scene1' is 1×40×48 in one folder and 1×20×20 in the other"):
        PicturePairs(first, second)


def test_a_window_of_a_pair_shows_one_place(tmp_path):
    one, two = scene(0), scene(0) + 2
    for seed in range(10):
        a, b = data.random_window([one, two], np.random.default_rng(seed), (32, 32))
        np.testing.assert_allclose(b - a, 2, atol=1e-6)
        assert a.shape == (1, 32, 32)


# the command


def test_train_evaluate_apply(minunet, photos, model, tmp_path):
    said = minunet("denoise", "evaluate", model, photos, "--picture", tmp_path / "seen.png")
    assert said.code == 0, said.err
    assert re.search(r"mean over 5 images: PSNR 20\.\d\d → \d+\.\d\d dB, SSIM 0\.\d{4} → ", said.out)
    with Picture.open(tmp_path / "seen.png") as picture:
        assert picture.width > 500
    noisy = make_folder(tmp_path / "noisy", 0.1)
    said = minunet("denoise", "evaluate", model, photos, "--noisy", noisy, "--picture", tmp_path / "seen.png")
    assert said.code == 0, said.err
    expected = np.mean(
        [metrics.psnr(data.read_image(noisy / f"scene{i}.png"), data.read_image(photos / f"scene{i}.png")) for i in range(5)]
    )
    assert f"PSNR {expected:.2f} → " in said.out
    said = minunet("denoise", "apply", model, noisy, "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"scene{i}.png" for i in range(5)]


def test_apply_keeps_format_size_and_depth(minunet, model, tmp_path):
    rng = np.random.default_rng(1)
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    Picture.fromarray(rng.integers(0, 255, (33, 17), np.uint8)).save(source / "a.png")
    Picture.fromarray(rng.integers(0, 65535, (9, 41), np.uint16)).save(source / "b.png")
    Picture.fromarray(rng.integers(0, 255, (9, 41), np.uint8)).save(source / "c.jpg")
    tifffile.imwrite(source / "d.tif", rng.integers(0, 65535, (20, 30), np.uint16))
    tifffile.imwrite(source / "e.tif", rng.random((20, 30), np.float32))
    said = minunet("denoise", "apply", model, source, "--out", out)
    assert said.code == 0, said.err
    for path in source.iterdir():
        assert data.pixel_type(out / path.name) == data.pixel_type(path), path.name
        assert data.read_image(out / path.name).shape == data.read_image(path).shape, path.name
    with Picture.open(out / "c.jpg") as picture:
        assert picture.format == "JPEG"


def test_apply_keeps_values(tmp_path, monkeypatch):
    """With a network that changes nothing, what is written is what was read: span, clipping and rounding are right."""
    monkeypatch.setattr(Denoiser, "output", lambda self, image, *, tile=512: image)
    denoiser = Denoiser(Noise2NoiseUNet(3, 3), channels=3, span=Span(0.2, 0.7))
    image = np.random.default_rng(0).integers(0, 256, (3, 20, 30)).astype(np.float32) / 255
    for name, kind in (("a.png", np.uint8), ("b.tif", np.uint16), ("c.tif", np.float32)):
        write_image(tmp_path / name, denoiser(image), np.dtype(kind))
        np.testing.assert_allclose(data.read_image(tmp_path / name), image, atol=2e-7, err_msg=name)
    write_image(tmp_path / "d.png", image * 3 - 1, np.dtype(np.uint8))
    np.testing.assert_allclose(data.read_image(tmp_path / "d.png"), np.clip(image * 3 - 1, 0, 1), atol=0.51 / 255)


def test_evaluate_reads_the_output_as_the_network_was_trained(photos, monkeypatch):
    """A network that was trained on light and says the right light is right, whatever noise it is judged with."""
    pictures = Pictures(photos)
    for made in (None, NOISES["gaussian"]()):
        answers = (light(pictures.image(i) + 0.5) for i in range(len(pictures)))
        monkeypatch.setattr(Denoiser, "output", lambda self, image, *, tile=512, answers=answers: next(answers))
        denoiser = Denoiser(Noise2NoiseUNet(1, 1), channels=1, noise=NOISES["rendering"]())
        verdicts = list(noise2noise.evaluate(denoiser, pictures, noise=made))
        assert min(v.after["psnr"] for v in verdicts) > 60
        assert max(v.before["psnr"] for v in verdicts) < 30


def test_large_images_are_tiled():
    """A network that sees one pixel around says the same in tiles as at once, but for the image's edge."""
    mu.manual_seed(0)
    denoiser = Denoiser(nn.Conv2d(1, 1, 3, padding=1), channels=1)
    image = scene(0, size=(400, 150))
    sizes, convolve = [], denoiser.model.forward
    denoiser.model.forward = lambda x: (sizes.append(x.shape[2:]), convolve(x))[1]
    whole, tiled = denoiser(image), denoiser(image, tile=128)
    assert sizes[0] == (416, 160)
    assert len(sizes) > 2
    assert max(max(size) for size in sizes[1:]) == 128 + 2 * 64
    assert tiled.shape == image.shape
    np.testing.assert_allclose(tiled[:, 1:-1, 1:-1], whole[:, 1:-1, 1:-1], atol=1e-5)


def test_colour_pairs_and_single_images(minunet, tmp_path):
    first, second = (make_folder(tmp_path / name, 0.1, seed, channels=3) for seed, name in enumerate(("first", "second")))
    said = minunet("denoise", "train", first, "--second", second, "--loss", "l0", "--out", tmp_path / "pairs", *TINY)
    assert said.code == 0, said.err
    assert "val loss" in said.out
    said = minunet("denoise", "train", first, "--blind-spot", "--out", tmp_path / "single", *TINY)
    assert said.code == 0, said.err
    assert_refused(
        minunet("denoise", "evaluate", tmp_path / "pairs", first, "--picture", tmp_path / "x.png"), "real noise, .*--noisy DIR, or --noise"
    )
    said = minunet("denoise", "evaluate", tmp_path / "pairs", first, "--noise", "impulse", "--picture", tmp_path / "x.png")
    assert said.code == 0, said.err


def test_resume_goes_on_with_the_settings_of_the_run(minunet, photos, tmp_path):
    out = tmp_path / "run"
    train(Settings(str(photos), noise="poisson", steps=2, every=2, batch_size=2, crop=32), out)
    said = minunet("denoise", "train", "--resume", "--out", out, "--steps", 4)
    assert said.code == 0, said.err
    assert "2/2" in said.out
    log = json.loads((out / "metrics.json").read_text())
    assert [row["epoch"] for row in log["history"]] == [1, 2]
    assert (log["config"]["settings"]["noise"], log["config"]["settings"]["steps"]) == ("poisson", 4)


def test_ctrl_c_saves_and_says_how_to_continue(minunet, photos, tmp_path, monkeypatch):
    real = LOSSES["l2"]

    def interrupting(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    monkeypatch.setitem(LOSSES, "l2", interrupting)
    out = tmp_path / "run"
    said = minunet("denoise", "train", photos, "--noise", "gaussian", "--out", out, *TINY)
    assert said.code == 130
    assert f"Stopped and saved in epoch 1. Continue with: minunet denoise train --out {out} --resume" in said.out
    monkeypatch.undo()
    said = minunet("denoise", "train", "--out", out, "--resume")
    assert said.code == 0, said.err
    assert len(json.loads((out / "metrics.json").read_text())["history"]) == 1


# bad input


def test_what_cannot_be(minunet, photos, model, tmp_path):
    own = ["denoise", "train", photos, "--out", tmp_path / "run"]
    assert_refused(minunet(*own), "One of the three")
    assert_refused(minunet(*own, "--noise", "gaussian", "--blind-spot"), "One of the three")
    assert_refused(minunet(*own, "--noise", "snow"), "there is no noise 'snow': choose gaussian, brown")
    assert_refused(minunet(*own, "--noise", "gaussian", "--strength", "-3"), "gaussian noise has strengths from 0.001 to 1000, got -3")
    assert_refused(minunet(*own, "--noise", "text", "--strength", "1"), "text noise has strengths from 0.001 to 0.95, got 1")
    assert_refused(minunet(*own, "--blind-spot", "--strength", "25"), "strength is that of a noise that is made")
    assert_refused(minunet(*own, "--noise", "gaussian", "--target", "dirty"), "target is 'noisy' or 'clean'")
    assert_refused(minunet(*own, "--blind-spot", "--target", "clean"), "noisy photos have no clean target")
    assert_refused(minunet(*own, "--noise", "bernoulli", "--loss", "l1"), "cannot be chosen for bernoulli, which has a loss of its own")
    assert_refused(minunet(*own, "--blind-spot", "--loss", "l1"), "cannot be chosen for single noisy photos")
    assert_refused(minunet(*own, "--noise", "text", "--loss", "l3"), "loss is one of l2, l1, l0; got 'l3'")
    assert_refused(minunet(*own, "--noise", "gaussian", "--crop", "40"), "crop is 40, use 64")
    assert_refused(minunet(*own, "--noise", "gaussian", "--steps", "0"), "steps must be at least 1")
    assert_refused(minunet(*own, "--noise", "gaussian", "--lr", "0"), "learning_rate must be more than 0")
    assert_refused(minunet(*own, "--noise", "gaussian", "--val-fraction", "1"), "cannot be split")
    assert_refused(minunet("denoise", "train", tmp_path / "none", "--noise", "text"), "there is no folder .*none")
    assert_refused(minunet("denoise", "train", "--noise", "text", "--out", tmp_path / "run"), "say which folder holds the images")
    assert not (tmp_path / "run").exists()
    assert_refused(minunet("denoise", "train", photos, "--noise", "text", "--out", model), "holds a run already")
    assert_refused(minunet("denoise", "train", photos, "--out", tmp_path, "--resume"), "no run to resume")
    assert_refused(
        minunet("denoise", "train", "--out", model, "--resume", "--noise", "text"), "noise='gaussian' and cannot go on with 'text'"
    )
    assert_refused(minunet("denoise", "evaluate", model, photos, "--noise", "snow"), "there is no noise 'snow'")
    assert_refused(minunet("denoise", "evaluate", model, photos, "--noise", "text", "--noisy", photos), "two sources of noise")


def test_models_that_do_not_fit(minunet, photos, model, tmp_path):
    assert_refused(minunet("predict", model, photos, "--out", tmp_path / "masks"), "no network for segmentation: its task is 'denoising'")
    assert_refused(minunet("denoise", "apply", tmp_path / "nothing", photos, "--out", tmp_path / "out"), "nothing")
    colour = make_folder(tmp_path / "colour", channels=3)
    assert_refused(minunet("denoise", "apply", model, colour, "--out", tmp_path / "out"), "trained on gray images .* has 3 channels")
    assert_refused(
        minunet("denoise", "evaluate", model, colour, "--picture", tmp_path / "x.png"), "trained on gray images .* has 3 channels"
    )
    assert not (tmp_path / "out").exists()
    (tmp_path / "half.safetensors").write_bytes((model / "best.safetensors").read_bytes()[:5000])
    assert_refused(minunet("denoise", "apply", tmp_path / "half.safetensors", photos, "--out", tmp_path / "out"), "half.safetensors")


def test_results_never_overwrite_images(minunet, model, tmp_path):
    folder = make_folder(tmp_path / "noisy")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert_refused(minunet("denoise", "apply", model, folder, "--out", folder), "the result of .* would overwrite the image")
    assert_refused(
        minunet("denoise", "apply", model, folder, make_folder(tmp_path / "more"), "--out", tmp_path / "out"), "two images would be written"
    )
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_damaged_picture(minunet, tmp_path):
    folder = make_folder(tmp_path / "photos")
    path = folder / "scene2.png"
    path.write_bytes(path.read_bytes()[:60])
    assert_refused(minunet("denoise", "train", folder, "--noise", "gaussian", "--out", tmp_path / "run", *TINY), "scene2.png")
    assert not (tmp_path / "run").exists()


def test_pictures_that_changed_do_not_go_on(minunet, photos, tmp_path):
    folder = make_folder(tmp_path / "photos")
    out = tmp_path / "run"
    train(Settings(str(folder), noise="gaussian", steps=2, every=2, batch_size=2, crop=32), out)
    (folder / "scene3.png").rename(folder / "another.png")
    assert_refused(minunet("denoise", "train", "--resume", "--out", out, "--steps", 4), "the images are not those the run in")


def test_a_loss_that_is_not_finite_keeps_what_was_saved(minunet, photos, tmp_path, monkeypatch):
    out = tmp_path / "run"
    train(Settings(str(photos), noise="gaussian", steps=2, every=2, batch_size=2, crop=32), out)
    before = (out / "last.safetensors").read_bytes()
    monkeypatch.setitem(LOSSES, "l2", lambda output, targets, progress: output.sum() * float("nan"))
    assert_refused(minunet("denoise", "train", "--resume", "--out", out, "--steps", 4), r"Training stopped in epoch 2.*the loss became nan")
    assert (out / "last.safetensors").read_bytes() == before


def test_a_full_disk_while_saving(minunet, photos, model, monkeypatch):
    before = {path.name: path.read_bytes() for path in model.iterdir()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    said = minunet("denoise", "train", photos, "--noise", "gaussian", "--out", model.parent / "full", *TINY)
    assert_refused(said, "No space left on device")
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


# the benchmark


def run_script(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "noise2noise.py"), *map(str, arguments)]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "dumb"} | environment
    return subprocess.run(command, capture_output=True, text=True, check=False, env=variables)


def test_the_benchmark_trains_both_sides_and_keeps_their_curves(tmp_path):
    make_folder(tmp_path / "bsd_train400")
    make_folder(tmp_path / "set12", count=2)
    said = run_script("--quick", "--out", tmp_path, "--jobs", min(2, cores()), MINUNET_DATA=str(tmp_path))
    assert said.returncode == 0, said.stderr
    found = json.loads((tmp_path / "noise2noise.json").read_text())
    assert found["quick"]
    labels = ["gaussian of 25, noisy targets", "gaussian of 25, clean targets"]
    assert [run["trial"] for run in found["runs"]] == [row["trial"] for row in found["rows"]] == labels
    assert [(run["settings"]["target"], run["settings"]["strength"]) for run in found["runs"]] == [("noisy", 25), ("clean", 25)]
    assert [row["steps"] for row in found["rows"]] == [3, 3]
    assert found["runs"][0]["set12"]["before psnr"] == pytest.approx(20.17, abs=0.2)
    assert str(tmp_path) not in json.dumps(found)


def test_the_benchmark_says_what_is_missing(tmp_path):
    assert "--quick measures nothing that should be kept" in run_script("--quick").stderr
    assert "--jobs 3000 and --threads 2 take 6000 cores" in run_script("--jobs", "3000", "--threads", "2").stderr
    assert "--steps 300 is no multiple of --every 250" in run_script("--steps", "300").stderr
    assert "There is no data set 'bsd_train400'" in run_script("--quick", "--out", tmp_path, MINUNET_DATA=str(tmp_path)).stderr
