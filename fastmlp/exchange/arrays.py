"""Weights as the arrays of PyTorch's ``Linear`` and of scikit-learn's multilayer perceptrons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.activations import Activation, get_activation
from fastmlp.layers import Dense

if TYPE_CHECKING:
    from fastmlp.network import Network

__all__ = ["from_sklearn", "from_torch", "to_sklearn", "to_torch"]

Array = np.ndarray
Weights = list[tuple[Array, Array]]

# The loss that goes with an output activation where none is asked for; mse with all others.
LOSSES = {"softmax": "cross_entropy", "sigmoid": "binary_cross_entropy"}
# scikit-learn's names that are not ours.
ACTIVATIONS = {"logistic": "sigmoid"}


def from_torch(
    state_dict: Mapping[str, Any], activations: Sequence[str | Activation]
) -> tuple[list[Dense], str, Weights]:
    """Layers, a loss that goes with them, and weights; see `Network.from_torch`."""
    linears: dict[str, dict[str, Array]] = {}
    for key, value in state_dict.items():
        prefix, _, name = key.rpartition(".")
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        if name not in ("weight", "bias") or array.ndim != (2 if name == "weight" else 1):
            raise ValueError(
                f"state_dict: expected weights (out, in) and biases (out,) of Linear layers alone, "
                f"got {key!r} of shape {array.shape}"
            )
        linears.setdefault(prefix, {})[name] = array
    weights = []
    for prefix, arrays in linears.items():
        if "weight" not in arrays:
            raise ValueError(f"state_dict: expected {prefix}.weight beside {prefix}.bias")
        W = arrays["weight"].T
        weights.append((W, arrays.get("bias", np.zeros(W.shape[1], W.dtype))))
    return *_layers(weights, activations, "state_dict"), weights


def to_torch(network: Network, names: Sequence[str] | None) -> dict[str, Array]:
    """See `Network.to_torch`."""
    weights = _weights(network)
    names = [str(2 * i) for i in range(len(weights))] if names is None else list(names)
    if len(names) != len(weights):
        raise ValueError(f"names: expected {len(weights)}, one a layer, got {len(names)}")
    arrays = {}
    for name, (W, b) in zip(names, weights, strict=True):
        arrays[f"{name}.weight"], arrays[f"{name}.bias"] = np.array(W.T, order="C"), np.array(b)
    return arrays


def from_sklearn(mlp: Any) -> tuple[list[Dense], str, Weights]:
    """Layers, loss and weights; see `Network.from_sklearn`."""
    if not hasattr(mlp, "coefs_"):
        raise TypeError(
            "mlp: expected a fitted MLPClassifier or MLPRegressor, with coefs_ and intercepts_; "
            f"got {type(mlp).__name__}"
        )
    weights = [
        (np.asarray(W), np.asarray(b)) for W, b in zip(mlp.coefs_, mlp.intercepts_, strict=True)
    ]
    names = [mlp.activation] * (len(weights) - 1) + [mlp.out_activation_]
    names = [ACTIVATIONS.get(name, name) for name in names]
    layers, loss = _layers(weights, names, "mlp")
    return layers, "poisson" if mlp.loss == "poisson" else loss, weights


def to_sklearn(network: Network) -> tuple[list[Array], list[Array]]:
    """See `Network.to_sklearn`."""
    weights = _weights(network)
    return [np.array(W, order="C") for W, _ in weights], [np.array(b) for _, b in weights]


def _layers(
    weights: Weights, activations: Sequence[str | Activation], source: str
) -> tuple[list[Dense], str]:
    if not weights:
        raise ValueError(f"{source}: expected the weights of at least one layer, got none")
    if isinstance(activations, str) or len(activations) != len(weights):
        raise ValueError(f"activations: expected {len(weights)}, one a layer, got {activations!r}")
    n_in = weights[0][0].shape[0]
    for i, (W, b) in enumerate(weights):
        if W.shape[0] != n_in or b.shape != W.shape[1:]:
            raise ValueError(
                f"{source}: layer {i} takes {W.shape[0]} inputs behind {n_in} units, and has "
                f"{b.shape[0]} biases for {W.shape[1]} units"
            )
        n_in = W.shape[1]
    layers = [
        Dense(W.shape[1], activation)
        for (W, _), activation in zip(weights, activations, strict=True)
    ]
    return layers, LOSSES.get(get_activation(activations[-1]).name, "mse")


def _weights(network: Network) -> Weights:
    layers = network.architecture.layers
    for i, layer in enumerate(layers):
        if not isinstance(layer, Dense):
            raise ValueError(
                f"layers[{i}]: expected Dense layers alone, got {type(layer).__name__}"
            )
    return [(W, b) for W, b in network.parameters]
