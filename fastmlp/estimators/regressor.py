"""`MLPRegressor`."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import mean_pinball_loss, r2_score
from sklearn.utils.metaestimators import available_if

from fastmlp.estimators.base import BaseMLP, ValidationSet
from fastmlp.estimators.documentation import ATTRIBUTES, PARAMETERS, STOPPING
from fastmlp.estimators.parameters import SHARED, Rule, choice, either, every, number
from fastmlp.estimators.sklearn_callbacks import with_callbacks
from fastmlp.losses import Huber, Loss, Quantile, get_loss

__all__ = ["MLPRegressor"]

Array = np.ndarray


class MLPRegressor(RegressorMixin, BaseMLP):
    __doc__ = f"""Multi-layer perceptron regressor: scikit-learn's, faster and with more to choose.

    The same parameters, data and `random_state` give the curves of scikit-learn's MLPRegressor, in
    float64 to rounding. The parameters from `huber_delta` on, and losses other than "squared_error"
    and "poisson", are additions.

    Parameters
    ----------
    loss : str, default "squared_error"
        "squared_error" (half of it), "absolute_error", "huber", "quantile", "poisson" for counts or
        "gamma" for amounts (half the deviance, of the exponential of the last layer).
{PARAMETERS}
    huber_delta : float, default 1
        With "huber": where the squared error turns into the absolute one.
    quantile : float or sequence of float in (0, 1), default 0.5
        With "quantile": what to predict. Several levels of one target come out side by side and do
        not cross.
{STOPPING}

    Attributes
    ----------
{ATTRIBUTES}

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from fastmlp import MLPRegressor
    >>> X, y = make_regression(200, 5, random_state=0)
    >>> bands = MLPRegressor("quantile", quantile=[0.1, 0.5, 0.9], solver="lbfgs", random_state=0)
    >>> bands.fit(X, y / y.std()).predict(X[:2]).shape
    (2, 3)
    """

    _rules: ClassVar[dict[str, Rule]] = {
        **SHARED,
        "loss": choice(
            *("squared_error", "absolute_error", "huber", "quantile", "poisson", "gamma")
        ),
        "huber_delta": number(0, ends="()"),
        "quantile": either(number(0, 1, "()"), every(number(0, 1, "()"))),
    }

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        huber_delta: float = 1.0,
        quantile: Any = 0.5,
        dropout: Any = 0.0,
        optimizer: Any = None,
        monitor: str | None = None,
        scoring: Any = None,
        min_delta: float | None = None,
        max_time: float | None = None,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        n_jobs: int | None = None,
        callbacks: Any = None,
    ):
        self._store(locals())

    @with_callbacks
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> MLPRegressor:
        """Train on `X` and `y`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n, n_features)
            float32 stays float32; everything else becomes float64.
        y : array-like of shape (n,) or (n, n_outputs)
        sample_weight : array-like of shape (n,) or None, default None
        X_val, y_val, sample_weight_val : as `X`, `y`, `sample_weight`, default None
            Samples to validate on after each epoch. With ``early_stopping=True`` they take the
            place of the part that is held out.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For a parameter or an input that does not fit; where training diverges.
        """
        validation = X_val, y_val, sample_weight_val
        return self._fit(X, y, sample_weight, validation=validation)

    @available_if(BaseMLP._goes_by_epochs)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """One pass over `X` and `y`, going on from where the last call or `fit` ended.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, partial=True)

    def predict(self, X: Any) -> Array:
        """Targets of `X`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n,) or (n, n_outputs); (n, n_levels) for several quantiles
        """
        outputs = self._outputs(X)
        return outputs.ravel() if outputs.shape[1] == 1 else outputs

    # --- Targets ----------------------------------------------------------------------------------

    @property
    def _levels(self) -> tuple[float, ...]:
        """Quantiles to predict; empty for other losses, and for one."""
        several = self.loss == "quantile" and not isinstance(self.quantile, Real)
        return tuple(float(q) for q in self.quantile) if several else ()

    def _learn_targets(self, y: Array, *, continuing: bool, partial: bool, classes: Any) -> None:
        n_targets = 1 if y.ndim == 1 else y.shape[1]
        if self._levels and n_targets > 1:
            raise ValueError(
                f"y: expected one target for {len(self._levels)} quantiles, got {n_targets}"
            )
        n_outputs = len(self._levels) or n_targets
        if continuing and n_outputs != self.network_.architecture.n_outputs:
            raise ValueError(
                f"y: expected {self.network_.architecture.n_outputs} outputs as in the fit that "
                f"this one goes on with, got {n_outputs}"
            )
        self._n_outputs = n_outputs

    def _encode(self, y: Any) -> Array:
        Y = y.reshape(len(y), -1)
        return np.repeat(Y, len(self._levels), axis=1) if self._levels else Y

    def _head(self) -> tuple[int, str, Loss]:
        n = self._n_outputs
        if self.loss in ("poisson", "gamma"):
            return n, "exp", get_loss(self.loss)
        if self.loss == "squared_error":
            # Theirs follows half the sum over the outputs, and reports half the mean.
            return n, "identity", get_loss("mse").scaled(n / 2, 1 / 2)
        losses = {
            "absolute_error": get_loss("mae"),
            "huber": Huber(self.huber_delta),
            "quantile": Quantile(self._levels or self.quantile),
        }
        # Quantiles of one target come out in order: their differences are positive.
        output = "increasing" if self._levels else "identity"
        return n, output, losses[self.loss].scaled(n, 1)

    def _validation_score(self, validation: ValidationSet, scores: dict[str, float]) -> float:
        outputs = self._outputs(validation.X)
        if not np.isfinite(outputs).all():
            return float("nan")
        if self._levels:
            return -scores["loss"]
        return float(r2_score(validation.Y, outputs, sample_weight=validation.weight))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R^2 of the predictions; less the mean pinball loss where there are several quantiles.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        float
        """
        if not self._levels:
            return float(super().score(X, y, sample_weight))
        outputs = self.predict(X)
        losses = [
            mean_pinball_loss(y, outputs[:, j], alpha=q, sample_weight=sample_weight)
            for j, q in enumerate(self._levels)
        ]
        return -float(np.mean(losses))
