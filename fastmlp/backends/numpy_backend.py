"""The specification: every kernel as its formula, in NumPy, for any float dtype.

The oracle of the compiled core's tests, the fallback where there is no compiled core, and where a
user's own activations and losses run.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np

from fastmlp import propagation
from fastmlp.activations import Activation
from fastmlp.architecture import Architecture
from fastmlp.arena import Arena
from fastmlp.backends.base import PLAIN, EpochResults, StepOptions, TrainingData
from fastmlp.backends.interrupts import InterruptsBetweenSteps
from fastmlp.layers import LayerCache, TrainingPass
from fastmlp.losses import Loss
from fastmlp.optimizers import Optimizer, OptimizerState
from fastmlp.validation import scale_pixels

__all__ = ["NumpyBackend"]

Array = np.ndarray

# Elements of an update at a time. An array of 100,000s of them per term of the formula can be new
# memory from the system every time: Adam on 235,146 parameters then takes 2.9 ms instead of 0.6.
UPDATE_BLOCK = 1 << 15

# Divergence is found by looking at the loss, and saturated exponentials are meant: no warnings.
_quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")


class NumpyBackend:
    """See `fastmlp.backends.base.Backend` for shapes and formulas."""

    name = "numpy"

    @_quiet
    def affine_forward(self, X: Array, W: Array, b: Array, Z: Array) -> None:
        Z[...] = X @ W + b

    @_quiet
    def affine_backward(
        self, X: Array, W: Array, dZ: Array, dW: Array, db: Array, dX: Array | None
    ) -> None:
        dW[...] = X.T @ dZ
        db[...] = dZ.sum(axis=0)
        if dX is not None:
            dX[...] = dZ @ W.T

    @_quiet
    def activation_forward(self, activation: Activation, Z: Array, A: Array) -> None:
        A[...] = activation.forward(Z)

    @_quiet
    def activation_backward(
        self, activation: Activation, dA: Array, Z: Array, A: Array, dZ: Array
    ) -> None:
        dZ[...] = activation.backward(dA, Z, A)

    @_quiet
    def loss_forward(
        self, loss: Loss, activation: Activation, A: Array, Z: Array, Y: Array, values: Array
    ) -> None:
        Y = _rows(Y, A)
        if loss.value_from_z is not None and loss.fuses(activation):
            values[...] = loss.value_from_z(Z, Y)
        else:
            values[...] = loss.value(A, Y)
        values *= loss.value_factor

    @_quiet
    def loss_backward(
        self,
        loss: Loss,
        activation: Activation,
        A: Array,
        Z: Array,
        Y: Array,
        scale: Array,
        dZ: Array,
    ) -> None:
        Y = _rows(Y, A)
        scale = (scale * loss.factor)[:, None].astype(A.dtype)
        if loss.gradient_from_z is not None and loss.fuses(activation):
            dZ[...] = loss.gradient_from_z(A, Z, Y) * scale
        else:
            dZ[...] = activation.backward(loss.gradient(A, Y) * scale, Z, A)

    @_quiet
    def optimizer_update(
        self,
        optimizer: Optimizer,
        w: Array,
        g: Array,
        states: list[Array],
        lr: float,
        step: int,
        decay: bool,
    ) -> None:
        for start in range(0, len(w), UPDATE_BLOCK):
            part = slice(start, start + UPDATE_BLOCK)
            optimizer.update(w[part], g[part], [s[part] for s in states], float(lr), step, decay)

    def trainer(
        self,
        architecture: Architecture,
        parameters: Arena,
        state: OptimizerState,
        data: TrainingData,
        options: StepOptions = PLAIN,
    ) -> NumpyTrainer:
        return NumpyTrainer(self, architecture, parameters, state, data, options)

    def predictor(self, architecture: Architecture, parameters: Arena) -> NumpyPredictor:
        return NumpyPredictor(self, architecture, parameters)

    def shuffle(self, random_state: np.random.RandomState, order: Array) -> None:
        random_state.shuffle(order)

    def thread_limit(self) -> int:
        """1: the threads of NumPy's matrix product are its own."""
        return 1


class NumpyTrainer:
    """Batch after batch: forward, loss, backward, update."""

    def __init__(
        self,
        backend: NumpyBackend,
        architecture: Architecture,
        parameters: Arena,
        state: OptimizerState,
        data: TrainingData,
        options: StepOptions,
    ):
        self.backend = backend
        self.architecture = architecture
        self.parameters = parameters
        self.state = state
        self.bind(data)
        self.options = options
        self.gradients = parameters.like()
        self.interrupts = InterruptsBetweenSteps()

    def bind(self, data: TrainingData | None) -> None:
        self.data = data

    def epochs(
        self,
        order: Array,
        rates: Array,
        seeds: Array | None = None,
        first: int = 0,
        results: EpochResults | None = None,
    ) -> EpochResults:
        data = self.data
        if data is None:
            raise RuntimeError("epochs: expected data, see bind")
        n_epochs = 1 if seeds is None else len(seeds)
        results = results or EpochResults.zeros(n_epochs, len(rates) // n_epochs)
        seeds = np.zeros(1, np.uint64) if seeds is None else seeds
        passes = zip(
            *(order.reshape(n_epochs, -1), rates.reshape(n_epochs, -1), seeds.tolist()),
            *(results.sums, results.losses.reshape(n_epochs, -1)),
            strict=True,
        )
        with self.interrupts:
            self.interrupts.updating = False
            for each in passes:
                if not self._epoch(data, first, *each):
                    break
        return results

    def _epoch(
        self,
        data: TrainingData,
        first: int,
        order: Array,
        rates: Array,
        seed: int,
        sums: Array,
        losses: Array,
    ) -> bool:
        """One pass; whether its loss is finite."""
        size = data.batch_size
        began = perf_counter()
        for i, lr in enumerate(rates):
            batch = order[i * size : (i + 1) * size]
            losses[i], weight, correct, norm = self._step(
                data, batch, lr, TrainingPass(seed, first + i * size)
            )
            sums[:4] += (losses[i] * weight, weight, correct, norm)
            sums[4] = perf_counter() - began
            self.interrupts.updating = False
            if not np.isfinite(sums[0]):
                break
        return bool(np.isfinite(sums[0]))

    def _step(
        self, data: TrainingData, batch: Array, lr: float, training: TrainingPass
    ) -> tuple[float, float, int, float]:
        backend, architecture = self.backend, self.architecture
        X = scale_pixels(data.X[batch], architecture.dtype)
        Y = data.Y[batch]
        weight = np.ones(len(batch)) if data.weight is None else data.weight[batch]
        caches = propagation.forward(backend, architecture, self.parameters, X, training)
        A, Z = caches[-1].A, caches[-1].Z
        values = np.empty(len(batch))
        loss, activation = architecture.loss, architecture.layers[-1].activation
        backend.loss_forward(loss, activation, A, Z, Y, values)
        with np.errstate(over="ignore", invalid="ignore"):  # infinity times a weight of 0
            batch_loss = float(values @ weight)
        if not np.isfinite(batch_loss):
            return batch_loss, 1.0, 0, 0.0
        total = float(weight.sum())
        divisor = total or 1.0
        scale = weight / divisor
        propagation.backward(
            backend, architecture, self.parameters, caches, Y, scale, self.gradients
        )
        share = 1 / divisor if self.options.divide_penalty else 1.0
        penalty = propagation.add_penalties(architecture, self.parameters, share, self.gradients)
        norm = _limit(self.gradients.flat, self.options)
        self.interrupts.updating = True
        self._update(lr, caches)
        correct = int(loss.correct(A, _rows(Y, A)).sum()) if loss.correct else 0
        return batch_loss / divisor + penalty, total, correct, norm

    def _update(self, lr: float, caches: list[LayerCache]) -> None:
        """Decay, the optimizer's rule, the layers' constraints, the average of the parameters."""
        state, layers = self.state, self.architecture.layers
        groups = self.parameters.groups()
        for layer, values in zip(layers, groups, strict=True):
            layer.decay(values, lr)
        for segment in self.parameters.segments:
            if not segment.trained:
                continue
            own_decay = layers[segment.layer].weight_decay is not None
            part = slice(segment.offset, segment.stop)
            self.backend.optimizer_update(
                state.optimizer,
                self.parameters.flat[part],
                self.gradients.flat[part],
                [moment.flat[part] for moment in state.rule_moments],
                lr,
                state.step + 1,
                segment.decays and not own_decay,
            )
        for layer, values, cache in zip(layers, groups, caches, strict=True):
            layer.constrain(values)
            layer.observe(values, cache)
        if state.average is not None:
            average, decay = state.average.flat, state.optimizer.rule.average or 0.0
            average += (1 - decay) * (self.parameters.flat - average)
        state.step += 1


class NumpyPredictor:
    """All layers, a block of rows at a time, so that memory stays flat."""

    BLOCK = 4096

    def __init__(self, backend: NumpyBackend, architecture: Architecture, parameters: Arena):
        self.backend = backend
        self.architecture = architecture
        self.parameters = parameters

    def __call__(self, X: Array, out: Array, Z: Array | None = None) -> bool:
        finite = True
        for start in range(0, len(X), self.BLOCK):
            rows = slice(start, start + self.BLOCK)
            block = scale_pixels(X[rows], self.architecture.dtype)
            caches = propagation.forward(self.backend, self.architecture, self.parameters, block)
            out[rows] = caches[-1].A
            if Z is not None:
                Z[rows] = caches[-1].Z
            finite &= bool(np.isfinite(block).all())
        return finite

    def predict_few(self, X: Any) -> Array | None:
        return None


def _limit(gradient: Array, options: StepOptions) -> float:
    """Clip the gradient by value and by norm; its norm between the two, 0 where nobody asked."""
    if options.clip_value < np.inf:
        np.clip(gradient, -options.clip_value, options.clip_value, out=gradient)
    if not options.measures_norm:
        return 0.0
    norm = float(np.sqrt(np.square(gradient, dtype=np.float64).sum()))
    if norm > options.clip_norm:
        gradient *= gradient.dtype.type(options.clip_norm / norm)
    return norm


def _rows(Y: Array, A: Array) -> Array:
    """Integer labels (n,) as one-hot rows; rows as they are."""
    if Y.ndim == 2:
        return Y
    rows = np.zeros_like(A)
    rows[np.arange(len(Y)), Y] = 1
    return rows
