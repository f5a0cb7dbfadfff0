"""Rows of a large memory-mapped array, read a piece at a time, so that memory stays flat."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["MappedRows", "is_large_map", "row_blocks"]

Array = np.ndarray

# A smaller array is used where it lies: pages that were read count as memory of the process.
LARGE = 1 << 26
# Bytes of a piece.
PIECE = 1 << 22
# Linux maps up to a large folio, 2 MB, around a page that is touched (150 rows of 4 KB mapped
# 100 MB); pages are given back after so many of them.
FOLIO, FOLIOS = 1 << 21, 4


def is_large_map(X: Array) -> bool:
    """Whether `X` is a view of a file of which more is used than may simply become memory."""
    return X.nbytes > LARGE and _memmap_below(X) is not None


def row_blocks(X: Array | MappedRows, most: int | None = None) -> Iterator[slice]:
    """Slices of rows, one after the other: all at once, at most `most`, or a piece of a map."""
    size = most or len(X)
    if isinstance(X, MappedRows):
        size = min(size, X.rows_per_piece)
    for start in range(0, len(X), size):
        yield slice(start, min(start + size, len(X)))


class MappedRows:
    """A memory-mapped array (n, n_inputs) as a network wants it; indexing reads rows of it.

    Parameters
    ----------
    X : ndarray of shape (n, n_inputs)
        A view of a `numpy.memmap`.
    dtype : numpy dtype
        What is read is converted to it.

    Notes
    -----
    Pages that were read count as memory of the process until they are given back with
    ``madvise(MADV_DONTNEED)``; the system's page cache keeps them. That is done for maps of the
    modes r, r+ and w+; in a map of mode c it would undo changes, so there the pages stay.
    """

    def __init__(self, X: Array, dtype: np.dtype):
        self.X = X
        self.dtype = dtype
        self.shape = X.shape
        self.rows_per_piece = max(1, PIECE // (X.shape[1] * dtype.itemsize))
        memmap = _memmap_below(X)
        shared = memmap is not None and memmap.mode != "c" and hasattr(mmap, "MADV_DONTNEED")
        self._map: Any = getattr(memmap, "_mmap", None) if shared else None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Array) -> Array:
        """The rows as a new array, in the order asked for; read in the order of the file."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        out = np.empty((len(rows), self.shape[1]), self.dtype)
        forwards = np.argsort(rows, kind="stable")
        stride = abs(self.X.strides[0])
        steps = np.diff(rows[forwards] * stride // FOLIO, prepend=0)
        n_folios = np.cumsum(np.minimum(steps, 1 + stride // FOLIO))
        ends = np.flatnonzero(np.diff(n_folios // FOLIOS)) + 1
        for some in np.split(forwards, ends):
            out[some] = self.X[rows[some]]
            self.release()
        return out

    def release(self) -> None:
        """Give back the pages that were read."""
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)


def _memmap_below(X: Any) -> np.memmap | None:
    """The `numpy.memmap` that owns the map of which `X` is a view."""
    found = None
    while isinstance(X, np.ndarray):
        if isinstance(X, np.memmap) and getattr(X, "_mmap", None) is not None:
            found = X
        X = X.base
    return found
