"""What a network is made of, without its numbers: layers, loss, dtype; checked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fastmlp.activations import ACTIVATIONS
from fastmlp.arena import Arena
from fastmlp.layers import Dropout, LayerBase, layer_from_dict
from fastmlp.losses import LOSSES, Loss, get_loss, make_loss

__all__ = ["Architecture"]


@dataclass(frozen=True)
class Architecture:
    """Layers in order, the loss behind them, the type they compute in.

    Raises
    ------
    TypeError, ValueError
        Where the parts do not fit together; the message names the argument.
    """

    n_inputs: int
    layers: tuple[LayerBase, ...]
    loss: Loss
    dtype: np.dtype

    @classmethod
    def checked(
        cls, n_inputs: int, layers: Sequence[LayerBase], loss: str | Loss, dtype: Any
    ) -> Architecture:
        if isinstance(n_inputs, bool) or not hasattr(n_inputs, "__index__"):
            raise TypeError(f"n_inputs: expected an integer, got {type(n_inputs).__name__}")
        if n_inputs.__index__() < 1:
            raise ValueError(f"n_inputs: expected at least 1, got {n_inputs}")
        layers = tuple(layers)
        if not layers:
            raise ValueError("layers: expected at least one layer, the output layer; got none")
        for i, layer in enumerate(layers):
            if not isinstance(layer, LayerBase):
                raise TypeError(f"layers[{i}]: expected a layer, got {type(layer).__name__}")
        if isinstance(layers[-1], Dropout):
            raise ValueError("layers: expected an output layer as the last one, got Dropout")
        loss = get_loss(loss)
        output = layers[-1].activation
        if not loss.takes(output):
            needed = "above 0, from exp or softplus"
            if loss.probabilities:
                needed = "in [0, 1], from softmax or sigmoid"
            raise ValueError(
                f"loss: {loss.name} needs outputs {needed}; the last layer's activation is "
                f"{output.name!r}"
            )
        dtype = np.dtype(dtype)
        if dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise ValueError(f"dtype: expected float32 or float64, got {dtype}")
        for i, layer in enumerate(layers):
            native = layer.activation.native
            if native is not None and dtype.name not in native.dtypes:
                raise ValueError(
                    f"dtype: expected {native.dtypes[0]}, for which layers[{i}]'s activation "
                    f"{layer.activation.name!r} has C functions; got {dtype}"
                )
        architecture = cls(n_inputs.__index__(), layers, loss, dtype)
        if loss.n_outputs not in (None, architecture.n_outputs):
            raise ValueError(
                f"loss: {loss} needs {loss.n_outputs} outputs, the last layer has "
                f"{architecture.n_outputs}"
            )
        return architecture

    @cached_property
    def n_outputs(self) -> int:
        return self.widths[-1]

    @cached_property
    def widths(self) -> list[int]:
        """Inputs and units of each layer: n_inputs, n_units, ..., n_outputs."""
        widths = [self.n_inputs]
        for layer in self.layers:
            widths.append(layer.width(widths[-1]))
        return widths

    @property
    def compiled(self) -> bool:
        """Whether the compiled core has every part; a user's own callables run on NumPy."""
        return self.loss.code is not None and all(layer.compiled for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one sample's forward pass."""
        return sum(int(np.prod(shape)) for _, shape, *_ in self.shapes if len(shape) == 2)

    @property
    def shapes(self) -> list[tuple[str, tuple[int, ...], bool, bool]]:
        """Name, shape, "does it decay" and "is it trained" of each parameter and statistic."""
        shapes = []
        for i, (n_in, layer) in enumerate(zip(self.widths, self.layers, strict=False)):
            for name, shape, decays in layer.parameter_shapes(n_in):
                shapes.append((f"{i}.{name}", shape, decays, True))
            for name, shape in layer.statistic_shapes(n_in):
                shapes.append((f"{i}.{name}", shape, False, False))
        return shapes

    @property
    def random(self) -> bool:
        """Whether training draws random numbers for more than the order of samples."""
        return any(layer.random for layer in self.layers)

    def new_parameters(self) -> Arena:
        """A zeroed arena with a place for every parameter."""
        return Arena(self.shapes, self.dtype, len(self.layers))

    def check_trainable(self) -> None:
        """ValueError where a layer has no derivative."""
        for i, layer in enumerate(self.layers):
            if not layer.activation.differentiable:
                raise ValueError(
                    f"layers[{i}]: activation {layer.activation.name!r} has no useful derivative: "
                    "this network cannot be trained, only run forward"
                )

    def to_dict(self) -> dict[str, Any]:
        """Description of which `from_dict` makes an equal architecture."""
        loss = self.loss
        factors = (
            {}
            if loss.factor == loss.value_factor == 1
            else {"loss_factors": [loss.factor, loss.value_factor]}
        )
        return {
            "n_inputs": self.n_inputs,
            "layers": [layer.to_dict() for layer in self.layers],
            "loss": loss.name,
            **({"loss_options": dict(loss.options)} if loss.options else {}),
            **factors,
            "dtype": self.dtype.name,
        }

    @classmethod
    def from_dict(cls, description: Mapping[str, Any], custom: Mapping[str, Any]) -> Architecture:
        """Architecture of a description; `custom` gives the user's own parts by name."""
        activations = {**ACTIVATIONS, **custom}
        losses = {**LOSSES, **custom}

        def look_up(table: Mapping[str, Any], kind: str, name: Any) -> Any:
            if not isinstance(name, str) or name not in table:
                raise ValueError(f"{kind} {name!r} is not known; pass it in custom={{name: ...}}")
            return table[name]

        layers: list[LayerBase] = []
        for layer in description["layers"]:
            if layer["type"] == "Layer":
                layers.append(look_up(custom, "layer", layer["name"]))
            else:
                layers.append(
                    layer_from_dict(layer, lambda name: look_up(activations, "activation", name))
                )
        loss = look_up(losses, "loss", description["loss"])
        if loss.code is not None:
            loss = make_loss(loss.name, description.get("loss_options", {}))
        if "loss_factors" in description:
            loss = loss.scaled(*description["loss_factors"])
        return cls.checked(description["n_inputs"], layers, loss, description["dtype"])
