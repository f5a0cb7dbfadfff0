"""What a peer is: the few things it has to do, the same for every library."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fastmlp.bench.workloads import Task, Workload
from fastmlp.feeding import sample_order

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from fastmlp.bench.problems import Problem
    from fastmlp.network import Network

__all__ = ["Clock", "Job", "Peer", "Score", "score_of"]

Array = np.ndarray


@dataclass(frozen=True)
class Score:
    """What a peer's work was worth.

    Attributes
    ----------
    accuracy : float or None
        On the test set, after the first measured pass.
    loss : float or None
        Likewise.
    error : float or None
        Largest difference of an output from that of the network in float64.
    epochs : int or None
        That a whole process took to its accuracy.
    """

    accuracy: float | None = None
    loss: float | None = None
    error: float | None = None
    epochs: int | None = None


class Clock(Protocol):
    """Held by the measuring process: says when to begin."""

    def start(self) -> int:
        """Waits for the peer's turn, then takes the time; returns how many passes to make."""

    def paused(self) -> AbstractContextManager[None]:
        """What is done in it does not count."""

    def stop(self, scale: float = 1.0, score: Callable[[], Score] | None = None) -> None:
        """Takes the time and reports that of a pass, times `scale`; then the score, outside it."""


@dataclass(frozen=True)
class Job:
    """One workload for one peer.

    Attributes
    ----------
    workload : Workload
    problem : Problem
    threads : int
        At most.
    slices : int
        Parts into which an epoch is cut.
    """

    workload: Workload
    problem: Problem
    threads: int = 1
    slices: int = 1

    def network(self, backend: str = "numpy") -> Network:
        return self.workload.network(self.problem.n_inputs, self.problem.n_outputs, backend)

    @property
    def n_samples(self) -> int:
        return len(self.problem.X)

    def part(self, index: int) -> slice:
        """Samples of a slice of the epoch, in whole batches."""
        size = self.workload.batch_size
        n_steps = -(-self.n_samples // size)
        start, stop = (k * n_steps // self.slices * size for k in (index, index + 1))
        return slice(start, min(stop, self.n_samples))

    def blocks(self) -> list[Array]:
        """Inputs of successive calls to predict."""
        X, rows = self.problem.X_test, self.workload.rows
        return [X[i : i + rows] for i in range(0, len(X) - rows + 1, rows)][:MOST_BLOCKS]


MOST_BLOCKS = 256


class Peer(ABC):
    """A library at work on a job; made in the worker process.

    Subclasses import their library in ``__init__``, which leaves everything ready to run: weights
    in place, programs compiled, nothing trained.
    """

    def __init__(self, job: Job):
        self.job = job
        self.workload = job.workload

    @abstractmethod
    def reset(self) -> None:
        """Go back to the initial weights of ``job.network()``."""

    def train(self, order: Array) -> None:
        """One pass over the samples `order`; returns when it is done.

        Not of peers that only predict, or whose own fit draws the order.
        """
        raise NotImplementedError(f"{type(self).__name__} does not train in a given order")

    @abstractmethod
    def weights(self) -> Sequence[tuple[Any, Any]]:
        """``[(W, b), ...]`` as they are now, in fastmlp's shapes."""

    @abstractmethod
    def inputs(self, X: Array) -> Any:
        """`X` where the library wants it."""

    @abstractmethod
    def predict(self, X: Any) -> Any:
        """Outputs of what `inputs` gave; returns when they are there."""

    def run(self, clock: Clock) -> None:
        """Measure after measure, until the clock raises."""
        if self.workload.task is Task.PREDICT:
            self._run_predictions(clock)
        elif self.workload.task is Task.FIT:
            self._run_fits(clock)
        else:
            self._run_epochs(clock)

    def score(self) -> Score:
        return score_of(self.job, self.weights())

    def _run_epochs(self, clock: Clock) -> None:
        job, rng = self.job, self.job.network().rng
        self.reset()
        while True:
            for index in range(job.slices):
                part = job.part(index)
                for _ in range(clock.start()):
                    if index == 0:
                        order = sample_order(rng, job.n_samples, True)
                    self.train(order[part])
                last = index == job.slices - 1
                clock.stop(job.n_samples / len(order[part]), self.score if last else None)

    def fit(self, rng: np.random.Generator) -> None:
        """Train for the workload's epochs, in orders from `rng`."""
        for _ in range(self.workload.epochs):
            self.train(sample_order(rng, self.job.n_samples, True))

    def _run_fits(self, clock: Clock) -> None:
        while True:
            for _ in range(clock.start()):
                with clock.paused():
                    self.reset()
                    rng = self.job.network().rng
                self.fit(rng)
            clock.stop(1, self.score)

    def _run_predictions(self, clock: Clock) -> None:
        self.reset()
        blocks = self.job.blocks()
        inputs = [self.inputs(block) for block in blocks]
        predict = self.predict
        while True:
            for _ in range(clock.start()):
                for X in inputs:
                    predict(X)
            clock.stop(1 / len(inputs), lambda: self._prediction_score(blocks[:8]))

    def _prediction_score(self, blocks: list[Array]) -> Score:
        net = self.job.network()
        errors = []
        for X in blocks:
            expected = _forward(
                net, [(W.astype("f8"), b.astype("f8")) for W, b in net.parameters], X
            )
            errors.append(np.abs(np.asarray(self.predict(self.inputs(X))) - expected).max())
        return Score(error=float(max(errors)))


def score_of(job: Job, weights: Sequence[tuple[Any, Any]]) -> Score:
    """Accuracy and loss on the test set, by NumPy in float64 whoever trained the weights."""
    net = job.network()
    loss, problem = net.architecture.loss, job.problem
    parameters = [(np.asarray(W, "f8"), np.asarray(b, "f8")) for W, b in weights]
    A = _forward(net, parameters, problem.X_test)
    Y = problem.y_test
    if Y.ndim == 1:
        Y = np.eye(problem.n_outputs)[Y]
    assert loss.correct is not None
    return Score(float(loss.correct(A, Y).mean()), float(loss.value(A, Y).mean()))


def _forward(net: Network, parameters: Sequence[tuple[Array, Array]], X: Array) -> Array:
    A = X.astype("f8") / (255 if X.dtype == np.uint8 else 1)
    for layer, (W, b) in zip(net.architecture.layers, parameters, strict=True):
        A = layer.activation.forward(A @ W + b)
    return A
