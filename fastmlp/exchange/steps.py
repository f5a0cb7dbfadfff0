"""What a prediction computes, as a short list of steps: all that an exporter has to write.

A layer is put into steps here, once for all exporters; an exporter knows the kinds of steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.custom_layer import Layer
from fastmlp.layers import Dense

if TYPE_CHECKING:
    from fastmlp.network import Network

__all__ = ["Activate", "Affine", "Step", "prediction_steps"]

Array = np.ndarray


@dataclass(frozen=True)
class Affine:
    """``X W + b``."""

    W: Array
    b: Array


@dataclass(frozen=True)
class Activate:
    """One of fastmlp's own activations, by name, on rows of `n_units`."""

    name: str
    n_units: int


Step = Affine | Activate


def prediction_steps(network: Network, target: str) -> list[Step]:
    """The steps of `Network.predict` from (n, n_inputs) to (n, n_outputs).

    Raises
    ------
    ValueError
        Where a layer, or an activation of the user's own, has no form in `target`.
    """
    steps: list[Step] = []
    layers = network.architecture.layers
    for i, (layer, parameters) in enumerate(zip(layers, network.parameters, strict=True)):
        try:
            steps += layer_steps(layer, parameters)
        except ValueError as error:
            raise ValueError(f"layers[{i}]: {error}, which cannot be written as {target}") from None
    return steps


@singledispatch
def layer_steps(layer: Any, parameters: tuple[Array, ...]) -> list[Step]:
    raise ValueError(f"a {type(layer).__name__} layer")


@layer_steps.register
def _(layer: Layer, parameters: tuple[Array, ...]) -> list[Step]:
    raise ValueError(f"layer {layer.name!r} of your own")


@layer_steps.register
def _(layer: Dense, parameters: tuple[Array, ...]) -> list[Step]:
    activation = layer.activation
    if activation.code is None or activation.native is not None:
        raise ValueError(f"activation {activation.name!r} of your own")
    W, b = parameters
    return [Affine(W, b), Activate(activation.name, layer.n_units)]
