"""Estimators for scikit-learn: `MLPClassifier`, `MLPRegressor`, `MLPFeatures`.

The only part of the package that needs scikit-learn; ``fastmlp`` imports it at the first use.
"""

from fastmlp.estimators.classifier import MLPClassifier
from fastmlp.estimators.features import MLPFeatures
from fastmlp.estimators.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPFeatures", "MLPRegressor"]
