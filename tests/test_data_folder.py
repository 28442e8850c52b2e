"""Folders of images and masks: every format that is read, every fault that is named."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as Picture

from minunet.data import DataError, ImageMaskFolder, image_files, read_image, read_mask

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (12, 10), dtype=np.uint8)
BINARY = np.where(GRAY > 127, 255, 0).astype(np.uint8)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two images and their 0/255 masks."""
    for part, array in (("images", GRAY), ("masks", BINARY)):
        (tmp_path / part).mkdir()
        for name in ("a.png", "b.png"):
            save(tmp_path / part / name, array)
    return tmp_path / "images", tmp_path / "masks"


def save(path: Path, array: np.ndarray, **options) -> Path:
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, **options)
    else:
        Picture.fromarray(array).save(path, **options)
    return path


def test_a_plain_folder(folders):
    data = ImageMaskFolder(*folders)
    image, mask = data[1]
    assert (len(data), data.names, data.classes, data.channels, data.values) == (2, ["a", "b"], 2, 1, (0, 255))
    assert image.dtype == np.float32
    assert mask.dtype == np.int64
    assert np.array_equal(image[0], GRAY.astype(np.float32) / np.float32(255))
    assert np.array_equal(mask, BINARY == 255)


@pytest.mark.parametrize(
    ("name", "array", "largest"),
    [
        ("gray8.png", GRAY, 255),
        ("gray16.png", GRAY.astype(np.uint16) * 257, 65535),
        ("rgb.png", np.stack([GRAY, GRAY // 2, GRAY // 3], -1), 255),
        ("gray8.tif", GRAY, 255),
        ("gray16.tif", GRAY.astype(np.uint16) * 200, 65535),
        ("float.tif", GRAY.astype(np.float32) * 3.5, 1),
        ("rgb16.tif", np.stack([GRAY.astype(np.uint16) * 9] * 3, -1), 65535),
        ("bool.png", GRAY > 9, 1),
    ],
)
def test_image_formats(tmp_path, name, array, largest):
    options = {"photometric": "rgb"} if array.ndim == 3 and name.endswith("tif") else {}
    image = read_image(save(tmp_path / name, array, **options))
    expected = np.atleast_3d(array).astype(np.float32) / np.float32(largest)
    assert image.dtype == np.float32
    assert np.array_equal(image, np.moveaxis(expected, -1, 0))


def test_alpha_palette_planes_and_compression(tmp_path):
    rgb = np.stack([GRAY, 255 - GRAY, GRAY // 2], -1)
    expected = np.moveaxis(rgb, -1, 0).astype(np.float32) / np.float32(255)
    rgba = np.concatenate([rgb, np.full((12, 10, 1), 255, np.uint8)], -1)
    files = [
        save(tmp_path / "rgba.png", rgba),
        save(tmp_path / "rgba.tif", rgba, photometric="rgb", extrasamples=["unassalpha"]),
        save(tmp_path / "planes.tif", np.moveaxis(rgb, -1, 0), photometric="rgb", planarconfig="separate"),
        save(tmp_path / "channels.tif", np.moveaxis(rgb, -1, 0), imagej=True, metadata={"axes": "CYX"}),
        save(tmp_path / "deflate.tif", rgb, photometric="rgb", compression="zlib"),
    ]
    Picture.fromarray(rgb).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    few = Picture.fromarray(rgb // 128 * 128).quantize(8)
    few.save(tmp_path / "palette.png")
    for path in [*files, tmp_path / "lzw.tif"]:
        assert np.array_equal(read_image(path), expected), path.name
    assert np.array_equal(read_image(tmp_path / "palette.png"), np.moveaxis(np.asarray(few.convert("RGB")), -1, 0) / np.float32(255))
    gray_alpha = Picture.fromarray(GRAY).convert("LA")
    gray_alpha.save(tmp_path / "la.png")
    assert np.array_equal(read_image(tmp_path / "la.png")[0] * 255, GRAY)


def test_jpeg_image(tmp_path):
    smooth = np.add.outer(np.arange(40), np.arange(48)).astype(np.uint8)
    image = read_image(save(tmp_path / "smooth.jpg", smooth, quality=95))
    assert np.abs(image[0] * 255 - smooth).max() <= 4


def test_mask_formats(tmp_path):
    classes = (GRAY // 64).astype(np.uint8)  # 0 … 3
    palette = Picture.fromarray(classes)
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(tmp_path / "palette.png")
    files = [
        tmp_path / "palette.png",
        save(tmp_path / "classes.png", classes),
        save(tmp_path / "classes16.png", classes.astype(np.uint16)),
        save(tmp_path / "three-equal-channels.png", np.stack([classes] * 3, -1)),
        save(tmp_path / "float.tif", classes.astype(np.float32)),
    ]
    for path in files:
        assert np.array_equal(read_mask(path), classes), path.name
    assert np.array_equal(read_mask(save(tmp_path / "bits.png", classes > 0)), classes > 0)


def test_names_are_matched_and_sorted_as_people_count(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for image, mask in (("s10.tif", "s10_mask.png"), ("s2_image.png", "s2-Label.png"), ("s1.png", "s1.tif"), ("S3.png", "S3_seg.png")):
        save(tmp_path / "images" / image, GRAY)
        save(tmp_path / "masks" / mask, BINARY)
    save(tmp_path / "masks" / "left_over.png", BINARY)
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    (tmp_path / "images" / ".hidden.png").write_text("not an image")
    data = ImageMaskFolder(tmp_path / "images", tmp_path / "masks")
    assert data.names == ["s1", "s2_image", "S3", "s10"]
    assert [mask.name for _, mask in data.files] == ["s1.tif", "s2-Label.png", "S3_seg.png", "s10_mask.png"]
    assert ImageMaskFolder(tmp_path / "images", tmp_path / "masks", select=lambda name: name.startswith("s1")).names == ["s1", "s10"]


def test_values_are_found_over_the_whole_set(folders):
    images, masks = folders
    save(masks / "a.png", np.zeros_like(GRAY))  # one empty mask says nothing of the set
    assert ImageMaskFolder(images, masks).values == (0, 255)
    save(masks / "a.png", np.where(GRAY > 200, 3, 0).astype(np.uint8))
    save(masks / "b.png", np.where(GRAY > 200, 1, 0).astype(np.uint8))
    assert ImageMaskFolder(images, masks).values == (0, 1, 2, 3)  # class 2 happens to be absent
    save(masks / "a.png", np.where(GRAY > 200, 255, 0).astype(np.uint8))
    save(masks / "b.png", np.where(GRAY > 200, 128, 0).astype(np.uint8))
    data = ImageMaskFolder(images, masks, values=[255, 128, 0])
    assert np.array_equal(data[0][1], np.where(GRAY > 200, 0, 2))
    assert np.array_equal(data[1][1], np.where(GRAY > 200, 1, 2))


def test_binary_takes_instances_and_jpeg(folders):
    images, masks = folders
    save(masks / "a.png", (GRAY.astype(np.uint16) * 3))
    (masks / "b.png").unlink()
    save(masks / "b.jpg", BINARY, quality=90)
    data = ImageMaskFolder(images, masks, binary=True)
    assert (data.classes, data.values) == (2, (0, 1))
    assert np.array_equal(data[0][1], GRAY > 0)
    assert (data[1][1] == (BINARY > 0)).mean() > 0.95


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def jpeg_mask(images: Path, masks: Path) -> None:
    (masks / "b.png").unlink()
    save(masks / "b.jpg", BINARY)


def two_of_a_name(images: Path, masks: Path) -> None:
    save(images / "a.tif", GRAY)


def cut_tiff(images: Path, masks: Path) -> None:
    (images / "b.png").unlink()
    cut(save(images / "b.tif", GRAY))


def cut_jpeg(images: Path, masks: Path) -> None:
    (images / "b.png").unlink()
    cut(save(images / "b.jpg", GRAY))


FAULTS = {
    "an image without a mask": (lambda images, masks: (masks / "b.png").unlink(), r"image '.*b.png' has no mask in '.*masks': .*'b_mask'"),
    "empty folder": (
        lambda images, masks: [p.unlink() for p in images.iterdir()],
        r"folder '.*images' holds no image: files ending in",
    ),
    "sizes differ": (
        lambda images, masks: save(masks / "b.png", BINARY[:8]),
        r"image '.*b.png' is 12×10 but its mask '.*b.png' is 8×10 .*export the mask again",
    ),
    "not an image": (
        lambda images, masks: (images / "b.png").write_text("hello"),
        r"'.*images.*b.png' cannot be read .*damaged or cut short",
    ),
    "empty file": (lambda images, masks: (masks / "b.png").write_bytes(b""), r"'.*masks.*b.png' cannot be read"),
    "truncated PNG": (lambda images, masks: cut(images / "b.png"), r"'.*images.*b.png' cannot be read .*cut short"),
    "truncated TIFF": (cut_tiff, r"'.*images.*b.tif' cannot be read .*cut short"),
    "truncated JPEG": (cut_jpeg, r"'.*images.*b.jpg' cannot be read .*cut short"),
    "channels differ": (
        lambda images, masks: save(images / "b.png", np.stack([GRAY] * 3, -1)),
        r"image 'a.png' has 1 channel\(s\) but 'b.png' has 3: convert all",
    ),
    "unknown values": (
        lambda images, masks: save(masks / "b.png", (GRAY // 128 * 128).astype(np.uint8)),
        r"the masks hold 3 values \(0, 128, 255\), .*values=\[…\].*binary=True",
    ),
    "instances": (
        lambda images, masks: save(masks / "b.png", np.arange(120, dtype=np.uint8).reshape(12, 10)),
        r"the masks hold 121 values \(0, 1, 2, …, 119, 255\).*binary=True if all above 0 are one class \(instance numbers\)",
    ),
    "JPEG mask": (jpeg_mask, r"mask '.*b.jpg' is a JPEG, whose compression invents values between .*save the masks as PNG"),
    "colour mask": (
        lambda images, masks: save(masks / "b.png", np.stack([GRAY, GRAY, 255 - GRAY], -1)),
        r"mask '.*b.png' is in colour: save it as one channel",
    ),
    "fractions": (
        lambda images, masks: ((masks / "b.png").unlink(), save(masks / "b.tif", np.full((12, 10), 0.25, np.float32))),
        r"mask '.*b.tif' holds fractions such as 0.25",
    ),
    "empty masks": (
        lambda images, masks: [save(path, np.zeros_like(GRAY)) for path in masks.iterdir()],
        r"every pixel of every mask has the value 0: there is nothing to learn; check that '.*masks'",
    ),
    "two of a name": (two_of_a_name, r"images 'a.(png|tif)' and 'a.(png|tif)' share one name"),
    "a stack": (
        lambda images, masks: ((images / "b.png").unlink(), save(images / "b.tif", np.stack([GRAY] * 7), photometric="minisblack")),
        r"'.*b.tif' is a stack of 7 pictures: save each as a file of its own",
    ),
    "NaN": (
        lambda images, masks: ((images / "b.png").unlink(), save(images / "b.tif", np.full((12, 10), np.nan, np.float32))),
        r"image '.*b.tif' holds NaN or infinite pixels",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_in_one_sentence(folders, fault):
    spoil, message = FAULTS[fault]
    spoil(*folders)
    with pytest.raises(DataError, match=message) as caught:
        ImageMaskFolder(*folders)
    assert "\n" not in str(caught.value)


def test_faults_of_the_call(folders, tmp_path):
    images, masks = folders
    with pytest.raises(DataError, match=r"there is no folder '.*absent': check the path"):
        ImageMaskFolder(tmp_path / "absent", masks)
    with pytest.raises(DataError, match="images and masks are both looked for in"):
        ImageMaskFolder(images, images)
    with pytest.raises(DataError, match=r"mask '.*a.png' holds the unknown values 255 beside the classes' 0, 1"):
        ImageMaskFolder(images, masks, values=(0, 1))
    with pytest.raises(ValueError, match="two or more different mask values"):
        ImageMaskFolder(images, masks, values=(0, 0))
    with pytest.raises(DataError, match="belongs to the part asked for"):
        ImageMaskFolder(images, masks, select=lambda name: False)
    with pytest.raises(DataError, match="there is no file"):
        read_image(tmp_path / "absent.png")
    assert [path.name for path in image_files(images)] == ["a.png", "b.png"]
