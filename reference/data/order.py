"""Which image stands in which slot of which iteration: computed, never remembered.

An epoch is a permutation of the set that follows from (seed, stream, epoch), so that the images of
iteration 400 are the same however a run came there, and however its slots are divided among ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from reference.data.rare_classes import RareClassSampler

SOURCE_STREAM: Final = 0
TARGET_STREAM: Final = 1
# Keeps the choice of an image apart from what is then done with it, whatever the image's number.
_CHOICE: Final = 2**32


class Key(NamedTuple):
    """One image of one batch.

    Args:
        iteration: number of the step, >= 0.
        slot: place in the batch of all ranks together, >= 0.
        image: number in the set.
        train_id: the class it was drawn for; None without rare-class sampling.
    """

    iteration: int
    slot: int
    image: int
    train_id: int | None = None


@lru_cache(maxsize=8)
def _permutation(seed: int, stream: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, stream, epoch, _CHOICE]).permutation(count)


@dataclass(frozen=True)
class Order:
    """The keys of one rank's batches.

    Args:
        count: images of the set, at least 1.
        seed: number of the run, >= 0.
        stream: tells apart source and target.
        start: first iteration, >= 0.
        stop: one past the last iteration, >= `start`.
        batch_size: images of a batch on one rank, at least 1.
        rank: number of this process, 0 .. world - 1.
        world: number of processes.
        rare: draws the images by class; None takes every image once an epoch.

    Raises:
        ValueError: a number is out of its range.
    """

    count: int
    seed: int
    stream: int
    start: int
    stop: int
    batch_size: int
    rank: int = 0
    world: int = 1
    rare: RareClassSampler | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"Order: expected a set of at least 1 image, got {self.count}.")
        if self.seed < 0:
            raise ValueError(f"Order: expected seed of at least 0, got {self.seed}.")
        if not 0 <= self.start <= self.stop:
            raise ValueError(
                f"Order: expected 0 <= start <= stop, got start {self.start} and stop {self.stop}."
            )
        if self.batch_size < 1:
            raise ValueError(f"Order: expected batch_size of at least 1, got {self.batch_size}.")
        if not 0 <= self.rank < self.world:
            raise ValueError(
                f"Order: expected rank within 0..world - 1, got rank {self.rank} of {self.world}."
            )

    def __len__(self) -> int:
        """Return the number of batches."""
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield the keys of one batch after another."""
        for iteration in range(self.start, self.stop):
            first = self.rank * self.batch_size
            yield [self.key(iteration, first + place) for place in range(self.batch_size)]

    def key(self, iteration: int, slot: int) -> Key:
        """Return the key of one slot.

        Args:
            iteration: number of the step.
            slot: place in the batch of all ranks, 0 .. world * batch_size - 1.
        """
        if self.rare is not None:
            rng = np.random.default_rng([self.seed, self.stream, iteration, slot, _CHOICE])
            drawn = self.rare.draw(rng)
            assert drawn is not None
            return Key(iteration, slot, drawn.image, drawn.train_id)
        number = iteration * self.batch_size * self.world + slot
        epoch, place = divmod(number, self.count)
        image = int(_permutation(self.seed, self.stream, epoch, self.count)[place])
        return Key(iteration, slot, image)

    def generator(self, key: Key) -> np.random.Generator:
        """Return where everything that is done with one image is drawn from."""
        return np.random.default_rng([self.seed, self.stream, key.iteration, key.slot, key.image])


@dataclass(frozen=True, kw_only=True)
class Batching:
    """Which batches a process reads: those of iterations start .. stop - 1.

    Args:
        seed: number of the run, >= 0.
        start: first iteration, >= 0.
        stop: one past the last iteration.
        batch_size: images of a batch on this rank, at least 1.
        rank: number of this process, 0 .. world - 1.
        world: number of processes.
        workers: processes that read; 0 reads in this one.
        pin_memory: copy batches to memory from which a GPU copies faster.
    """

    seed: int
    start: int
    stop: int
    batch_size: int
    rank: int = 0
    world: int = 1
    workers: int = 0
    pin_memory: bool = False

    def order(self, count: int, stream: int, rare: RareClassSampler | None = None) -> Order:
        """Return the keys of the batches.

        Args:
            count: images of the set.
            stream: tells apart source and target.
            rare: draws the images by class; None takes every image once an epoch.

        Raises:
            ValueError: a number is out of its range.
        """
        return Order(
            count,
            self.seed,
            stream,
            self.start,
            self.stop,
            self.batch_size,
            self.rank,
            self.world,
            rare,
        )
