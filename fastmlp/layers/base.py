"""What a layer is, and what a pass through one leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.activations import ACTIVATIONS, Activation

if TYPE_CHECKING:
    from fastmlp.backends.base import Backend

__all__ = ["LayerBase", "LayerCache", "TrainingPass", "check_number"]

Array = np.ndarray
Arrays = tuple[Array, ...]


def check_number(value: Any, name: str) -> float:
    """A finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if not 0 <= value < np.inf:
        raise ValueError(f"{name}: expected a number in [0, inf), got {value}")
    return float(value)


@dataclass(frozen=True)
class LayerCache:
    """What a layer saw on the way forward.

    Attributes
    ----------
    X : ndarray of shape (n, n_in)
        Input.
    Z : ndarray of shape (n, n_units)
        Pre-activation.
    A : ndarray of shape (n, n_units)
        Output.
    saved : tuple of ndarray
        What the layer's backward pass needs besides.
    """

    X: Array
    Z: Array
    A: Array
    saved: tuple[Array, ...] = ()


@dataclass(frozen=True)
class TrainingPass:
    """What a forward pass that trains knows besides the inputs; None stands for prediction.

    Attributes
    ----------
    seed : int
        Of the epoch's random numbers, below 2^64.
    first : int
        Place of the first sample in the epoch.
    layer : int
        Number of the layer.
    """

    seed: int = 0
    first: int = 0
    layer: int = 0


class LayerBase:
    """Base of the layers: an operation, then an activation, ``Z = f(X)``, ``A = activation(Z)``.

    Parameters reach the methods as a tuple: those of `parameter_shapes`, then those of
    `statistic_shapes`.
    """

    activation: Activation = ACTIVATIONS["identity"]
    l1: float = 0.0
    l2: float = 0.0
    weight_decay: float | None = None
    max_norm: float | None = None

    @property
    def compiled(self) -> bool:
        """Whether the compiled core has this layer."""
        return False

    @property
    def random(self) -> bool:
        """Whether training draws random numbers."""
        return False

    @property
    def penalised(self) -> bool:
        """Whether training adds a penalty to the loss."""
        return bool(self.l1 or self.l2)

    @property
    def special_step(self) -> bool:
        """Whether a step does more for it than the optimizer's rule."""
        return self.penalised or self.weight_decay is not None or self.max_norm is not None

    def width(self, n_in: int) -> int:
        """Number of units behind `n_in` inputs."""
        return n_in

    def parameter_shapes(self, n_in: int) -> list[tuple[str, tuple[int, ...], bool]]:
        """Name, shape and "does it decay" of each trained parameter."""
        return []

    def statistic_shapes(self, n_in: int) -> list[tuple[str, tuple[int, ...]]]:
        """Name and shape of what is kept besides, and not trained."""
        return []

    def initialize(self, rng: np.random.Generator, n_in: int, parameters: Arrays) -> None:
        """Fill the parameters."""

    def forward(
        self, backend: Backend, parameters: Arrays, X: Array, training: TrainingPass | None = None
    ) -> LayerCache:
        """Output for inputs X (n, n_in)."""
        raise NotImplementedError(f"{type(self).__name__} does not say its forward pass")

    def backward(
        self,
        backend: Backend,
        parameters: Arrays,
        cache: LayerCache,
        dZ: Array,
        gradients: Arrays,
        dX: Array | None,
    ) -> None:
        """Fill `gradients`, shapes as `parameters`, and dX where it is wanted."""
        raise NotImplementedError(f"{type(self).__name__} does not say its backward pass")

    def activation_gradient(self, backend: Backend, cache: LayerCache, dA: Array) -> Array:
        """DZ from dA."""
        dZ = np.empty_like(cache.Z)
        backend.activation_backward(self.activation, dA, cache.Z, cache.A, dZ)
        return dZ

    def activated(self, backend: Backend, X: Array, Z: Array, saved: Arrays = ()) -> LayerCache:
        """The end of `forward`: the activation, and the cache."""
        A = np.empty_like(Z)
        backend.activation_forward(self.activation, Z, A)
        return LayerCache(X, Z, A, saved)

    def apply(self, parameters: Arrays, X: Array) -> Array:
        """The layer at prediction as a formula; for autograd's arrays too."""
        raise NotImplementedError(f"{type(self).__name__} does not say its formula")

    def penalty(self, parameters: Arrays, scale: float, gradients: Arrays | None) -> float:
        """`scale` times the penalty; adds its gradient to `gradients` where they are given."""
        return 0.0

    def decay(self, parameters: Arrays, lr: float) -> None:
        """The layer's own decay, in front of the optimizer's step."""

    def constrain(self, parameters: Arrays) -> None:
        """Keep the parameters where the layer wants them, behind a step."""

    def observe(self, parameters: Arrays, cache: LayerCache) -> None:
        """Bring the statistics up to date, at the end of a step."""

    def to_dict(self) -> dict[str, Any]:
        """Description, of which `layer_from_dict` makes an equal layer."""
        raise NotImplementedError(f"{type(self).__name__} cannot be stored")
