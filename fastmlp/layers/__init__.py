"""Layers: one record each; parameters live elsewhere and are handed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastmlp.activations import Activation
from fastmlp.layers.base import LayerBase, LayerCache, TrainingPass
from fastmlp.layers.dense import Dense
from fastmlp.layers.dropout import Dropout
from fastmlp.layers.normalisation import BatchNorm, LayerNorm

__all__ = [
    "LAYERS",
    "BatchNorm",
    "Dense",
    "Dropout",
    "LayerBase",
    "LayerCache",
    "LayerNorm",
    "TrainingPass",
    "layer_from_dict",
]

LAYERS: dict[str, type[LayerBase]] = {
    kind.__name__: kind for kind in (Dense, Dropout, LayerNorm, BatchNorm)
}


def layer_from_dict(
    description: Mapping[str, Any], activation: Callable[[Any], Activation]
) -> LayerBase:
    """The layer that ``to_dict`` described; `activation` finds one by its name."""
    options = dict(description)
    kind = options.pop("type")
    if kind not in LAYERS:
        raise ValueError(f"layer type {kind!r} is not known")
    if "activation" in options:
        options["activation"] = activation(options["activation"])
    return LAYERS[kind](**options)
