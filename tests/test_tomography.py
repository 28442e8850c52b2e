"""Tomography: phantoms, scans, and what inverts them."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import tomography as benchmark
from minunet import Tensor
from minunet import tomography as tomo
from minunet.tomography import network
from minunet.tomography.fbp import FILTERS, ramp
from minunet.tomography.fista_tv import tv_gradient
from minunet.tomography.methods import ITERATIONS, reconstruct
from minunet.tomography.scan import absorption
from minunet.tomography.sirt import Update
from tests.conftest import require


def scan(size, angles):
    return tomo.Geometry.over("scan", (size, size), np.asarray(angles).tolist())


FULL, WEDGE = scan(64, tomo.tilts(90)), scan(64, tomo.tilts(180, 60))


def scanned(geometry, seed=1, index=0, noise=0.02):
    truth = tomo.ellipses(geometry.size[0], seed, index)
    return truth, tomo.noisy(tomo.project(truth, geometry), noise, (seed, index))


# phantoms and scans


def test_the_head_is_scikit_images():
    """Theirs is a picture, drawn once without shares of pixels: outlines differ, and the flat regions do not."""
    want = require("skimage.data").shepp_logan_phantom()
    got = tomo.shepp_logan(400)
    assert (got.dtype, got.shape) == (np.float32, (400, 400))
    differ = np.abs(got - want)
    assert np.median(differ) < 1e-3
    assert (differ > 0.02).mean() < 0.03


def test_ellipses_are_seeded_and_seen_by_all_rays():
    place = (np.arange(64) - 31.5) / 32
    for index in range(20):
        x = tomo.ellipses(64, 3, index)
        assert np.array_equal(x, tomo.ellipses(64, 3, index))
        assert 0 <= x.min() < 0.1 < x.max() <= 1
        assert not x[np.hypot(place[:, None], place) > 1].any()
    assert not np.array_equal(x, tomo.ellipses(64, 4, index))
    assert not np.array_equal(x, tomo.ellipses(64, 3, 0))
    coarse = tomo.ellipses(128, 3, 5).reshape(64, 2, 64, 2).mean(axis=(1, 3))
    assert np.abs(coarse - tomo.ellipses(64, 3, 5)).mean() < 0.01  # the same object at another size


def test_tilts():
    assert np.array_equal(tomo.tilts(4), [-90, -45, 0, 45])
    assert np.array_equal(tomo.tilts(180, 60), np.arange(-60, 61))
    with pytest.raises(ValueError, match=r"at least 1 angle, got 0"):
        tomo.tilts(0)
    with pytest.raises(ValueError, match=r"less than 180°, got 200°"):
        tomo.tilts(10, 200)
    with pytest.raises(ValueError, match=r"leaves none of 1 angles"):
        tomo.tilts(1, 60)


def test_noise_has_the_norm_it_is_asked_for():
    y = np.random.default_rng(0).random((3, 40, 50)).astype(np.float32) * np.float32([[[1]], [[10]], [[100]]])
    got = tomo.noisy(y, 0.05, 7)
    assert got.dtype == np.float32
    norms = np.linalg.norm(got - y, axis=(1, 2)) / np.linalg.norm(y, axis=(1, 2))
    assert np.abs(norms - 0.05).max() < 0.003
    assert np.array_equal(got, tomo.noisy(y, 0.05, 7))
    assert np.array_equal(tomo.noisy(y, 0, 7), y)
    with pytest.raises(ValueError, match="noise level is 0 or more"):
        tomo.noisy(y, -1, 0)


# filtered back-projection


@pytest.mark.parametrize("name", FILTERS)
def test_filters_are_scikit_images(name):
    """Its Hann and Hamming windows of n samples are those of a line that does not repeat: they differ by the order of 1/n."""
    theirs = require("skimage.transform.radon_transform")._get_fourier_filter(256, name)[:129, 0]
    assert np.abs(ramp(256, name) - np.abs(theirs)).max() < (0.01 if name.startswith("ha") else 1e-12)


@pytest.mark.parametrize("size", [64, 65])
def test_fbp_is_scikit_images(size):
    """Both read the filtered lines by linear interpolation, so only rounding differs. Theirs is 0 outside the circle, and for the last
    pixels in it theirs filters on beyond the last detector, where nothing was measured."""
    geometry = scan(size, tomo.tilts(60))
    y = tomo.project(tomo.shepp_logan(size).astype(np.float64), geometry)
    want = require("skimage.transform").iradon(y.T, np.array(geometry.angles), filter_name="ramp", circle=True)
    got = tomo.fbp(y, geometry)
    place = np.arange(size) - size // 2
    inside = np.hypot(place[:, None], place) < size // 2 - 1
    np.testing.assert_allclose(got[inside], want[inside], atol=1e-10)


def test_fbp_finds_the_values():
    """A disc of 1 becomes 1, and 0 around it: mean and scale of the ramp are right."""
    place = np.arange(128) - 64
    radius = np.hypot(place[:, None], place)
    disc = (radius < 40).astype(np.float32)
    x = tomo.fbp(tomo.project(disc, scan(128, tomo.tilts(180))), scan(128, tomo.tilts(180)), filter="hann")
    assert x.dtype == np.float32
    assert abs(x[radius < 36].mean() - 1) < 0.003
    assert abs(x[(radius > 44) & (radius < 60)].mean()) < 0.003


def test_bad_filter_and_sinogram():
    with pytest.raises(ValueError, match=r"the filter is one of ramp, shepp-logan, .*; got 'sharp'"):
        tomo.fbp(np.zeros(FULL.sinogram), FULL, filter="sharp")
    for method in ITERATIONS:
        with pytest.raises(ValueError, match=r"expects a sinogram \(…, 90 angles, 64 detectors\), got shape \(64, 90\)"):
            reconstruct(np.zeros((64, 90)), FULL, method)


# iterative methods


def test_sirt_descends_and_converges():
    geometry = scan(16, tomo.tilts(40))
    truth = tomo.ellipses(16, 0).astype(np.float64)
    update, missed = Update(tomo.project(truth, geometry), geometry), []

    def watch(number, x):
        assert number == len(missed) + 1
        missed.append(float(np.sum(update.rows * (update.sinogram - tomo.project(x, geometry)) ** 2)))

    x = tomo.sirt(update.sinogram, geometry, iterations=1500, watch=watch)
    assert len(missed) == 1500
    assert (np.diff(missed) <= 0).all()
    assert np.abs(x - truth).max() < 0.05


def test_sirt_stays_positive_and_takes_batches():
    _, y = scanned(WEDGE)
    assert tomo.sirt(y, WEDGE, iterations=20).min() < 0
    x = tomo.sirt(np.stack([y, 2 * y]), WEDGE, iterations=20, nonnegative=True)
    assert (x.shape, x.dtype, x.min()) == ((2, 64, 64), np.float32, 0)
    np.testing.assert_allclose(x[1], 2 * x[0], rtol=1e-4, atol=1e-5)


def test_what_no_ray_sees_stays_zero():
    geometry = tomo.Geometry.over("scan", (20, 20), (0.0,), 30, 25.0)  # the axis is not in the middle: some detectors see nothing
    y = np.ones(geometry.sinogram)
    x = tomo.sirt(y, geometry, iterations=5)
    assert np.isfinite(x).all()
    assert not x[:, -5:].any()  # beside the last detector
    with pytest.raises(ValueError, match="NaN or infinite"):
        tomo.sirt(np.full(geometry.sinogram, np.nan), geometry)


def test_the_gradient_of_the_total_variation():
    rng = np.random.default_rng(0)
    x, v = rng.standard_normal((2, 7, 6)), rng.standard_normal((2, 7, 6))
    step, epsilon = 1e-6, 0.1
    for k in range(2):
        difference = (tomo.total_variation(x[k] + step * v[k], epsilon) - tomo.total_variation(x[k] - step * v[k], epsilon)) / (2 * step)
        assert np.vdot(tv_gradient(x, epsilon)[k], v[k]) == pytest.approx(difference, rel=1e-6)
    half = np.zeros((8, 8))
    half[:, 4:] = 2
    assert tomo.total_variation(half) == 16  # a step of 2 along 8 rows


def test_momentum_is_faster_than_sirt():
    _, y = scanned(FULL, noise=0)

    def missed(x):
        return np.linalg.norm(y - tomo.project(x, FULL))

    assert missed(tomo.fista_tv(y, FULL, iterations=30, strength=0)) < 0.5 * missed(tomo.sirt(y, FULL, iterations=30, nonnegative=True))


def test_strength_flattens():
    _, y = scanned(WEDGE)
    variations = [float(tomo.total_variation(tomo.fista_tv(y, WEDGE, iterations=30, strength=s))) for s in (0, 0.001, 0.003, 0.01)]
    assert variations == sorted(variations, reverse=True)
    assert variations[0] > 1.5 * variations[-1]


def test_the_unit_does_not_matter():
    _, y = scanned(WEDGE)
    np.testing.assert_allclose(
        tomo.fista_tv(1000 * y, WEDGE, iterations=10), 1000 * tomo.fista_tv(y, WEDGE, iterations=10), rtol=1e-3, atol=0.1
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda y: tomo.sirt(y, WEDGE, iterations=0), "SIRT takes at least 1 iteration, got 0"),
        (lambda y: tomo.fista_tv(y, WEDGE, iterations=0), "SIRT-FISTA-TV takes at least 1 iteration, got 0"),
        (lambda y: tomo.fista_tv(y, WEDGE, strength=-1), "strength is 0 or more, got -1"),
        (lambda y: reconstruct(y, WEDGE, "art"), "the method is one of fbp, sirt, fista-tv or network; got 'art'"),
        (lambda y: reconstruct(y, WEDGE, "fbp", 5), "filtered back-projection has no iterations"),
        (lambda y: reconstruct(y, WEDGE, "sirt", 0), "sirt takes at least 1 iteration, got 0"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.zeros(WEDGE.sinogram, np.float32))


def test_each_method_is_better_than_the_one_before():
    """A wedge of 60° is missing, 2 % noise: over four phantoms, in PSNR and in SSIM."""
    pairs = [scanned(WEDGE, index=i) for i in range(4)]
    images = {method: reconstruct(np.stack([y for _, y in pairs]), WEDGE, method) for method in ITERATIONS}
    for score in (tomo.psnr, tomo.ssim):
        means = [float(np.mean([score(x, truth) for x, (truth, _) in zip(images[m], pairs, strict=True)])) for m in ITERATIONS]
        assert means == sorted(means), f"{score.__name__}: {dict(zip(ITERATIONS, means, strict=True))}"


# scores


def test_scores_are_scikit_images():
    metrics = require("skimage.metrics")
    truth, y = scanned(WEDGE)
    x = tomo.fbp(y, WEDGE)
    extent = float(np.ptp(truth))
    assert tomo.psnr(x, truth) == pytest.approx(metrics.peak_signal_noise_ratio(truth.astype(float), x.astype(float), data_range=extent))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": extent}
    assert tomo.ssim(x, truth) == pytest.approx(metrics.structural_similarity(truth.astype(float), x.astype(float), **options), abs=1e-9)
    assert tomo.psnr(truth, truth) == np.inf
    assert tomo.ssim(truth, truth) == pytest.approx(1)


def test_bad_scores():
    flat, ramped = np.zeros((16, 16)), np.arange(256.0).reshape(16, 16)
    with pytest.raises(ValueError, match=r"PSNR compares two images .* of one size"):
        tomo.psnr(ramped, ramped[:8])
    with pytest.raises(ValueError, match=r"the truth is 0 everywhere"):
        tomo.psnr(ramped, flat)
    with pytest.raises(ValueError, match=r"windows of 11 pixels"):
        tomo.ssim(ramped[:8, :8], ramped[:8, :8])


# real scans


def write_scan(path, sinogram, theta=None, **other):
    """Counts as a camera has them: a dark level, a beam that differs from detector to detector."""
    h5py = require("h5py")
    rng = np.random.default_rng(0)
    dark = np.full((3, 2, sinogram.shape[1]), 90.0) + rng.uniform(-1, 1, (3, 2, 1))
    beam = 1000 + 200 * rng.random(sinogram.shape[1])
    white = dark[:3].mean(axis=0) + beam + rng.uniform(-1, 1, (3, 2, 1))
    data = dark.mean(axis=0) + np.stack([np.zeros_like(sinogram), np.exp(-sinogram) * (white - dark).mean(axis=0)[1]], axis=1)
    parts = {"data": data, "data_white": white, "data_dark": dark, **({} if theta is None else {"theta": theta}), **other}
    with h5py.File(path, "w") as file:
        for name, array in parts.items():
            if array is not None:
                file[f"exchange/{name}"] = array


@pytest.fixture
def head():
    """A sinogram of small absorptions whose axis is not in the middle, and its angles."""
    theta = np.arange(0, 180, 2.0)
    geometry = tomo.Geometry.over("scan", (100, 100), theta.tolist(), 120, 54.3)
    return tomo.project(tomo.shepp_logan(100), geometry) / 50, theta


def test_a_scan_is_read(tmp_path, head):
    sinogram, theta = head
    write_scan(tmp_path / "a.h5", sinogram, theta)
    read = tomo.read_scan(tmp_path / "a.h5", row=1)
    np.testing.assert_allclose(read.sinogram, sinogram, atol=1e-5)
    assert read.sinogram.dtype == np.float32
    assert np.array_equal(read.angles, theta)
    write_scan(tmp_path / "b.h5", sinogram)
    assert np.allclose(tomo.read_scan(tmp_path / "b.h5", row=1).angles, theta)


def test_a_dead_detector_and_an_opaque_ray():
    data = np.array([[60.0, 10.0, 35.0, 0.0], [60.0, 10.0, 10.0, 110.0]])
    got = absorption(data, np.array([110.0, 10.0, 60.0, 110.0]), np.array([10.0] * 4))
    np.testing.assert_allclose(got[0], [np.log(2), np.log(2), np.log(2), np.log(1e4)])
    np.testing.assert_allclose(got[1], [np.log(2), (np.log(2) + np.log(1e4)) / 2, np.log(1e4), 0], atol=1e-12)
    with pytest.raises(ValueError, match="are the two swapped"):
        absorption(data, np.zeros(4), np.ones(4))


def test_the_axis_is_found(head):
    sinogram, theta = head
    with_noise = tomo.noisy(sinogram, 0.02, 0)
    assert abs(tomo.find_centre(with_noise, theta) - 54.3) <= 0.25
    with pytest.raises(ValueError, match="these cover 120°: give the centre"):
        tomo.find_centre(sinogram[:60], theta[:60])


@pytest.mark.parametrize(
    ("change", "row", "message"),
    [
        ({"data_dark": None}, 0, "has no exchange/data_dark: a scan has exchange/data, data_white and data_dark"),
        ({"data": np.zeros((3, 4))}, 0, "has something else than three axes in exchange/data"),
        ({"data_white": np.ones((3, 2, 7))}, 0, r"data_white has the shape \(3, 2, 7\)"),
        ({"theta": np.zeros(3)}, 0, r"exchange/theta has the shape \(3,\), expected one for each of 90"),
        ({}, 2, r"has the detector rows 0 … 1, got 2"),
    ],
)
def test_a_scan_that_is_not_in_order(tmp_path, head, change, row, message):
    write_scan(tmp_path / "a.h5", head[0], **change)
    with pytest.raises(ValueError, match=message):
        tomo.read_scan(tmp_path / "a.h5", row)


def test_no_file_no_hdf5_no_h5py(tmp_path, monkeypatch):
    require("h5py")
    with pytest.raises(ValueError, match="there is no file"):
        tomo.read_scan(tmp_path / "a.h5")
    (tmp_path / "a.h5").write_text("no")
    with pytest.raises(ValueError, match="is no HDF5 file"):
        tomo.read_scan(tmp_path / "a.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(RuntimeError, match=r"reading a scan needs h5py, .*: pip install 'minunet\[tomography\]'"):
        tomo.read_scan(tmp_path / "a.h5")


def test_the_tooth(real_data):
    """The axis that TomoPy's documentation finds for this scan is 296; a tooth absorbs, the air around it does not."""
    read = tomo.read_scan(real_data("tooth_tomography") / "tooth.h5")
    centre = tomo.find_centre(read.sinogram, read.angles)
    assert abs(centre - 296) < 1
    image = tomo.fbp(read.sinogram, tomo.Geometry.over("tooth", (640, 640), read.angles.tolist(), 640, centre), filter="hann")
    middle, around = image[270:370, 230:360], image[100:140, 300:340]
    assert middle.mean() > 10 * abs(around.mean())


# the network

TINY = network.Settings(size=32, angles=60, method="fbp", phantoms=16, epochs=2, batch_size=4, base_channels=4, depth=2)


def test_pairs():
    pairs = network.Pairs(TINY, 3, 5)
    image, target = pairs[2]
    assert len(pairs) == 5
    assert (image.shape, target.shape, image.dtype, target.dtype) == ((1, 32, 32), (1, 32, 32), np.float32, np.float32)
    assert np.mean(image**2) == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(target[0] * pairs.scales[2], tomo.ellipses(32, TINY.seed, 5), atol=1e-6)
    assert np.array_equal(network.Pairs(TINY, 5, 1)[0][0], image)  # which others are made does not matter


def test_pairs_of_two_noisy_scans():
    """The same object, other noise, and no truth: the difference of the two is noise of mean 0."""
    settings = network.Settings(**{**vars(TINY), "targets": "noisy"})
    noisy_pairs, pairs = network.Pairs(settings, 0, 16), network.Pairs(TINY, 0, 16)
    assert np.array_equal(noisy_pairs.inputs, pairs.inputs)
    clean = np.stack([tomo.fbp(tomo.project(x, TINY.geometry), TINY.geometry, filter="hann") for x in pairs.truths])
    one, other = noisy_pairs.inputs - clean, noisy_pairs.targets - clean
    assert abs(np.vdot(one, other)) < 0.1 * np.linalg.norm(one) * np.linalg.norm(other)
    assert np.linalg.norm(other) == pytest.approx(np.linalg.norm(one), rel=0.1)


def test_an_untrained_network_changes_nothing():
    x = np.random.default_rng(0).random((1, 1, 16, 16)).astype(np.float32)
    assert np.array_equal(network.Correction(4, 2)(Tensor(x)).data, x)


@pytest.mark.parametrize("targets", network.TARGETS)
def test_training_leaves_a_network_that_loads(tmp_path, targets):
    settings = network.Settings(**{**vars(TINY), "targets": targets})
    run, reason = network.train(settings, tmp_path)
    assert (reason, run.epoch) == ("finished", 2)
    assert set(run.history[0]) >= {"train_loss", "val_loss", "psnr"}
    restorer = network.Restorer.load(tmp_path)
    assert restorer.settings == settings
    x = network.Pairs(settings, 0, 2).inputs
    y = restorer(x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    np.testing.assert_allclose(restorer(1000 * x), 1000 * y, rtol=1e-3, atol=0.1)
    assert restorer(x[0, :30, :27]).shape == (30, 27)


def test_bad_settings(tmp_path):
    for change, message in (
        ({"size": 30}, "sizes divisible by 8: size is 30, use 32"),
        ({"method": "network"}, "the method is one of"),
        ({"targets": "noisy"}, "fista-tv is not. Use method='fbp'"),
        ({"targets": "clean"}, "targets are 'phantom' or 'noisy', got 'clean'"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            network.Settings(**change)


def test_the_benchmark_writes_a_row_for_each_method(tmp_path):
    require("skimage")
    benchmark.main(True, tmp_path)
    result = json.loads((tmp_path / "tomography.json").read_text(encoding="utf-8"))
    assert result["quick"]
    quality = [row for row in result["rows"] if row["table"] == "quality"]
    assert [row["method"] for row in quality] == ["fbp", "sirt", "fista-tv", "network", "network, Noise2Noise"]
    assert all(0 < row["psnr"]["mean"] < 100 and row["ssim"]["mean"] <= 1 for row in quality)
    assert [row["operation"] for row in result["rows"] if row["table"] == "speed"] == ["projection", "filtered back-projection"]
    table = runpy.run_path(str(Path(__file__).parents[1] / "tools" / "benchmark_tables.py"))["table"](tmp_path / "tomography.json")
    assert len(re.findall(r"^\| .* \|$", table, re.MULTILINE)) == (1 + 5) + (1 + 2), table  # two heads and a line for each row
    assert "| network, behind fbp |" in table


@pytest.mark.slow
def test_the_network_is_better_than_total_variation(tmp_path):
    """A minute. The whole order, at 64² and over eight phantoms that it was not trained on."""
    settings = network.Settings(size=64, wedge=60, phantoms=300, epochs=20, seed=5)
    network.train(settings, tmp_path)
    restorer = network.Restorer.load(tmp_path)
    pairs = [scanned(WEDGE, seed=1, index=i) for i in range(8)]
    sinograms = np.stack([y for _, y in pairs])
    images = {method: reconstruct(sinograms, WEDGE, method) for method in ITERATIONS}
    images["network"] = restorer(reconstruct(sinograms, WEDGE, settings.method, settings.iterations))
    for score in (tomo.psnr, tomo.ssim):
        means = [float(np.mean([score(x, t) for x, (t, _) in zip(batch, pairs, strict=True)])) for batch in images.values()]
        assert means == sorted(means), f"{score.__name__}: {dict(zip(images, means, strict=True))}"
