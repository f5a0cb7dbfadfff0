"""The training loop: order, batches, validation, events. And evaluation, which it needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.arena import all_finite
from fastmlp.backends.base import EpochResults, StepOptions, Trainer, TrainingData
from fastmlp.callbacks import Callback
from fastmlp.feeding import ArrayFeed, ChunkFeed, Feed, MappedFeed, Samples, Shuffle
from fastmlp.history import Columns, History
from fastmlp.mapped import MappedRows, row_blocks
from fastmlp.metrics import Metrics, Scorer
from fastmlp.optimizers import Optimizer, OptimizerState
from fastmlp.snapshot import Snapshot
from fastmlp.training_state import CallbackState
from fastmlp.validation import (
    check_count,
    check_inputs,
    check_targets,
    check_weights,
    class_weights,
)

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
    shuffle: Shuffle,
    validation_data: tuple[Any, Any] | None,
    sample_weight: Any,
    options: StepOptions,
    class_weight: Mapping[int, float] | str | None = None,
    metrics: Iterable[str | Scorer] | Mapping[str, str | Scorer],
    callbacks: Sequence[Callback],
) -> History:
    """See `Network.fit`; `X` may be `Samples` that are checked already."""
    architecture = network.architecture
    architecture.check_trainable()
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"optimizer: expected an optimizer such as Adam(), got {type(optimizer).__name__}"
        )
    epochs = check_count(epochs, "epochs", 0)
    batch_size = check_count(batch_size, "batch_size")
    if not (isinstance(shuffle, bool | np.bool_) or shuffle == "blocks" or callable(shuffle)):
        raise ValueError(f"shuffle: expected True, False, 'blocks' or a function, got {shuffle!r}")
    feed = _feed(network, X, y, sample_weight, class_weight, epochs, batch_size, shuffle)
    if validation_data is not None:
        validation_data = _check_validation_data(validation_data, network)
    scores = Metrics(metrics, architecture)
    if scores.scorers and validation_data is None:
        raise ValueError("metrics: expected validation_data beside them, which they are taken of")
    callbacks = _check_callbacks(callbacks)

    state = network.optimizer_state
    if state is None or state.optimizer != optimizer:
        state = network.optimizer_state = OptimizerState(optimizer, network.arena)
    start = network._start_of_epoch
    if start is None or start.state is not state or start.arenas[0] is not network.arena:
        start = network._start_of_epoch = Snapshot(network, state)
    history = History()
    first = network.history.last_epoch + 1
    resumed, network.resumed_callbacks = network.resumed_callbacks, []
    with ExitStack() as at_end:
        at_end.callback(setattr, network, "callbacks", ())
        network.callbacks = tuple(callbacks)
        for callback in callbacks:
            at_end.callback(callback.on_fit_end, network, history)
            callback.on_fit_begin(network, epochs=epochs, n_samples=feed.n_samples)
            _restore(callback, network, resumed)
        run = _Run(network, state, options, feed, callbacks, history)
        at_end.callback(run.end)
        together = run.most_epochs() if validation_data is None else 1
        epoch, end = first, first + epochs
        while epoch < end:
            # As a list: every callback sees the epoch begin, whoever ends the fit.
            enders = [c for c in callbacks if c.on_epoch_begin(network, epoch)]
            if enders:
                history.stop_reason = type(enders[0]).__name__
                return history
            start.take()
            n = min(together, end - epoch, _unseen_epochs(callbacks, together))
            done = run.epochs(epoch, n, start)
            finite = run.finite(done)
            if n > 1 and not finite:  # again, one by one, up to that which diverged
                start.restore()
                run.rewind_orders()
                together, done = 1, run.epochs(epoch, 1, start)
                finite = run.finite(done)
            if not finite:
                start.restore()
                raise DivergenceError(
                    f"training diverged in epoch {epoch} at learning rate {done.first_rate:g}: the "
                    "loss or a parameter is not finite. The network is as it was at the start of "
                    "that epoch; try a smaller learning rate or scaled inputs"
                )
            validation = {}
            if validation_data is not None:
                validation = evaluate(network, *validation_data, None)
                validation |= scores.evaluate(network, *validation_data)
            run.record(epoch, done, validation)
            if not state.foresees_rates:
                state.observe(history.records[-1])
            epoch += len(done)
            enders = run.tell(len(done))
            stopped_by = done.stopped_by or next(iter(enders), None)
            if stopped_by:
                history.stop_reason = type(stopped_by).__name__
                return history
        history.stop_reason = "epochs"
    return history


def _feed(
    network: Network,
    X: Any,
    y: Any,
    sample_weight: Any,
    class_weight: Mapping[int, float] | str | None,
    epochs: int,
    batch_size: int,
    shuffle: Shuffle,
) -> Feed:
    """Where the samples come from; arrays are checked here, chunks as they are read."""
    architecture = network.architecture
    if y is None and not isinstance(X, Samples) and not hasattr(X, "shape"):
        if not isinstance(X, Iterable) and not callable(X):
            raise TypeError(
                "y: expected targets; only chunks (X, y), an iterable of them or a function that "
                f"returns one, come without; got {type(X).__name__}"
            )
        if isinstance(X, Iterator) and epochs > 1:
            raise ValueError(
                f"epochs: expected 1 for an iterator, which can be read once, got {epochs}; pass a "
                "list or a function that returns a new iterator"
            )
        if sample_weight is not None:
            raise ValueError(
                "sample_weight: expected None, chunks bring theirs: (X, y, sample_weight)"
            )
        if class_weight is not None:
            raise ValueError(
                "class_weight: expected None, chunks bring their weights: (X, y, sample_weight)"
            )
        return ChunkFeed(architecture, X, batch_size, shuffle)
    if isinstance(X, Samples):
        samples = X
    else:
        X = check_inputs(X, architecture)
        Y = check_targets(y, architecture, len(X))
        weight = check_weights(sample_weight, len(X))
        samples = Samples(X, Y, class_weights(class_weight, Y, weight, architecture))
    feed = MappedFeed if isinstance(samples.X, MappedRows) else ArrayFeed
    return feed(samples, batch_size, shuffle)


def evaluate(
    network: Network, X: Array | MappedRows, Y: Array, weight: Array | None
) -> dict[str, float]:
    """Mean loss, and accuracy for classes, of checked arrays; a block of rows at a time."""
    loss = network.architecture.loss
    activation = network.architecture.layers[-1].activation
    n_outputs, dtype, n = network.architecture.n_outputs, network.architecture.dtype, len(X)
    values = np.empty(n)
    correct = np.zeros(n, dtype=bool)
    for rows in row_blocks(X, EVALUATION_BLOCK):
        A = np.empty((rows.stop - rows.start, n_outputs), dtype)
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


def _check_validation_data(data: Any, network: Network) -> tuple[Array | MappedRows, Array]:
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise TypeError("validation_data: expected a pair (X, y)")
    X = check_inputs(data[0], network.architecture, "validation_data[0]")
    return X, check_targets(data[1], network.architecture, len(X), "validation_data[1]")


def _check_callbacks(callbacks: Iterable[Any]) -> list[Callback]:
    """In the order in which they are called."""
    callbacks = list(callbacks)
    for i, callback in enumerate(callbacks):
        if not isinstance(callback, Callback):
            what = callback.__name__ if isinstance(callback, type) else type(callback).__name__
            raise TypeError(f"callbacks[{i}]: expected an instance of Callback, got {what}")
        if callback.every_n_steps is not None:
            check_count(callback.every_n_steps, f"callbacks[{i}].every_n_steps")
    return sorted(callbacks, key=lambda callback: callback.order)


def _unseen_epochs(callbacks: Sequence[Callback], most: int) -> int:
    """As many of the next epochs as no callback wants to see before they end, at most `most`."""
    for callback in callbacks:
        name = f"{type(callback).__name__}.epochs_at_once()"
        most = min(most, check_count(callback.epochs_at_once(), name))
    return most


def _restore(callback: Callback, network: Network, resumed: list[CallbackState]) -> None:
    """Give it the first state of its kind, if there is one."""
    for i, (name, state) in enumerate(resumed):
        if name == type(callback).__name__:
            callback.restore(network, state)
            del resumed[i]
            return


@dataclass
class _Epochs:
    """What the steps of some epochs came to; arrays have an element an epoch."""

    result: EpochResults
    n_samples: int = 0  # of each
    first_rate: float = 0.0
    last_rates: Array = field(default_factory=lambda: np.zeros(0))
    stopped_by: Callback | None = None

    def __len__(self) -> int:
        return len(self.result.sums)


class _Run:
    """The epochs of a fit: the backend's trainer, bound anew where the data are others.

    The trainer stays with the network for the next fit: partial_fit with 256 rows takes half as
    long again with a new one. While it works the network does not have it: a fit by a callback or
    another thread makes its own.
    """

    KEPT_BYTES = 1 << 24

    def __init__(
        self,
        network: Network,
        state: OptimizerState,
        options: StepOptions,
        feed: Feed,
        callbacks: Sequence[Callback],
        history: History,
    ):
        self.network, self.state, self.options, self.feed = network, state, options, feed
        self.callbacks, self.histories = callbacks, (history, network.history)
        self.steps = _StepHooks(network, state, callbacks)
        self.kept, network._trainer = network._trainer, None
        self.bound: TrainingData | None = None

    def most_epochs(self) -> int:
        """Epochs that may run at once, where nobody looks at the network between them.

        One, where a rate may depend on the epoch before it, steps are looked at, or the random
        stream gives orders and seeds of layers by turns.
        """
        alone = self.network.architecture.random or not self.state.foresees_rates
        return 1 if alone or self.steps.hooked else self.feed.most_epochs

    def epochs(self, number: int, n: int, start: Snapshot) -> _Epochs:
        """Epoch `number` and those behind it, `n` in all; `start` is how it was before."""
        network = self.network
        if n > 1:
            assert isinstance(self.feed, ArrayFeed)  # others give one at a time
            self.orders = self.feed.state(network.rng)
        done = _Epochs(EpochResults.zeros(n, 0))
        seed = int(network.rng.integers(1 << 63)) if network.architecture.random else 0
        seeds = np.full(n, seed, np.uint64)
        began = perf_counter()
        try:
            for data, order, rates in self.steps.stretches(self.feed.epochs(network.rng, n), n):
                part = self._stretch(done, data, order, rates, seeds, began)
                if not np.isfinite(part.total_loss).all():
                    break
                done.stopped_by = self.steps.call(number, part, float(rates[-1]))
                if done.stopped_by:
                    break
                began = perf_counter()
        except BaseException:
            if n > 1:
                self._keep_finished(number, done, start)
            raise
        return done

    def _stretch(
        self,
        done: _Epochs,
        data: TrainingData,
        order: Array,
        rates: Array,
        seeds: Array,
        began: float,
    ) -> EpochResults:
        """Steps with nothing between them, added to `done`, also where an exception ends them."""
        n = len(done)
        part = EpochResults.zeros(n, len(rates) // n)
        trainer = self._trainer(data)
        try:
            with self.state.at_work():
                trainer.epochs(order, rates, seeds, done.n_samples, part)
        finally:
            # What went before the steps belongs to all epochs alike.
            part.seconds[:] += (perf_counter() - began - part.seconds.sum()) / n
            if self.options.count_samples and data.weight is not None:
                part = part.by_samples(len(order) // n, data.batch_size)
            done.result += part
            done.n_samples += len(order) // n
            done.first_rate, done.last_rates = float(rates[0]), rates.reshape(n, -1)[:, -1]
        return part

    def finite(self, done: _Epochs) -> bool:
        """Whether losses and parameters are."""
        return all_finite(done.result.total_loss) and all_finite(self.network.arena.flat)

    def rewind_orders(self) -> None:
        """As if those of the last epochs, which were several, had not been drawn."""
        assert isinstance(self.feed, ArrayFeed)
        self.feed.rewind(self.network.rng, self.orders)

    def _keep_finished(self, number: int, done: _Epochs, start: Snapshot) -> None:
        """Of several epochs that an exception cut short: records of those that ended, and the
        random state as if the orders behind had not been drawn.
        """
        self.rewind_orders()
        if n_steps := done.result.n_steps:  # else it came before the first step
            finished, rest = divmod(self.state.step - start.step, n_steps)
            if begun := finished + (rest > 0):
                next(iter(self.feed.epochs(self.network.rng, begun)))
            self.record(number, done, {}, finished)
            self.tell(finished)

    def tell(self, n: int) -> list[Callback]:
        """The callbacks of the last `n` epochs; those that want to end the fit."""
        if not self.callbacks:
            return []
        records = self.histories[0].records
        calls = ((c, record) for record in records[len(records) - n :] for c in self.callbacks)
        return [c for c, record in calls if c.on_epoch_end(self.network, record)]

    def record(
        self, number: int, done: _Epochs, validation: Mapping[str, float], n: int | None = None
    ) -> None:
        """Put epochs from `number` on, the first `n` of them, into the histories; `validation`
        belongs to a single one.
        """
        result, n_samples = done.result, done.n_samples
        columns: dict[str, Any] = {
            "epoch": np.arange(number, number + len(done)),
            "loss": result.loss,
        }
        if self.network.architecture.loss.correct is not None:
            columns["accuracy"] = result.correct / n_samples
        columns |= {f"val_{name}": [value] for name, value in validation.items()}
        if self.options.measures_norm:
            columns["gradient_norm"] = result.norms / result.n_steps
        columns["lr"] = done.last_rates
        columns["seconds"] = result.seconds
        columns["samples_per_second"] = n_samples / result.seconds
        finished = Columns({name: values[:n] for name, values in columns.items()})
        for history in self.histories:
            history.extend(finished)

    def _trainer(self, data: TrainingData) -> Trainer:
        network = self.network
        if self.kept is None or data is not self.bound:
            parts = network.architecture, network.arena, self.state
            made_for = network.backend, *parts, self.options, data.form
            if self.kept is not None and self.kept[0] == made_for:
                self.kept[1].bind(data)
            else:
                self.kept = made_for, network.backend.trainer(*parts, data, self.options)
            self.bound = data
        return self.kept[1]

    def end(self) -> None:
        """Let go of the data; leave the trainer to the next fit, unless its memory is large."""
        a, rows = self.network.architecture, 0
        if self.kept is not None and self.bound is not None:
            self.kept[1].bind(None)
            rows = self.bound.batch_size
        if rows * sum(a.widths) * a.dtype.itemsize <= self.KEPT_BYTES:
            self.network._trainer = self.kept


class _StepHooks:
    """Cuts an epoch's steps where a callback wants to be called, and calls it."""

    def __init__(self, network: Network, state: OptimizerState, callbacks: Sequence[Callback]):
        self.network, self.state = network, state
        self.hooked = [(c, c.every_n_steps) for c in callbacks if c.every_n_steps]
        self.since_last_call = [EpochResults.zeros(1, 0) for _ in self.hooked]

    def stretches(
        self, feed: Iterable[tuple[TrainingData, Array]], n_epochs: int
    ) -> Iterator[tuple[TrainingData, Array, Array]]:
        """What epochs take, in pieces between the calls: data, samples, rates of the steps."""
        for data, order in feed:
            first, n_steps = self.state.step, n_epochs * data.n_steps(len(order) // n_epochs)
            rates = self.state.rates(n_steps)
            start = 0
            while start < n_steps:
                ahead = [n - (first + start) % n for _, n in self.hooked]
                stop = min(n_steps, start + min(ahead, default=n_steps))
                samples = order[start * data.batch_size : stop * data.batch_size]
                yield data, samples, rates[start:stop]
                start = stop

    def call(self, epoch: int, part: EpochResults, lr: float) -> Callback | None:
        """After a stretch; the first callback that wants to stop, if one does."""
        stopped_by = None
        step = self.state.step
        for i, (callback, n) in enumerate(self.hooked):
            result = self.since_last_call[i] = self.since_last_call[i] + part
            if step % n == 0:
                self.since_last_call[i] = EpochResults.zeros(1, 0)
                loss = float(result.loss[0])
                record = {"epoch": epoch, "step": step, "loss": loss, "lr": lr}
                if callback.on_step_end(self.network, record):
                    stopped_by = stopped_by or callback
        return stopped_by
