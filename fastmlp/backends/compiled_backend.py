"""The compiled backend: chooses threads, hands arrays and records to ``fastmlp._core``; no maths.

Every function is that of `fastmlp.backends.numpy_backend`, to rounding.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from time import perf_counter, thread_time
from typing import Any

import numpy as np

from fastmlp import cfunctions, config
from fastmlp._core import (  # type: ignore[attr-defined]
    activations,
    affine,
    cpu,
    forward,
    losses,
    minibatch,
    net,
    optimizers,
    orders,
    per_sample,
)
from fastmlp.activations import Activation
from fastmlp.architecture import Architecture
from fastmlp.arena import Arena, all_finite
from fastmlp.backends.base import PLAIN, EpochResults, StepOptions, TrainingData
from fastmlp.layers import BatchNorm, Dense, Dropout, LayerBase, LayerNorm
from fastmlp.losses import Loss
from fastmlp.optimizers import Optimizer, OptimizerState

__all__ = ["CompiledBackend"]

Array = np.ndarray

# The order of `enum fm_layer_kind` in csrc/fastmlp.h.
KINDS: dict[type[LayerBase], int] = {Dense: 0, Dropout: 1, LayerNorm: 2, BatchNorm: 3}

# Multiply-adds a thread has to have between two barriers before a second one pays: a barrier and
# the other core's cache misses cost some microseconds (benchmarks/README.md has the crossing
# point).
MULTIPLY_ADDS_PER_THREAD = 2_000_000
# A step of fewer multiply-adds may be no faster on several threads (of digits: 4.4 million); the
# seconds after which the slower of both is tried again.
SHORT_STEP, TRY_AGAIN = 1 << 24, 0.25

# Threads that wait for each other at every step need a CPU each. Where others keep the CPUs busy
# (scikit-learn's BLAS goes on spinning for some 20 ms), an epoch of two threads takes up to ten
# times as long, and one thread does better. It shows: the calling thread then works for less than
# half of the time. After so many such calls in a row (the first one behind a pause may have had to
# wake the others), the epochs go to one thread for ALONE times their time.
CALLS, ALONE = 3, 10


class CompiledBackend:
    """See `fastmlp.backends.base.Backend` for shapes and formulas."""

    name = "compiled"

    def __init__(self) -> None:
        self.pace = Pace()
        isa = config.requested_isa()
        if isa is not None:
            cpu.set_isa(isa)
        cpu.set_native_activations(cfunctions.TABLE)
        # A forked child has none of its parent's worker threads and would wait for them for ever.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=cpu.release_threads)

    def affine_forward(self, X: Array, W: Array, b: Array, Z: Array) -> None:
        affine.affine_forward(X, W, b, Z, self._threads(len(X) * W.size))

    def affine_backward(
        self, X: Array, W: Array, dZ: Array, dW: Array, db: Array, dX: Array | None
    ) -> None:
        n_threads = self._threads(len(X) * W.size)
        affine.affine_backward(X, dZ, dW, db, n_threads)
        if dX is not None:
            transposed = np.empty(W.shape[::-1], W.dtype)
            affine.transpose(W, transposed)
            affine.affine_forward(dZ, transposed, None, dX, n_threads)

    def activation_forward(self, activation: Activation, Z: Array, A: Array) -> None:
        activations.activation_forward(activation.code, Z, A)

    def activation_backward(
        self, activation: Activation, dA: Array, Z: Array, A: Array, dZ: Array
    ) -> None:
        activations.activation_backward(activation.code, dA, Z, A, dZ)

    def loss_forward(
        self, loss: Loss, activation: Activation, A: Array, Z: Array, Y: Array, values: Array
    ) -> None:
        losses.loss_forward(*_codes(loss, activation, A), A, Z, *_targets(Y), values)
        if loss.value_factor != 1:
            values *= loss.value_factor

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
        codes = _codes(loss, activation, A)
        losses.loss_backward(*codes, A, Z, *_targets(Y), scale * loss.factor, dZ)

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
        rule = optimizer.rule
        scalars = optimizer.scalars(np.array([lr], dtype=np.float64), np.array([step]))[0]
        if not decay:
            scalars[3] = 0
        moments = [*states, None, None][:2]
        l2 = rule.l2 if decay else 0.0
        optimizers.optimizer_update(rule.code, rule.beta1, rule.beta2, l2, scalars, w, g, *moments)

    def trainer(
        self,
        architecture: Architecture,
        parameters: Arena,
        state: OptimizerState,
        data: TrainingData,
        options: StepOptions = PLAIN,
    ) -> CompiledTrainer:
        return CompiledTrainer(self, architecture, parameters, state, data, options)

    def predictor(self, architecture: Architecture, parameters: Arena) -> CompiledPredictor:
        return CompiledPredictor(self, architecture, parameters)

    def shuffle(self, random_state: np.random.RandomState, order: Array) -> None:
        orders.shuffle(random_state._bit_generator, order)

    def thread_limit(self) -> int:
        return config.thread_limit(cpu.openmp_limit()) if cpu.have_openmp() else 1

    def describe(self) -> dict[str, object]:
        """What was built and what of it runs, for `show_config`."""
        return {
            "instruction set": cpu.current_isa(),
            "instruction sets built": cpu.built_isas(),
            "openmp": cpu.have_openmp(),
        }

    def _threads(self, multiply_adds: int) -> int:
        """Threads for so much work between two barriers; small work is faster on one."""
        wanted = multiply_adds // MULTIPLY_ADDS_PER_THREAD
        return min(wanted, self.thread_limit()) if wanted > 1 else 1


class Pace:
    """Whether several threads or one are the faster where steps are short: tried out.

    Several gain or lose by how far the CPUs are from each other, which the host of a virtual
    machine may change from minute to minute: a fit of digits with all defaults takes one thread 80
    ms, two 50 or 107. The bits are the same. Of one kind of work at a time.
    """

    def __init__(self) -> None:
        self.work = (0, 0)  # multiply-adds of a step; as many threads as are wanted for it
        self.seconds: dict[int, float] = {}  # a sample's, by threads
        self.tried = 0.0

    def threads(self, multiply_adds: int, wanted: int, now: float) -> int:
        """How many to take at the time `now`: `wanted` or 1."""
        if wanted == 1 or multiply_adds >= SHORT_STEP:
            return wanted
        if self.work != (multiply_adds, wanted):
            self.work, self.seconds = (multiply_adds, wanted), {}
        seconds = self.seconds  # other threads may train as well
        unknown = [n for n in (wanted, 1) if n not in seconds]
        faster, slower = sorted((1, wanted), key=lambda n: seconds.get(n, 0.0))
        if not unknown and now < self.tried + TRY_AGAIN:
            return faster
        self.tried = now
        return unknown[0] if unknown else slower

    def note(self, multiply_adds: int, n_threads: int, seconds: Array, n_samples: int) -> None:
        """The seconds of epochs of so many samples; 0 of those that an end has left out."""
        if multiply_adds == self.work[0] and seconds.all():
            self.seconds[n_threads] = float(seconds.min()) / n_samples


class CompiledTrainer:
    """Plain SGD with batches of one goes sample by sample, everything else batch by batch."""

    def __init__(
        self,
        backend: CompiledBackend,
        architecture: Architecture,
        parameters: Arena,
        state: OptimizerState,
        data: TrainingData,
        options: StepOptions,
    ):
        self.backend = backend
        self.state = state
        self.work = 3 * architecture.multiply_adds * data.batch_size
        self.n_threads = backend._threads(self.work)
        self.alone_until = 0.0
        self.waits: list[float] = []  # seconds of the last calls in a row that waited
        rule = state.optimizer.rule
        self.options = options
        self.own_decay = any(layer.weight_decay is not None for layer in architecture.layers)
        special = any(
            layer.special_step or not isinstance(layer, Dense) for layer in architecture.layers
        )
        special = special or options.clip_value < np.inf or options.measures_norm
        plain = rule.code == 0 and rule.l2 == 0 and rule.average is None and not special
        self.per_sample = data.batch_size == 1 and plain
        gradients = [parameters.like()] if options.clip_norm < np.inf else []
        n_rows = per_sample.ROWS if self.per_sample else data.batch_size
        bound = _bind(
            *(architecture, parameters, n_rows, state.rule_moments, gradients),
            *(options.measures_norm, self.per_sample),
        )
        if self.per_sample:
            self.core = per_sample.PerSampleTrainer(bound, state)
        else:
            average = None if state.average is None else state.average.flat
            self.core = minibatch.MinibatchTrainer(
                bound, data.Y.ndim == 1, rule, options, state, parameters.flat, average
            )
        self.parameters = parameters
        self.bind(data)

    def bind(self, data: TrainingData | None) -> None:
        if data is None:
            self.core.bind(None)
            return
        samples = net.BoundData(data.X, data.Y, data.weight)
        if self.per_sample:
            self.core.bind(samples)
        else:
            finite = all_finite(self.parameters.flat)
            self.core.bind(samples, finite and _many_zeros(data.X), finite)

    def epochs(
        self,
        order: Array,
        rates: Array,
        seeds: Array | None = None,
        first: int = 0,
        results: EpochResults | None = None,
    ) -> EpochResults:
        n_epochs = 1 if seeds is None else len(seeds)
        results = results or EpochResults.zeros(n_epochs, len(rates) // n_epochs)
        if self.per_sample:
            self.n_threads = 1
            self.core.epochs(order, rates, results.sums, results.losses)
        else:
            step = self.state.step + 1
            scalars = self.state.optimizer.scalars(rates, np.arange(step, step + len(rates)))
            began, worked = perf_counter(), thread_time()
            n_threads = 1
            if began >= self.alone_until:
                wanted = self.backend._threads(self.work)
                n_threads = self.backend.pace.threads(self.work, wanted, began)
            self.n_threads = self.core.epochs(
                *(order, scalars, n_threads, results.sums, results.losses),
                *(rates if self.own_decay else None, seeds, first),
            )
            now = perf_counter()
            self.backend.pace.note(self.work, n_threads, results.sums[:, 4], len(order) // n_epochs)
            if self.n_threads > 1:
                waited = thread_time() - worked < 0.5 * (now - began)
                self.waits = [*self.waits, now - began] if waited else []
                if len(self.waits) == CALLS:
                    self.alone_until, self.waits = now + ALONE * sum(self.waits), []
        return results


class CompiledPredictor:
    """All layers in one pass, a block of rows after the other."""

    def __init__(self, backend: CompiledBackend, architecture: Architecture, parameters: Arena):
        self.backend = backend
        self.multiply_adds = architecture.multiply_adds
        few_rows = (2 * MULTIPLY_ADDS_PER_THREAD - 1) // max(1, self.multiply_adds)
        self.core = forward.CompiledForward(_bind(architecture, parameters, 0), few_rows)
        self.predict_few = self.core.predict_few

    def __call__(self, X: Array, out: Array, Z: Array | None = None) -> bool:
        return self.core.run(X, out, Z, self.backend._threads(len(X) * self.multiply_adds))


def _many_zeros(X: Array) -> bool:
    """Whether a sample of the rows says that skipping zeros is worth looking for them."""
    rows = X[:: max(1, len(X) // 64)]
    return bool(np.count_nonzero(rows != 0) < 0.75 * rows.size)  # != first: 10x faster on floats


def _bind(
    architecture: Architecture,
    parameters: Arena,
    n_rows: int,
    moments: Sequence[Arena] = (),
    gradients: Sequence[Arena] = (),
    squares: bool = False,
    one_by_one: bool = False,
) -> net.BoundNet:
    layers = []
    groups = zip(architecture.layers, parameters.pairs(), parameters.groups(), strict=True)
    for i, (layer, trained, group) in enumerate(groups):
        if n_rows == 0 and isinstance(layer, Dropout):
            continue  # nothing at prediction
        description = {
            "kind": KINDS[type(layer)],
            "activation": layer.activation.code,
            "parameters": trained,
            "statistics": group[len(trained) :],
            "moments": [arena.pairs()[i] for arena in moments],
            "gradients": [arena.pairs()[i] for arena in gradients],
            "l1": layer.l1,
            "l2": layer.l2,
            "decay": -1.0 if layer.weight_decay is None else layer.weight_decay,
            "max_norm": layer.max_norm or 0.0,
            "rate": 0.0,
            "epsilon": 0.0,
            "width": architecture.widths[i + 1],
        }
        if isinstance(layer, Dropout):
            description["rate"] = layer.rate
        elif isinstance(layer, LayerNorm | BatchNorm):
            description["epsilon"] = layer.epsilon
        if isinstance(layer, BatchNorm):
            description["rate"] = layer.momentum
        layers.append(description)
    loss, activation = architecture.loss, architecture.layers[-1].activation
    option = loss.option_row(architecture.n_outputs).astype(architecture.dtype)
    codes = loss.code, loss.fuses(activation), option, loss.value_factor, loss.factor
    options = n_rows, squares, one_by_one
    return net.BoundNet(layers, architecture.n_inputs, architecture.dtype, codes, *options)


def _codes(loss: Loss, activation: Activation, A: Array) -> tuple[Any, ...]:
    """Loss, activation, whether they are fused, and the loss's options."""
    option = loss.option_row(A.shape[1]).astype(A.dtype)
    return loss.code, activation.code, loss.fuses(activation), option


def _targets(Y: Array) -> tuple[Array | None, Array | None]:
    """(labels, rows), one of them None."""
    return (Y, None) if Y.ndim == 1 else (None, Y)
