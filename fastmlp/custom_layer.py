"""A layer of the user's own: NumPy functions, with parameters or without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.activations import Activation
from fastmlp.layers import LayerBase, LayerCache, TrainingPass

if TYPE_CHECKING:
    from fastmlp.backends.base import Backend

__all__ = ["Layer"]

Array = np.ndarray

# What lies behind the layer's function: nothing. Of the user's own, so that every loss takes it.
_NOTHING = Activation(lambda Z: Z, lambda dA, Z, A: dA, name="")


@dataclass(frozen=True)
class Layer(LayerBase):
    """A layer of your own, on NumPy; an activation of its own is part of its functions.

    Parameters
    ----------
    function : callable
        ``function(X, *parameters) -> A``: from (n, n_in) to (n, n_units), in any float type.
    gradient : callable
        ``gradient(dA, X, A, *parameters) -> dX``, or ``(dX, d_first, d_second, ...)`` with the
        gradient of each parameter, summed over the samples. ``dA`` is that of the loss in ``A``.
    parameters : callable or None, default None
        ``parameters(rng, n_in) -> {name: initial values}``: vectors and matrices. Matrices decay
        where the optimizer has weight decay.
    n_units : int or None, default None
        Outputs; None for as many as inputs.
    name : str, default "custom"
        Shown in ``repr`` and stored in model files.

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp import Dense, Layer, Network
    >>> gain = Layer(
    ...     lambda X, g: X * g,
    ...     lambda dA, X, A, g: (dA * g, (dA * X).sum(axis=0)),
    ...     parameters=lambda rng, n_in: {"g": np.ones(n_in)},
    ... )
    >>> net = Network(2, [Dense(4, "tanh"), gain, Dense(1)], loss="mse", seed=0)
    >>> [array.shape for array in net.parameters[1]]
    [(4,)]
    """

    function: Callable[..., Array]
    gradient: Callable[..., Any]
    parameters: Callable[[np.random.Generator, int], Mapping[str, Any]] | None = None
    n_units: int | None = None
    name: str = "custom"

    def __post_init__(self) -> None:
        if not callable(self.function) or not callable(self.gradient):
            raise TypeError("function, gradient: expected callables")
        if self.n_units is not None and (not isinstance(self.n_units, int) or self.n_units < 1):
            raise ValueError(f"n_units: expected an integer of at least 1, got {self.n_units!r}")

    activation = _NOTHING

    def width(self, n_in: int) -> int:
        return self.n_units or n_in

    def to_dict(self) -> dict[str, Any]:
        return {"type": "Layer", "name": self.name}

    def parameter_shapes(self, n_in: int) -> list[tuple[str, tuple[int, ...], bool]]:
        """Name, shape and "does it decay" of each parameter."""
        values = self._initial(np.random.default_rng(0), n_in)
        return [(name, array.shape, array.ndim == 2) for name, array in values.items()]

    def initialize(
        self, rng: np.random.Generator, n_in: int, parameters: tuple[Array, ...]
    ) -> None:
        for view, values in zip(parameters, self._initial(rng, n_in).values(), strict=True):
            view[...] = values

    def apply(self, parameters: tuple[Array, ...], X: Array) -> Array:
        return self.function(X, *parameters)

    def forward(
        self,
        backend: Backend,
        parameters: tuple[Array, ...],
        X: Array,
        training: TrainingPass | None = None,
    ) -> LayerCache:
        A = np.asarray(self.function(X, *parameters), dtype=X.dtype)
        expected = (len(X), self.n_units or X.shape[1])
        if A.shape != expected:
            raise ValueError(
                f"layer {self.name!r}: expected its function to give shape {expected}, got "
                f"{A.shape}"
            )
        return LayerCache(X, A, A)

    def activation_gradient(self, backend: Backend, cache: LayerCache, dA: Array) -> Array:
        return dA

    def backward(
        self,
        backend: Backend,
        parameters: tuple[Array, ...],
        cache: LayerCache,
        dZ: Array,
        gradients: tuple[Array, ...],
        dX: Array | None,
    ) -> None:
        """Fill `gradients`, and dX where it is wanted."""
        results = self.gradient(dZ, cache.X, cache.A, *parameters)
        results = results if isinstance(results, tuple) else (results,)
        expected = [cache.X.shape, *(gradient.shape for gradient in gradients)]
        if [np.shape(result) for result in results] != expected:
            raise ValueError(
                f"layer {self.name!r}: expected its gradient to give shapes {expected}, got "
                f"{[np.shape(result) for result in results]}"
            )
        for gradient, result in zip(gradients, results[1:], strict=True):
            gradient[...] = result
        if dX is not None:
            dX[...] = results[0]

    def _initial(self, rng: np.random.Generator, n_in: int) -> dict[str, Array]:
        given = {} if self.parameters is None else self.parameters(rng, n_in)
        values = {name: np.asarray(value, dtype=np.float64) for name, value in given.items()}
        for name, value in values.items():
            if value.ndim not in (1, 2) or value.size == 0 or not np.isfinite(value).all():
                raise ValueError(
                    f"layer {self.name!r}: expected parameter {name!r} to be a vector or a matrix "
                    f"of finite numbers, got shape {value.shape}"
                )
        return values
