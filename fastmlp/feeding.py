"""Where the samples of an epoch come from: arrays in memory, or blocks that are read meanwhile.

An epoch is a sequence of (`TrainingData`, order): a feed gives one pair for arrays in memory, and
one after the other for a stream, whose next block is read by a thread while this one trains. Of
small arrays it gives several epochs at once, one after the other in a single order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastmlp.architecture import Architecture
from fastmlp.backends.base import TOGETHER, TrainingData
from fastmlp.mapped import MappedRows
from fastmlp.validation import check_inputs, check_targets, check_weights

__all__ = [
    "ArrayFeed",
    "ChunkFeed",
    "Feed",
    "MappedFeed",
    "RewindableOrder",
    "Shuffle",
    "sample_order",
]

Array = np.ndarray
# True, False, "blocks", or a function of the generator and the number of samples.
Shuffle = bool | str | Callable[[np.random.Generator, int], Array]

# Bytes of inputs in a block: many batches, and little beside a process's own memory.
BLOCK_BYTES = 1 << 23
# Samples in the orders of several epochs at once: 0.8 MB, and some hundredths of a second.
SAMPLES_AT_ONCE = 100_000
# shuffle="blocks": rows that stay together on the disk, and among how many of them rows are mixed.
RUN_ROWS, WINDOW_ROWS = 256, 8192


class RewindableOrder(ABC):
    """Base of functions as `shuffle` that look at `state` alone; to set it is to go back."""

    state: Any

    @abstractmethod
    def __call__(self, rng: np.random.Generator, n: int) -> Array:
        """The order of the next epoch."""


def sample_order(rng: np.random.Generator, n: int, shuffle: Shuffle) -> Array:
    """The samples 0 to n - 1 in the order of an epoch; see `Network.fit`."""
    if callable(shuffle):
        return _checked_order(shuffle(rng, n), n)
    if not isinstance(shuffle, str):
        return _permutations(rng, n, 1).ravel() if shuffle else np.arange(n)
    runs = rng.permutation(-(-n // RUN_ROWS))
    order = (runs[:, None] * RUN_ROWS + np.arange(RUN_ROWS)).ravel()
    order = order[order < n]
    for start in range(0, n, WINDOW_ROWS):
        rng.shuffle(order[start : start + WINDOW_ROWS])
    return order


def _permutations(rng: np.random.Generator, n: int, n_rows: int) -> Array:
    """Rows of 0 to n - 1, shape (n_rows, n), each in a random order of its own.

    Sorts random numbers with the place of each in its lowest bits. NumPy sorts with vectors: 300
    rows of 120 take 0.1 ms, `Generator.permuted` 0.3; one of 60,000 takes 0.3, `permutation` 0.5.
    Equal numbers keep their order, one pair in 150,000 rows of 60,000.
    """
    places = np.uint64((1 << (n - 1).bit_length()) - 1)
    keys = rng.integers(0, 1 << 64, (n_rows, n), dtype=np.uint64)
    keys &= ~places
    keys |= np.arange(n, dtype=np.uint64)
    keys.sort(axis=1)
    keys &= places
    return keys.view(np.int64).astype(np.intp, copy=False)


def _checked_order(given: Any, n: int) -> Array:
    order = np.ascontiguousarray(given)
    if order.ndim != 1 or order.dtype.kind not in "iu" or order.size == 0:
        raise ValueError(
            "shuffle: expected a function that returns numbers of samples, shape (m,), got "
            f"{order.dtype} of shape {order.shape}"
        )
    if order.min() < 0 or order.max() >= n:
        raise ValueError(
            f"shuffle: expected numbers of samples from 0 to {n - 1}, got {order.min()} to "
            f"{order.max()}"
        )
    return order.astype(np.intp, copy=False)


def sample_orders(rng: np.random.Generator, n: int, shuffle: Shuffle, n_epochs: int) -> Array:
    """What so many calls of `sample_order` give, one behind the other."""
    if shuffle is True:  # the same draws
        return _permutations(rng, n, n_epochs).ravel()
    if isinstance(shuffle, RewindableOrder):
        return _checked_order(np.concatenate([shuffle(rng, n) for _ in range(n_epochs)]), n)
    return np.concatenate([sample_order(rng, n, shuffle) for _ in range(n_epochs)])


@dataclass(frozen=True)
class Samples:
    """Checked samples, of which some are taken."""

    X: Array | MappedRows
    Y: Array
    weight: Array | None

    @property
    def kind(self) -> str:
        """What all chunks of a stream have in common."""
        targets = "labels" if self.Y.ndim == 1 else "rows of targets"
        weights = "no weights" if self.weight is None else "weights"
        return f"{self.X.dtype} inputs, {targets}, {weights}"

    def take(self, rows: Array) -> Samples:
        weight = None if self.weight is None else self.weight[rows]
        return Samples(self.X[rows], self.Y[rows], weight)


class ArrayFeed:
    """Arrays in memory, used where they lie."""

    def __init__(self, samples: Samples, batch_size: int, shuffle: Shuffle):
        assert isinstance(samples.X, np.ndarray)
        self.n_samples: int | None = len(samples.X)
        batch_size = min(batch_size, len(samples.X))
        self.data = TrainingData(samples.X, samples.Y, samples.weight, batch_size)
        self.shuffle = shuffle
        # Another function may look at more than its arguments.
        foreseen = not callable(shuffle) or isinstance(shuffle, RewindableOrder)
        self.most_epochs = max(1, SAMPLES_AT_ONCE // len(samples.X)) if foreseen else 1

    def state(self, rng: np.random.Generator) -> tuple[Any, Any]:
        """What `rewind` needs to give the orders from here on once more."""
        own = self.shuffle.state if isinstance(self.shuffle, RewindableOrder) else None
        return rng.bit_generator.state, own

    def rewind(self, rng: np.random.Generator, state: tuple[Any, Any]) -> None:
        rng.bit_generator.state, own = state
        if isinstance(self.shuffle, RewindableOrder):
            self.shuffle.state = own

    def epochs(
        self, rng: np.random.Generator, n_epochs: int = 1
    ) -> Iterator[tuple[TrainingData, Array]]:
        yield self.data, sample_orders(rng, len(self.data.X), self.shuffle, n_epochs)


class MappedFeed:
    """A large memory-mapped array: the same order and bits as in memory, a block at a time."""

    most_epochs = 1

    def __init__(self, samples: Samples, batch_size: int, shuffle: Shuffle):
        self.n_samples: int | None = len(samples.X)
        self.samples, self.batch_size, self.shuffle = samples, batch_size, shuffle

    def epochs(
        self, rng: np.random.Generator, n_epochs: int = 1
    ) -> Iterator[tuple[TrainingData, Array]]:
        order = sample_order(rng, len(self.samples.X), self.shuffle)
        return _in_blocks(iter([(self.samples, order)]), self.batch_size)


class ChunkFeed:
    """An iterable of chunks (X, y) or (X, y, sample_weight), or a function that returns one."""

    n_samples: int | None = None
    most_epochs = 1

    def __init__(
        self,
        architecture: Architecture,
        chunks: Iterable[Any] | Callable[[], Iterable[Any]],
        batch_size: int,
        shuffle: Shuffle,
    ):
        self.architecture, self.chunks = architecture, chunks
        self.batch_size, self.shuffle = batch_size, shuffle

    def epochs(
        self, rng: np.random.Generator, n_epochs: int = 1
    ) -> Iterator[tuple[TrainingData, Array]]:
        # Chunks are shuffled by the thread that reads them, with a generator of its own: the
        # network's is as far at the end of an epoch, however far the reading got.
        rng = np.random.default_rng(rng.integers(1 << 63)) if self.shuffle else rng
        return _in_blocks(self._checked(rng), self.batch_size)

    def _checked(self, rng: np.random.Generator) -> Iterator[tuple[Samples, Array]]:
        kind = None
        for i, chunk in enumerate(self.chunks() if callable(self.chunks) else self.chunks):
            samples = self._check(chunk, f"chunk {i}")
            kind = kind or samples.kind
            if samples.kind != kind:
                raise ValueError(f"chunk {i}: expected {kind}, as chunk 0; got {samples.kind}")
            yield samples, sample_order(rng, len(samples.X), self.shuffle)
        if kind is None:
            raise ValueError("X: expected at least one chunk (X, y), got none")

    def _check(self, chunk: Any, name: str) -> Samples:
        if not isinstance(chunk, (tuple, list)) or len(chunk) not in (2, 3):
            length = f" of length {len(chunk)}" if isinstance(chunk, (tuple, list)) else ""
            raise TypeError(
                f"{name}: expected (X, y) or (X, y, sample_weight), got {type(chunk).__name__}"
                f"{length}"
            )
        X = check_inputs(chunk[0], self.architecture, f"{name}: X")
        Y = check_targets(chunk[1], self.architecture, len(X), f"{name}: y")
        weight = chunk[2] if len(chunk) == 3 else None
        return Samples(X, Y, check_weights(weight, len(X), f"{name}: sample_weight"))


Feed = ArrayFeed | MappedFeed | ChunkFeed


def _in_blocks(
    parts: Iterator[tuple[Samples, Array]], batch_size: int
) -> Iterator[tuple[TrainingData, Array]]:
    """Blocks of whole batches, so that bits do not depend on where the parts end."""
    for block in _read_ahead(_blocks(parts, batch_size)):
        assert isinstance(block.X, np.ndarray)
        n = len(block.X)
        yield TrainingData(block.X, block.Y, block.weight, min(batch_size, n)), np.arange(n)


def _blocks(parts: Iterator[tuple[Samples, Array]], batch_size: int) -> Iterator[Samples]:
    gathered: list[Samples] = []
    room = 0
    for samples, order in parts:
        if not gathered:
            rows = batch_size if batch_size > 1 else TOGETHER
            row_bytes = samples.X.shape[1] * samples.X.dtype.itemsize
            size = room = rows * max(1, BLOCK_BYTES // (rows * row_bytes))
        while len(order):
            gathered.append(samples.take(order[:room]))
            order = order[room:]
            room -= len(gathered[-1].X)
            if room == 0:
                yield _joined(gathered)
                gathered, room = [], size
    if gathered:
        yield _joined(gathered)


def _joined(parts: list[Samples]) -> Samples:
    if len(parts) == 1:
        return parts[0]
    weights = [part.weight for part in parts if part.weight is not None]
    return Samples(
        np.concatenate([part.X for part in parts]),
        np.concatenate([part.Y for part in parts]),
        np.concatenate(weights) if weights else None,
    )


def _read_ahead(items: Iterator[Samples]) -> Iterator[Samples]:
    """The items, each read by a thread while the one before is in use."""
    reader = ThreadPoolExecutor(1, thread_name_prefix="fastmlp-reader")
    try:
        item = reader.submit(next, items, None)
        while (current := item.result()) is not None:
            item = reader.submit(next, items, None)
            yield current
            del current
    finally:
        # Not waited for: an iterator that hangs would keep Ctrl-C from ending the fit.
        reader.shutdown(wait=False, cancel_futures=True)
