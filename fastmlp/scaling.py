"""Standardisation of columns, folded into the parameters of a network afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastmlp.network import Network
from fastmlp.validation import scale_pixels

__all__ = ["Scaling"]

Array = np.ndarray


@dataclass(frozen=True)
class Scaling:
    """Standardised columns z of raw columns x, ``x = mean + deviation z``, in float64."""

    mean: Array
    deviation: Array

    @classmethod
    def of(cls, values: Array) -> Scaling:
        values = scale_pixels(values, np.dtype(np.float64)).astype(np.float64)
        # The deviation of equal numbers is not always exactly 0.
        constant = values.max(axis=0) == values.min(axis=0)
        return cls(values.mean(axis=0), np.where(constant, 1.0, values.std(axis=0)))

    def apply(self, values: Array) -> Array:
        z: Array = (scale_pixels(values, np.dtype(np.float64)) - self.mean) / self.deviation
        return z

    def fold_into_inputs(self, net: Network) -> None:
        """``W' = W / deviation``, ``b' = b - mean W'``: the network takes x instead of z."""
        W, b = net.parameters[0]
        folded = W.astype(np.float64) / self.deviation[:, None]
        b[...] = b - self.mean @ folded
        W[...] = folded

    def fold_into_outputs(self, net: Network) -> None:
        """``W' = W deviation``, ``b' = mean + b deviation``: the network gives x instead of z."""
        W, b = net.parameters[-1]
        W[...] = W * self.deviation
        b[...] = self.mean + b * self.deviation
