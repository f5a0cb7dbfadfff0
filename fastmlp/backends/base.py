"""What a backend is: the kernels that a network calls, the same for every backend.

`numpy_backend` is the specification; `compiled_backend` does the same over ``csrc/``. Activations,
losses and optimizers reach a backend as records, so a new one changes nothing here.

Arrays are 2-D with contiguous rows (the distance between rows is free), of the network's dtype,
checked by the caller. ``# IN`` is read, ``# OUT`` is overwritten. ``Y`` is (n, n_outputs), or
integer labels (n,).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from fastmlp.activations import Activation
from fastmlp.architecture import Architecture
from fastmlp.arena import Arena
from fastmlp.losses import Loss
from fastmlp.optimizers import Optimizer, OptimizerState

__all__ = [
    "TOGETHER",
    "Backend",
    "EpochResults",
    "Predictor",
    "StepOptions",
    "Trainer",
    "TrainingData",
]

Array = np.ndarray

# Batches of one are taken up in blocks of so many (csrc/sgd.inl.h), counted from the first of a
# call: where an epoch is divided into calls of other lengths, sums round in another order.
TOGETHER = 4


@dataclass(frozen=True)
class TrainingData:
    """Samples to train on.

    Attributes
    ----------
    X : ndarray of shape (n, n_inputs)
        Of the network's dtype, or uint8: pixels, which count as ``X / 255``. Contiguous rows.
    Y : ndarray of shape (n, n_outputs), or (n,) int64 labels
    weight : ndarray of shape (n,) or None
        float64. The loss of a batch is the mean with these weights.
    batch_size : int
    """

    X: Array
    Y: Array
    weight: Array | None
    batch_size: int

    @property
    def form(self) -> tuple[int, int]:
        """What data must have in common to be trained on by one trainer."""
        return self.batch_size, self.Y.ndim

    def n_steps(self, n_samples: int) -> int:
        """Batches that `n_samples` samples make; the last may be smaller."""
        return -(-n_samples // self.batch_size)


@dataclass(frozen=True)
class StepOptions:
    """What a step does besides the optimizer's rule.

    Attributes
    ----------
    divide_penalty : bool
        Divide the layers' penalties by the sum of the batch's sample weights (its number of samples
        without weights), as scikit-learn does with ``alpha``.
    count_samples : bool
        An epoch's loss is the mean of its batches' losses by their numbers of samples, as
        scikit-learn's; otherwise by the sums of their weights.
    clip_value : float
        Every element of the gradient, penalties included, is kept in [-clip_value, clip_value].
    clip_norm : float
        Then a gradient of all parameters whose Euclidean norm is above this is scaled back to it.
    gradient_norm : bool
        Measure that norm, as it is before it is scaled back.
    """

    divide_penalty: bool = False
    count_samples: bool = False
    clip_value: float = np.inf
    clip_norm: float = np.inf
    gradient_norm: bool = False

    @property
    def measures_norm(self) -> bool:
        return self.gradient_norm or self.clip_norm < np.inf


PLAIN = StepOptions()


@dataclass(frozen=True)
class EpochResults:
    """What passes over the data gave, one after the other, each batch before its update.

    Attributes
    ----------
    sums : ndarray of shape (n_epochs, 5)
        A row a pass, filled as it goes: the columns below.
    losses : ndarray of shape (n_epochs * n_steps,)
        Each batch's mean loss with penalties.
    n_steps : int
        Of a pass.
    """

    sums: Array
    losses: Array
    n_steps: int

    @classmethod
    def zeros(cls, n_epochs: int, n_steps: int) -> EpochResults:
        return cls(np.zeros((n_epochs, 5)), np.zeros(n_epochs * n_steps), n_steps)

    @property
    def total_loss(self) -> Array:
        """Sums over the samples of weight times loss, with the batches' penalties.

        Where it is not finite, the passes stopped at that batch.
        """
        return self.sums[:, 0]

    @property
    def weight(self) -> Array:
        """Sums of the samples' weights."""
        return self.sums[:, 1]

    @property
    def correct(self) -> Array:
        """Samples that counted as right; 0 for a loss without classes."""
        return self.sums[:, 2]

    @property
    def norms(self) -> Array:
        """Sums over the steps of the gradient's norm, where it was measured."""
        return self.sums[:, 3]

    @property
    def seconds(self) -> Array:
        """What the steps took; 0 for a pass that was not begun."""
        return self.sums[:, 4]

    @property
    def loss(self) -> Array:
        """Mean losses."""
        # Python's numbers: mostly there is one, and NumPy takes ten times as long for it.
        return np.array([total / (weight or 1.0) for total, weight in self.sums[:, :2].tolist()])

    def by_samples(self, n_samples: int, batch_size: int) -> EpochResults:
        """The same with losses that count each batch by its samples, not by their weights."""
        sizes = np.diff(np.append(np.arange(0, n_samples, batch_size), n_samples))
        sums = self.sums.copy()
        sums[:, 0] = (self.losses.reshape(-1, self.n_steps) * sizes).sum(axis=1)
        sums[:, 1] = n_samples
        return replace(self, sums=sums)

    def __add__(self, other: EpochResults) -> EpochResults:
        """Parts of the same passes together, without the losses of batches."""
        return EpochResults(self.sums + other.sums, np.zeros(0), self.n_steps + other.n_steps)


class Trainer(Protocol):
    """The loop over steps and epochs, with the memory that it works in."""

    def bind(self, data: TrainingData | None) -> None:
        """Train on other data of the same form from here on; None lets go of them."""

    def epochs(
        self,
        order: Array,
        rates: Array,
        seeds: Array | None = None,
        first: int = 0,
        results: EpochResults | None = None,
    ) -> EpochResults:
        """Passes over the data, each over equally many samples, with nothing between them.

        `order` has the samples of all passes, `rates` a learning rate for each of their steps.
        Random numbers of layers come from the pass's seed in `seeds` (n_epochs,), uint64, and each
        sample's place in it, of which `first` is the first sample's. None is one pass with seed 0.
        Fills and returns `results`, new ones where they are None.

        Updates parameters, moments and the step number in place, batch after batch.
        KeyboardInterrupt leaves them, and `results`, as the last finished step left them.
        """


class Predictor(Protocol):
    """A forward pass through all layers, set up once a network."""

    def __call__(self, X: Array, out: Array, Z: Array | None = None) -> bool:
        """Outputs for `X` (n, n_inputs), of the network's dtype or uint8 pixels.

        Fills `out` (n, n_outputs), and `Z`, the last layer's pre-activation, where it is given.
        Returns whether `X` is finite.
        """

    def predict_few(self, X: Any) -> Array | None:
        """Outputs (n, n_outputs) for an `X` that nobody has checked, where the backend sees at once
        that it is a plain array of a few finite rows; None for everything else, right or wrong.
        """


class Backend(Protocol):
    name: str

    def affine_forward(self, X: Array, W: Array, b: Array, Z: Array) -> None:
        """Z = X W + b.

        X (n, n_in) # IN, W (n_in, n_out) # IN, b (n_out,) # IN, Z (n, n_out) # OUT
        """

    def affine_backward(
        self, X: Array, W: Array, dZ: Array, dW: Array, db: Array, dX: Array | None
    ) -> None:
        """DW = X^T dZ, db = sum over samples of dZ, dX = dZ W^T (None: not wanted).

        X (n, n_in), W (n_in, n_out), dZ (n, n_out) # IN; dW, db, dX # OUT, shapes of W, b, X
        """

    def activation_forward(self, activation: Activation, Z: Array, A: Array) -> None:
        """A = activation(Z). Z (n, n_units) # IN, A (n, n_units) # OUT"""

    def activation_backward(
        self, activation: Activation, dA: Array, Z: Array, A: Array, dZ: Array
    ) -> None:
        """DZ = dA times the derivative at Z. dA, Z, A (n, n_units) # IN, dZ (n, n_units) # OUT"""

    def loss_forward(
        self, loss: Loss, activation: Activation, A: Array, Z: Array, Y: Array, values: Array
    ) -> None:
        """Each sample's loss for outputs A = activation(Z).

        A, Z (n, n_outputs), Y # IN, values (n,) float64 # OUT
        """

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
        """dZ[s] = scale[s] times the gradient of sample s's loss with respect to Z[s].

        A, Z (n, n_outputs), Y, scale (n,) float64 # IN, dZ (n, n_outputs) # OUT
        """

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
        """One update of flat arrays; `step` counts from 1.

        g (n,) # IN; w, states (n,) # IN and OUT
        """

    def trainer(
        self,
        architecture: Architecture,
        parameters: Arena,
        state: OptimizerState,
        data: TrainingData,
        options: StepOptions = PLAIN,
    ) -> Trainer:
        """The epoch loop over `data`; ``batch_size=1`` is the per-sample loop."""

    def predictor(self, architecture: Architecture, parameters: Arena) -> Predictor:
        """The forward pass with the parameters as they are at each call."""

    def shuffle(self, random_state: np.random.RandomState, order: Array) -> None:
        """Shuffle `order` (n,) intp in place, n >= 1, with the draws of `random_state.shuffle`."""

    def thread_limit(self) -> int:
        """Threads that a call made now may use."""
