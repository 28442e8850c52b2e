"""The loader: the same batches whatever the threads do, faults named, threads gone when nobody listens."""

import threading
import time

import numpy as np
import pytest

from minunet.data import Augment, DataError, DataLoader, GeneratedCells, Standardize, Subset, fingerprint, split


class Numbered:
    """Images of one value, their index; each takes a moment that has nothing to do with its order."""

    classes, channels = 2, 1

    def __init__(self, count: int, sizes: tuple[int, ...] = (4,), broken: int | None = None) -> None:
        self.count, self.sizes, self.broken = count, sizes, broken
        self.names = [f"n{i}" for i in range(count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        time.sleep(0.001 * (index * 7 % 3))
        if index == self.broken:
            raise OSError("disk on fire")
        n = self.sizes[index % len(self.sizes)]
        return np.full((1, n, n), index, np.float32), np.full((n, n), index % 2, np.int64)


def numbers(loader: DataLoader) -> list[list[int]]:
    return [images[:, 0, 0, 0].astype(int).tolist() for images, _ in loader]


def data_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("minunet-data")]


def test_batches_in_order():
    loader = DataLoader(Numbered(7), 3)
    assert numbers(loader) == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(loader) == 3
    dropping = DataLoader(Numbered(7), 3, drop_last=True)
    assert numbers(dropping) == [[0, 1, 2], [3, 4, 5]]
    assert len(dropping) == 2
    images, masks = next(iter(loader))
    assert (images.shape, images.dtype, masks.shape, masks.dtype) == ((3, 1, 4, 4), np.float32, (3, 4, 4), np.int64)


def test_shuffling_depends_on_seed_and_epoch():
    loader = DataLoader(Numbered(9), 2, shuffle=True, seed=5)
    first, second = numbers(loader), numbers(loader)
    assert first != second
    assert sorted(np.concatenate(first)) == sorted(np.concatenate(second)) == list(range(9))
    loader.set_epoch(0)
    assert numbers(loader) == first
    resumed = DataLoader(Numbered(9), 2, shuffle=True, seed=5)
    resumed.set_epoch(1)
    assert numbers(resumed) == second
    assert numbers(DataLoader(Numbered(9), 2, shuffle=True, seed=6)) != first


def test_threads_do_not_change_a_bit():
    cells = GeneratedCells(6, 64)
    options = {"shuffle": True, "augment": Augment(elastic=4, intensity=0.1), "standardize": Standardize((0.3,), (0.2,)), "crop": (32, 32)}
    runs = [
        [batch for _ in range(2) for batch in DataLoader(cells, 4, seed=1, workers=workers, prefetch=prefetch, **options)]
        for workers, prefetch in ((1, 1), (3, 4))
    ]
    for one, other in zip(*runs, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert runs[0][0][0].shape == (4, 1, 32, 32)
    epochs = DataLoader(cells, 6, augment=Augment(elastic=4))
    assert not np.array_equal(next(iter(epochs))[0], next(iter(epochs))[0])


def test_a_fault_reaches_the_consumer_with_the_name():
    batches = iter(DataLoader(Numbered(6, broken=3), 2))
    next(batches)
    with pytest.raises(DataError, match="sample 'n3' could not be prepared: disk on fire") as caught:
        next(batches)
    assert isinstance(caught.value.__cause__, OSError)
    assert not data_threads()


def test_mixed_sizes():
    with pytest.raises(DataError, match="images of one size, but 'n0' is 1×4×4 and 'n1' 1×6×6: pass crop="):
        list(DataLoader(Numbered(2, sizes=(4, 6)), 2))
    assert [len(images) for images, _ in DataLoader(Numbered(2, sizes=(4, 6)), 1)] == [1, 1]
    images, masks = next(iter(DataLoader(Numbered(2, sizes=(4, 6)), 2, crop=(5, 5))))
    assert (images.shape, masks.shape) == ((2, 1, 5, 5), (2, 5, 5))


def test_threads_end_when_the_consumer_stops():
    for images, _ in DataLoader(Numbered(100), 1, workers=2):
        assert images.shape == (1, 1, 4, 4)
        break
    assert not data_threads()
    batches = iter(DataLoader(Numbered(100), 1))
    assert not data_threads()  # nothing starts before it is asked for
    next(batches)
    assert data_threads()
    batches.close()
    assert not data_threads()


def test_batches_are_prepared_ahead_but_not_without_bound():
    asked: list[int] = []

    class Watched(Numbered):
        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            asked.append(index)
            return super().__getitem__(index)

    batches = iter(DataLoader(Watched(20), 1, prefetch=3))
    next(batches)
    deadline = time.monotonic() + 5
    while len(asked) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert sorted(asked) == [0, 1, 2, 3]  # one handed over, three ahead
    batches.close()


def test_bad_arguments():
    with pytest.raises(ValueError, match="at least 1; got 0"):
        DataLoader(Numbered(3), 0)
    with pytest.raises(DataError, match="3 images do not fill one batch of 4"):
        DataLoader(Numbered(3), 4, drop_last=True)


def test_split_subset_and_fingerprint():
    cells = GeneratedCells(10, 32)
    train, validation = split(cells, 0.2, seed=1)
    assert sorted(train.names + validation.names) == cells.names
    assert (len(train), len(validation), train.classes, train.channels) == (8, 2, 2, 1)
    assert split(cells, 0.2, seed=1)[1].indices == validation.indices
    one = Subset(cells, [3])
    assert np.array_equal(one[0][0], cells[3][0])
    assert fingerprint(one) == fingerprint(Subset(GeneratedCells(4, 32), [3])) != fingerprint(Subset(cells, [4]))
    with pytest.raises(DataError, match="1 images cannot be split"):
        split(one)


def test_an_epoch_of_so_many_batches_passes_over_the_set_again_and_again():
    loader = DataLoader(Numbered(5), 2, shuffle=True, batches=6)
    first, second = numbers(loader), numbers(loader)
    assert len(loader) == len(first) == 6
    assert [len(batch) for batch in first] == [2] * 6
    visits = [n for batch in first for n in batch]
    assert sorted(visits[:5]) == sorted(visits[5:10]) == [0, 1, 2, 3, 4]  # whole passes, then a part of one
    assert visits[:5] != visits[5:10]
    assert first != second
    loader.set_epoch(0)
    assert numbers(loader) == first


def test_each_visit_of_an_epoch_draws_anew():
    def noise(image, mask, rng, size):
        return image + rng.random(image.shape).astype(np.float32), mask

    images = np.concatenate([batch for batch, _ in DataLoader(Numbered(2), 1, augment=noise, batches=6)])
    assert len(np.unique(images[:, 0, 0, 0])) == 6
    once = np.concatenate([batch for batch, _ in DataLoader(Numbered(2), 1, augment=noise)])
    np.testing.assert_array_equal(images[:2], once)  # the first pass is what it is alone
