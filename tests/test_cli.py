"""The command: what it prints, what it writes, and one sentence for everything that can be put right."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as Picture

import minunet as mu
from minunet import cli, nn, tomography
from tests.conftest import assert_refused, require

TINY = ["--epochs", "1", "--batch-size", "2", "--crop", "16", "--base-channels", "2", "--depth", "1"]
COMMANDS = ["demo", "train", "evaluate", "predict", "denoise", "reconstruct", "summary", "check", "bench"]


def make_folders(root: Path, count: int = 5, size: tuple[int, int] = (20, 24), channels: int = 1) -> tuple[Path, Path]:
    """Bright rectangles on noise, with masks of 0 and 255."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(count):
        mask = np.zeros(size, np.uint8)
        mask[4 + i : 12, 5 : 10 + 2 * i] = 255
        image = np.clip(mask // 2 + rng.integers(0, 60, size), 0, 255).astype(np.uint8)
        Picture.fromarray(image if channels == 1 else np.stack([image] * channels, axis=-1)).save(root / "images" / f"cell{i}.png")
        Picture.fromarray(mask).save(root / "masks" / f"cell{i}.png")
    return root / "images", root / "masks"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    return make_folders(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def model(folders, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "model"
    images, masks = folders
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "--images", str(images), "--masks", str(masks), "--out", str(out), *TINY])
    assert not ended.value.code
    return out


# help


def test_help_names_every_command_in_one_line(minunet):
    said = minunet("--help")
    assert said.code == 0
    for command in COMMANDS:
        assert re.search(rf"\b{command} +[A-Z].*\.", said.out), command
    assert "minunet demo" in said.out
    assert set(re.findall(r"│ (\w+) ", said.out)) >= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(minunet, command):
    said = minunet(command, "--help")
    assert said.code == 0
    assert f"minunet {command}" in said.out
    assert "[dim]" not in said.out


def test_no_command_shows_the_help(minunet):
    assert "demo" in minunet().out


def test_an_unknown_option_is_refused(minunet):
    said = minunet("train", "--no-such-option")
    assert said.code == 2
    assert "no-such-option" in said.err


def test_importing_minunet_does_not_load_the_command():
    script = "import sys, minunet; sys.exit(bool({'typer', 'rich', 'minunet.cli', 'scipy', 'matplotlib', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[1], check=False).returncode == 0


# what works


def test_train_writes_a_run(model):
    written = {path.name for path in model.iterdir()}
    assert written == {"best.safetensors", "last.safetensors", "metrics.csv", "metrics.json", "curves.png", "predictions.png"}
    for name in ("curves.png", "predictions.png"):
        with Picture.open(model / name) as picture:
            assert picture.width > 500


def test_resume_goes_on_with_the_settings_of_the_run(minunet, folders, tmp_path):
    images, masks = folders
    minunet("train", "--images", images, "--masks", masks, "--out", tmp_path / "run", *TINY)
    said = minunet("train", "--resume", "--out", tmp_path / "run", "--epochs", 2)
    assert said.code == 0, said.err
    assert "2/2" in said.out
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 3


def test_a_run_whose_images_changed_does_not_go_on(minunet, tmp_path):
    images, masks = make_folders(tmp_path)
    minunet("train", "--images", images, "--masks", masks, "--out", tmp_path / "run", *TINY)
    Picture.fromarray(np.full((20, 24), 99, np.uint8)).save(images / "cell1.png")
    Picture.fromarray(np.full((20, 24), 99, np.uint8)).save(images / "cell2.png")
    assert_refused(minunet("train", "--resume", "--out", tmp_path / "run", "--epochs", 2), "the images are not those the run")


def test_colour_images_and_three_classes(minunet, tmp_path):
    images, masks = make_folders(tmp_path, channels=3)
    for path in masks.iterdir():
        with Picture.open(path) as picture:
            mask = np.asarray(picture) // 255
        mask[15:] = 2
        Picture.fromarray(mask).save(path)
    said = minunet("train", "--images", images, "--masks", masks, "--out", tmp_path / "run", *TINY)
    assert said.code == 0, said.err
    said = minunet("evaluate", tmp_path / "run", "--images", images, "--masks", masks)
    assert all(name in said.out for name in ("class 0", "class 1", "class 2"))
    said = minunet("predict", tmp_path / "run", images / "cell0.png", "--out", tmp_path / "out")
    assert said.code == 0, said.err
    with Picture.open(tmp_path / "out" / "cell0.png") as picture:
        assert set(np.unique(np.asarray(picture))) <= {0, 1, 2}
    assert_refused(minunet("predict", tmp_path / "run", images, "--out", tmp_path / "out", "--instances"), "this model has 2")


def test_evaluate_prints_the_scores(minunet, model, folders):
    images, masks = folders
    said = minunet("evaluate", model, "--images", images, "--masks", masks)
    assert said.code == 0, said.err
    assert all(word in said.out for word in ("Dice", "IoU", "precision", "recall", "background", "object", "pixel error"))
    assert "4 of them" in said.out  # the images it was trained on


def test_predict_keeps_size_depth_and_format(minunet, model, tmp_path):
    rng = np.random.default_rng(1)
    source = tmp_path / "in"
    source.mkdir()
    Picture.fromarray(rng.integers(0, 255, (33, 17), np.uint8)).save(source / "a.png")
    Picture.fromarray(rng.integers(0, 255, (9, 41), np.uint8)).save(source / "b.jpg")
    tifffile.imwrite(source / "c.tif", rng.integers(0, 65535, (20, 30), np.uint16))
    said = minunet("predict", model, source, "--out", tmp_path / "out", "--tta")
    assert said.code == 0, said.err
    with Picture.open(tmp_path / "out" / "a.png") as a, Picture.open(tmp_path / "out" / "b.png") as b:
        assert (a.size, a.mode, b.size, b.mode) == ((17, 33), "L", (41, 9), "L")
        assert set(np.unique(np.asarray(a))) <= {0, 255}
    c = tifffile.imread(tmp_path / "out" / "c.tif")
    assert (c.shape, c.dtype) == ((20, 30), np.uint16)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "b.png", "c.tif"]


def test_predict_numbers_and_cleans_objects(minunet, model, folders, tmp_path):
    every = ["--threshold", 0, "--fill-holes", "--min-size", 3]
    said = minunet("predict", model, folders[0] / "cell0.png", "--out", tmp_path, "--instances", "--largest", *every)
    assert said.code == 0, said.err
    assert "1 objects" in said.out or "1 object" in said.out
    with Picture.open(tmp_path / "cell0.png") as picture:
        assert np.asarray(picture).dtype == np.uint16
        assert (np.asarray(picture) == 1).all()


def test_summary_of_a_model_and_of_a_description(minunet, model):
    assert "31,030,593" in minunet("summary").out
    said = minunet("summary", model, "--size", 32)
    assert said.code == 0, said.err


def test_check_compares_one_operation(minunet):
    said = minunet("check", "add")
    assert said.code == 0, said.out
    assert re.search(r"add .*e-", said.out)
    assert "1 of 1 operations pass" in said.out


def test_check_fails_where_an_operation_is_wrong(minunet, monkeypatch):
    from minunet.ops.elementwise import Exp

    monkeypatch.setattr(Exp, "backward", lambda ctx, gy: 2.001 * gy * ctx.saved[0])
    said = minunet("check", "exp")
    assert said.code == 1
    assert "wrong" in said.out


def test_ctrl_c_says_how_to_continue(minunet, folders, tmp_path, monkeypatch):
    from minunet.train import segmentation

    def interrupting(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return validate(*arguments)

    validate = segmentation.validate
    monkeypatch.setattr(segmentation, "validate", interrupting)
    images, masks = folders
    said = minunet("train", "--images", images, "--masks", masks, "--out", tmp_path / "run", *TINY, "--epochs", 3)
    assert said.code == 130
    assert f"Stopped and saved in epoch 2. Continue with: minunet train --images {images}" in said.out
    monkeypatch.undo()
    said = minunet("train", "--images", images, "--masks", masks, "--out", tmp_path / "run", "--resume")
    assert said.code == 0, said.err
    assert "3/3" in said.out


@pytest.mark.slow
def test_demo_finds_new_cells(minunet, tmp_path):
    started = time.monotonic()
    said = minunet("demo", "--out", tmp_path / "demo")
    assert said.code == 0, said.err
    assert time.monotonic() - started < 180
    assert float(re.search(r"IoU of the cells is (\d\.\d+)", said.out)[1]) > 0.9
    assert (tmp_path / "demo" / "predictions.png").exists()


# bad input


def test_a_missing_folder(minunet, tmp_path):
    assert_refused(
        minunet("train", "--images", tmp_path / "none", "--masks", tmp_path, "--out", tmp_path / "run"), "there is no folder .*none"
    )


def test_an_image_without_a_mask(minunet, tmp_path):
    images, masks = make_folders(tmp_path)
    (masks / "cell3.png").unlink()
    assert_refused(minunet("train", "--images", images, "--masks", masks, "--out", tmp_path / "run", *TINY), "cell3.png.* has no mask")
    assert not (tmp_path / "run").exists()


def test_sizes_that_differ(minunet, tmp_path):
    images, masks = make_folders(tmp_path)
    Picture.fromarray(np.zeros((20, 25), np.uint8)).save(masks / "cell2.png")
    assert_refused(
        minunet("train", "--images", images, "--masks", masks, "--out", tmp_path / "run", *TINY), "20×24 but its mask .* is 20×25"
    )


@pytest.mark.parametrize("kept", [0, 40, 150])
def test_a_truncated_file(minunet, tmp_path, kept):
    images, masks = make_folders(tmp_path)
    path = images / "cell2.png"
    path.write_bytes(path.read_bytes()[:kept])
    assert_refused(minunet("train", "--images", images, "--masks", masks, "--out", tmp_path / "run", *TINY), "cell2.png")


def test_masks_with_unknown_values(minunet, model, tmp_path):
    images, masks = make_folders(tmp_path)
    Picture.fromarray(np.full((20, 24), 77, np.uint8)).save(masks / "cell2.png")
    assert_refused(minunet("train", "--images", images, "--masks", masks, "--out", tmp_path / "run", *TINY), "77")
    assert_refused(minunet("evaluate", model, "--images", images, "--masks", masks), "cell2.png.* unknown values 77")


def test_a_loss_that_is_not_finite(minunet, folders, tmp_path):
    images, masks = folders
    said = minunet(
        "train", "--images", images, "--masks", masks, "--out", tmp_path / "run", *TINY, "--epochs", 5, "--lr", "1e38", "--norm", "none"
    )
    assert_refused(said, r"Training stopped in epoch \d.*Try a smaller learning rate")


def test_another_architecture(minunet, model):
    assert_refused(minunet("train", "--out", model, "--resume", "--base-channels", 4), "has base_channels=2 and cannot go on with 4")


def test_a_checkpoint_cut_in_half(minunet, model, folders, tmp_path):
    cut = tmp_path / "half.safetensors"
    whole = (model / "best.safetensors").read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    assert_refused(minunet("predict", cut, folders[0], "--out", tmp_path / "out"), "half.safetensors")
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_checkpoint(minunet, folders, tmp_path):
    (tmp_path / "model.safetensors").write_text("not a checkpoint")
    assert_refused(minunet("evaluate", tmp_path / "model.safetensors", "cells"), "model.safetensors")
    assert_refused(minunet("evaluate", tmp_path / "nothing", "cells"), "nothing")


def test_a_full_disk_while_saving(minunet, model, monkeypatch):
    before = {path.name: path.read_bytes() for path in model.iterdir()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert_refused(minunet("train", "--out", model, "--resume", "--epochs", 3), "No space left on device")
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


def test_the_wrong_number_of_channels(minunet, model, tmp_path):
    images, masks = make_folders(tmp_path, channels=3)
    assert_refused(minunet("predict", model, images, "--out", tmp_path / "out"), "trained on gray images .* has 3 channels")
    assert_refused(minunet("evaluate", model, "--images", images, "--masks", masks), "trained on gray images .* has 3 channels")


def test_a_batch_of_one_with_batch_norm(minunet, folders, tmp_path):
    images, masks = folders
    one = ["--batch-size", 1, "--crop", 4, "--depth", 2, "--base-channels", 2, "--norm", "batch"]
    assert_refused(minunet("train", "--images", images, "--masks", masks, "--out", tmp_path / "run", *one), "(?i)batch.?norm")


def test_what_is_not_a_source(minunet, tmp_path, folders):
    images, masks = folders
    assert_refused(minunet("train", "isbi2021"), "there is no source 'isbi2021'")
    assert_refused(minunet("train"), "isbi2012, dsb2018 or cells")
    assert_refused(minunet("train", "--images", images), "--images and --masks belong together")
    assert_refused(minunet("train", "cells", "--images", images, "--masks", masks), "two sources")


def test_a_known_set_that_is_not_here(minunet, monkeypatch, tmp_path):
    monkeypatch.setenv("MINUNET_DATA", str(tmp_path))
    assert_refused(minunet("train", "isbi2012", "--out", tmp_path / "run"), "brainiac2.mit.edu")


def test_runs_are_not_overwritten(minunet, model, tmp_path):
    assert_refused(minunet("train", "cells", "--out", model), "holds a run already")
    assert_refused(minunet("train", "cells", "--out", tmp_path, "--resume"), "no run to resume")


def test_masks_never_overwrite_images(minunet, model, tmp_path):
    images, _ = make_folders(tmp_path)
    before = (images / "cell0.png").read_bytes()
    assert_refused(minunet("predict", model, images, "--out", images), "would overwrite the image")
    assert (images / "cell0.png").read_bytes() == before
    (images / "cell0.jpg").write_bytes(before)
    assert_refused(minunet("predict", model, images, "--out", tmp_path / "out"), "two images would be written")


def test_settings_that_cannot_be(minunet, folders, tmp_path):
    images, masks = folders
    own = ["train", "--images", images, "--masks", masks, "--out", tmp_path / "run", *TINY]
    assert_refused(minunet(*own, "--crop", 15), "use 16")
    assert_refused(minunet(*own, "--norm", "layer"), "norm")
    assert_refused(minunet(*own, "--up", "sideways"), "up")
    assert_refused(minunet(*own, "--epochs", 0), "epochs must be at least 1")
    assert_refused(minunet(*own, "--val-fraction", 1), "cannot be split")
    assert_refused(minunet(*own, "--precision", "fp16"), "precision 'fp16' is for the tensor cores of a GPU: use --device cuda with it")
    assert_refused(minunet(*own, "--precision", "fp8", "--device", "cuda"), "precision is one of float32, tf32, fp16, bf16; got 'fp8'")
    assert_refused(minunet("check", "no_such_operation"), "there is no operation 'no_such_operation'")


MISSING = {
    "CuPy": "device 'cuda' needs CuPy, which is not installed: pip install 'minunet\\[cuda\\]', or stay on device 'cpu'\\.$",
    "its libraries": "CuPy, which is installed but cannot be loaded \\(no libcublas\\): pip install --force-reinstall 'minunet\\[cuda\\]'",
    "the driver": "needs an NVIDIA GPU and its driver, and CuPy finds none \\(.*\\): install or update the NVIDIA driver, or stay on",
}


@pytest.fixture(params=MISSING)
def missing_for_cuda(request, monkeypatch, tmp_path) -> str:
    """A machine without CuPy, with a broken one, and with one but no driver; the pattern of the sentence that is due."""
    if request.param == "CuPy":
        monkeypatch.setitem(sys.modules, "cupy", None)  # importing it fails
    elif request.param == "its libraries":
        (tmp_path / "cupy.py").write_text("raise ImportError('Failed to import\\nCuPy.') from OSError('no libcublas')")
        monkeypatch.delitem(sys.modules, "cupy", raising=False)
        monkeypatch.syspath_prepend(tmp_path)
    else:
        cupy = require("cupy")

        def fails() -> int:
            raise cupy.cuda.runtime.CUDARuntimeError(35)

        monkeypatch.setitem(sys.modules, "cupy", cupy)
        if Path("/dev/nvidiactl").exists():  # elsewhere it fails by itself
            monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", fails)
    return MISSING[request.param]


def test_the_command_where_there_is_no_gpu(minunet, model, folders, tmp_path, missing_for_cuda):
    """One sentence, and nothing is written or lost."""
    (images, masks), run = folders, tmp_path / "run"
    shutil.copytree(model, run)
    before = {path: path.read_bytes() for path in run.iterdir()}
    own, cuda = ("--images", images, "--masks", masks), ("--device", "cuda")
    assert_refused(minunet("train", *own, "--out", tmp_path / "new", *TINY, *cuda), missing_for_cuda)
    assert_refused(minunet("train", *own, "--out", run, "--resume", "--epochs", 2, *cuda), missing_for_cuda)
    assert_refused(minunet("predict", run, images, "--out", tmp_path / "masks", *cuda), missing_for_cuda)
    assert_refused(minunet("evaluate", run, *own, *cuda), missing_for_cuda)
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "masks").exists()
    assert {path: path.read_bytes() for path in run.iterdir()} == before
    assert minunet("train", *own, "--out", run, "--resume", "--epochs", 2).code == 0


def test_the_device_is_looked_for_before_the_images(minunet, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert_refused(minunet("train", "isbi2012", "--out", tmp_path / "run", "--device", "cuda"), MISSING["CuPy"])
    assert_refused(minunet("train", "isbi2012", "--out", tmp_path / "run", "--device", "tpu"), "device is 'cpu' or 'cuda', got 'tpu'")


def test_tensors_and_layers_where_there_is_no_gpu(missing_for_cuda):
    x, layer = mu.tensor([1.0]), nn.Conv2d(1, 2, 3)
    for move in (lambda: x.to("cuda"), lambda: layer.to("cuda"), lambda: mu.tensor([1.0], device="cuda")):
        with pytest.raises(RuntimeError, match=missing_for_cuda):
            move()
    assert {p.device for p in layer.parameters()} == {"cpu"}
    assert (x + x).tolist() == [2]


# reconstruct


SMALL = ("--size", 32, "--angles", 40)


@pytest.mark.parametrize("phantom", ["shepp-logan", "ellipses"])
@pytest.mark.parametrize("method", ["fbp", "sirt", "fista-tv"])
def test_reconstruct_a_phantom(minunet, tmp_path, phantom, method):
    iterations = () if method == "fbp" else ("--iterations", 10)
    said = minunet("reconstruct", "--phantom", phantom, *SMALL, "--wedge", 60, "--method", method, *iterations, "--out", tmp_path)
    assert said.code == 0, said.err
    assert re.search(rf"{method}: 32×32 from 27 angles  PSNR \d\d\.\d\d dB  SSIM 0\.\d{{4}}", said.out)
    assert {path.name for path in tmp_path.iterdir()} == {"reconstruction.tif", "reconstruction.png", "comparison.png"}
    image = tifffile.imread(tmp_path / "reconstruction.tif")
    assert (image.shape, image.dtype) == ((32, 32), np.float32)
    with Picture.open(tmp_path / "reconstruction.png") as picture:
        assert (picture.size, picture.mode) == ((32, 32), "L")


def test_reconstruct_with_a_network(minunet, tmp_path):
    """One is trained, and serves again; one that was trained otherwise says so."""
    scanned = ("--phantom", "ellipses", "--size", 16, "--angles", 20)
    said = minunet("reconstruct", *scanned, "--method", "network", "--epochs", 1, "--out", tmp_path / "a")
    assert said.code == 0, said.err
    first = tifffile.imread(tmp_path / "a" / "reconstruction.tif")
    network = tmp_path / "a" / "network"
    said = minunet("reconstruct", *scanned, "--method", "network", "--model", network, "--out", tmp_path / "b")
    assert said.code == 0, said.err
    assert "trained for" not in said.out
    assert np.array_equal(tifffile.imread(tmp_path / "b" / "reconstruction.tif"), first)
    said = minunet("reconstruct", *scanned, "--noise", 0.1, "--method", "network", "--model", network, "--out", tmp_path / "c")
    assert "trained for scans with noise 0.02" in said.out


def test_reconstruct_a_scan(minunet, tmp_path):
    h5py = require("h5py")
    theta = np.arange(0, 180, 3.0)
    geometry = tomography.Geometry.over("scan", (48, 48), theta.tolist(), 64, 30.0)
    sinogram = tomography.project(tomography.shepp_logan(48), geometry) / 20
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["exchange/data"] = (50 + 1000 * np.exp(-sinogram))[:, None]
        file["exchange/data_white"], file["exchange/data_dark"] = np.full((2, 1, 64), 1050.0), np.full((2, 1, 64), 50.0)
        file["exchange/theta"] = theta
    said = minunet("reconstruct", tmp_path / "scan.h5", "--out", tmp_path / "out")
    assert said.code == 0, said.err
    found = re.search(r"axis of rotation at detector (\d+\.\d) of 0 … 63", said.out)
    assert found, said.out
    assert abs(float(found[1]) - 30) < 0.5
    assert "PSNR" not in said.out
    said = minunet("reconstruct", tmp_path / "scan.h5", "--centre", 30, "--method", "sirt", "--iterations", 5, "--out", tmp_path / "out")
    assert "axis of rotation" not in said.out
    assert tifffile.imread(tmp_path / "out" / "reconstruction.tif").shape == (64, 64)
    assert_refused(minunet("reconstruct", tmp_path / "scan.h5", "--centre", 64), "a place among the detectors 0 … 63, got 64")
    assert_refused(minunet("reconstruct", tmp_path / "scan.h5", "--row", 1), r"has the detector rows 0 … 0, got 1")
    assert_refused(minunet("reconstruct", tmp_path / "scan.h5", "--noise", 1), "--noise is of a phantom's scan, and .* is a real one")
    assert_refused(minunet("reconstruct", tmp_path / "scan.h5", "--method", "network"), "must be trained already: give its --model")
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "h5py", None)
        assert_refused(
            minunet("reconstruct", tmp_path / "scan.h5"), r"needs h5py, which is not installed: pip install 'minunet\[tomography\]'"
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--phantom", "cube"], "the phantom is shepp-logan or ellipses, got 'cube'"),
        (["--method", "art"], "the method is one of fbp, sirt, fista-tv or network; got 'art'"),
        (["--method", "fbp", "--iterations", 3], "filtered back-projection has no iterations"),
        (["--method", "network", "--iterations", 3], "a network has no --iterations"),
        (["--method", "sirt", "--epochs", 3], "--model and --epochs belong to --method network, not to sirt"),
        (["--method", "network", "--size", 30], "sizes divisible by 8: size is 30, use 32"),
        (["--method", "network", "--model", "no-such-model"], "no-such-model"),
        (["--size", 8], "a phantom's --size is at least 16, got 8"),
        (["--angles", 0], "a scan has at least 1 angle, got 0"),
        (["--wedge", 180], "less than 180°, got 180°"),
        (["--noise", -1], "the noise level is 0 or more"),
        (["--centre", 5], "--centre and --row are of a real scan"),
        (["no-such.h5"], "there is no file 'no-such.h5'"),
    ],
)
def test_reconstruct_what_cannot_be(minunet, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert_refused(minunet("reconstruct", *arguments), message)
    assert not any(tmp_path.iterdir())


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="there is no source"):
        cli.main(["train", "isbi2021", "--debug"])
