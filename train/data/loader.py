"""Batches of augmented crops, prefetched by threads and reproducible sample by sample.

Every sample's randomness comes from (seed, epoch, slot) alone, so that the number of workers, and a stop
and resume between epochs, change nothing.
"""

import math
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qanet.datasets import PhotoFolder
from qanet.train.data.augment import training_crop
from qanet.train.recipes import Recipe


def repeat_factors(presence: NDArray[np.bool_], threshold: float) -> NDArray[np.float64]:
    """(len,) sampling weights: an image counts sqrt(threshold / frequency) for its rarest class, at least 1.

    Source: repeat-factor sampling, LVIS (arXiv 1908.03195), appendix.
    """
    frequency = presence.mean(0)
    per_class = np.sqrt(np.maximum(threshold / np.maximum(frequency, 1e-9), 1.0))
    per_class[frequency == 0] = 1.0
    return np.where(presence, per_class, 1.0).max(1)


def epoch_order(weights: NDArray[np.float64], seed: int, epoch: int) -> NDArray[np.int64]:
    """(len,) indices of one epoch: systematic resampling by weight (the expected count, rounded fairly), shuffled."""
    rng = np.random.default_rng((seed, epoch))
    count = len(weights)
    edges = np.cumsum(weights) / weights.sum() * count
    order = np.searchsorted(edges, np.arange(count) + rng.random(), side="right")
    return rng.permutation(np.minimum(order, count - 1))


class Loader:
    """Iterates one epoch's batches; `waited_s` says how long the consumer was kept waiting."""

    def __init__(self, data: PhotoFolder, recipe: Recipe, workers: int):
        self.data, self.recipe, self.workers = data, recipe, max(workers, 1)
        self.weights = repeat_factors(data.class_presence(), recipe.repeat_threshold)
        self.waited_s = 0.0

    def __len__(self) -> int:
        return math.ceil(len(self.data) / self.recipe.batch_size)

    def _crop(self, index: int, epoch: int, slot: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        rng = np.random.default_rng((self.recipe.seed, epoch, slot, 1))
        return training_crop(self.data[index], self.recipe, self.data.label_set, rng)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields crops (B, H, W, 3) uint8 BGR and labels (B, H, W) uint8."""
        order = epoch_order(self.weights, self.recipe.seed, epoch)
        size = self.recipe.batch_size
        # The last batch wraps around to the full size: batch norm never sees a batch of one.
        slots = range(len(self) * size)
        jobs = [(int(order[slot % len(order)]), epoch, slot) for slot in slots]
        self.waited_s = 0.0
        with ThreadPoolExecutor(self.workers) as pool:
            pending: deque[list[Future]] = deque()
            for start in range(0, len(jobs), size):
                pending.append([pool.submit(self._crop, *job) for job in jobs[start : start + size]])
                if len(pending) > 2:
                    yield self._collect(pending.popleft())
            while pending:
                yield self._collect(pending.popleft())

    def _collect(self, futures: list[Future]) -> tuple[Tensor, Tensor]:
        start = time.monotonic()
        crops, labels = zip(*(f.result() for f in futures))
        self.waited_s += time.monotonic() - start
        return torch.from_numpy(np.stack(crops)), torch.from_numpy(np.stack(labels))
