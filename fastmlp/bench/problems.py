"""The data of the workloads; generated data of the same shape where the real data is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastmlp import datasets
from fastmlp.validation import scale_pixels

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ON_PURPOSE", "PROBLEMS", "Problem", "load_problem"]

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Problem:
    """Samples to train on and samples to test on.

    Attributes
    ----------
    X, X_test : ndarray of shape (n, n_inputs)
    y, y_test : ndarray
        Integer labels (n,), or 0/1 of shape (n, 1).
    generated : str
        Why the data is generated, empty where it is real.
    """

    X: Array
    y: Array
    X_test: Array
    y_test: Array
    generated: str = ""

    @property
    def n_inputs(self) -> int:
        return int(self.X.shape[1])

    @property
    def n_outputs(self) -> int:
        return int(self.y.max()) + 1 if self.y.ndim == 1 else 1


def load_problem(name: str, dtype: str, *, pixels: bool = False, generated: str = "") -> Problem:
    """The problem of a name.

    Parameters
    ----------
    name : str
        Of `PROBLEMS`.
    dtype : str
        Of the inputs.
    pixels : bool, default False
        Leave uint8 images as they are.
    generated : str, default ""
        Not empty: take generated data, for this reason.
    """
    problem = PROBLEMS[name](generated)
    if pixels:
        return problem
    X, X_test = (_as_float(A, np.dtype(dtype)) for A in (problem.X, problem.X_test))
    return Problem(X, problem.y, X_test, problem.y_test, problem.generated)


def _as_float(X: Array, dtype: np.dtype) -> Array:
    return np.ascontiguousarray(scale_pixels(X, dtype), dtype)


def _images(load: Callable[[], datasets.Dataset], density: float) -> Callable[[str], Problem]:
    def problem(generated: str) -> Problem:
        if not generated:
            try:
                data = load()
                return Problem(data.X_train, data.y_train, data.X_test, data.y_test)
            except OSError as error:
                generated = str(error)
        return _generated_images(density, generated)

    return problem


def _generated_images(density: float, reason: str) -> Problem:
    """70,000 images of 28x28 in 10 classes, of which a share `density` of the pixels is not 0.

    A class is a smooth map of how likely each pixel is inked, so that as in the real data the zeros
    come in runs and some pixels are never inked.
    """
    rng = np.random.default_rng(28)
    waves = np.arange(28) / 28
    phases = rng.uniform(0, 2 * np.pi, (2, 10, 3, 1))
    rows, columns = np.sin(2 * np.pi * np.arange(1, 4)[:, None] * waves + phases)
    maps = np.einsum("ckr,ckl->crl", rows, columns).reshape(10, 784)
    inked = maps > np.quantile(maps, 1 - 1.25 * density, axis=1, keepdims=True)
    y = rng.integers(0, 10, 70_000)
    X = rng.integers(1, 256, (len(y), 784), dtype=np.uint8)
    # Four of five inked pixels, so that no two images are alike and classes can be mistaken.
    X *= inked[y] & (rng.integers(0, 5, X.shape, dtype=np.uint8) > 0)
    return Problem(X[:60_000], y[:60_000], X[60_000:], y[60_000:], reason)


def _dense(generated: str) -> Problem:
    """Rows without a zero, as wide as MNIST."""
    rng = np.random.default_rng(784)
    X, X_test = (rng.standard_normal((1000, 784), np.float32) for _ in range(2))
    y = np.arange(1000) % 10
    return Problem(X, y, X_test, y, ON_PURPOSE)


def _collisions(generated: str) -> Problem:
    """110,000 rows of 28 numbers in two classes, as in the HIGGS data set: what a small random
    network says of normal numbers.
    """
    rng = np.random.default_rng(11_000_000)
    X = rng.standard_normal((110_000, 28), np.float32)
    hidden = np.tanh(X @ rng.standard_normal((28, 16), np.float32) / 28**0.5)
    y = (hidden @ rng.standard_normal((16, 1), np.float32) > 0).astype(np.float32)
    return Problem(X[:100_000], y[:100_000], X[100_000:], y[100_000:], ON_PURPOSE)


def _iris(generated: str) -> Problem:
    data = datasets.load_iris()
    mean, deviation = data.X_train.mean(axis=0), data.X_train.std(axis=0)
    X, X_test = ((A - mean) / deviation for A in (data.X_train, data.X_test))
    return Problem(X, data.y_train, X_test, data.y_test)


def _digits(generated: str) -> Problem:
    data = datasets.load_digits()
    return Problem(data.X_train, data.y_train, data.X_test, data.y_test)


ON_PURPOSE = "on purpose"

# Shares of pixels that are not 0: 19.1% in MNIST, 49.8% in Fashion-MNIST.
PROBLEMS: dict[str, Callable[[str], Problem]] = {
    "mnist": _images(datasets.load_mnist, 0.191),
    "fashion_mnist": _images(datasets.load_fashion_mnist, 0.498),
    "dense": _dense,
    "collisions": _collisions,
    "iris": _iris,
    "digits": _digits,
}
