"""`MLPClassifier`."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from scipy.sparse import csr_array, csr_matrix, issparse, isspmatrix
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels
from sklearn.utils.validation import check_is_fitted

from fastmlp.estimators.base import BaseMLP, ValidationSet
from fastmlp.estimators.documentation import ATTRIBUTES, PARAMETERS, STOPPING
from fastmlp.estimators.parameters import (
    SHARED,
    InvalidParameterError,
    Rule,
    choice,
    class_weights,
    number,
)
from fastmlp.estimators.sklearn_callbacks import with_callbacks
from fastmlp.losses import BinaryCrossEntropy, BinaryFocal, CrossEntropy, Focal, Loss, get_loss

__all__ = ["MLPClassifier"]

Array = np.ndarray


def _codes(classes: Array, y: Array) -> Array:
    """Positions of `y` among the sorted `classes`."""
    codes = np.searchsorted(classes, y)
    wrong = classes.take(codes, mode="clip") != y
    if np.any(wrong):
        raise ValueError(
            f"`y` has classes not in `self.classes_`. `self.classes_` has {classes}. 'y' has "
            f"{np.unique(np.asarray(y)[wrong])}."
        )
    return codes


def _plain_labels(y: Any) -> Array | None:
    """The sorted classes of integers or strings, found in a twentieth of type_of_target's time.

    None for other targets, and where type_of_target would say that there are suspiciously many.
    """
    if type(y) is not np.ndarray or y.ndim != 1 or y.dtype.kind not in "iuU":
        return None
    labels = np.unique(y)
    return labels if 2 * len(labels) <= len(y) else None


def _gives_probabilities(estimator: MLPClassifier) -> bool:
    if estimator.loss == "hinge":
        raise AttributeError("loss='hinge' gives scores, no probabilities: see decision_function")
    return True


def _gives_scores(estimator: MLPClassifier) -> bool:
    if estimator.loss != "hinge":
        raise AttributeError("decision_function: expected loss='hinge'; see predict_proba")
    return True


class MLPClassifier(ClassifierMixin, BaseMLP):
    __doc__ = f"""Multi-layer perceptron classifier: scikit-learn's, faster and with more to choose.

    The same parameters, data and `random_state` give the curves of scikit-learn's MLPClassifier, in
    float64 to rounding. The parameters from `loss` on are additions.

    Parameters
    ----------
{PARAMETERS}
    loss : {{"log_loss", "focal", "hinge"}}, default "log_loss"
        "hinge" gives scores (`decision_function`), no probabilities.
    label_smoothing : float in [0, 1), default 0
        With "log_loss": targets are moved so far towards equal probabilities.
    focal_gamma : float, default 2
        With "focal": how much less the easy samples count.
    class_weight : dict, list of dict, "balanced" or None, default None
        Weight of each class; a list has one dict for each output of multilabel targets, whose
        weights are multiplied.
{STOPPING}

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,), or list of them for several targets
{ATTRIBUTES}

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from fastmlp import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), MLPClassifier(learning_rate_init=0.01,
    ...                                                       random_state=0))
    >>> model.fit(X, y).score(X, y) > 0.95
    True
    """

    _rules: ClassVar[dict[str, Rule]] = {
        **SHARED,
        "loss": choice("log_loss", "focal", "hinge"),
        "label_smoothing": number(0, 1),
        "focal_gamma": number(0),
        "class_weight": class_weights,
    }

    def __init__(
        self,
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
        loss: str = "log_loss",
        label_smoothing: float = 0.0,
        focal_gamma: float = 2.0,
        class_weight: Any = None,
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
    ) -> MLPClassifier:
        """Train on `X` and `y`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n, n_features)
            float32 stays float32; everything else becomes float64.
        y : array-like of shape (n,), (n, n_labels) or (n, n_targets)
            Classes; 0 and 1, a column a label (multilabel); or classes, a column a target, of which
            each class has an output of its own (one against the rest).
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
    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None
    ) -> MLPClassifier:
        """One pass over `X` and `y`, going on from where the last call or `fit` ended.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`; `y` need not have all classes.
        classes : array-like or None, default None
            All classes; needed in the first call. A list of arrays for several targets.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, partial=True, classes=classes)

    def predict(self, X: Any) -> Array:
        """Classes of `X`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n,), or (n, n_labels) or (n, n_targets)
        """
        outputs = self._outputs(X)
        if self._target_type == "multiclass-multioutput":
            columns = zip(self.classes_, self._blocks(outputs), strict=True)
            return np.stack([c.take(block.argmax(axis=1)) for c, block in columns], axis=1)
        if self._target_type == "multilabel-indicator":
            labels = (outputs > 0.5).astype(int)
            if self._sparse_labels is None:
                return labels
            return csr_matrix(labels) if self._sparse_labels else csr_array(labels)
        if self.n_outputs_ > 1:
            return self.classes_.take(outputs.argmax(axis=1))
        if len(self.classes_) == 1:
            return np.repeat(self.classes_, len(outputs))
        return self.classes_.take(outputs[:, 0] > 0.5)

    @available_if(_gives_probabilities)
    def predict_proba(self, X: Any) -> Any:
        """Probabilities of the classes, in the order of ``classes_``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_classes), or (n, n_labels) for multilabel targets; a list of such
        arrays, one a target, for several targets
        """
        outputs = self._outputs(X)
        if self._target_type == "multiclass-multioutput":
            return [block / block.sum(axis=1, keepdims=True) for block in self._blocks(outputs)]
        if self._target_type == "multilabel-indicator" or self.n_outputs_ > 1:
            return outputs
        if len(self.classes_) == 1:
            return np.ones_like(outputs)
        return np.hstack([1 - outputs, outputs])

    @available_if(_gives_probabilities)
    def predict_log_proba(self, X: Any) -> Any:
        """Logarithm of `predict_proba`."""
        probabilities = self.predict_proba(X)
        with np.errstate(divide="ignore"):
            if isinstance(probabilities, list):
                return [np.log(block, out=block) for block in probabilities]
            return np.log(probabilities, out=probabilities)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Share of samples that are right, in all their labels or targets.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        float
        """
        check_is_fitted(self)
        if self._target_type != "multiclass-multioutput":
            return float(super().score(X, y, sample_weight))
        right = (self.predict(X) == np.asarray(y)).all(axis=1)
        return float(np.average(right, weights=sample_weight))

    @available_if(_gives_scores)
    def decision_function(self, X: Any) -> Array:
        """Scores of the classes; with ``loss="hinge"`` alone.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_classes), or (n,) for two: the second one's less the first one's
        """
        outputs = self._outputs(X)
        return outputs[:, 1] - outputs[:, 0] if outputs.shape[1] == 2 else outputs

    # --- Targets ----------------------------------------------------------------------------------

    def _learn_targets(self, y: Array, *, continuing: bool, partial: bool, classes: Any) -> None:
        if (continuing or partial) and self._all_known(y, classes):
            return
        labels = _plain_labels(y)
        if labels is None:
            check_classification_targets(y)
            kind = type_of_target(y, input_name="y")
        else:
            kind = "multiclass"
        several = getattr(self, "_target_type", "") == "multiclass-multioutput"
        if kind == "multiclass-multioutput" or (several and (continuing or partial)):
            self._learn_several_targets(y, continuing=continuing or partial, classes=classes)
            return
        if labels is None:
            labels = unique_labels(y)
        if partial and classes is None and not hasattr(self, "classes_"):
            raise ValueError("classes must be passed on the first call to partial_fit.")
        known = hasattr(self, "classes_") and (continuing or partial)
        if not known:
            self.classes_ = labels if classes is None else unique_labels(classes)
            self._target_type = kind if kind.startswith("multilabel") else "multiclass"
            self._sparse_labels = isspmatrix(y) if issparse(y) else None
        elif classes is not None and not np.array_equal(self.classes_, unique_labels(classes)):
            raise ValueError(
                f"`classes={classes}` is not the same as on last call to partial_fit, was: "
                f"{self.classes_}"
            )
        elif self.warm_start and not partial and not np.array_equal(labels, self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous "
                f"call to fit. Previously got {self.classes_}, `y` has {labels}"
            )

    def _learn_several_targets(self, y: Array, *, continuing: bool, classes: Any) -> None:
        """Several targets of several classes each: ``classes_`` is a list, one array a target."""
        if not (continuing and hasattr(self, "classes_")):
            self.classes_ = [np.unique(c) for c in (y.T if classes is None else classes)]
            self._target_type, self._sparse_labels = "multiclass-multioutput", None
        if y.ndim != 2 or y.shape[1] != len(self.classes_):
            raise ValueError(f"y: expected {len(self.classes_)} targets, got shape {y.shape}")

    def _blocks(self, outputs: Array) -> list[Array]:
        """The outputs of each target."""
        return np.split(outputs, np.cumsum([len(c) for c in self.classes_])[:-1], axis=1)

    def _all_known(self, y: Any, classes: Any) -> bool:
        """Whether a later call brings nothing new; a fast answer, False where it takes longer."""
        if not hasattr(self, "classes_") or self._target_type != "multiclass" or self.warm_start:
            return False
        if classes is not None and not np.array_equal(classes, self.classes_):
            return False
        if issparse(y) or y.ndim != 1 or y.dtype.kind != self.classes_.dtype.kind:
            return False
        if y.dtype.kind not in "iuU":
            return False
        positions = np.searchsorted(self.classes_, y)
        return bool((self.classes_.take(positions, mode="clip") == y).all())

    def _encode(self, y: Any) -> Array:
        if self._target_type == "multilabel-indicator":
            return np.asarray(y.toarray() if issparse(y) else y).astype(np.float64)
        if self._target_type == "multiclass-multioutput":
            columns = zip(self.classes_, y.T, strict=True)
            return np.hstack([np.eye(len(c))[_codes(c, column)] for c, column in columns])
        codes = _codes(self.classes_, y)
        one_output = len(self.classes_) <= 2 and self.loss != "hinge"
        return codes[:, None].astype(np.float64) if one_output else codes

    def _head(self) -> tuple[int, str, Loss]:
        n_classes, multilabel = len(self.classes_), self._target_type != "multiclass"
        if self._target_type == "multiclass-multioutput":
            n_classes = sum(len(classes) for classes in self.classes_)
        if self.loss != "log_loss" and self.label_smoothing:
            raise InvalidParameterError(
                f"label_smoothing: expected 0 beside loss={self.loss!r}, got {self.label_smoothing}"
            )
        if self.loss == "hinge":
            if multilabel:
                raise InvalidParameterError(
                    "loss: expected 'log_loss' or 'focal' for several targets"
                )
            return max(n_classes, 2), "identity", get_loss("hinge")
        focal = self.loss == "focal"
        if n_classes > 2 and not multilabel:
            loss = Focal(self.focal_gamma) if focal else CrossEntropy(self.label_smoothing)
            return n_classes, "softmax", loss
        loss = BinaryFocal(self.focal_gamma) if focal else BinaryCrossEntropy(self.label_smoothing)
        # The sum over the labels, where Network's loss is the mean.
        n_outputs = n_classes if multilabel else 1
        return n_outputs, "sigmoid", loss if n_outputs == 1 else loss.scaled(n_outputs)

    def _training_weight(self, y: Any, weight: Array | None) -> Array | None:
        if self.class_weight is None:
            return weight
        if issparse(y):
            y = y.toarray()
        if weight is None:
            return compute_sample_weight(self.class_weight, y)
        if self.class_weight != "balanced":
            return weight * compute_sample_weight(self.class_weight, y)
        # A sample of weight 2 counts as two.
        balanced = weight.copy()
        for column in y.reshape(len(y), -1).T:
            _, codes = np.unique(column, return_inverse=True)
            sums = np.bincount(codes, weight)
            balanced *= weight.sum() / (len(sums) * np.where(sums > 0, sums, 1))[codes]
        return balanced

    def _validation_score(self, validation: ValidationSet, scores: dict[str, float]) -> float:
        if self._target_type != "multiclass-multioutput":
            return scores["accuracy"]
        right = (self.predict(validation.X) == validation.y).all(axis=1)
        return float(np.average(right, weights=validation.weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
