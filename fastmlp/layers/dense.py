"""The fully connected layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.activations import Activation, get_activation
from fastmlp.initializers import Initializer, get_initializer
from fastmlp.layers.base import Array, Arrays, LayerBase, LayerCache, TrainingPass, check_number

if TYPE_CHECKING:
    from fastmlp.backends.base import Backend

__all__ = ["DENSE_OPTIONS", "Dense"]

DENSE_OPTIONS = ("l1", "l2", "weight_decay", "max_norm")


@dataclass(frozen=True)
class Dense(LayerBase):
    """Fully connected layer, ``A = activation(X W + b)``.

    Parameters
    ----------
    n_units : int
        At least 1.
    activation : str or Activation, default "identity"
    init : str, callable or None, default None
        Initial weights: a name, or ``init(rng, n_in, n_out) -> (n_in, n_out)``. None takes the one
        that suits the activation. Biases start at 0.
    l1, l2 : float, default 0
        Penalties on the weights: training minimises the loss plus ``l1 sum |W| + l2 / 2 sum W^2``.
        They count in the loss that training reports, not in `Network.evaluate`.
    weight_decay : float or None, default None
        Decoupled decay, ``W -= lr weight_decay W`` in front of the optimizer's step (Loshchilov and
        Hutter 2019, https://arxiv.org/abs/1711.05101); in place of a ``weight_decay`` of the
        optimizer, which None leaves.
    max_norm : float or None, default None
        Largest Euclidean norm of a unit's weights (a column of W): behind each step, longer ones
        are scaled back to it. Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html,
        section 5.1.

    Raises
    ------
    TypeError, ValueError
        For an argument that is none of these.
    """

    n_units: int
    activation: Activation
    init: str | Initializer | None = None
    l1: float = 0.0
    l2: float = 0.0
    weight_decay: float | None = None
    max_norm: float | None = None

    def __init__(
        self,
        n_units: int,
        activation: str | Activation = "identity",
        init: str | Initializer | None = None,
        *,
        l1: float = 0.0,
        l2: float = 0.0,
        weight_decay: float | None = None,
        max_norm: float | None = None,
    ):
        if isinstance(n_units, bool) or not hasattr(n_units, "__index__"):
            raise TypeError(f"n_units: expected an integer, got {type(n_units).__name__}")
        if n_units.__index__() < 1:
            raise ValueError(f"n_units: expected at least 1, got {n_units}")
        if init is not None:
            get_initializer(init)
        object.__setattr__(self, "n_units", n_units.__index__())
        object.__setattr__(self, "activation", get_activation(activation))
        object.__setattr__(self, "init", init)
        object.__setattr__(self, "l1", check_number(l1, "l1"))
        object.__setattr__(self, "l2", check_number(l2, "l2"))
        if weight_decay is not None:
            weight_decay = check_number(weight_decay, "weight_decay")
        object.__setattr__(self, "weight_decay", weight_decay)
        if max_norm is not None and check_number(max_norm, "max_norm") == 0:
            raise ValueError("max_norm: expected a number above 0, got 0")
        object.__setattr__(self, "max_norm", None if max_norm is None else float(max_norm))

    @property
    def compiled(self) -> bool:
        return self.activation.code is not None

    def decay(self, parameters: Arrays, lr: float) -> None:
        if self.weight_decay:
            W = parameters[0]
            W *= W.dtype.type(1 - lr * self.weight_decay)

    def constrain(self, parameters: Arrays) -> None:
        if self.max_norm is not None:
            W = parameters[0]
            norms = np.sqrt((W * W).sum(axis=0))
            long = norms > self.max_norm
            W[:, long] *= W.dtype.type(self.max_norm) / norms[long]

    def to_dict(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in DENSE_OPTIONS}
        options = {name: value for name, value in values.items() if value not in (0.0, None)}
        if self.weight_decay == 0:
            options["weight_decay"] = 0.0
        return {
            "type": "Dense",
            "n_units": self.n_units,
            "activation": self.activation.name,
            **options,
        }

    def width(self, n_in: int) -> int:
        return self.n_units

    def parameter_shapes(self, n_in: int) -> list[tuple[str, tuple[int, ...], bool]]:
        return [("W", (n_in, self.n_units), True), ("b", (self.n_units,), False)]

    def initialize(self, rng: np.random.Generator, n_in: int, parameters: Arrays) -> None:
        W, b = parameters
        init = get_initializer(self.init or self.activation.default_init)
        weights = np.asarray(init(rng, *W.shape))
        if weights.shape != W.shape:
            raise ValueError(f"init: expected weights of shape {W.shape}, got {weights.shape}")
        W[...] = weights
        b[...] = 0

    def apply(self, parameters: Arrays, X: Array) -> Array:
        """The layer as a formula, ``activation(X W + b)``; for autograd's arrays too.

        Parameters
        ----------
        parameters : (W, b)
            ``W`` (n_in, n_units), ``b`` (n_units,).
        X : ndarray of shape (n, n_in)

        Returns
        -------
        ndarray of shape (n, n_units)
        """
        W, b = parameters
        return self.activation.forward(X @ W + b)

    def apply_backward(self, parameters: Arrays, X: Array, dA: Array) -> tuple[Array, Arrays]:
        """The chain rule through `apply`.

        Parameters
        ----------
        parameters, X
            As for `apply`.
        dA : ndarray of shape (n, n_units)
            Gradient of the loss with respect to the layer's output.

        Returns
        -------
        dX : ndarray of shape (n, n_in)
        (dW, db)
            Shapes as `parameters`, summed over the samples.
        """
        W, b = parameters
        Z = X @ W + b
        dZ = self.activation.backward(dA, Z, self.activation.forward(Z))
        return dZ @ W.T, (X.T @ dZ, dZ.sum(axis=0))

    def forward(
        self, backend: Backend, parameters: Arrays, X: Array, training: TrainingPass | None = None
    ) -> LayerCache:
        W, b = parameters
        Z = np.empty((X.shape[0], self.n_units), dtype=W.dtype)
        backend.affine_forward(X, W, b, Z)
        return self.activated(backend, X, Z)

    def backward(
        self,
        backend: Backend,
        parameters: Arrays,
        cache: LayerCache,
        dZ: Array,
        gradients: Arrays,
        dX: Array | None,
    ) -> None:
        dW, db = gradients
        backend.affine_backward(cache.X, parameters[0], dZ, dW, db, dX)

    def penalty(self, parameters: Arrays, scale: float, gradients: Arrays | None) -> float:
        if not self.penalised:
            return 0.0
        W = parameters[0]
        if gradients is not None:
            gradients[0][...] += scale * self.l2 * W + scale * self.l1 * np.sign(W)
        size = np.abs(W).sum(dtype=np.float64)
        return scale * float(self.l1 * size + self.l2 / 2 * np.vdot(W, W))
