"""Standardisation, augmentation and the weight map, each against its plain definition."""

import numpy as np
import pytest
from scipy import ndimage

from minunet.data import Augment, GeneratedCells, Standardize, border_weights, part_touching, random_crop
from minunet.data.transforms import displacements


def sample(*shape: int, channels: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((channels, *shape), dtype=np.float32), rng.integers(0, 3, shape)


def test_standardize():
    cells = GeneratedCells(5, 64)
    standardize = Standardize.fit(cells)
    pixels = np.stack([standardize(image) for image, _ in cells])
    assert abs(pixels.mean()) < 1e-5
    assert abs(pixels.std() - 1) < 1e-5
    assert pixels.dtype == np.float32
    assert Standardize.from_dict(standardize.to_dict()) == standardize
    assert not Standardize((0.5,), (1.0,))(np.full((1, 2, 2), 0.5, np.float32)).any()
    with pytest.raises(ValueError, match=r"image has 2 channel\(s\), the training set had 1"):
        standardize(np.zeros((2, 4, 4), np.float32))


def test_flips_and_turns_reach_all_eight_symmetries_and_keep_pairs_together():
    mask = np.arange(9).reshape(3, 3)
    image = mask[None].astype(np.float32)
    seen = set()
    for seed in range(100):
        turned, turned_mask = Augment()(image, mask, np.random.default_rng(seed))
        assert np.array_equal(turned[0], turned_mask)
        seen.add(turned_mask.tobytes())
    assert len(seen) == 8


@pytest.mark.parametrize("shape", [(7,), (8, 8), (6, 9), (4, 6, 6)])
def test_any_rank(shape):
    image, mask = sample(*shape)
    angle = 20 if len(shape) > 1 else 0
    augment = Augment(angle=angle, elastic=1.0, intensity=0.1)
    bent, bent_mask = augment(image, mask, np.random.default_rng(1))
    assert (bent.shape, bent.dtype, bent_mask.shape, bent_mask.dtype) == (image.shape, np.float32, mask.shape, np.int64)
    assert set(np.unique(bent_mask)) <= {0, 1, 2}
    again = augment(image, mask, np.random.default_rng(1))
    assert np.array_equal(bent, again[0])
    assert np.array_equal(bent_mask, again[1])


@pytest.mark.parametrize("order", [1, 3])
def test_elastic_deformation_is_map_coordinates_of_an_interpolated_grid(order):
    image, mask = sample(40, 52)
    augment = Augment(flips=False, rotations=False, elastic=3.0, order=order)
    bent, bent_mask = augment(image, mask, np.random.default_rng(5))
    rng = np.random.default_rng(5)
    rng.integers(1), rng.integers(1)  # the corner of the window
    grid = rng.normal(0, 3.0, (2, 3, 3))
    rows, columns = np.mgrid[:40, :52].astype(float)
    between = np.stack([rows * 2 / 39, columns * 2 / 51])
    moved = [ndimage.map_coordinates(g, between, order=3, mode="mirror") for g in grid]
    places = np.stack([rows + moved[0], columns + moved[1]])
    for channel, expected in zip(bent, image, strict=True):
        assert np.allclose(channel, ndimage.map_coordinates(expected, places, order=order, mode="mirror"), atol=1e-6)
    assert np.array_equal(bent_mask, ndimage.map_coordinates(mask, places, order=0, mode="mirror"))


def test_displacements_of_a_window_are_part_of_the_whole():
    lines = [np.arange(30.0), np.arange(40.0)]
    whole = displacements((30, 40), lines, 10.0, np.random.default_rng(2))
    part = displacements((30, 40), [lines[0][5:9], lines[1][7:20]], 10.0, np.random.default_rng(2))
    assert np.allclose(part, whole[:, 5:9, 7:20])
    corners = np.random.default_rng(2).normal(0, 10.0, (2, 3, 3))
    assert np.allclose(whole[:, 0, 0], corners[:, 0, 0])
    assert np.allclose(whole[:, -1, -1], corners[:, -1, -1])


def test_nothing_asked_for_changes_nothing():
    image, mask = sample(10, 12)
    same, same_mask = Augment(flips=False, rotations=False)(image, mask, np.random.default_rng(0))
    assert np.array_equal(same, image)
    assert np.array_equal(same_mask, mask)
    bent, _ = Augment(flips=False, rotations=False, elastic=1e-9)(image, mask, np.random.default_rng(0))
    assert np.allclose(bent, image, atol=1e-6)


def test_angle_turns_about_the_middle():
    image, mask = np.zeros((1, 21, 21), np.float32), np.zeros((21, 21), np.int64)
    image[0, 10, 10], mask[10, 10] = 1, 1
    for seed in range(5):
        turned, turned_mask = Augment(angle=180, scale=0.2)(image, mask, np.random.default_rng(seed))
        assert turned[0, 10, 10] == pytest.approx(1)
        assert turned_mask[10, 10] == 1


def test_intensity_stays_near_and_leaves_the_mask():
    image, mask = sample(16, 16)
    image = image * 50 - 20  # any range, negative values too
    shaded, same = Augment(flips=False, rotations=False, intensity=0.1)(image, mask, np.random.default_rng(3))
    assert np.isfinite(shaded).all()
    assert 0 < np.abs(shaded - image).max() < 0.25 * 50
    assert np.array_equal(same, mask)


def test_random_crop_and_mirror():
    image, mask = sample(10, 12)
    cropped, cropped_mask = random_crop(image, mask, (4, 5), np.random.default_rng(0))
    assert cropped.shape == (2, 4, 5)
    windows = np.lib.stride_tricks.sliding_window_view(mask, (4, 5)).reshape(-1, 20)
    assert (windows == cropped_mask.ravel()).all(1).any()
    larger, larger_mask = Augment(flips=False, rotations=False)(image, mask, np.random.default_rng(0), (15, 12))
    assert np.array_equal(larger[:, 10:], image[:, :4:-1])
    assert np.array_equal(larger_mask[:10], mask)
    with pytest.raises(ValueError, match="crop of 1 numbers does not fit images of 2 axes"):
        random_crop(image, mask, (4,), np.random.default_rng(0))


def test_border_weights_are_equation_2():
    labels = np.zeros((20, 24), np.int64)
    labels[3:9, 2:8], labels[3:9, 10:15], labels[14:18, 5:20] = 1, 2, 5  # numbers need not be consecutive
    weights = border_weights(labels, w0=10, sigma=3, class_weights=(1, 2))
    distances = np.sort([ndimage.distance_transform_edt(labels != k) for k in (1, 2, 5)], axis=0)
    expected = np.where(labels > 0, 2, 1 + 10 * np.exp(-((distances[0] + distances[1]) ** 2) / 18))
    assert np.allclose(weights, expected, rtol=1e-5)
    assert weights[5, 8] == pytest.approx(1 + 10 * np.exp(-9 / 18))  # between the two: d1 = 1, d2 = 2
    balanced = border_weights(np.pad(np.ones((5, 5), np.int64), ((0, 0), (0, 10))))
    assert balanced[0, 0] * 25 == pytest.approx(balanced[0, 9] * 50)  # one cell: no border term
    assert np.allclose(border_weights(np.zeros((4, 4), np.int64)), 0.5)


def test_part_touching():
    labels = np.zeros((6, 8), np.uint16)
    labels[1:5, 1:4], labels[1:5, 4:7] = 1, 2
    parted = part_touching(labels)
    assert np.array_equal(parted[2], [0, 1, 1, 0, 0, 2, 2, 0])
    assert parted.dtype == np.uint16
