"""scikit-learn's scorers on a network's outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fastmlp.architecture import Architecture
    from fastmlp.network import Network

__all__ = ["Metrics", "Scorer"]

Array = np.ndarray
Scorer = Callable[[Any, Any, Any], float]  # scorer(estimator, X, y), more is better


class Metrics:
    """Scorers with the names that they are recorded under.

    Parameters
    ----------
    metrics : iterable of (str or scorer), or mapping from names to them
        A name is one of ``sklearn.metrics.get_scorer_names()``.
    architecture : Architecture

    Raises
    ------
    TypeError, ValueError
        For what is no scorer.
    ImportError
        Without scikit-learn, where a name or a scorer is given.
    """

    def __init__(
        self,
        metrics: Iterable[str | Scorer] | Mapping[str, str | Scorer],
        architecture: Architecture,
    ):
        if isinstance(metrics, str):
            raise TypeError(f"metrics: expected a sequence of names or scorers, got {metrics!r}")
        named = metrics.items() if isinstance(metrics, Mapping) else [(None, m) for m in metrics]
        self.scorers = dict(_scorer(name, metric) for name, metric in named)
        self.architecture = architecture

    def evaluate(self, network: Network, X: Any, Y: Array) -> dict[str, float]:
        """Each scorer's value for checked data."""
        if not self.scorers:
            return {}
        estimator = _estimator(self.architecture, network.predict(X))
        y = _labels(self.architecture, Y)
        return {name: float(scorer(estimator, X, y)) for name, scorer in self.scorers.items()}


def _scorer(name: str | None, metric: str | Scorer) -> tuple[str, Scorer]:
    if isinstance(metric, str):
        from sklearn.metrics import get_scorer

        try:
            return name or metric, get_scorer(metric)
        except ValueError:
            raise ValueError(
                f"metrics: {metric!r} is none of sklearn.metrics.get_scorer_names()"
            ) from None
    if not callable(metric):
        raise TypeError(f"metrics: expected a name or a scorer, got {type(metric).__name__}")
    if name is None:
        function = getattr(metric, "_score_func", metric)  # of a make_scorer
        name = getattr(function, "__name__", type(metric).__name__)
    return name, metric


def _labels(architecture: Architecture, Y: Array) -> Array:
    """Targets as scikit-learn has them: labels, 0/1 (rows of them for several), or floats."""
    loss = architecture.loss
    if loss.labels:
        return Y if Y.ndim == 1 else Y.argmax(axis=1)
    if loss.probabilities:
        Y = (Y >= 0.5).astype(np.int64)
    return Y[:, 0] if Y.shape[1] == 1 else Y


def _estimator(architecture: Architecture, outputs: Array) -> Any:
    """A fitted estimator, to scorers, that knows one answer: `outputs`."""
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

    loss = architecture.loss
    binary = loss.probabilities and not loss.labels
    kind = ClassifierMixin if loss.labels or binary else RegressorMixin

    class Answers(kind, BaseEstimator):  # type: ignore[misc, valid-type]
        def predict(self, X: Any) -> Array:
            if loss.labels:
                return outputs.argmax(axis=1)
            return _labels(architecture, outputs)

    if kind is RegressorMixin:
        return Answers()

    n_outputs = architecture.n_outputs
    classes: Any = np.arange(n_outputs if loss.labels else 2)
    if binary and n_outputs > 1:
        classes = [classes] * n_outputs

    class Probabilities(Answers):
        # A list of pairs is how scikit-learn knows several answers of yes or no.
        classes_ = classes

        def predict_proba(self, X: Any) -> Array:
            P = outputs.astype(np.float64)
            if loss.labels:
                return P / P.sum(axis=1, keepdims=True)
            return np.column_stack([1 - P[:, 0], P[:, 0]]) if P.shape[1] == 1 else P

    return Probabilities()
