"""Layers that bring inputs to mean 0 and variance 1: over a sample's units, or over a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.activations import Activation, get_activation
from fastmlp.layers.base import Array, Arrays, LayerBase, LayerCache, TrainingPass, check_number

if TYPE_CHECKING:
    from fastmlp.backends.base import Backend

__all__ = ["BatchNorm", "LayerNorm"]

# Divergence is found by looking at the loss: no warnings.
_quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")


class Normalisation(LayerBase):
    """``A = activation(gain (X - mean) / sqrt(variance + epsilon) + shift)``."""

    epsilon: float

    @property
    def compiled(self) -> bool:
        return self.activation.code is not None

    def parameter_shapes(self, n_in: int) -> list[tuple[str, tuple[int, ...], bool]]:
        return [("gain", (n_in,), False), ("shift", (n_in,), False)]

    def _check(self) -> None:
        object.__setattr__(self, "activation", get_activation(self.activation))
        if check_number(self.epsilon, "epsilon") == 0:
            raise ValueError("epsilon: expected a number above 0, got 0")
        object.__setattr__(self, "epsilon", float(self.epsilon))

    @_quiet
    def _forward(self, backend: Backend, parameters: Arrays, X: Array, axis: int) -> LayerCache:
        """With the mean and the variance along `axis`; saves the normalised input and 1 / sqrt."""
        mean = X.mean(axis=axis, keepdims=True)
        centred = X - mean
        variance = (centred * centred).mean(axis=axis, keepdims=True)
        inverse = 1 / np.sqrt(variance + X.dtype.type(self.epsilon))
        normal = centred * inverse
        Z = parameters[0] * normal + parameters[1]
        return self.activated(backend, X, Z, (normal, inverse, mean, variance))

    @_quiet
    def _backward(
        self, parameters: Arrays, saved: Arrays, dZ: Array, gradients: Arrays, dX: Array | None,
        axis: int,
    ) -> None:  # fmt: skip
        """With u = gain dZ: dX = (u - mean(u) - normal mean(u normal)) / sqrt(...)."""
        normal, inverse = saved[:2]
        gradients[0][...] = (dZ * normal).sum(axis=0)
        gradients[1][...] = dZ.sum(axis=0)
        if dX is not None:
            u = dZ * parameters[0]
            means = u.mean(axis=axis, keepdims=True), (u * normal).mean(axis=axis, keepdims=True)
            dX[...] = (u - means[0] - normal * means[1]) * inverse


@dataclass(frozen=True)
class LayerNorm(Normalisation):
    """Each sample's units to mean 0 and variance 1, then a trained gain and shift for each unit.

    Ba, Kiros and Hinton 2016, https://arxiv.org/abs/1607.06450.

    Parameters
    ----------
    activation : str or Activation, default "identity"
        Behind it: `Dense` without an activation, then ``LayerNorm("relu")``.
    epsilon : float above 0, default 1e-5
        Added to the variance.

    Raises
    ------
    TypeError, ValueError
        For an argument that is none of these.
    """

    activation: Activation = "identity"  # type: ignore[assignment]
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        self._check()

    def initialize(self, rng: np.random.Generator, n_in: int, parameters: Arrays) -> None:
        gain, shift = parameters
        gain[...], shift[...] = 1, 0

    def forward(
        self, backend: Backend, parameters: Arrays, X: Array, training: TrainingPass | None = None
    ) -> LayerCache:
        return self._forward(backend, parameters, X, 1)

    def backward(
        self,
        backend: Backend,
        parameters: Arrays,
        cache: LayerCache,
        dZ: Array,
        gradients: Arrays,
        dX: Array | None,
    ) -> None:
        self._backward(parameters, cache.saved, dZ, gradients, dX, 1)

    def apply(self, parameters: Arrays, X: Array) -> Array:
        centred = X - X.mean(axis=1, keepdims=True)
        variance = (centred * centred).mean(axis=1, keepdims=True)
        Z = parameters[0] * (centred / np.sqrt(variance + self.epsilon)) + parameters[1]
        return self.activation.forward(Z)

    def to_dict(self) -> dict[str, Any]:
        description = {"type": "LayerNorm", "activation": self.activation.name}
        return {**description, "epsilon": self.epsilon}


@dataclass(frozen=True)
class BatchNorm(Normalisation):
    """Each unit to mean 0 and variance 1 over the batch, then a trained gain and shift.

    Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167. Prediction takes running statistics:
    behind each step of a batch of n > 1 samples, ``mean += momentum (batch mean - mean)``, and the
    same with the batch's unbiased variance (n / (n - 1) times the one it was normalised with).
    Sample weights do not count in them. A batch of one sample is normalised to 0.

    Parameters
    ----------
    activation : str or Activation, default "identity"
        Behind it: `Dense` without an activation, then ``BatchNorm("relu")``.
    momentum : float in (0, 1], default 0.1
    epsilon : float above 0, default 1e-5
        Added to the variance.

    Raises
    ------
    TypeError, ValueError
        For an argument that is none of these.
    """

    activation: Activation = "identity"  # type: ignore[assignment]
    momentum: float = 0.1
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        self._check()
        if not 0 < check_number(self.momentum, "momentum") <= 1:
            raise ValueError(f"momentum: expected a number in (0, 1], got {self.momentum}")
        object.__setattr__(self, "momentum", float(self.momentum))

    def statistic_shapes(self, n_in: int) -> list[tuple[str, tuple[int, ...]]]:
        return [("mean", (n_in,)), ("variance", (n_in,))]

    def initialize(self, rng: np.random.Generator, n_in: int, parameters: Arrays) -> None:
        gain, shift, mean, variance = parameters
        gain[...], shift[...], mean[...], variance[...] = 1, 0, 0, 1

    def forward(
        self, backend: Backend, parameters: Arrays, X: Array, training: TrainingPass | None = None
    ) -> LayerCache:
        if training is not None:
            return self._forward(backend, parameters, X, 0)
        gain, shift, mean, variance = parameters
        inverse = (1 / np.sqrt(variance + X.dtype.type(self.epsilon)))[None]
        normal = (X - mean) * inverse
        return self.activated(backend, X, gain * normal + shift, (normal, inverse))

    def backward(
        self,
        backend: Backend,
        parameters: Arrays,
        cache: LayerCache,
        dZ: Array,
        gradients: Arrays,
        dX: Array | None,
    ) -> None:
        if len(cache.saved) > 2:  # a pass that trains: the statistics depend on X
            self._backward(parameters, cache.saved, dZ, gradients, dX, 0)
            return
        normal, inverse = cache.saved
        gradients[0][...] = (dZ * normal).sum(axis=0)
        gradients[1][...] = dZ.sum(axis=0)
        if dX is not None:
            dX[...] = dZ * parameters[0] * inverse

    def observe(self, parameters: Arrays, cache: LayerCache) -> None:
        n = len(cache.X)
        if n > 1:
            mean, variance = parameters[2:]
            share = mean.dtype.type(self.momentum)
            mean += share * (cache.saved[2][0] - mean)
            unbiased = cache.saved[3][0] * mean.dtype.type(n / (n - 1))
            variance += share * (unbiased - variance)

    def apply(self, parameters: Arrays, X: Array) -> Array:
        gain, shift, mean, variance = parameters
        return self.activation.forward(
            gain * ((X - mean) / np.sqrt(variance + self.epsilon)) + shift
        )

    def to_dict(self) -> dict[str, Any]:
        description = {"type": "BatchNorm", "activation": self.activation.name}
        return {**description, "momentum": self.momentum, "epsilon": self.epsilon}
