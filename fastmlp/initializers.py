"""Initial weights: functions ``(rng, n_in, n_out) -> (n_in, n_out)``.

All are drawn by NumPy in float64 and rounded afterwards, so that every backend starts from the same
bits. Biases start at 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["INITIALIZERS", "Initializer", "get_initializer"]

Initializer = Callable[[np.random.Generator, int, int], np.ndarray]


def _normal(variance: Callable[[int, int], float]) -> Initializer:
    return lambda rng, n_in, n_out: rng.normal(0.0, variance(n_in, n_out) ** 0.5, (n_in, n_out))


def _uniform(variance: Callable[[int, int], float]) -> Initializer:
    """U(-a, a) has the variance a^2 / 3."""

    def draw(rng: np.random.Generator, n_in: int, n_out: int) -> np.ndarray:
        limit = (3.0 * variance(n_in, n_out)) ** 0.5
        return rng.uniform(-limit, limit, (n_in, n_out))

    return draw


def _glorot(n_in: int, n_out: int) -> float:
    """Glorot and Bengio 2010, https://proceedings.mlr.press/v9/glorot10a.html, equation 12."""
    return 2.0 / (n_in + n_out)


def _he(n_in: int, n_out: int) -> float:
    """He et al. 2015, https://arxiv.org/abs/1502.01852, equation 10."""
    return 2.0 / n_in


def _lecun(n_in: int, n_out: int) -> float:
    """LeCun et al. 1998, Efficient BackProp, section 4.6."""
    return 1.0 / n_in


INITIALIZERS: dict[str, Initializer] = {
    "glorot_uniform": _uniform(_glorot),
    "glorot_normal": _normal(_glorot),
    "he_uniform": _uniform(_he),
    "he_normal": _normal(_he),
    "lecun_normal": _normal(_lecun),
    "standard_normal": _normal(lambda n_in, n_out: 1.0),
    "max_fan_normal": _normal(lambda n_in, n_out: 1.0 / max(n_in, n_out)),
    "zeros": lambda rng, n_in, n_out: np.zeros((n_in, n_out)),
}


def get_initializer(init: str | Initializer) -> Initializer:
    """The function of a name; a callable is given back as it is."""
    if callable(init):
        return init
    if not isinstance(init, str):
        raise TypeError(f"init: expected a name or a callable, got {type(init).__name__}")
    if init not in INITIALIZERS:
        raise ValueError(f"init: expected one of {sorted(INITIALIZERS)}, got {init!r}")
    return INITIALIZERS[init]
