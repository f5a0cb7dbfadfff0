"""Losses: one record each.

``A`` (n, n_outputs) are a network's outputs, ``Y`` (n, n_outputs) the targets; integer class labels
reach a record as one-hot rows. ``value(A, Y)`` gives each sample's loss, shape (n,);
``gradient(A, Y)`` its derivative with respect to ``A``. The mean over the samples is the network's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastmlp.activations import Activation

__all__ = ["LOSSES", "Loss", "get_loss"]

Array = np.ndarray


@dataclass(frozen=True)
class Loss:
    """A loss and its gradient.

    Parameters
    ----------
    value : callable
        ``value(A, Y) -> (n,)``: the loss of each sample.
    gradient : callable
        ``gradient(A, Y) -> (n, n_outputs)``: derivative of each sample's loss in ``A``.
    name : str, default "custom"
        Shown in ``repr`` and stored in model files.
    fused_with : str, default ""
        Output activation with which the gradient with respect to the pre-activation ``Z`` is
        ``(A - Y) / divisor``.
    value_from_z : callable or None, default None
        ``value_from_z(Z, Y) -> (n,)``: the same loss from the pre-activation of that activation,
        where ``log(A)`` would lose digits or overflow.
    correct : callable or None, default None
        ``correct(A, Y) -> (n,)`` bool: which samples are right; for a loss of classes.
    labels : bool, default False
        Whether integer class labels of shape (n,) are taken for one-hot rows.
    probabilities : bool, default False
        Whether outputs have to be probabilities.
    code : int or None, default None
        Number of the loss in the compiled core; None runs it on NumPy.
    factor, value_factor : float, default 1
        Times gradient and value: see `scaled`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp import Loss
    >>> log_cosh = Loss(lambda A, Y: np.log(np.cosh(A - Y)).mean(axis=1),
    ...                 lambda A, Y: np.tanh(A - Y) / A.shape[1], name="log_cosh")
    >>> log_cosh.value(np.zeros((2, 1)), np.zeros((2, 1)))
    array([0., 0.])
    """

    value: Callable[[Array, Array], Array]
    gradient: Callable[[Array, Array], Array]
    name: str = "custom"
    fused_with: str = ""
    value_from_z: Callable[[Array, Array], Array] | None = None
    correct: Callable[[Array, Array], Array] | None = None
    labels: bool = False
    probabilities: bool = False
    code: int | None = None
    factor: float = 1.0
    value_factor: float = 1.0

    def __reduce_ex__(self, protocol: Any) -> str | tuple[Any, ...]:
        # pickle could not find the functions of the package's own records: they have no names.
        if self.code is None:
            return super().__reduce_ex__(protocol)
        return _scaled_loss, (self.name, self.factor, self.value_factor)

    def scaled(self, factor: float, value_factor: float | None = None) -> Loss:
        """The same loss times `factor`.

        Parameters
        ----------
        factor : float
            ``get_loss("mse").scaled(0.5)`` is half the squared error.
        value_factor : float or None, default None
            Of the value alone, where the figure that is shown is to be another than the one whose
            gradient is followed.
        """
        value_factor = factor if value_factor is None else value_factor
        return replace(self, factor=float(factor), value_factor=float(value_factor))

    def fuses(self, activation: Activation) -> bool:
        """Whether the output gradient behind `activation` is ``(A - Y) / divisor``."""
        return activation.code is not None and activation.name == self.fused_with


def _floor(A: Array) -> Array:
    """Probabilities kept off 0, where log and 1/A are not finite."""
    return np.maximum(A, np.finfo(A.dtype).tiny)


def _cross_entropy_from_z(Z: Array, Y: Array) -> Array:
    """-sum_j y_j log softmax(z)_j = sum_j y_j (log sum_i exp(z_i - max) + max - z_j)."""
    shifted = Z - Z.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return (Y * (log_sum - shifted)).sum(axis=1)


def _binary_cross_entropy_from_z(Z: Array, Y: Array) -> Array:
    """mean_j max(z, 0) - z y + log(1 + exp(-|z|))."""
    return (np.maximum(Z, 0) - Z * Y + np.log1p(np.exp(-np.abs(Z)))).mean(axis=1)


def _huber(A: Array, Y: Array) -> Array:
    """mean_j r^2 / 2 where |r| <= 1, else |r| - 1/2 (Huber 1964, delta = 1)."""
    r = np.abs(A - Y)
    q = np.minimum(r, 1)
    return (q * (r - 0.5 * q)).mean(axis=1)


# The position is the code: the order of `enum fm_loss` in csrc/fastmlp.h.
_RECORDS = [
    Loss(
        name="cross_entropy",
        value=lambda A, Y: -(Y * np.log(_floor(A))).sum(axis=1),
        gradient=lambda A, Y: -Y / _floor(A),
        fused_with="softmax",
        value_from_z=_cross_entropy_from_z,
        correct=lambda A, Y: A.argmax(axis=1) == Y.argmax(axis=1),
        labels=True,
        probabilities=True,
    ),
    Loss(
        name="binary_cross_entropy",
        value=lambda A, Y: -(Y * np.log(_floor(A)) + (1 - Y) * np.log(_floor(1 - A))).mean(axis=1),
        gradient=lambda A, Y: ((1 - Y) / _floor(1 - A) - Y / _floor(A)) / A.shape[1],
        fused_with="sigmoid",
        value_from_z=_binary_cross_entropy_from_z,
        correct=lambda A, Y: ((A > 0.5) == (Y > 0.5)).all(axis=1),
        probabilities=True,
    ),
    Loss(
        name="mse",
        value=lambda A, Y: ((A - Y) ** 2).mean(axis=1),
        gradient=lambda A, Y: 2 * (A - Y) / A.shape[1],
    ),
    Loss(
        name="mae",
        value=lambda A, Y: np.abs(A - Y).mean(axis=1),
        gradient=lambda A, Y: np.sign(A - Y) / A.shape[1],
    ),
    Loss(
        name="huber",
        value=_huber,
        gradient=lambda A, Y: np.clip(A - Y, -1, 1) / A.shape[1],
    ),
]

LOSSES: dict[str, Loss] = {
    record.name: Loss(**{**record.__dict__, "code": code}) for code, record in enumerate(_RECORDS)
}


def get_loss(loss: str | Loss) -> Loss:
    """The record of a name; a record is given back as it is."""
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, str):
        raise TypeError(f"loss: expected a name or a Loss, got {type(loss).__name__}")
    if loss not in LOSSES:
        raise ValueError(f"loss: expected one of {sorted(LOSSES)}, got {loss!r}")
    return LOSSES[loss]


def _scaled_loss(name: str, factor: float, value_factor: float) -> Loss:
    """What a pickled record becomes again."""
    loss = LOSSES[name]
    return loss if factor == value_factor == 1 else loss.scaled(factor, value_factor)
