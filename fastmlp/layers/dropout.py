"""Dropout: units that are left out at random, sample by sample, while a network trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.layers.base import Array, Arrays, LayerBase, LayerCache, TrainingPass, check_number
from fastmlp.philox import random_words

if TYPE_CHECKING:
    from fastmlp.backends.base import Backend

__all__ = ["Dropout"]


@dataclass(frozen=True)
class Dropout(LayerBase):
    """In training each input is 0 with probability `rate`, else divided by ``1 - rate``.

    Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html. May stand anywhere in
    front of the output layer, also first, on the inputs; predictions leave it out. The masks depend
    on the network's random state at the start of the epoch, the sample's place in it, the layer and
    the unit: neither on threads nor on where batches end.

    Parameters
    ----------
    rate : float in [0, 1)

    Raises
    ------
    TypeError, ValueError
        For another rate.
    """

    rate: float

    def __post_init__(self) -> None:
        if check_number(self.rate, "rate") >= 1:
            raise ValueError(f"rate: expected a number in [0, 1), got {self.rate}")
        object.__setattr__(self, "rate", float(self.rate))

    @property
    def compiled(self) -> bool:
        return True

    @property
    def random(self) -> bool:
        return self.rate > 0

    @property
    def threshold(self) -> int:
        """Units whose word is below are left out."""
        return int(self.rate * 2**32)

    def mask(self, training: TrainingPass, shape: tuple[int, int], dtype: np.dtype) -> Array:
        """0, or ``1 / (1 - rate)``, by which the inputs (n, n_in) are multiplied."""
        words = random_words(training.seed, training.first, shape[0], training.layer, shape[1])
        return (words >= self.threshold) * dtype.type(1 / (1 - self.rate))

    def forward(
        self, backend: Backend, parameters: Arrays, X: Array, training: TrainingPass | None = None
    ) -> LayerCache:
        if training is None:
            return LayerCache(X, X, X)
        mask = self.mask(training, X.shape, X.dtype)
        Z = X * mask
        return LayerCache(X, Z, Z, (mask,))

    def activation_gradient(self, backend: Backend, cache: LayerCache, dA: Array) -> Array:
        return dA

    def backward(
        self,
        backend: Backend,
        parameters: Arrays,
        cache: LayerCache,
        dZ: Array,
        gradients: Arrays,
        dX: Array | None,
    ) -> None:
        if dX is not None:
            dX[...] = dZ * cache.saved[0] if cache.saved else dZ

    def apply(self, parameters: Arrays, X: Array) -> Array:
        return X

    def to_dict(self) -> dict[str, Any]:
        return {"type": "Dropout", "rate": self.rate}
