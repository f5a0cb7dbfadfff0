"""`MLPFeatures`: a hidden layer's activations as features."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.validation import check_is_fitted

from fastmlp.estimators.base import BaseMLP
from fastmlp.estimators.classifier import MLPClassifier
from fastmlp.estimators.parameters import InvalidParameterError

__all__ = ["MLPFeatures"]

Array = np.ndarray


class MLPFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Activations of a hidden layer, as features for what comes behind.

    Parameters
    ----------
    estimator : MLPClassifier, MLPRegressor or None, default None
        What is trained; None takes ``MLPClassifier()``.
    layer : int, default -1
        Which hidden layer: 0 is the first, -1 the last.
    prefit : bool, default False
        `estimator` is trained already, and used as it is.

    Attributes
    ----------
    estimator_ : MLPClassifier or MLPRegressor
        The trained one; a clone unless `prefit`.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Where all names of the input's columns are strings.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastmlp import MLPClassifier, MLPFeatures
    >>> X, y = load_iris(return_X_y=True)
    >>> features = MLPFeatures(MLPClassifier((8, 3), max_iter=20, random_state=0))
    >>> features.fit_transform(X, y).shape
    (150, 3)
    >>> features.get_feature_names_out().tolist()
    ['mlpfeatures0', 'mlpfeatures1', 'mlpfeatures2']
    """

    def __init__(self, estimator: Any = None, *, layer: int = -1, prefit: bool = False):
        self.estimator = estimator
        self.layer = layer
        self.prefit = prefit

    def fit(self, X: Any, y: Any = None, **fit_params: Any) -> MLPFeatures:
        """Train the estimator.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n, n_features)
        y : array-like of shape (n,) or (n, n_outputs)
        **fit_params
            For the estimator's ``fit``, with metadata routing.

        Returns
        -------
        self
        """
        estimator = MLPClassifier() if self.estimator is None else self.estimator
        if not isinstance(estimator, BaseMLP):
            raise InvalidParameterError(
                "estimator: expected MLPClassifier, MLPRegressor or None, got "
                f"{type(estimator).__name__}"
            )
        if self.prefit:
            check_is_fitted(estimator)
        else:
            routed = process_routing(self, "fit", **fit_params).estimator.fit if fit_params else {}
            estimator = clone(estimator).fit(X, y, **routed)
        n_hidden = estimator.n_layers_ - 2
        if not isinstance(self.layer, (int, np.integer)) or not -n_hidden <= self.layer < n_hidden:
            raise InvalidParameterError(
                f"layer: expected an integer in [-{n_hidden}, {n_hidden}) for {n_hidden} hidden "
                f"layers, got {self.layer!r}"
            )
        self.estimator_ = estimator
        self.n_features_in_ = estimator.n_features_in_
        if hasattr(estimator, "feature_names_in_"):
            self.feature_names_in_ = estimator.feature_names_in_
        return self

    def transform(self, X: Any) -> Array:
        """Activations of the layer.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_units)
        """
        check_is_fitted(self)
        return self.estimator_._outputs(X, self._depth)

    @property
    def _depth(self) -> int:
        """Layers to pass."""
        return int(self.layer) % (self.estimator_.n_layers_ - 2) + 1

    @property
    def _n_features_out(self) -> int:
        return int(self.estimator_.coefs_[self._depth - 1].shape[1])

    def get_metadata_routing(self) -> MetadataRouter:
        """How metadata reach the estimator."""
        estimator = MLPClassifier() if self.estimator is None else self.estimator
        mapping = MethodMapping().add(caller="fit", callee="fit")
        return MetadataRouter(owner=self).add(estimator=estimator, method_mapping=mapping)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimator_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        estimator = MLPClassifier() if self.estimator is None else self.estimator
        tags.input_tags.sparse = get_tags(estimator).input_tags.sparse
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
