"""Forward through all layers, and the gradient back: the same few lines for every backend."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fastmlp.architecture import Architecture
from fastmlp.arena import Arena
from fastmlp.layers import LayerCache, TrainingPass

if TYPE_CHECKING:
    from fastmlp.backends.base import Backend

__all__ = ["add_penalties", "backward", "forward"]

Array = np.ndarray


def forward(
    backend: Backend,
    architecture: Architecture,
    parameters: Arena,
    X: Array,
    training: TrainingPass | None = None,
) -> list[LayerCache]:
    """Each layer's input, pre-activation and output for `X` of shape (n, n_inputs)."""
    caches = []
    groups = zip(architecture.layers, parameters.groups(), strict=True)
    for i, (layer, values) in enumerate(groups):
        at_layer = None if training is None else replace(training, layer=i)
        caches.append(layer.forward(backend, values, X, at_layer))
        X = caches[-1].A
    return caches


def backward(
    backend: Backend,
    architecture: Architecture,
    parameters: Arena,
    caches: list[LayerCache],
    Y: Array,
    scale: Array,
    gradients: Arena,
) -> None:
    """Fill `gradients` with d/dw sum_s scale[s] loss[s].

    Parameters
    ----------
    Y : ndarray of shape (n, n_outputs), or (n,) for integer labels
    scale : ndarray of shape (n,)
        Weight of each sample's loss: 1 / n for the mean.
    """
    values, grads = parameters.groups(), gradients.groups()
    layers, loss, last = architecture.layers, architecture.loss, caches[-1]
    dZ = np.empty_like(last.Z)
    backend.loss_backward(loss, layers[-1].activation, last.A, last.Z, Y, scale, dZ)
    first = min(segment.layer for segment in parameters.segments)
    for i in reversed(range(first, len(layers))):
        dX = np.empty_like(caches[i].X) if i > first else None
        layers[i].backward(backend, values[i], caches[i], dZ, grads[i], dX)
        if dX is not None:
            dZ = layers[i - 1].activation_gradient(backend, caches[i - 1], dX)


def add_penalties(
    architecture: Architecture, parameters: Arena, scale: float, gradients: Arena | None
) -> float:
    """`scale` times the layers' penalties; adds their gradients to `gradients`, None for none."""
    values = parameters.groups()
    grads = [None] * len(values) if gradients is None else gradients.groups()
    return sum(
        layer.penalty(w, scale, g)
        for layer, w, g in zip(architecture.layers, values, grads, strict=True)
    )
