"""Batches of augmented crops: sampling, and loading by threads.

The random numbers of a sample depend on (seed, epoch, slot) alone. So the number of workers, or a stop and resume
between epochs, changes nothing.
"""

import math
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qanet.datasets import DataSet, Sample
from qanet.files import sha256_bytes, written_aside
from qanet.train.data.augment import Surroundings, training_crop
from qanet.train.data.people import Mixture
from qanet.train.data.scenery import Scenery
from qanet.train.distributed import World
from qanet.train.recipes import Recipe


def repeat_factors(presence: NDArray[np.bool_], threshold: float) -> NDArray[np.float64]:
    """(len,) sampling weights: sqrt(threshold / frequency) of the rarest class in the image, at least 1.

    Source: repeat-factor sampling, LVIS (arXiv 1908.03195), appendix.
    """
    frequency = presence.mean(0)
    per_class = np.sqrt(np.maximum(threshold / np.maximum(frequency, 1e-9), 1.0))
    per_class[frequency == 0] = 1.0
    return np.where(presence, per_class, 1.0).max(1)


def sampling_weights(data: DataSet, presence: NDArray[np.bool_], threshold: float) -> NDArray[np.float64]:
    """(len,) sampling weights: the repeat factors; in a mixture they apply within each part, which keeps its share."""
    if not isinstance(data, Mixture):
        return repeat_factors(presence, threshold) if threshold > 0 else np.ones(len(data))
    weights, start = [], 0
    for part, share in zip(data.parts, data.shares):
        own = presence[start : start + len(part)]
        factors = repeat_factors(own, threshold) if threshold > 0 else np.ones(len(part))
        weights.append(share * factors / factors.sum())
        start += len(part)
    return np.concatenate(weights)


def epoch_order(weights: NDArray[np.float64], seed: int, epoch: int, count: int = 0) -> NDArray[np.int64]:
    """(count,) indices of one epoch: systematic resampling by weight (the expected count, rounded fairly), shuffled.

    Args:
        count: number of indices; 0: the number of weights.
    """
    rng = np.random.default_rng((seed, epoch))
    count = count or len(weights)
    edges = np.cumsum(weights) / weights.sum() * count
    order = np.searchsorted(edges, np.arange(count) + rng.random(), side="right")
    return rng.permutation(np.minimum(order, len(weights) - 1))


@dataclass(frozen=True)
class Batch:
    """Crops (B, H, W, 3) uint8 BGR, labels (B, H, W) uint8, and the names of the B people."""

    crops: Tensor
    labels: Tensor
    names: tuple[str, ...]


class Loader:
    """Batches of a data set, epoch by epoch. `waited_s` is the time in an epoch that the consumer waited for data.

    Args:
        workers: threads that load and augment.
        presence_cache: file to keep the classes of every person in (see `class_presence`).
        scenery: photographs without people, for the augmentation.
    Raises:
        QanetError: a batch size that is no multiple of the number of processes.
    """

    def __init__(
        self,
        data: DataSet,
        recipe: Recipe,
        workers: int,
        world: World | None = None,
        presence_cache: Path | None = None,
        scenery: Scenery | None = None,
    ):
        self.scenery = scenery
        self.data, self.recipe, self.workers = data, recipe, max(workers, 1)
        self.share = (world or World()).share(recipe.batch_size)
        known = recipe.repeat_threshold > 0
        presence = class_presence(data, presence_cache) if known else np.zeros((len(data), 1), bool)
        self.weights = sampling_weights(data, presence, recipe.repeat_threshold)
        self.waited_s = 0.0

    def __len__(self) -> int:
        return math.ceil((self.recipe.epoch_people or len(self.data)) / self.recipe.batch_size)

    def _crop(self, index: int, epoch: int, slot: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], str]:
        rng = np.random.default_rng((self.recipe.seed, epoch, slot, 1))
        outlined = not isinstance(self.data, Mixture) or self.data.outlined(index)
        around = Surroundings(self._other_person, self.scenery, outlined)
        crop, labels = training_crop(self.data[index], self.recipe, self.data.label_set, rng, around)
        return crop, labels, self.data.names[index]

    def _other_person(self, number: int) -> Sample:
        """A person to paste: one with an annotated outline."""
        whole = self.data.parts[0] if isinstance(self.data, Mixture) else self.data
        return whole[number % len(whole)]

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """This process's share of every batch of an epoch (counted from 0)."""
        order = epoch_order(self.weights, self.recipe.seed, epoch, self.recipe.epoch_people)
        size = self.recipe.batch_size
        # The last batch is filled up from the start: batch norm never sees a batch of one.
        jobs = [(int(order[slot % len(order)]), epoch, slot) for slot in range(len(self) * size)]
        self.waited_s = 0.0
        with ThreadPoolExecutor(self.workers) as pool:
            pending: deque[list[Future]] = deque()
            for start in range(0, len(jobs), size):
                pending.append([pool.submit(self._crop, *job) for job in jobs[start : start + size][self.share]])
                if len(pending) > 2:
                    yield self._collect(pending.popleft())
            while pending:
                yield self._collect(pending.popleft())

    def _collect(self, futures: list[Future]) -> Batch:
        start = time.monotonic()
        crops, labels, names = zip(*(f.result() for f in futures))
        self.waited_s += time.monotonic() - start
        batch = Batch(torch.from_numpy(np.stack(crops)), torch.from_numpy(np.stack(labels)), names)
        if torch.cuda.is_available():
            batch = Batch(batch.crops.pin_memory(), batch.labels.pin_memory(), names)
        return batch


def class_presence(data: DataSet, cache: Path | None) -> NDArray[np.bool_]:
    """(len, C) bool: the classes that each person shows. Cached in a file, because it takes every label of the set."""
    key = sha256_bytes("\n".join([str(data.label_set.to_document()), *data.names]).encode())
    if cache is not None and cache.is_file():
        try:
            with np.load(cache) as stored:
                if str(stored["key"]) == key:
                    return stored["presence"]
        except (OSError, ValueError, KeyError):
            cache.unlink()  # a broken cache is computed again
    presence = data.class_presence()
    if cache is not None:
        with written_aside(cache) as aside:
            np.savez_compressed(aside, key=key, presence=presence)
    return presence
