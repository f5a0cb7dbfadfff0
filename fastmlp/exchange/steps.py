"""What a prediction computes, as a short list of steps: all that an exporter has to write.

A layer is put into steps here, once for all exporters; an exporter knows the kinds of steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.activations import Activation
from fastmlp.custom_layer import Layer
from fastmlp.layers import BatchNorm, Dense, Dropout, LayerNorm

if TYPE_CHECKING:
    from fastmlp.network import Network

__all__ = ["Activate", "Affine", "Normalise", "Scale", "Step", "prediction_steps"]

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


@dataclass(frozen=True)
class Scale:
    """``factor X + shift``, column by column; both (n_units,)."""

    factor: Array
    shift: Array


@dataclass(frozen=True)
class Normalise:
    """``(X - mean) / sqrt(variance + epsilon)`` of each row of `n_units`."""

    epsilon: float
    n_units: int


Step = Affine | Activate | Scale | Normalise


def prediction_steps(network: Network, target: str) -> list[Step]:
    """The steps of `Network.predict` from (n, n_inputs) to (n, n_outputs).

    Raises
    ------
    ValueError
        Where a layer, or an activation of the user's own, has no form in `target`.
    """
    steps: list[Step] = []
    layers = network.architecture.layers
    for i, (layer, parameters) in enumerate(zip(layers, network.arena.groups(), strict=True)):
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
    W, b = parameters
    return [Affine(W, b), _activate(layer.activation, layer.n_units)]


@layer_steps.register
def _(layer: Dropout, parameters: tuple[Array, ...]) -> list[Step]:
    return []


@layer_steps.register
def _(layer: LayerNorm, parameters: tuple[Array, ...]) -> list[Step]:
    gain, shift = parameters
    activate = _activate(layer.activation, len(gain))
    return [Normalise(layer.epsilon, len(gain)), Scale(gain, shift), activate]


@layer_steps.register
def _(layer: BatchNorm, parameters: tuple[Array, ...]) -> list[Step]:
    gain, shift, mean, variance = (array.astype(np.float64) for array in parameters)
    factor = gain / np.sqrt(variance + layer.epsilon)
    dtype = parameters[0].dtype
    scale = Scale(factor.astype(dtype), (shift - mean * factor).astype(dtype))
    return [scale, _activate(layer.activation, len(gain))]


def _activate(activation: Activation, n_units: int) -> Activate:
    if activation.code is None or activation.native is not None:
        raise ValueError(f"activation {activation.name!r} of your own")
    return Activate(activation.name, n_units)
