"""The processor's peak, measured: the affine kernel on a problem that stays in the L1 cache.

All rows of the input are one row in memory and all rows of the output another one (a stride of 0),
so the kernel does nothing but multiply and add. What it reaches, best of many calls, is the peak
that other figures are shares of; the true one is slightly higher.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from time import perf_counter

import numpy as np

__all__ = ["measure_peak"]

# Inner dimensions to try: short ones spend time between tiles, long ones leave the L1 cache.
INNER = (128, 192, 256)
CALLS = 40
ROWS = 14 * 16 * 20  # whole tiles of every instruction set


def measure_peak(n_threads: int, dtype: str) -> float | None:
    """GFLOP/s of `n_threads` threads together; None without the compiled core."""
    try:
        from fastmlp._core.affine import affine_forward
    except ImportError:
        return None
    kind = np.dtype(dtype)
    n_cols = 256 // kind.itemsize
    begin = Barrier(n_threads)

    def best_of_one(_: int) -> float:
        best = 0.0
        for n_inner in INNER:
            X = np.broadcast_to(np.full(n_inner, 0.5, kind), (ROWS, n_inner))
            W = np.full((n_inner, n_cols), 0.25, kind)
            b = np.zeros(n_cols, kind)
            Z = np.lib.stride_tricks.as_strided(
                np.zeros(n_cols, kind), (ROWS, n_cols), (0, kind.itemsize)
            )
            begin.wait()
            for _ in range(CALLS):
                began = perf_counter()
                affine_forward(X, W, b, Z, 1)
                seconds = perf_counter() - began
                best = max(best, 2 * ROWS * n_inner * n_cols / seconds / 1e9)
        return best

    with ThreadPoolExecutor(n_threads) as threads:
        return sum(threads.map(best_of_one, range(n_threads)))
