"""scikit-learn's scorers in a fit, against the same metrics of the network's own outputs."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from fastmlp import SGD, Dense, Network


def fitted(backend, n_outputs, output, loss, y, metrics):
    """The last record, the validation outputs as float64, and the network."""
    X = np.random.default_rng(0).standard_normal((len(y), 4))
    layers = [Dense(5, "tanh"), Dense(n_outputs, output)]
    net = Network(4, layers, loss=loss, seed=0, backend=backend)
    net.fit(X, y, optimizer=SGD(0.1), epochs=2, validation_data=(X, y), metrics=metrics)
    return net.history.records[-1], net.predict(X).astype(np.float64), net


def test_classes(backend):
    y = np.arange(60) % 3
    names = ["accuracy", "f1_macro", "neg_log_loss", "roc_auc_ovr", "balanced_accuracy"]
    for targets in (y, np.eye(3)[y]):
        record, P, _ = fitted(backend, 3, "softmax", "cross_entropy", targets, names)
        said = P.argmax(axis=1)
        assert record["val_f1_macro"] == sk.f1_score(y, said, average="macro")
        assert record["val_balanced_accuracy"] == sk.balanced_accuracy_score(y, said)
        assert record["val_accuracy"] == sk.accuracy_score(y, said)
        assert record["val_neg_log_loss"] == pytest.approx(-record["val_loss"], rel=1e-5)
        P /= P.sum(axis=1, keepdims=True)
        assert record["val_roc_auc_ovr"] == sk.roc_auc_score(y, P, multi_class="ovr")


@pytest.mark.parametrize("n_outputs", [1, 2, 3])
def test_yes_or_no(backend, n_outputs):
    Y = (np.random.default_rng(1).random((50, n_outputs)) < 0.4).astype(float)
    names = ["roc_auc", "average_precision", "f1_micro" if n_outputs > 1 else "f1"]
    record, P, _ = fitted(backend, n_outputs, "sigmoid", "binary_cross_entropy", Y, names)
    y, p = (Y[:, 0], P[:, 0]) if n_outputs == 1 else (Y, P)
    assert record["val_roc_auc"] == sk.roc_auc_score(y, p)
    assert record["val_average_precision"] == sk.average_precision_score(y, p)
    average = "binary" if n_outputs == 1 else "micro"
    expected = sk.f1_score(y, p >= 0.5, average=average)
    assert record[f"val_{names[-1]}"] == expected


@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_quantities(backend, n_outputs, loss):
    Y = np.random.default_rng(1).standard_normal((50, n_outputs))
    names = ["r2", "neg_mean_absolute_error"]
    record, P, _ = fitted(backend, n_outputs, "identity", loss, Y, names)
    assert record["val_r2"] == pytest.approx(sk.r2_score(Y, P), abs=1e-6)
    expected = -sk.mean_absolute_error(Y, P)
    assert record["val_neg_mean_absolute_error"] == pytest.approx(expected, rel=1e-6)


def seventh(estimator, X, y):
    assert len(X) == len(y)
    return np.float32(len(estimator.predict(X)) / 7)


def test_scorers_and_names_of_your_own():
    y = np.arange(21) % 3
    own = sk.make_scorer(sk.cohen_kappa_score)
    record, P, _ = fitted("numpy", 3, "softmax", "cross_entropy", y, [own, seventh])
    assert record["val_cohen_kappa_score"] == sk.cohen_kappa_score(y, P.argmax(axis=1))
    assert record["val_seventh"] == 3
    assert type(record["val_seventh"]) is float
    named = {"kappa": own, "f1": "f1_macro"}
    record, P, net = fitted("numpy", 3, "softmax", "cross_entropy", y, named)
    assert record["val_kappa"] == sk.cohen_kappa_score(y, P.argmax(axis=1))
    assert {"val_kappa", "val_f1"} < set(net.history.names)


@pytest.mark.parametrize(
    ("metrics", "error", "message"),
    [
        (["f2"], ValueError, "metrics: 'f2' is none of sklearn.metrics.get_scorer_names"),
        ("accuracy", TypeError, "metrics: expected a sequence of names or scorers, got 'accuracy'"),
        ([3], TypeError, "metrics: expected a name or a scorer, got int"),
        ({"f1": None}, TypeError, "metrics: expected a name or a scorer, got NoneType"),
    ],
)
def test_what_is_no_metric_is_refused(state_of, metrics, error, message):
    net = Network(2, [Dense(1)], loss="mse", seed=0)
    before = state_of(net)
    X, y = np.ones((3, 2)), np.ones(3)
    with pytest.raises(error, match=message):
        net.fit(X, y, metrics=metrics, validation_data=(X, y))
    assert state_of(net) == before


def test_metrics_want_validation_data():
    net = Network(2, [Dense(1)], loss="mse", seed=0)
    with pytest.raises(ValueError, match="metrics: expected validation_data beside them"):
        net.fit(np.ones((3, 2)), np.ones(3), metrics=["r2"])
