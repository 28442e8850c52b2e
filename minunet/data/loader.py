"""Batches, prepared by background threads while the model computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minunet.data.dataset import DataError, Image, Samples
from minunet.data.transforms import random_crop
from minunet.shapes import sizes_text

Batch = tuple[NDArray[np.float32], NDArray[Any]]
Change = Callable[[Any, Any, np.random.Generator, Sequence[int] | None], tuple[Any, Any]]


class DataLoader:
    """Iterating gives (images (N, C, *spatial) float32, masks (N, *spatial) int64), or what else the samples pair.

    augment: (image, mask, generator, crop) → the two that enter the batch, such as `Augment`.
    crop: the size of a random window out of each image, which images of different sizes need to share a batch.
    drop_last: leaves out the smaller last batch. workers: threads. prefetch: batches prepared ahead.
    batches: of an epoch, all of them full: it passes over the set as often as that takes, and ends in the middle of the last pass.

    What comes depends on `seed` and the epoch alone, not on the threads: each sample draws from a generator seeded by
    (seed, epoch, index). Each iteration is the next epoch; `set_epoch` says which.
    """

    def __init__(
        self,
        dataset: Samples,
        batch_size: int,
        *,
        shuffle: bool = False,
        augment: Change | None = None,
        standardize: Callable[[Image], Image] | None = None,
        crop: Sequence[int] | None = None,
        seed: int = 0,
        drop_last: bool = False,
        batches: int | None = None,
        workers: int = 1,
        prefetch: int = 2,
    ) -> None:
        if min(batch_size, workers, prefetch) < 1:
            raise ValueError(f"batch_size, workers and prefetch are at least 1; got {batch_size}, {workers} and {prefetch}.")
        if len(dataset) < (batch_size if drop_last else 1):
            raise DataError(f"{len(dataset)} images do not fill one batch of {batch_size}: use a smaller batch_size or more images.")
        self.dataset, self.batch_size, self.shuffle, self.drop_last = dataset, batch_size, shuffle, drop_last
        self.augment, self.standardize, self.crop = augment, standardize, crop
        self.seed, self.epoch, self.workers, self.prefetch, self.batches = seed, 0, workers, prefetch, batches

    def set_epoch(self, epoch: int) -> None:
        """The next iteration gives this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches in an epoch."""
        if self.batches is not None:
            return self.batches
        return len(self.dataset) // self.batch_size if self.drop_last else -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        return self._batches(epoch)

    def _batches(self, epoch: int) -> Iterator[Batch]:
        count, rng = len(self.dataset), self._generator(epoch, 0)
        passes = max(-(-len(self) * self.batch_size // count) if self.batches is not None else 1, 1)
        orders = [k * count + (rng.permutation(count) if self.shuffle else np.arange(count)) for k in range(passes)]
        order = np.concatenate(orders)  # of visits: visit k·count + i is the k-th one of sample i
        waiting = (order[i * self.batch_size : (i + 1) * self.batch_size].tolist() for i in range(len(self)))
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="minunet-data")
        try:
            ahead = deque(pool.submit(self._batch, epoch, visits) for visits in islice(waiting, self.prefetch))
            while ahead:
                batch = ahead.popleft().result()  # raises here what went wrong there
                if (visits := next(waiting, None)) is not None:
                    ahead.append(pool.submit(self._batch, epoch, visits))
                yield batch
        finally:  # also where the consumer stops early
            pool.shutdown(cancel_futures=True)

    def _generator(self, epoch: int, stream: int) -> np.random.Generator:
        """stream: 0 for the order, 1 + visit for a sample."""
        return np.random.default_rng([self.seed, epoch, stream])

    def _batch(self, epoch: int, visits: list[int]) -> Batch:
        samples = [self._sample(epoch, visit) for visit in visits]
        for visit, (image, _) in zip(visits, samples, strict=True):
            if image.shape != samples[0][0].shape:
                first, name = (self.dataset.names[v % len(self.dataset)] for v in (visits[0], visit))
                raise DataError(
                    f"a batch takes images of one size, but {first!r} is {sizes_text(samples[0][0].shape)} and {name!r} "
                    f"{sizes_text(image.shape)}: pass crop=(height, width), or batch_size=1."
                )
        return np.stack([image for image, _ in samples]), np.stack([mask for _, mask in samples])

    def _sample(self, epoch: int, visit: int) -> tuple[Image, Any]:
        index = visit % len(self.dataset)
        try:
            image, mask = self.dataset[index]
            rng = self._generator(epoch, 1 + visit)
            if self.augment is not None:
                image, mask = self.augment(image, mask, rng, self.crop)
            elif self.crop is not None:
                image, mask = random_crop(image, mask, self.crop, rng)
            return (image if self.standardize is None else self.standardize(image)), mask
        except DataError:
            raise  # names its file
        except Exception as problem:
            raise DataError(f"sample {self.dataset.names[index]!r} could not be prepared: {problem}") from problem
