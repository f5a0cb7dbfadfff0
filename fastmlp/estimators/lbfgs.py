"""Full-batch training by SciPy's L-BFGS-B over the flat parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult, minimize

from fastmlp import propagation
from fastmlp.network import Network

__all__ = ["minimise"]

Array = np.ndarray


def minimise(
    network: Network,
    X: Any,
    Y: Array,
    weight: Array | None,
    *,
    max_iter: int,
    max_fun: int,
    tol: float,
    on_iteration: Callable[[float, Array], bool],
) -> OptimizeResult:
    """Minimise the mean loss and the penalties divided by the samples' weight.

    The variables are the network's flat parameters with their padding, in which the gradient is 0:
    it stays 0 and adds nothing to any product. SciPy's vector is used where it lies.

    Parameters
    ----------
    X, Y, weight
        Checked, in float64.
    on_iteration : callable
        ``on_iteration(loss, flat)`` behind each iteration; True ends the fit.

    Returns
    -------
    OptimizeResult
        The network has its ``x``.
    """
    architecture, backend = network.architecture, network.backend
    loss, activation = architecture.loss, architecture.layers[-1].activation
    total = float(len(X) if weight is None else weight.sum())
    scale = np.full(len(X), 1 / total) if weight is None else weight / total
    values = np.empty(len(X))

    def objective(flat: Array) -> tuple[float, Array]:
        parameters, gradients = network.arena.over(flat), network.arena.like()
        caches = propagation.forward(backend, architecture, parameters, X)
        backend.loss_forward(loss, activation, caches[-1].A, caches[-1].Z, Y, values)
        propagation.backward(backend, architecture, parameters, caches, Y, scale, gradients)
        penalty = propagation.add_penalties(architecture, parameters, 1 / total, gradients)
        return float(values @ scale) + penalty, gradients.flat

    def callback(intermediate_result: OptimizeResult) -> None:
        if on_iteration(float(intermediate_result.fun), intermediate_result.x):
            raise StopIteration

    options: dict[str, Any] = {"maxfun": max_fun, "maxiter": max_iter, "gtol": tol}
    result = minimize(
        objective,
        network.arena.flat,
        jac=True,
        method="L-BFGS-B",
        options=options,
        callback=callback,
    )
    network.arena.flat[:] = result.x
    return result
