"""The learning-rate finder: a short training with a rate that grows from step to step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.backends.base import TrainingData
from fastmlp.feeding import sample_orders
from fastmlp.optimizers import Adam, Averaged, Optimizer, OptimizerState
from fastmlp.snapshot import Snapshot
from fastmlp.validation import check_count, check_inputs, check_targets

if TYPE_CHECKING:
    from fastmlp.network import Network

__all__ = ["LearningRateSearch", "find_learning_rate"]

Array = np.ndarray
SMOOTHING = 0.9
UNSURE = 10  # steps: 1 / (1 - SMOOTHING)


@dataclass(frozen=True, eq=False)
class LearningRateSearch:
    """
    Attributes
    ----------
    rates : ndarray of shape (n_steps,)
        Of the steps that were made: fewer than asked for where the loss overflowed.
    losses : ndarray of shape (n_steps,)
        Each batch's mean loss, before the step with that rate.
    """

    rates: Array
    losses: Array

    @property
    def smoothed(self) -> Array:
        """Exponential moving average of the losses, without the bias of its beginning."""
        averages, average = np.empty_like(self.losses), 0.0
        for i, loss in enumerate(self.losses):
            average = SMOOTHING * average + (1 - SMOOTHING) * loss
            averages[i] = average / (1 - SMOOTHING ** (i + 1))
        return averages

    @property
    def suggestion(self) -> float:
        """Middle of the twentieth of the steps over which the smoothed loss falls most, in front of
        its minimum; the first rate where it only rises. The first ten steps, of which the average
        is one of few batches, do not count.
        """
        smoothed, window = self.smoothed[UNSURE:], max(2, len(self.rates) // 20)
        smoothed = smoothed[: int(smoothed.argmin()) + 1] if len(smoothed) else smoothed
        if len(smoothed) <= window:
            return float(self.rates[0])
        falls = smoothed[:-window] - smoothed[window:]
        return float(self.rates[UNSURE + int(falls.argmax()) + window // 2])


def find_learning_rate(
    network: Network,
    X: Any,
    y: Any,
    *,
    optimizer: Optimizer | None = None,
    low: float = 1e-6,
    high: float = 10.0,
    n_steps: int = 200,
    batch_size: int = 64,
) -> LearningRateSearch:
    """Train with rates from `low` to `high` and watch the loss; the network is not changed.

    Smith 2017, https://arxiv.org/abs/1506.01186, section 3.3, with rates that grow by a factor.

    Parameters
    ----------
    network : Network
        Usually before its first fit.
    X, y : array-like
        As for `Network.fit`; some batches of them in random order are used.
    optimizer : Optimizer or None, default None
        Its rate does not count; None is Adam().
    low, high : float, default 1e-6 and 10
    n_steps : int, default 200
        At least 10.
    batch_size : int, default 64

    Returns
    -------
    LearningRateSearch
        Its ``suggestion`` is a rate to begin with; `fastmlp.plots.learning_rate_search` draws it.

    Raises
    ------
    TypeError, ValueError
        For bad arguments.

    Examples
    --------
    >>> from fastmlp import Adam, Dense, Network, find_learning_rate
    >>> from fastmlp.datasets import load_digits
    >>> digits = load_digits()
    >>> net = Network(64, [Dense(64, "relu"), Dense(10, "softmax")], loss="cross_entropy", seed=0)
    >>> search = find_learning_rate(net, digits.X_train, digits.y_train)
    >>> 1e-4 < search.suggestion < 0.1
    True
    """
    architecture = network.architecture
    architecture.check_trainable()
    optimizer = Adam() if optimizer is None else optimizer
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer: expected an optimizer, got {type(optimizer).__name__}")
    if isinstance(optimizer, Averaged):  # an average lags behind what a rate does
        optimizer = optimizer.optimizer
    if not 0 < low < high < np.inf:
        raise ValueError(f"low, high: expected 0 < low < high, got {low} and {high}")
    n_steps, batch_size = check_count(n_steps, "n_steps", 10), check_count(batch_size, "batch_size")
    X = check_inputs(X, architecture)
    y = check_targets(y, architecture, len(X))
    rates = np.geomspace(low, high, n_steps)
    batch_size = min(batch_size, len(X))

    before = network.optimizer_state
    state = network.optimizer_state = OptimizerState(replace(optimizer, lr=low), network.arena)
    start = Snapshot(network, state)
    start.take()
    try:
        wanted = n_steps * batch_size
        order = sample_orders(network.rng, len(X), True, -(-wanted // len(X)))[:wanted]
        data = TrainingData(X[order], y[order], None, batch_size)
        trainer = network.backend.trainer(architecture, network.arena, state, data)
        losses = trainer.epochs(np.arange(wanted), rates).losses
    finally:
        start.restore()
        network.optimizer_state = before
    finite = np.isfinite(losses)
    done = n_steps if finite.all() else max(1, int(finite.argmin()))
    return LearningRateSearch(rates[:done], losses[:done])
