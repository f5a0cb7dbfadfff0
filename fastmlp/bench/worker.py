"""A peer's own process: ``python -m fastmlp.bench.worker``, driven through its standard streams.

The first line of standard input is the job; then each line is a word, and each gets one line of
JSON on standard output:

========  ======================================================================================
``go``    one measurement, of one pass or more: ``{"seconds": ..., "score": {...} or null}``
``peak``  the processor's peak: ``{"gflops": ...}``, null without the compiled core
========  ======================================================================================

Before that one line says that the peer is ready, or why it cannot take part. The end of standard
input ends the process.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from math import ceil
from time import perf_counter
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["main"]


LEAST = 0.5
"""Seconds that a measurement takes, at least, from the first score on: a shorter one makes the next
one longer. Behind a pause an epoch of 28 ms takes one more: caches and CPU are cold."""


class FinishedError(Exception):
    """The measuring process wants no more."""


class PipeClock:
    """The clock of `peers.base`, held by whoever is at the other end of the pipes."""

    def __init__(self, words: IO[str], answers: IO[str], peak: Callable[[], float | None]):
        self.words, self.answers, self.peak = words, answers, peak
        self.passes = 1

    def say(self, answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=self.answers, flush=True)

    def start(self) -> int:
        while (word := self.words.readline().strip()) == "peak":
            self.say({"gflops": self.peak()})
        if word != "go":
            raise FinishedError
        self.began = perf_counter()
        return self.passes

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        began = perf_counter()
        yield
        self.began += perf_counter() - began

    def stop(self, scale: float = 1.0, score: Callable[[], Any] | None = None) -> None:
        elapsed = perf_counter() - self.began
        seconds = elapsed / self.passes
        self.say({"seconds": seconds * scale, "score": asdict(score()) if score else None})
        if score and elapsed < LEAST:  # not before the score of one epoch's work
            self.passes = ceil(LEAST / seconds)


def main() -> None:
    # A library that prints must not disturb the conversation: that goes to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.readline())
    # Before any library counts the processors.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, settings["cpus"])

    # Now, not above: numpy starts its threads when it is imported.
    from fastmlp.bench.peak import measure_peak
    from fastmlp.bench.peers import PEERS
    from fastmlp.bench.peers.base import Job
    from fastmlp.bench.problems import load_problem
    from fastmlp.bench.workloads import WORKLOADS

    workload = WORKLOADS[settings["workload"]]
    record = PEERS[settings["peer"]]
    threads = settings["threads"]
    clock = PipeClock(sys.stdin, answers, lambda: measure_peak(threads, workload.dtype))
    try:
        problem = load_problem(
            workload.data, workload.dtype, pixels=record.pixels, generated=settings["generated"]
        )
        job = Job(workload, problem, threads, settings["slices"])
        peer = record.make(job)
    except Exception as error:  # whatever keeps a library from running here is its reason
        first = (str(error).strip().splitlines() or [""])[0]
        clock.say({"skipped": f"{type(error).__name__}: {first}"})
        return
    clock.say({"ready": _versions(record.requires)})
    with contextlib.suppress(FinishedError):
        peer.run(clock)


def _versions(names: tuple[str, ...]) -> dict[str, str]:
    versions = {}
    for name in names:
        distribution = DISTRIBUTIONS.get(name, name)
        try:
            versions[distribution] = version(distribution)
        except PackageNotFoundError:
            versions[distribution] = "unknown"
    return versions


DISTRIBUTIONS = {"sklearn": "scikit-learn"}

if __name__ == "__main__":
    main()
