"""Losses: one record each.

``A`` (n, n_outputs) are a network's outputs, ``Y`` (n, n_outputs) the targets; integer class labels
reach a record as one-hot rows. ``value(A, Y)`` gives each sample's loss, shape (n,);
``gradient(A, Y)`` its derivative with respect to ``A``. The mean over the samples is the network's.
A loss with options is made by a function (`Huber`, `Quantile`); equal options give the same record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from fastmlp.activations import Activation

__all__ = [
    "LOSSES",
    "BinaryCrossEntropy",
    "BinaryFocal",
    "CrossEntropy",
    "Focal",
    "Huber",
    "Loss",
    "Quantile",
    "get_loss",
    "make_loss",
]

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
        Output activation behind which value and gradient come from the next two.
    value_from_z : callable or None, default None
        ``value_from_z(Z, Y) -> (n,)``: the same loss from the pre-activation of that activation,
        where ``log(A)`` would lose digits or overflow.
    gradient_from_z : callable or None, default None
        ``gradient_from_z(A, Z, Y) -> (n, n_outputs)``: derivative in that pre-activation.
    correct : callable or None, default None
        ``correct(A, Y) -> (n,)`` bool: which samples are right; for a loss of classes.
    labels : bool, default False
        Whether integer class labels of shape (n,) are taken for one-hot rows.
    probabilities : bool, default False
        Whether outputs and targets have to be probabilities.
    positive : bool, default False
        Whether outputs have to be above 0.
    targets : {"real", "nonnegative", "positive"}, default "real"
    n_outputs : int or None, default None
        How many outputs it is for; None takes any number.
    options : tuple of (name, value), default ()
        Parameters that the functions were made with; stored in model files.
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
    gradient_from_z: Callable[[Array, Array, Array], Array] | None = None
    correct: Callable[[Array, Array], Array] | None = None
    labels: bool = False
    probabilities: bool = False
    positive: bool = False
    targets: str = "real"
    n_outputs: int | None = None
    options: tuple[tuple[str, Any], ...] = ()
    code: int | None = None
    factor: float = 1.0
    value_factor: float = 1.0

    def __reduce_ex__(self, protocol: Any) -> str | tuple[Any, ...]:
        # pickle could not find the functions of the package's own records: they have no names.
        if self.code is None:
            return super().__reduce_ex__(protocol)
        return make_loss, (self.name, dict(self.options), self.factor, self.value_factor)

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

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options)
        return f"{self.name}({options})" if options else self.name

    def fuses(self, activation: Activation) -> bool:
        """Whether value and gradient come from the pre-activation of `activation`."""
        return activation.code is not None and activation.name == self.fused_with

    def takes(self, activation: Activation) -> bool:
        """Whether the outputs of `activation` suit it; those of your own are trusted."""
        return activation.code is None or not (
            (self.probabilities and not activation.probabilities)
            or (self.positive and not activation.positive)
        )

    def option_row(self, n_outputs: int) -> Array:
        """What the compiled core needs to know of the options: a number an output, float64."""
        values = self.options[0][1] if self.options else 0.0
        return np.resize(np.asarray(values, dtype=np.float64), n_outputs)


# The position is the code: the order of `enum fm_loss_code` in csrc/fastmlp.h.
_CODES = {
    name: code
    for code, name in enumerate(
        [
            "cross_entropy",
            "binary_cross_entropy",
            "mse",
            "mae",
            "huber",
            "quantile",
            "poisson",
            "gamma",
            "hinge",
            "focal",
            "binary_focal",
        ]
    )
}


def _floor(A: Array) -> Array:
    """Numbers above 0 kept off 0, where log and 1/A are not finite."""
    return np.maximum(A, np.finfo(A.dtype).tiny)


def _x_log_x(Y: Array) -> Array:
    """Y log Y, 0 at 0."""
    return Y * np.log(_floor(Y))


def _log_softmax(Z: Array) -> Array:
    """Log of softmax: z_j - max - log sum_i exp(z_i - max)."""
    shifted = Z - Z.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _softplus(Z: Array) -> Array:
    """log(1 + exp(Z)) = -log of sigmoid at -Z, with exp of numbers below 0 only."""
    return np.maximum(Z, 0) + np.log1p(np.exp(-np.abs(Z)))


def _largest(A: Array, Y: Array) -> Array:
    """The largest output is the class's."""
    return A.argmax(axis=1) == Y.argmax(axis=1)


def _same_side(A: Array, Y: Array) -> Array:
    """Every output is on its target's side of 1/2."""
    return ((A > 0.5) == (Y > 0.5)).all(axis=1)


def _number(value: Any, name: str, low: float, high: float, interval: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if not low <= value <= high or not np.isfinite(value):
        raise ValueError(f"{name}: expected a number in {interval}, got {value}")
    return float(value)


_SMALLEST = float(np.finfo(np.float64).smallest_subnormal)


def CrossEntropy(label_smoothing: float = 0.0) -> Loss:
    """``-sum_j y_j log a_j``, for classes.

    Parameters
    ----------
    label_smoothing : float in [0, 1), default 0
        Targets are moved towards equal probabilities, ``(1 - s) y + s / n_outputs`` (Szegedy et al.
        2016, https://arxiv.org/abs/1512.00567, section 7). `Network.evaluate` does so, too.
    """
    return _cross_entropy(_number(label_smoothing, "label_smoothing", 0, 1 - 2**-53, "[0, 1)"))


@cache
def _cross_entropy(s: float) -> Loss:
    def smooth(Y: Array) -> Array:
        return Y + s * (1 / Y.shape[1] - Y) if s else Y

    return Loss(
        name="cross_entropy",
        value=lambda A, Y: -(smooth(Y) * np.log(_floor(A))).sum(axis=1),
        gradient=lambda A, Y: -smooth(Y) / _floor(A),
        fused_with="softmax",
        value_from_z=lambda Z, Y: -(smooth(Y) * _log_softmax(Z)).sum(axis=1),
        gradient_from_z=lambda A, Z, Y: A - smooth(Y),
        correct=_largest,
        labels=True,
        probabilities=True,
        options=(("label_smoothing", s),) if s else (),
        code=_CODES["cross_entropy"],
    )


def BinaryCrossEntropy(label_smoothing: float = 0.0) -> Loss:
    """``-mean_j y_j log a_j + (1 - y_j) log(1 - a_j)``, for outputs that are each yes or no.

    Parameters
    ----------
    label_smoothing : float in [0, 1), default 0
        Targets are moved towards 1/2: ``(1 - s) y + s / 2``.
    """
    return _binary_cross_entropy(
        _number(label_smoothing, "label_smoothing", 0, 1 - 2**-53, "[0, 1)")
    )


@cache
def _binary_cross_entropy(s: float) -> Loss:
    def smooth(Y: Array) -> Array:
        return Y + s * (0.5 - Y) if s else Y

    def value(A: Array, Y: Array) -> Array:
        Y = smooth(Y)
        return -(Y * np.log(_floor(A)) + (1 - Y) * np.log(_floor(1 - A))).mean(axis=1)

    def gradient(A: Array, Y: Array) -> Array:
        Y = smooth(Y)
        return ((1 - Y) / _floor(1 - A) - Y / _floor(A)) / A.shape[1]

    return Loss(
        name="binary_cross_entropy",
        value=value,
        gradient=gradient,
        fused_with="sigmoid",
        value_from_z=lambda Z, Y: (_softplus(Z) - Z * smooth(Y)).mean(axis=1),
        gradient_from_z=lambda A, Z, Y: (A - smooth(Y)) / A.shape[1],
        correct=_same_side,
        probabilities=True,
        options=(("label_smoothing", s),) if s else (),
        code=_CODES["binary_cross_entropy"],
    )


def Huber(delta: float = 1.0) -> Loss:
    """``mean_j r^2 / 2`` where ``|r| <= delta``, else ``delta (|r| - delta / 2)``; ``r = a - y``.

    Huber 1964, https://doi.org/10.1214/aoms/1177703732.

    Parameters
    ----------
    delta : float above 0, default 1
    """
    return _huber(_number(delta, "delta", _SMALLEST, np.inf, "(0, inf)"))


@cache
def _huber(delta: float) -> Loss:
    def value(A: Array, Y: Array) -> Array:
        r = np.abs(A - Y)
        q = np.minimum(r, delta)
        return (q * (r - 0.5 * q)).mean(axis=1)

    return Loss(
        name="huber",
        value=value,
        gradient=lambda A, Y: np.clip(A - Y, -delta, delta) / A.shape[1],
        options=(("delta", delta),),
        code=_CODES["huber"],
    )


def Quantile(levels: float | Sequence[float] = 0.5) -> Loss:
    """Pinball loss ``mean_j max(q_j r, (q_j - 1) r)``, ``r = y - a``: output j goes to the
    quantile ``q_j`` of the target.

    Koenker and Bassett 1978, https://doi.org/10.2307/1913643.

    Parameters
    ----------
    levels : float or sequence of float in (0, 1), default 0.5, the median
        One for each output, or one for all. Several have to rise; each row of outputs is then held
        against the same target, so `y` may be (n,). Behind the output activation "increasing" the
        quantiles do not cross.
    """
    several = isinstance(levels, (tuple, list, np.ndarray))
    given = tuple(levels) if isinstance(levels, (tuple, list, np.ndarray)) else (levels,)
    checked = tuple(_number(q, "levels", _SMALLEST, 1 - 2**-53, "(0, 1)") for q in given)
    if not checked or any(a >= b for a, b in pairwise(checked)):
        raise ValueError(f"levels: expected rising numbers in (0, 1), got {levels}")
    return _quantile(checked if several else checked[0])


@cache
def _quantile(levels: float | tuple[float, ...]) -> Loss:
    def row(A: Array) -> Array:
        return np.asarray(levels).astype(A.dtype)

    return Loss(
        name="quantile",
        value=lambda A, Y: (np.maximum(A - Y, 0) + row(A) * (Y - A)).mean(axis=1),
        gradient=lambda A, Y: ((A > Y) - row(A) * (A != Y)) / A.dtype.type(A.shape[1]),
        n_outputs=len(levels) if isinstance(levels, tuple) else None,
        options=(("levels", levels),),
        code=_CODES["quantile"],
    )


def Focal(gamma: float = 2.0) -> Loss:
    """``-sum_j y_j (1 - a_j)^gamma log a_j``: cross-entropy in which easy samples count less.

    Lin et al. 2017, https://arxiv.org/abs/1708.02002, equation 4, for any number of classes.

    Parameters
    ----------
    gamma : float of at least 0, default 2
    """
    return _focal(_number(gamma, "gamma", 0, np.inf, "[0, inf)"))


@cache
def _focal(gamma: float) -> Loss:
    def terms(log_a: Array) -> tuple[Array, Array]:
        """(1 - a)^gamma, and log(a) / (1 - a), which is -1 at 1."""
        rest = -np.expm1(log_a)
        return rest**gamma, np.where(rest > 0, log_a / _floor(rest), -1)

    def gradient_from_z(A: Array, Z: Array, Y: Array) -> Array:
        log_a = _log_softmax(Z)
        power, ratio = terms(log_a)
        pull = Y * power * (gamma * np.exp(log_a) * ratio - 1)
        return pull - A * pull.sum(axis=1, keepdims=True)

    def value_from_z(Z: Array, Y: Array) -> Array:
        log_a = _log_softmax(Z)
        return -(Y * (-np.expm1(log_a)) ** gamma * log_a).sum(axis=1)

    def gradient(A: Array, Y: Array) -> Array:
        A = _floor(A)
        power, ratio = terms(np.log(A))
        return Y * power * (gamma * ratio - 1 / A)

    return Loss(
        name="focal",
        value=lambda A, Y: -(Y * (1 - A) ** gamma * np.log(_floor(A))).sum(axis=1),
        gradient=gradient,
        fused_with="softmax",
        value_from_z=value_from_z,
        gradient_from_z=gradient_from_z,
        correct=_largest,
        labels=True,
        probabilities=True,
        options=(("gamma", gamma),),
        code=_CODES["focal"],
    )


def BinaryFocal(gamma: float = 2.0) -> Loss:
    """``-mean_j y_j (1 - a_j)^gamma log a_j + (1 - y_j) a_j^gamma log(1 - a_j)``: binary
    cross-entropy in which easy outputs count less. Lin et al. 2017, equation 4.

    Parameters
    ----------
    gamma : float of at least 0, default 2
    """
    return _binary_focal(_number(gamma, "gamma", 0, np.inf, "[0, inf)"))


@cache
def _binary_focal(gamma: float) -> Loss:
    def value(A: Array, Y: Array) -> Array:
        yes = Y * (1 - A) ** gamma * np.log(_floor(A))
        return -(yes + (1 - Y) * A**gamma * np.log(_floor(1 - A))).mean(axis=1)

    def gradient(A: Array, Y: Array) -> Array:
        def pull(a: Array, rest: Array) -> Array:
            a, rest = _floor(a), _floor(rest)
            return rest**gamma * (gamma * np.log(a) / rest - 1 / a)

        return (Y * pull(A, 1 - A) - (1 - Y) * pull(1 - A, A)) / A.shape[1]

    def value_from_z(Z: Array, Y: Array) -> Array:
        yes, no = _softplus(-Z), _softplus(Z)  # -log a, -log(1 - a)
        return (Y * np.exp(-gamma * no) * yes + (1 - Y) * np.exp(-gamma * yes) * no).mean(axis=1)

    def gradient_from_z(A: Array, Z: Array, Y: Array) -> Array:
        yes, no = _softplus(-Z), _softplus(Z)
        up = np.exp(-gamma * no) * (gamma * A * yes + np.exp(-no))
        down = np.exp(-gamma * yes) * (gamma * np.exp(-no) * no + A)
        return ((1 - Y) * down - Y * up) / A.shape[1]

    return Loss(
        name="binary_focal",
        value=value,
        gradient=gradient,
        fused_with="sigmoid",
        value_from_z=value_from_z,
        gradient_from_z=gradient_from_z,
        correct=_same_side,
        probabilities=True,
        options=(("gamma", gamma),),
        code=_CODES["binary_focal"],
    )


def _hinge_scores(A: Array, Y: Array) -> Array:
    return A + 1 - Y


def _hinge_gradient(A: Array, Y: Array) -> Array:
    """1 for the first largest a_j + 1 - y_j, less the target."""
    gradient = -Y
    gradient[np.arange(len(A)), _hinge_scores(A, Y).argmax(axis=1)] += 1
    return gradient


_MSE = Loss(
    name="mse",
    value=lambda A, Y: ((A - Y) ** 2).mean(axis=1),
    gradient=lambda A, Y: 2 * (A - Y) / A.shape[1],
    code=_CODES["mse"],
)
_MAE = Loss(
    name="mae",
    value=lambda A, Y: np.abs(A - Y).mean(axis=1),
    gradient=lambda A, Y: np.sign(A - Y) / A.shape[1],
    code=_CODES["mae"],
)
# Half the deviance of a Poisson and of a gamma distribution with mean a: McCullagh and Nelder 1989,
# Generalized Linear Models, table 2.1. Summed over the outputs, as scikit-learn does.
_POISSON = Loss(
    name="poisson",
    value=lambda A, Y: (_x_log_x(Y) - Y * np.log(_floor(A)) - Y + A).sum(axis=1),
    gradient=lambda A, Y: 1 - Y / _floor(A),
    fused_with="exp",
    value_from_z=lambda Z, Y: (_x_log_x(Y) - Y * Z - Y + np.exp(Z)).sum(axis=1),
    gradient_from_z=lambda A, Z, Y: A - Y,
    positive=True,
    targets="nonnegative",
    code=_CODES["poisson"],
)
_GAMMA = Loss(
    name="gamma",
    value=lambda A, Y: (np.log(_floor(A) / Y) + Y / _floor(A) - 1).sum(axis=1),
    gradient=lambda A, Y: (1 - Y / _floor(A)) / _floor(A),
    fused_with="exp",
    value_from_z=lambda Z, Y: (Z - np.log(Y) + Y * np.exp(-Z) - 1).sum(axis=1),
    gradient_from_z=lambda A, Z, Y: 1 - Y * np.exp(-Z),
    positive=True,
    targets="positive",
    code=_CODES["gamma"],
)
# max(0, 1 + the largest other score - the class's): Crammer and Singer 2001,
# https://jmlr.org/papers/v2/crammer01a.html, equation 4.
_HINGE = Loss(
    name="hinge",
    value=lambda A, Y: _hinge_scores(A, Y).max(axis=1) - (A * Y).sum(axis=1),
    gradient=_hinge_gradient,
    correct=_largest,
    labels=True,
    code=_CODES["hinge"],
)

_FACTORIES: dict[str, Callable[..., Loss]] = {
    "cross_entropy": CrossEntropy,
    "binary_cross_entropy": BinaryCrossEntropy,
    "huber": Huber,
    "quantile": Quantile,
    "focal": Focal,
    "binary_focal": BinaryFocal,
}
_PLAIN = {record.name: record for record in (_MSE, _MAE, _POISSON, _GAMMA, _HINGE)}

LOSSES: dict[str, Loss] = {
    name: _PLAIN[name] if name in _PLAIN else _FACTORIES[name]() for name in _CODES
}


def make_loss(
    name: str, options: Mapping[str, Any], factor: float = 1.0, value_factor: float = 1.0
) -> Loss:
    """One of the package's losses with its options and factors."""
    loss = _FACTORIES[name](**options) if options else LOSSES[name]
    return loss if factor == value_factor == 1 else loss.scaled(factor, value_factor)


def get_loss(loss: str | Loss) -> Loss:
    """The record of a name; a record is given back as it is."""
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, str):
        raise TypeError(f"loss: expected a name or a Loss, got {type(loss).__name__}")
    if loss not in LOSSES:
        raise ValueError(f"loss: expected one of {sorted(LOSSES)}, got {loss!r}")
    return LOSSES[loss]
