"""How far two CPUs are from each other: what a cache line takes from one to the other.

Threads that share a step change lines that others have read. Which of its cores, behind one cache
or behind two, a CPU of a virtual machine is, its host decides, and may decide anew at any time.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Semaphore
from time import perf_counter, sleep
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FAR", "bring_near", "measure_distance"]

FAR = 120e-9
"""Seconds: cores behind one cache take 20 to 40 ns, behind two of them 180 to 230 (AMD Zen 5)."""

SERIES, PASSES, FIRST = 5, 2000, 50  # the first ones bring both threads together
WAKES, ASLEEP = 60, 5e-4


def measure_distance(cpus: Sequence[int]) -> float | None:
    """Seconds that a cache line takes from one of two CPUs to the other.

    The best of some series: what else the CPUs do makes it longer, never shorter. None for fewer
    CPUs than two, and without the compiled core.
    """
    try:
        from fastmlp._core.cpu import pass_line
    except ImportError:
        return None
    if len(cpus) < 2:
        return None
    line = np.zeros(1, dtype=np.intc)
    begin = Barrier(2)

    def best_of(turn: int) -> float:
        _stay_on(cpus[turn])
        best = np.inf
        for _ in range(SERIES):
            begin.wait()
            line[0] = 0
            begin.wait()
            pass_line(line, turn, FIRST)
            began = perf_counter()
            pass_line(line, 2 * FIRST + turn, PASSES)
            best = min(best, perf_counter() - began)
        return best / (2 * PASSES)

    with ThreadPoolExecutor(2) as threads:
        return max(threads.map(best_of, range(2)))


def bring_near(cpus: Sequence[int], patience: float) -> float | None:
    """Try for so many seconds to have a virtual machine's host run two CPUs near each other.

    A host often puts a CPU that was asleep near the one that wakes it: most often that takes a
    second, where busy CPUs stay far from each other for 15 to 25.

    Returns
    -------
    float or None
        Their distance then, see `measure_distance`.
    """
    end = perf_counter() + patience
    while (distance := measure_distance(cpus)) and distance > FAR and perf_counter() < end:
        _wake(cpus)
    return distance


def _wake(cpus: Sequence[int]) -> None:
    """Let the second CPU sleep and the first one wake it, again and again."""
    bell = Semaphore(0)

    def listen() -> None:
        _stay_on(cpus[1])
        for _ in range(WAKES):
            bell.acquire()

    def ring() -> None:
        _stay_on(cpus[0])
        for _ in range(WAKES):
            sleep(ASLEEP)
            bell.release()

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(listen), threads.submit(ring)]:
            done.result()


def _stay_on(cpu: int) -> None:
    """Bind this thread to a CPU until it ends."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cpu})
