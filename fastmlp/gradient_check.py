"""Analytic gradients against central differences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fastmlp.network import Network

__all__ = ["check_gradient"]


def check_gradient(network: Network, X: Any, y: Any, sample_weight: Any = None) -> float:
    """Largest relative difference between the gradient and central differences, in float64.

    The gradient is that of what `Network.fit` minimises, penalties included.

    For each parameter array, the largest ``|analytic - numeric|`` over the largest
    ``|analytic| + |numeric|``; the maximum over the arrays. An array whose gradients are below a
    thousandth of the largest of all (they may be 0 but for rounding, as a bias in front of
    `BatchNorm` has) is held against that thousandth. Right gradients give 1e-7 or less, unless a
    sample sits on a kink (relu at 0). Costs two forward passes a parameter.

    Parameters
    ----------
    network : Network
        Is not changed: a float64 copy is checked, on the same backend.
    X, y, sample_weight
        As for `Network.compute_gradient`.

    Returns
    -------
    float

    Notes
    -----
    The step is ``h = eps^(1/3) max(1, |w|)``, where the truncation error h^2 and the rounding error
    eps / h of a central difference balance (Press et al., Numerical Recipes, section 5.7).
    """
    network = network.astype("float64")
    analytic = network.compute_gradient(X, y, sample_weight, training=True)
    base_step = float(np.finfo(np.float64).eps) ** (1 / 3)
    differences, sizes = [], []
    for values, gradients in zip(network.parameters, analytic, strict=True):
        for w, g in zip(values, gradients, strict=True):
            numeric = np.empty_like(g)
            for i in np.ndindex(w.shape):
                value = float(w[i])
                step = base_step * max(1.0, abs(value))
                w[i] = value + step
                above = network.cost(X, y, sample_weight, training=True)
                w[i] = value - step
                below = network.cost(X, y, sample_weight, training=True)
                w[i] = value
                numeric[i] = (above - below) / (2 * step)
            differences.append(np.abs(g - numeric).max())
            sizes.append((np.abs(g) + np.abs(numeric)).max())
    largest = max(sizes)
    if largest == 0:
        return 0.0
    return float((np.array(differences) / np.maximum(sizes, 1e-3 * largest)).max())
