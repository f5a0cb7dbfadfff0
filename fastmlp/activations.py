"""Activation functions: one record each.

A record holds the formula, its derivative, and what goes with them (weights to start from, the code
under which the compiled core knows it). Adding one here and in ``csrc/activations.inl.h`` is all
that a new activation takes.

Shapes: ``Z`` (pre-activation), ``A`` (output) and ``dA`` (gradient of the loss with respect to
``A``) are all (n, n_units). ``forward(Z)`` gives ``A``; ``backward(dA, Z, A)`` gives ``dZ``.

``forward`` is made of operators, methods and NumPy's ufuncs alone. Those reach the arrays with
which autograd (from 1.9) traces a function, so it can differentiate every formula but gelu's. At 0
it takes the mean of both sides for ``np.maximum`` and ``np.abs``, which is right wherever the whole
is smooth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastmlp.cfunctions import CFunctions

__all__ = ["ACTIVATIONS", "Activation", "get_activation", "softmax_jacobian"]

Array = np.ndarray


@dataclass(frozen=True)
class Activation:
    """An activation function and its derivative.

    Parameters
    ----------
    forward : callable
        ``forward(Z) -> A``, arrays of shape (n, n_units).
    backward : callable
        ``backward(dA, Z, A) -> dZ``: the gradient of the loss with respect to ``Z``, for an
        elementwise function ``dA * f'(Z)``.
    name : str, default "custom"
        Shown in ``repr`` and stored in model files.
    default_init : str, default "glorot_uniform"
        Initializer of a layer that names none.
    code : int or None, default None
        Number of the function in the compiled core; None runs it on NumPy.
    probabilities : bool, default False
        Whether every output lies in [0, 1], as the cross-entropies need.
    positive : bool, default False
        Whether every output is above 0, as the losses of counts and amounts need.
    differentiable : bool, default True
        Whether a network can be trained through it.
    native : CFunctions or None, default None
        The C functions of an activation that `from_c` made.

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp import Activation, Dense
    >>> sine = Activation(np.sin, lambda dA, Z, A: dA * np.cos(Z), name="sine")
    >>> Dense(16, sine).activation.name
    'sine'
    """

    forward: Callable[[Array], Array]
    backward: Callable[[Array, Array, Array], Array]
    name: str = "custom"
    default_init: str = "glorot_uniform"
    code: int | None = None
    probabilities: bool = False
    positive: bool = False
    differentiable: bool = True
    native: CFunctions | None = None

    @classmethod
    def from_c(
        cls, name: str, float32: Any = None, float64: Any = None, **properties: Any
    ) -> Activation:
        """An activation of your own in C, which runs inside the compiled loop.

        Parameters
        ----------
        name : str
            Stored in model files; not one of the package's own names.
        float32, float64 : (forward, backward) or None, default None
            Functions for networks of that dtype: addresses, ctypes functions, or numba's `cfunc`.
            Each takes one row of ``n`` units: ``void forward(ptrdiff_t n, const T *z, T *a)``,
            where ``a`` may be ``z``, and ``void backward(ptrdiff_t n, const T *da, const T *z,
            const T *a, T *dz)``, where ``dz`` may be ``da``. They are called without the GIL, from
            several threads at once.
        **properties
            `default_init`, `probabilities`, `positive` as of `Activation`.

        Raises
        ------
        TypeError, ValueError
            For what is no function, or a name that is taken.

        Examples
        --------
        >>> import ctypes
        >>> from fastmlp import Activation
        >>> library = ctypes.CDLL("./sine.so")  # doctest: +SKIP
        >>> Activation.from_c("sine", float32=(library.sine, library.sine_backward))
        ... # doctest: +SKIP
        """
        if name in ACTIVATIONS:
            raise ValueError(f"name: expected one of your own, got {name!r}, which fastmlp has")
        functions = CFunctions(float32, float64)
        return cls(
            functions.forward,
            functions.backward,
            name=name,
            code=functions.code,
            native=functions,
            **properties,
        )

    def __reduce_ex__(self, protocol: Any) -> str | tuple[Any, ...]:
        if self.native is not None:
            raise TypeError(
                f"activation {self.name!r} cannot be pickled: it is made of C functions of this "
                "process. Save the network, and load it with custom={name: activation}"
            )
        # pickle could not find the functions of the package's own records: they have no names.
        if self.code is None:
            return super().__reduce_ex__(protocol)
        return get_activation, (self.name,)

    def __deepcopy__(self, memo: Any) -> Activation:
        return self


LEAKY_RELU_SLOPE = 0.01
ELU_ALPHA = 1.0
# Klambauer et al. 2017, https://arxiv.org/abs/1706.02515, section 2: the fixed point (0, 1).
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


def _sigmoid(Z: Array) -> Array:
    """1 / (1 + exp(-Z)) with exp of numbers below 0 only, so that it cannot overflow."""
    return np.exp(np.minimum(Z, 0)) / (1 + np.exp(-np.abs(Z)))


def _softmax(Z: Array) -> Array:
    """exp(Z) over its row sum; less the row's maximum, so that exp cannot overflow."""
    e = np.exp(Z - Z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _softmax_backward(dA: Array, Z: Array, A: Array) -> Array:
    """dZ_j = sum_i dA_i A_i (delta_ij - A_j) = A_j (dA_j - sum_i dA_i A_i)."""
    return A * (dA - (dA * A).sum(axis=-1, keepdims=True))


def softmax_jacobian(A: Array) -> Array:
    """Jacobian of softmax, ``J[s, i, j] = A[s, i] * (delta_ij - A[s, j])``.

    Parameters
    ----------
    A : ndarray of shape (n, n_units)
        Outputs of softmax.

    Returns
    -------
    ndarray of shape (n, n_units, n_units)
    """
    return A[:, :, None] * (np.eye(A.shape[1], dtype=A.dtype) - A[:, None, :])


def _elu(Z: Array, alpha: float) -> Array:
    return np.maximum(Z, 0) + alpha * np.expm1(np.minimum(Z, 0))


def _elu_backward(dA: Array, Z: Array, alpha: float) -> Array:
    return dA * np.where(Z > 0, 1, alpha * np.exp(np.minimum(Z, 0)))


def _normal_cdf(Z: Array) -> Array:
    # Imported here: SciPy takes longer to import than everything else together.
    from scipy.special import ndtr

    return ndtr(Z)


def _gelu_backward(dA: Array, Z: Array, A: Array) -> Array:
    """d/dz z Phi(z) = Phi(z) + z phi(z), phi the standard normal density."""
    return dA * (_normal_cdf(Z) + Z * np.exp(-0.5 * Z * Z) / Z.dtype.type(np.sqrt(2 * np.pi)))


def _silu_backward(dA: Array, Z: Array, A: Array) -> Array:
    s = _sigmoid(Z)
    return dA * s * (1 + Z * (1 - s))


def _softplus(Z: Array) -> Array:
    """log(1 + exp(Z)) with exp of numbers below 0 only."""
    return np.maximum(Z, 0) + np.log1p(np.exp(-np.abs(Z)))


def _increasing(Z: Array) -> Array:
    """a_0 = z_0; a_j = a_(j-1) + log(1 + exp(z_j))."""
    first = (np.arange(Z.shape[-1]) == 0).astype(Z.dtype)
    return (first * Z + (1 - first) * _softplus(Z)).cumsum(axis=-1)


def _increasing_backward(dA: Array, Z: Array, A: Array) -> Array:
    """dz_j = sigmoid(z_j) sum_(k >= j) da_k, without the sigmoid for j = 0."""
    first = (np.arange(Z.shape[-1]) == 0).astype(Z.dtype)
    return dA[..., ::-1].cumsum(axis=-1)[..., ::-1] * (first + (1 - first) * _sigmoid(Z))


def _no_derivative(dA: Array, Z: Array, A: Array) -> Array:
    raise ValueError("activation 'step' has no useful derivative: it cannot be trained through")


# The position is the code: the order of `enum fm_activation` in csrc/fastmlp.h.
_RECORDS = [
    Activation(
        name="identity",
        forward=lambda Z: 1 * Z,
        backward=lambda dA, Z, A: dA.copy(),
    ),
    Activation(
        name="relu",
        default_init="he_uniform",
        forward=lambda Z: np.maximum(Z, 0),
        backward=lambda dA, Z, A: dA * (Z > 0),
    ),
    Activation(
        name="leaky_relu",
        default_init="he_uniform",
        forward=lambda Z: np.maximum(Z, LEAKY_RELU_SLOPE * Z),
        backward=lambda dA, Z, A: np.where(Z > 0, dA, LEAKY_RELU_SLOPE * dA),
    ),
    # Clevert et al. 2016, https://arxiv.org/abs/1511.07289
    Activation(
        name="elu",
        default_init="he_uniform",
        forward=lambda Z: _elu(Z, ELU_ALPHA),
        backward=lambda dA, Z, A: _elu_backward(dA, Z, ELU_ALPHA),
    ),
    Activation(
        name="selu",
        default_init="lecun_normal",
        forward=lambda Z: SELU_SCALE * _elu(Z, SELU_ALPHA),
        backward=lambda dA, Z, A: SELU_SCALE * _elu_backward(dA, Z, SELU_ALPHA),
    ),
    Activation(
        name="sigmoid",
        probabilities=True,
        positive=True,
        forward=_sigmoid,
        backward=lambda dA, Z, A: dA * A * (1 - A),
    ),
    Activation(
        name="tanh",
        forward=np.tanh,
        backward=lambda dA, Z, A: dA * (1 - A) * (1 + A),
    ),
    Activation(
        name="softplus",
        default_init="he_uniform",
        positive=True,
        forward=_softplus,
        backward=lambda dA, Z, A: dA * _sigmoid(Z),
    ),
    # Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415, the exact form
    Activation(
        name="gelu",
        default_init="he_uniform",
        forward=lambda Z: Z * _normal_cdf(Z),
        backward=_gelu_backward,
    ),
    Activation(
        name="silu",
        default_init="he_uniform",
        forward=lambda Z: Z * _sigmoid(Z),
        backward=_silu_backward,
    ),
    Activation(
        name="softmax",
        probabilities=True,
        positive=True,
        forward=_softmax,
        backward=_softmax_backward,
    ),
    # Unit step, 1 from 0 on: to show what a network can express; it has no gradient.
    Activation(
        name="step",
        probabilities=True,
        differentiable=False,
        forward=lambda Z: np.where(np.isnan(Z), Z, (Z >= 0).astype(Z.dtype)),
        backward=_no_derivative,
    ),
    Activation(
        name="exp",
        positive=True,
        forward=np.exp,
        backward=lambda dA, Z, A: dA * A,
    ),
    # Outputs that do not fall along a row, for quantiles that do not cross.
    Activation(
        name="increasing",
        forward=_increasing,
        backward=_increasing_backward,
    ),
]

ACTIVATIONS: dict[str, Activation] = {
    record.name: Activation(**{**record.__dict__, "code": code})
    for code, record in enumerate(_RECORDS)
}


def get_activation(activation: str | Activation) -> Activation:
    """The record of a name; a record is given back as it is."""
    if isinstance(activation, Activation):
        return activation
    if not isinstance(activation, str):
        raise TypeError(
            f"activation: expected a name or an Activation, got {type(activation).__name__}"
        )
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: expected one of {sorted(ACTIVATIONS)}, got {activation!r}")
    return ACTIVATIONS[activation]
