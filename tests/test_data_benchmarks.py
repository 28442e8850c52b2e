"""The public sets, read where they lie, and what is said where they do not."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image as Picture

from minunet.data import DSB2018, ISBI2012, SOURCES, DataError, DataLoader, Hippocampus, Subset, VolumeFolder, fingerprint
from minunet.data.benchmarks import convert_dsb2018


def test_isbi2012(real_data):
    root = real_data("isbi2012")
    train, validation = ISBI2012(root), ISBI2012(root, "validation")
    assert train.names == [f"{i:02}" for i in range(20)]
    assert validation.names == [f"{i:02}" for i in range(20, 25)]
    image, mask = train[0]
    assert (image.shape, mask.shape, train.classes, train.channels) == ((1, 512, 512), (512, 512), 2, 1)
    assert np.mean([mask.mean() for _, mask in train]) == pytest.approx(0.22, abs=0.03)  # membrane is the rarer class
    assert image[0][mask == 1].mean() < image[0][mask == 0].mean() - 0.1  # and the darker
    for split, data in (("train", train), ("validation", validation)):
        assert fingerprint(data) == SOURCES["isbi2012"].fingerprints[split]


def test_dsb2018(real_data):
    root = real_data("dsb2018_fluo256")
    parts = {split: DSB2018(root, split) for split in ("train", "validation", "test")}
    names = [name for part in parts.values() for name in part.names]
    assert len(names) == len(set(names)) >= 274
    image, mask = parts["validation"][3]
    assert (image.shape, mask.shape, parts["test"].classes) == ((1, 256, 256), (256, 256), 2)
    instances = parts["validation"].instances(3)
    assert np.array_equal(mask, instances > 0)
    assert instances.max() > 1
    for split, part in parts.items():
        known = Subset(part, [i for i, name in enumerate(part.names) if name <= "dabfee30b46d"])
        assert fingerprint(known) == SOURCES["dsb2018_fluo256"].fingerprints[split]


def test_hippocampus(real_data):
    root = real_data("msd_hippocampus")
    train, validation = Hippocampus(root), Hippocampus(root, "validation")
    assert not set(train.names) & set(validation.names)
    assert len(train) == 4 * len(validation)
    image, labels = train[0]
    assert image.shape == (1, *labels.shape)
    assert set(np.unique(labels)) == {0, 1, 2}
    assert abs(image.mean()) < 1e-4
    assert image.std() == pytest.approx(1, abs=1e-4)
    images, masks = next(iter(DataLoader(train, 2, crop=(32, 32, 32))))
    assert (images.shape, masks.shape) == ((2, 1, 32, 32, 32), (2, 32, 32, 32))


def test_the_environment_names_the_folder_and_a_missing_one_says_where_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("MINUNET_DATA", str(tmp_path))
    with pytest.raises(
        DataError, match=r"there is no folder '.*isbi2012'\. To get it \(http://brainiac2.mit.edu.*: from https://github.com"
    ):
        ISBI2012()
    monkeypatch.delenv("MINUNET_DATA")
    with pytest.raises(DataError, match=r"neither root=… nor the environment variable MINUNET_DATA"):
        DSB2018()
    with pytest.raises(ValueError, match="split is one of 'train', 'validation', 'test'; got 'dev'"):
        DSB2018(tmp_path, "dev")


def test_kaggles_layout_is_converted(tmp_path):
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 256, (256, 256), dtype=np.uint8)
    for name, size in (("00000000000a" + "0" * 52, 256), ("00000000000b" + "0" * 52, 200)):
        folder = tmp_path / "stage1_train" / name
        (folder / "images").mkdir(parents=True)
        (folder / "masks").mkdir()
        rgba = np.dstack([gray[:size, :size]] * 3 + [np.full((size, size), 255, np.uint8)])
        Picture.fromarray(rgba).save(folder / "images" / f"{name}.png")
        for number in range(3):
            nucleus = np.zeros((size, size), np.uint8)
            nucleus[20 * number : 20 * number + 10, 5:15] = 255
            Picture.fromarray(nucleus).save(folder / "masks" / f"{number}.png")
    convert_dsb2018(tmp_path / "stage1_train", tmp_path / "set")
    data = DSB2018(tmp_path / "set", "test")  # 0xa mod 5 = 0
    assert data.names == ["00000000000a"]  # the other is no 256×256
    assert np.array_equal(data[0][0][0] * 255, gray)
    assert data.instances(0).max() == 3
    assert data[0][1].sum() == 300


def test_volume_faults(tmp_path):
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    volume = np.random.default_rng(0).random((5, 6, 7), dtype=np.float32)

    def write(part: str, array: np.ndarray, name: str = "v1.nii.gz") -> Path:
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / part / name)
        return tmp_path / part / name

    folders = tmp_path / "images", tmp_path / "labels"
    with pytest.raises(DataError, match="holds no volume"):
        VolumeFolder(*folders, classes=2)
    path = write("images", volume)
    write("labels", np.zeros((5, 6, 7), np.uint8), "v2.nii")
    with pytest.raises(DataError, match=r"volume '.*v1.nii.gz' has no labels in '.*labels'"):
        VolumeFolder(*folders, classes=2)
    write("labels", np.zeros((5, 6, 8), np.uint8))
    with pytest.raises(DataError, match="is 5×6×7 but its labels are 5×6×8"):
        VolumeFolder(*folders, classes=2)[0]
    write("labels", np.full((5, 6, 7), 2, np.uint8))
    with pytest.raises(DataError, match="holds labels 2 … 2, expected 0 … 1"):
        VolumeFolder(*folders, classes=2)[0]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"v1.nii.gz' cannot be read .*damaged or cut short"):
        VolumeFolder(*folders, classes=3)[0]
    with pytest.raises(DataError, match="there is no folder"):
        VolumeFolder(tmp_path / "absent", tmp_path / "labels", classes=2)
