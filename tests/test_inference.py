"""Overlap-tile, test-time augmentation, post-processing and mask files."""

import numpy as np
import pytest
from scipy import ndimage

from minunet import checkpoint, inference
from minunet.data import Standardize
from minunet.inference import Segmenter, average_symmetries, predict_tiles
from minunet.inference.segmenter import to_probabilities
from minunet.models import UNet

ARRAY = np.random.default_rng(0)


def blur(batch):
    """A net of receptive field 7: two outputs from a window of 7×7, zeros beyond the edge, as a padded convolution has."""
    kernel = np.random.default_rng(1).random((7, 7))
    first = np.stack([ndimage.correlate(image.sum(axis=0), kernel, mode="constant") for image in batch])
    return np.stack([first, first**2], axis=1)


@pytest.mark.parametrize("size", [(40, 56), (23, 31), (64, 5), (1, 1), (97, 16)])
@pytest.mark.parametrize("tile", [8, 16, 24, 512])
def test_the_result_does_not_depend_on_the_tiles(size, tile):
    image = np.random.default_rng(2).random((3, *size))
    mirrored = np.pad(image, ((0, 0), (3, 3), (3, 3)), mode="reflect")
    whole = blur(mirrored[None])[0][:, 3:-3, 3:-3]
    tiled = predict_tiles(blur, image, tile=tile, margin=3, multiple=4)
    assert tiled.shape == (2, *size)
    np.testing.assert_allclose(tiled, whole, rtol=1e-12)


def test_tiles_start_at_multiples_and_have_multiples_as_size():
    shapes = []

    def pooled(batch):  # depends on where the blocks of 4 begin, as poolings do
        shapes.append(batch.shape[2:])
        blocks = batch.reshape(1, 1, batch.shape[2] // 4, 4, batch.shape[3] // 4, 4).mean(axis=(3, 5))
        return blocks.repeat(4, axis=2).repeat(4, axis=3)

    image = np.random.default_rng(3).random((1, 50, 70))
    whole = predict_tiles(pooled, image, tile=512, margin=4, multiple=4)
    np.testing.assert_allclose(predict_tiles(pooled, image, tile=20, margin=4, multiple=4), whole, rtol=1e-12)
    assert all(n % 4 == 0 and n <= 28 for shape in shapes[1:] for n in shape)


def test_tiles_of_a_volume_and_without_a_margin():
    volume = np.random.default_rng(4).random((1, 9, 10, 11))
    np.testing.assert_array_equal(predict_tiles(lambda batch: 2 * batch, volume, tile=4, margin=0, multiple=2), 2 * volume)


def test_a_tile_narrower_than_its_ramps_is_refused():
    with pytest.raises(ValueError, match="Use tile=64 or more"):
        predict_tiles(blur, np.zeros((1, 9, 9)), tile=32, margin=32)


def test_symmetries_leave_an_equivariant_function_alone():
    image = np.random.default_rng(5).random((2, 9, 14))
    np.testing.assert_allclose(average_symmetries(lambda x: x * 3, image), image * 3, rtol=1e-14)
    isotropic = lambda x: ndimage.uniform_filter(x, (0, 3, 3))  # noqa: E731
    np.testing.assert_allclose(average_symmetries(isotropic, image), isotropic(image), rtol=1e-12)


def test_symmetries_average_a_directed_function():
    shifted = average_symmetries(lambda x: np.roll(x, 1, axis=-1), np.eye(5)[None, :1].repeat(5, axis=1))
    assert np.isclose(shifted.sum(), 5)
    spot = np.zeros((1, 5, 5))
    spot[0, 2, 2] = 1
    cross = np.zeros((5, 5))
    cross[[1, 3, 2, 2], [2, 2, 1, 3]] = 0.25
    np.testing.assert_allclose(average_symmetries(lambda x: np.roll(x, 1, axis=-1), spot)[0], cross)


def test_probabilities_of_one_and_of_more_channels():
    logits = np.random.default_rng(6).normal(0, 30, (2, 1, 3, 3)).astype(np.float32)
    probabilities = to_probabilities(logits)
    np.testing.assert_allclose(probabilities[:, 1:], 1 / (1 + np.exp(-logits.astype(np.float64))), rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(to_probabilities(np.repeat(logits, 4, axis=1)), 0.25)
    assert probabilities.dtype == np.float32


MASK = np.array(
    [
        [1, 1, 1, 0, 0, 0, 1],
        [1, 0, 1, 0, 0, 1, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0, 0],
    ]
)


def test_post_processing():
    assert inference.components(MASK)[1] == 4
    assert inference.components(MASK, connectivity=2)[1] == 2
    assert inference.remove_small(MASK, 2).sum() == 8
    assert inference.remove_small(MASK, 3, connectivity=2).sum() == 9
    assert inference.keep_largest(MASK, connectivity=2).sum() == 9
    assert inference.fill_holes(MASK).sum() == MASK.sum() + 1
    assert inference.fill_holes(MASK, max_size=1)[1, 1]
    assert inference.fill_holes(np.pad(MASK[:3, :3].repeat(2, axis=1), 1), max_size=1).sum() == 16
    assert not inference.keep_largest(np.zeros((3, 3))).any()
    with pytest.raises(ValueError, match="1 to 2, got 3"):
        inference.components(MASK, connectivity=3)


def test_a_diagonal_gap_closes_a_hole_for_objects_that_join_at_corners():
    ring = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    assert inference.fill_holes(ring, connectivity=2)[1, 1]
    assert not inference.fill_holes(ring, connectivity=1)[1, 1]


@pytest.mark.parametrize("name", ["a.png", "b.tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_masks_are_as_deep_as_their_images(tmp_path, name, dtype):
    from minunet.data import read_mask

    image = ARRAY.integers(0, np.iinfo(dtype).max, (5, 7)).astype(dtype)
    inference.write_mask(tmp_path / name, image, np.dtype(dtype), binary=False)
    np.testing.assert_array_equal(read_mask(tmp_path / name), image)
    assert inference.bit_depth(tmp_path / name) == dtype
    target = inference.mask_path(tmp_path / name, tmp_path / "out")
    assert target.name == name
    target.parent.mkdir()
    inference.write_mask(target, image % 2, np.dtype(dtype), binary=True)
    stored = read_mask(target)
    assert stored.dtype == dtype
    assert set(np.unique(stored)) == {0, np.iinfo(dtype).max}


def test_more_labels_than_the_depth_holds_are_refused(tmp_path):
    with pytest.raises(ValueError, match="300 labels do not fit into uint8"):
        inference.write_mask(tmp_path / "a.png", np.full((2, 2), 300), np.dtype(np.uint8), binary=False)
    assert not list(tmp_path.iterdir())


def test_a_loaded_segmenter_predicts_as_before(tmp_path):
    shape = {"in_channels": 1, "out_channels": 1, "base_channels": 4, "depth": 1}
    standardize, names = Standardize((3.0,), (2.0,)), ["background", "cell"]
    config = {"task": "segmentation", "model": shape, "standardize": standardize.to_dict(), "class_names": names}
    network = UNet(**shape).eval()
    checkpoint.save(tmp_path / checkpoint.BEST, model=network, config=config)
    loaded = Segmenter.load(tmp_path)
    image = np.random.default_rng(6).random((1, 8, 10)).astype(np.float32)
    np.testing.assert_array_equal(loaded(image), Segmenter(network, standardize, channels=1, class_names=names, multiple=2)(image))
