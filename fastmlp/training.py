"""The training loop: order, batches, validation, events. And evaluation, which it needs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.backends.base import StepOptions, TrainingData
from fastmlp.callbacks import Callback
from fastmlp.history import History
from fastmlp.optimizers import Optimizer, OptimizerState
from fastmlp.validation import check_count, check_inputs, check_targets, check_weights

if TYPE_CHECKING:
    from fastmlp.network import Network

__all__ = ["DivergenceError", "evaluate", "fit"]

Array = np.ndarray


class DivergenceError(FloatingPointError):
    """The loss, or a parameter, stopped being finite.

    The network has the parameters it had at the start of the epoch that diverged.
    """


def fit(
    network: Network,
    X: Any,
    y: Any,
    *,
    optimizer: Optimizer,
    epochs: int,
    batch_size: int,
    shuffle: bool,
    validation_data: tuple[Any, Any] | None,
    sample_weight: Any,
    options: StepOptions,
    callbacks: Sequence[Callback],
) -> History:
    """See `Network.fit`."""
    architecture = network.architecture
    architecture.check_trainable()
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"optimizer: expected an optimizer such as Adam(), got {type(optimizer).__name__}"
        )
    epochs = check_count(epochs, "epochs", 0)
    batch_size = check_count(batch_size, "batch_size")
    X = check_inputs(X, architecture)
    n = len(X)
    Y = check_targets(y, architecture, n)
    weight = check_weights(sample_weight, n)
    if validation_data is not None:
        validation_data = _check_validation_data(validation_data, network)
    data = TrainingData(X, Y, weight, min(batch_size, n))

    state = network.optimizer_state
    if state is None or state.optimizer != optimizer:
        state = network.optimizer_state = OptimizerState(optimizer, network.arena)
    trainer = network.backend.trainer(architecture, network.arena, state, data, options)
    start = _Snapshot(network, state)
    history = History()
    with ExitStack() as at_end:
        for callback in callbacks:
            at_end.callback(callback.on_fit_end, network, history)
            callback.on_fit_begin(network, epochs=epochs, n_samples=n)
        for epoch in range(1, epochs + 1):
            start.take()
            order = network.rng.permutation(n) if shuffle else np.arange(n)
            rates = state.rates(data.n_steps(n))
            began = perf_counter()
            result = trainer.epoch(order, rates)
            seconds = perf_counter() - began
            if not (np.isfinite(result.loss) and np.isfinite(network.arena.flat).all()):
                start.restore()
                raise DivergenceError(
                    f"training diverged in epoch {epoch} at learning rate {rates[0]:g}: the loss "
                    "or a parameter is not finite. The network is as it was at the start of that "
                    "epoch; try a smaller learning rate or scaled inputs"
                )
            record: dict[str, float] = {"epoch": epoch, "loss": result.loss}
            if architecture.loss.correct is not None:
                record["accuracy"] = result.correct / n
            if validation_data is not None:
                scores = evaluate(network, *validation_data, None)
                record.update({f"val_{name}": value for name, value in scores.items()})
            record["lr"] = float(rates[-1])
            record["seconds"] = seconds
            record["samples_per_second"] = n / seconds
            history.records.append(record)
            state.observe(record)
            stops = [callback.on_epoch_end(network, record) for callback in callbacks]
            if any(stops):
                break
    return history


def evaluate(network: Network, X: Array, Y: Array, weight: Array | None) -> dict[str, float]:
    """Mean loss, and accuracy for classes, of checked arrays; a block of rows at a time."""
    loss = network.architecture.loss
    activation = network.architecture.layers[-1].activation
    n_outputs, dtype, n = network.architecture.n_outputs, network.architecture.dtype, len(X)
    values = np.empty(n)
    correct = np.zeros(n, dtype=bool)
    for start in range(0, n, EVALUATION_BLOCK):
        rows = slice(start, start + EVALUATION_BLOCK)
        A = np.empty((len(X[rows]), n_outputs), dtype)
        Z = np.empty_like(A)
        network.predictor(X[rows], A, Z)
        network.backend.loss_forward(loss, activation, A, Z, Y[rows], values[rows])
        if loss.correct is not None:
            if Y.ndim == 1:
                correct[rows] = A.argmax(axis=1) == Y[rows]
            else:
                correct[rows] = loss.correct(A, Y[rows])
    scores = {"loss": float(np.average(values, weights=weight))}
    if loss.correct is not None:
        scores["accuracy"] = float(np.average(correct, weights=weight))
    return scores


EVALUATION_BLOCK = 8192


def _check_validation_data(data: Any, network: Network) -> tuple[Array, Array]:
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise TypeError("validation_data: expected a pair (X, y)")
    X = check_inputs(data[0], network.architecture, "validation_data[0]")
    return X, check_targets(data[1], network.architecture, len(X), "validation_data[1]")


class _Snapshot:
    """Parameters, moments, step number and random state at the start of an epoch."""

    def __init__(self, network: Network, state: OptimizerState):
        self.network, self.state = network, state
        self.arenas = [network.arena, *state.moments]
        self.copies = [np.empty_like(arena.flat) for arena in self.arenas]

    def take(self) -> None:
        for arena, copy in zip(self.arenas, self.copies, strict=True):
            copy[:] = arena.flat
        self.step = self.state.step
        self.random_state = self.network.rng.bit_generator.state

    def restore(self) -> None:
        for arena, copy in zip(self.arenas, self.copies, strict=True):
            arena.flat[:] = copy
        self.state.step = self.step
        self.network.rng.bit_generator.state = self.random_state
