"""Random bits as a function of where they are used: Philox4x32-10.

Salmon et al. 2011, https://doi.org/10.1145/2063384.2063405. No state: the same seed, sample, layer
and unit give the same bits on every backend, in whatever batches and on however many threads.
"""

from __future__ import annotations

import numpy as np

__all__ = ["philox", "random_words"]

Array = np.ndarray

MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
LOW = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)
# Counters whose four words lie beside each other: 64 units take 16 of them, so that a kernel works
# on whole vectors.
GROUP = 16


def philox(counters: tuple[Array, ...], key: tuple[Array, Array]) -> list[Array]:
    """Ten rounds; four words of the counter and two of the key, uint64 below 2^32, broadcast."""
    a, b, c, d = counters
    k0, k1 = key
    for _ in range(10):
        p, q = MULTIPLIERS[0] * a, MULTIPLIERS[1] * c
        a, b, c, d = (q >> SHIFT) ^ b ^ k0, q & LOW, (p >> SHIFT) ^ d ^ k1, p & LOW
        k0, k1 = (k0 + WEYL[0]) & LOW, (k1 + WEYL[1]) & LOW
    return [a, b, c, d]


def random_words(seed: int, first: int, n: int, layer: int, n_units: int) -> Array:
    """Words for samples `first`, ..., `first` + n - 1 of an epoch, uint32 of shape (n, n_units).

    Unit j has word ``j // 16 % 4`` of counter ``(j // 64 * 16 + j % 16, layer, sample)``; the
    sample, and the seed as the key, are 64 bits, low word first.
    """
    j = np.arange(-(-n_units // (4 * GROUP)) * GROUP, dtype=np.uint64)
    samples = (np.arange(n, dtype=np.uint64) + np.uint64(first))[:, None]
    key = np.atleast_1d(np.uint64(seed) & LOW), np.atleast_1d(np.uint64(seed) >> SHIFT)
    zero = np.zeros((n, len(j)), np.uint64)
    counter = zero + j, zero + np.uint64(layer), zero + (samples & LOW), zero + (samples >> SHIFT)
    words = [word.reshape(n, -1, GROUP) for word in philox(counter, key)]
    return np.stack(words, axis=2).reshape(n, -1)[:, :n_units].astype(np.uint32)
