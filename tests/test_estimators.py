"""MLPClassifier and MLPRegressor against scikit-learn's, and what scikit-learn's do not have."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import neural_network as theirs
from sklearn.datasets import load_digits, make_multilabel_classification, make_regression
from threadpoolctl import threadpool_limits

import fastmlp

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning", "ignore:Got `batch_size`", "ignore:batch_size:"
)


@pytest.fixture(autouse=True, scope="module")
def one_thread_for_blas():
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(autouse=True)
def on_backend(backend, monkeypatch):
    monkeypatch.setenv("FASTMLP_BACKEND", backend)


# --- The same numbers as scikit-learn's -----------------------------------------------------------


def digits(n_classes=10, n=240):
    X, y = load_digits(return_X_y=True)
    return X[:n] / 16, y[:n] % n_classes


def regression(n_targets=1):
    X, y = make_regression(200, 8, n_targets=n_targets, random_state=0)
    return X, y / 100


def counts():
    X, y = regression(2)
    return X, np.random.default_rng(0).poisson(np.exp(np.clip(y, -2, 2)))


def weights(y):
    return np.random.default_rng(0).uniform(0.2, 3, len(y))


DATA = {
    "classes": ("MLPClassifier", digits),
    "two classes": ("MLPClassifier", lambda: digits(2)),
    "strings": ("MLPClassifier", lambda: (digits(3)[0], np.array(["b", "c", "a"])[digits(3)[1]])),
    "labels": ("MLPClassifier", lambda: make_multilabel_classification(200, random_state=0)),
    "counts": ("MLPRegressor", counts),
    "target": ("MLPRegressor", regression),
    "targets": ("MLPRegressor", lambda: regression(3)),
}
SOLVERS = {
    "adam": {"solver": "adam"},
    "sgd": {"solver": "sgd", "learning_rate_init": 0.05},
    "lbfgs": {"solver": "lbfgs", "max_iter": 12},
}
OPTIONS = {
    "defaults": {},
    "strong alpha": {"alpha": 3.0},
    "no alpha": {"alpha": 0},
    "ragged batches": {"batch_size": 37},
    "one by one": {"batch_size": 1, "max_iter": 2},
    "in order": {"shuffle": False},
    "no hidden layer": {"hidden_layer_sizes": ()},
    "one number": {"hidden_layer_sizes": 9},
    "early stopping": {"early_stopping": True, "tol": 0.01, "n_iter_no_change": 2, "max_iter": 30},
    "early stopping in order": {
        "early_stopping": True,
        "shuffle": False,
        "validation_fraction": 0.3,
    },
    "converges": {"tol": 0.5, "n_iter_no_change": 2, "max_iter": 30},
    "never converges": {"tol": 0.5, "n_iter_no_change": np.inf},
}
SGD_OPTIONS = {
    "no momentum": {"momentum": 0},
    "momentum of one": {"momentum": 1.0, "learning_rate_init": 0.001},
    "plain momentum": {"nesterovs_momentum": False},
    "invscaling": {"learning_rate": "invscaling", "power_t": 0.3, "learning_rate_init": 0.5},
    "adaptive": {"learning_rate": "adaptive", "tol": 0.05, "n_iter_no_change": 1, "max_iter": 25},
    "adaptive to the end": {
        "learning_rate": "adaptive",
        "tol": 5,
        "n_iter_no_change": 1,
        "max_iter": 30,
        "learning_rate_init": 2e-6,
    },
}
ADAM_OPTIONS = {
    "betas": {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3, "learning_rate_init": 0.01},
    "its own rate": {"learning_rate": "invscaling"},
}


def both(kind, **parameters):
    parameters = {
        "random_state": 3,
        "hidden_layer_sizes": (11, 6),
        "max_iter": 5,
        **parameters,
    }
    return getattr(theirs, kind)(**parameters), getattr(fastmlp, kind)(**parameters)


CURVES = ("loss_curve_", "validation_scores_", "loss_", "best_loss_", "best_validation_score_")


def assert_same(one, other, X, rtol=1e-6):
    for name in CURVES:
        assert hasattr(one, name) == hasattr(other, name), name
        expected = getattr(one, name, None)
        if expected is None:
            assert getattr(other, name, None) is None, name
        else:
            np.testing.assert_allclose(getattr(other, name), expected, rtol, err_msg=name)
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(one, name) == getattr(other, name), name
    for name in ("coefs_", "intercepts_"):
        for a, b in zip(getattr(one, name), getattr(other, name), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(b, a, rtol, rtol * np.abs(a).max(), err_msg=name)
    outputs = ["predict"]
    if hasattr(one, "classes_"):
        np.testing.assert_array_equal(one.classes_, other.classes_)
        assert one.classes_.dtype == other.classes_.dtype
        outputs += ["predict_proba", "predict_log_proba"]
    for name in outputs:
        a, b = getattr(one, name)(X), getattr(other, name)(X)
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        if a.dtype.kind == "f":
            np.testing.assert_allclose(b, a, rtol, 1e-9, err_msg=name)
        else:
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("data", ["classes", "target"])
def test_options(data, solver, options):
    kind, make = DATA[data]
    X, y = make()
    one, other = both(kind, **{**SOLVERS[solver], **OPTIONS[options]})
    assert_same(one.fit(X, y), other.fit(X, y), X)


@pytest.mark.parametrize(
    ("solver", "options"),
    [
        *(({"solver": "sgd"}, options) for options in SGD_OPTIONS.values()),
        *(({"solver": "adam"}, options) for options in ADAM_OPTIONS.values()),
    ],
    ids=[*SGD_OPTIONS, *ADAM_OPTIONS],
)
def test_options_of_a_solver(solver, options):
    X, y = digits()
    one, other = both("MLPClassifier", **{**SOLVERS[solver["solver"]], **options})
    assert_same(one.fit(X, y), other.fit(X, y), X)


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weights"])
@pytest.mark.parametrize("early_stopping", [False, True], ids=["", "early stopping"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("data", DATA)
def test_targets_and_weights(data, solver, early_stopping, weighted):
    kind, make = DATA[data]
    X, y = make()
    weight = weights(y) if weighted else None
    loss = {"loss": "poisson"} if data == "counts" else {}
    one, other = both(kind, early_stopping=early_stopping, **SOLVERS[solver], **loss)
    assert_same(one.fit(X, y, sample_weight=weight), other.fit(X, y, sample_weight=weight), X)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_activations(solver, activation):
    X, y = digits()
    one, other = both("MLPClassifier", activation=activation, **SOLVERS[solver])
    assert_same(one.fit(X, y), other.fit(X, y), X)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("data", DATA)
def test_partial_fit(data, solver):
    kind, make = DATA[data]
    X, y = make()
    one, other = both(kind, learning_rate="invscaling", **SOLVERS[solver])
    first = {"classes": np.unique(y)} if kind == "MLPClassifier" and y.ndim == 1 else {}
    if data == "labels":
        first = {"classes": np.arange(y.shape[1])}
    for rows in (slice(0, 50), slice(50, 133), slice(20, 90)):
        for estimator in (one, other):
            estimator.partial_fit(X[rows], y[rows], weights(y)[rows], **first)
        first = {}
    assert_same(one, other, X)
    for estimator in (one, other):  # and it goes on from a fit
        estimator.fit(X, y).partial_fit(X[:99], y[:99])
    assert_same(one, other, X)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("data", ["classes", "target"])
def test_float32(data, solver):
    kind, make = DATA[data]
    X, y = make()
    X = X.astype(np.float32)
    one, other = both(kind, **SOLVERS[solver])
    assert_same(one.fit(X, y), other.fit(X, y), X, rtol=2e-3)


@pytest.mark.parametrize("random_state", [None, 7, "RandomState"])
def test_random_states(random_state):
    X, y = digits(3)
    fitted = []
    for estimator in both("MLPClassifier"):
        np.random.seed(5)  # noqa: NPY002, what None takes
        state = np.random.RandomState(9) if random_state == "RandomState" else random_state
        fitted.append(estimator.set_params(random_state=state).fit(X, y).fit(X, y))
    assert_same(*fitted, X)


@pytest.mark.parametrize("container", ["csr_matrix", "csc_matrix", "csr_array", "csc_array"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_sparse_inputs(container, solver):
    import scipy.sparse

    X, y = digits()
    X = getattr(scipy.sparse, container)(np.where(X > 0.7, X, 0))
    one, other = both("MLPClassifier", **SOLVERS[solver])
    assert_same(one.fit(X, y), other.fit(X, y), X)


# --- Short cuts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "y",
    [
        np.array([3, 1, 1, 3, 1, 3]),
        np.array(["b", "a", "b", "a", "a", "b"]),
        np.array([3.0, 1.0, 1.0, 3.0, 2.0, 3.0]),
        np.array([True, False, True, True, False, True]),
        np.array(["b", "a", "b", "a", "a", "b"], dtype=object),
        np.array([2, 1, 1, 0, 1, 2], dtype=np.uint8)[::-1],
        [2, 1, 1, 0, 1, 2],
    ],
)
def test_classes_are_those_of_scikit_learn_for_any_kind_of_labels(y):
    X = digits(n=6)[0]
    expected, model = (model.fit(X, y) for model in both("MLPClassifier", max_iter=1))
    np.testing.assert_array_equal(model.classes_, expected.classes_)
    assert model.classes_.dtype == expected.classes_.dtype
    assert model.predict(X).dtype == expected.predict(X).dtype


def test_many_classes_bring_a_warning():
    with pytest.warns(UserWarning, match="number of unique classes is greater than 50%"):
        both("MLPClassifier", max_iter=1)[1].fit(digits(n=40)[0], np.arange(40))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
def test_partial_fit_refuses_what_fit_refuses(kind, bad):
    """Behind the first call too, where arrays in the form of the network's own are not copied."""
    X, y = digits(3)
    model = both(kind)[1]
    classes = {"classes": [0, 1, 2]} if kind == "MLPClassifier" else {}
    model.partial_fit(X, y, **classes)
    before = model.network_.arena.flat.copy()
    wrong = X.copy()
    wrong[3, 5] = bad
    for arguments in (
        (wrong, y),
        (X[:, 1:], y),
        (X[:0], y[:0]),
        (X, y[1:]),
        (X, y + np.float64(bad)),
    ):
        with pytest.raises(ValueError, match=r"NaN|infinity|features|minimum|samples"):
            model.partial_fit(*arguments)
    np.testing.assert_array_equal(model.network_.arena.flat, before)
    huge = np.full_like(X, 1e308)  # their sum overflows, they are finite
    assert model._plain(huge, (np.float64,))
