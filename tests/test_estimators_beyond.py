"""What the estimators have and scikit-learn's do not."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from sklearn import neural_network as theirs
from sklearn.datasets import load_iris, make_multilabel_classification, make_regression
from sklearn.exceptions import ConvergenceWarning

import fastmlp
from fastmlp import SGD, Activation, Adam, Callback, MLPClassifier, MLPFeatures, MLPRegressor
from fastmlp.losses import Huber

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_iris(return_X_y=True)
XR, YR = make_regression(200, 6, noise=5, random_state=0)
YR = YR / 100


@pytest.fixture(autouse=True)
def on_backend(backend, monkeypatch):
    monkeypatch.setenv("FASTMLP_BACKEND", backend)


# --- Losses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("settings", [{"loss": "focal"}, {"label_smoothing": 0.2}])
def test_losses_of_classes(settings, n_classes):
    X_, y = X[n_classes > Y], np.array(list("abc"))[Y[n_classes > Y]]
    model = MLPClassifier(8, max_iter=150, learning_rate_init=0.02, random_state=0, **settings)
    probabilities = model.fit(X_, y).predict_proba(X_)
    assert model.score(X_, y) > 0.9
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    sharp = MLPClassifier(8, max_iter=150, learning_rate_init=0.02, random_state=0)
    assert probabilities.max(axis=1).mean() < sharp.fit(X_, y).predict_proba(X_).max(axis=1).mean()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_hinge_gives_scores(n_classes):
    X_, y = X[n_classes > Y], Y[n_classes > Y] + 5
    model = MLPClassifier(8, loss="hinge", max_iter=150, learning_rate_init=0.02, random_state=0)
    scores = model.fit(X_, y).decision_function(X_)
    assert model.score(X_, y) > 0.95
    if n_classes == 2:
        np.testing.assert_array_equal(model.predict(X_), np.where(scores > 0, 6, 5))
    else:
        np.testing.assert_array_equal(model.predict(X_), scores.argmax(axis=1) + 5)
    assert not hasattr(model, "predict_proba")
    assert not hasattr(MLPClassifier(), "decision_function")
    labels = make_multilabel_classification(50, random_state=0)
    with pytest.raises(
        ValueError, match="loss: expected 'log_loss' or 'focal' for several targets"
    ):
        MLPClassifier(loss="hinge").fit(*labels)


def test_focal_loss_for_labels():
    X_, y = make_multilabel_classification(100, random_state=0)
    model = MLPClassifier(30, loss="focal", max_iter=200, tol=0, random_state=0).fit(X_, y)
    assert (model.predict(X_) == y).mean() > 0.8
    zero = MLPClassifier(8, loss="focal", focal_gamma=0, max_iter=9, random_state=0).fit(X_, y)
    plain = MLPClassifier(8, max_iter=9, random_state=0).fit(X_, y)
    np.testing.assert_allclose(zero.loss_curve_, plain.loss_curve_)


@pytest.mark.parametrize(
    ("loss", "settings", "expected"),
    [
        ("absolute_error", {}, "median"),
        ("quantile", {"quantile": 0.5}, "median"),
        ("quantile", {"quantile": 0.9}, "90%"),
        ("huber", {"huber_delta": 1e-3}, "median"),
        ("huber", {"huber_delta": 1e3}, "mean"),
        ("squared_error", {}, "mean"),
        ("poisson", {}, "mean"),
        ("gamma", {}, "mean"),
    ],
)
def test_losses_of_targets(loss, settings, expected):
    """A net of one bias predicts what minimises the loss."""
    y = np.random.default_rng(0).gamma(1.0, size=(400, 2)) + 0.05
    model = MLPRegressor(
        loss, (), alpha=0, solver="lbfgs", max_iter=300, tol=1e-8, random_state=0, **settings
    )
    if loss in ("absolute_error", "quantile", "huber") and expected != "mean":
        model.set_params(solver="adam", learning_rate_init=0.01, batch_size=400)
        model.set_params(max_iter=1200, n_iter_no_change=np.inf)
    found = model.fit(np.zeros((400, 1)), y).predict(np.zeros((1, 1)))[0]
    points = {"median": np.median(y, axis=0), "90%": np.quantile(y, 0.9, axis=0)}
    np.testing.assert_allclose(found, points.get(expected, y.mean(axis=0)), atol=0.03)


def test_quantiles_do_not_cross():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (600, 1))
    y = x[:, 0] + rng.standard_normal(600) * (0.1 + x[:, 0] ** 2)
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    model = MLPRegressor("quantile", (20,), quantile=levels, max_iter=150, random_state=0)
    model.set_params(learning_rate_init=0.01).fit(x, y)
    out = model.predict(np.linspace(-2, 2, 99)[:, None])
    assert out.shape == (99, 5)
    assert (np.diff(out, axis=1) >= 0).all()
    np.testing.assert_allclose((y[:, None] <= model.predict(x)).mean(axis=0), levels, atol=0.05)
    assert model.score(x, y) < 0
    with pytest.raises(ValueError, match="y: expected one target for 5 quantiles, got 2"):
        model.fit(x, np.c_[y, y])


def test_targets_that_a_loss_cannot_have():
    for loss, y in (("poisson", -YR), ("gamma", np.zeros(200))):
        with pytest.raises(ValueError, match="y: "):
            MLPRegressor(loss).fit(XR, y)


# --- Activations, optimizers, weights -------------------------------------------------------------


def test_an_activation_a_layer():
    model = MLPClassifier((7, 5), activation=["gelu", "logistic"], max_iter=3, random_state=0)
    names = [layer.activation.name for layer in model.fit(X, Y).network_.architecture.layers]
    assert names == ["gelu", "sigmoid", "softmax"]
    same = MLPClassifier((7, 5), activation=["tanh"] * 2, max_iter=3, random_state=0).fit(X, Y)
    original = theirs.MLPClassifier((7, 5), activation="tanh", max_iter=3, random_state=0)
    np.testing.assert_allclose(same.loss_curve_, original.fit(X, Y).loss_curve_)
    with pytest.raises(ValueError, match="activation: expected one name, or one for each of 2"):
        MLPClassifier((7, 5), activation=["relu"]).fit(X, Y)


def test_an_activation_of_ones_own():
    sine = Activation(lambda Z: np.sin(Z), lambda dA, Z, A: dA * np.cos(Z), name="sine")
    model = MLPClassifier(9, activation=sine, max_iter=100, learning_rate_init=0.02, random_state=0)
    assert model.fit(X, Y).score(X, Y) > 0.9
    assert model.network_.backend.name == "numpy"


def test_an_optimizer_of_the_library():
    model = MLPClassifier(5, optimizer=SGD(0.1), solver="adam", max_iter=5, random_state=0)
    sgd = MLPClassifier(5, solver="sgd", learning_rate_init=0.1, momentum=0, max_iter=5)
    expected = sgd.set_params(random_state=0).fit(X, Y).loss_curve_
    assert model.fit(X, Y).loss_curve_ == expected
    with pytest.raises(ValueError, match="optimizer: expected None beside solver='lbfgs'"):
        MLPClassifier(solver="lbfgs", optimizer=Adam()).fit(X, Y)


@pytest.mark.parametrize("clip", ["clip_value", "clip_norm"])
def test_clipping(clip):
    """Steps of plain SGD with rate 1 are the gradients themselves."""
    settings = {"solver": "sgd", "momentum": 0, "learning_rate_init": 1.0, "max_iter": 1}
    model = MLPRegressor(random_state=0, batch_size=200, alpha=0, **settings, **{clip: 1e-3})
    start = MLPRegressor(random_state=0, max_iter=1, learning_rate_init=1e-300).fit(XR, YR)
    model.fit(XR, YR * 100)
    steps = model.network_.arena.flat - start.network_.arena.flat
    size = np.abs(steps).max() if clip == "clip_value" else np.linalg.norm(steps)
    np.testing.assert_allclose(size, 1e-3, rtol=1e-6)


def test_dropout():
    settings = {"max_iter": 40, "learning_rate_init": 0.02, "random_state": 0}
    model = MLPClassifier((30, 20), dropout=0.4, **settings).fit(X, Y)
    again = MLPClassifier((30, 20), dropout=[0.4, 0.4], **settings).fit(X, Y)
    assert model.loss_curve_ == again.loss_curve_
    plain = MLPClassifier((30, 20), **settings).fit(X, Y)
    assert model.loss_ > plain.loss_
    assert model.score(X, Y) > 0.85
    np.testing.assert_array_equal(model.predict_proba(X), model.predict_proba(X))
    assert [W.shape for W in model.coefs_] == [(4, 30), (30, 20), (20, 3)]
    assert model.n_layers_ == 4
    features = MLPFeatures(model, layer=1, prefit=True).fit(X, Y).transform(X)
    hidden = np.maximum(X @ model.coefs_[0] + model.intercepts_[0], 0)
    hidden = np.maximum(hidden @ model.coefs_[1] + model.intercepts_[1], 0)
    np.testing.assert_allclose(features, hidden)
    first = MLPClassifier((30, 20), dropout=[0, 0.5], random_state=0, max_iter=1).fit(X, Y)
    assert [type(layer).__name__ for layer in first.network_.architecture.layers] == [
        *("Dense", "Dense", "Dropout", "Dense"),
    ]
    for wrong, message in (([0.1], "one number, or one for each of 2"), (1.0, r"in \[0, 1\)")):
        with pytest.raises(ValueError, match=f"dropout: expected .*{message}"):
            MLPClassifier((30, 20), dropout=wrong).fit(X, Y)
    with pytest.raises(ValueError, match="dropout: expected 0 beside solver='lbfgs'"):
        MLPClassifier(solver="lbfgs", dropout=0.1).fit(X, Y)


def test_lbfgs_goes_on_from_float32():
    X32 = X.astype(np.float32)
    model = MLPClassifier(5, max_iter=5, warm_start=True, random_state=0).fit(X32, Y)
    before = model.score(X32, Y)
    model.set_params(solver="lbfgs", max_iter=50).fit(X32, Y)
    assert model.coefs_[0].dtype == np.float64
    assert model.score(X32, Y) > max(before, 0.9)


def test_class_weights_are_sample_weights():
    weights = {0: 0.5, 1: 2.0, 2: 1.0}
    model = MLPClassifier(5, class_weight=weights, max_iter=4, random_state=0)
    expected = MLPClassifier(5, max_iter=4, random_state=0)
    expected.fit(X, Y, sample_weight=np.array([0.5, 2, 1])[Y])
    assert model.fit(X, Y).loss_curve_ == expected.loss_curve_


def test_balanced_weights_count_weighted_samples():
    rare = np.r_[0:50, 50:60]
    repeated = np.r_[rare, 50:60]
    model = MLPClassifier(5, class_weight="balanced", max_iter=4, random_state=0, solver="lbfgs")
    curves = [
        model.fit(X[rare], Y[rare], sample_weight=np.where(rare < 50, 1.0, 2.0)).loss_,
        model.fit(X[repeated], Y[repeated]).loss_,
    ]
    np.testing.assert_allclose(*curves)


def test_class_weights_of_labels():
    X_, y = make_multilabel_classification(100, n_classes=2, random_state=0)
    weights = [{0: 1, 1: 3}, {0: 2, 1: 1}]
    factors = np.where(y[:, 0], 3, 1) * np.where(y[:, 1], 1, 2)
    model = MLPClassifier(5, class_weight=weights, max_iter=4, random_state=0).fit(X_, y)
    expected = MLPClassifier(5, max_iter=4, random_state=0).fit(X_, y, sample_weight=factors)
    assert model.loss_curve_ == expected.loss_curve_
    sparse = MLPClassifier(5, class_weight=weights, max_iter=4, random_state=0)
    sparse.fit(X_, scipy.sparse.csr_matrix(y))
    assert sparse.loss_curve_ == expected.loss_curve_
    assert scipy.sparse.issparse(sparse.predict(X_))


def test_several_targets_of_several_classes():
    names = np.array(["u", "v", "w"])
    y = np.stack([names[Y], names[(X[:, 0] > 5.8).astype(int)]], axis=1).astype(object)
    settings = {"max_iter": 300, "learning_rate_init": 0.02, "random_state": 0}
    model = MLPClassifier(16, **settings).fit(X, y, X_val=X[::2], y_val=y[::2])
    assert model.validation_scores_[-1] == pytest.approx(model.score(X[::2], y[::2]))
    assert [c.tolist() for c in model.classes_] == [["u", "v", "w"], ["u", "v"]]
    assert model.score(X, y) > 0.85
    predicted, probabilities = model.predict(X), model.predict_proba(X)
    assert predicted.shape == y.shape
    for j, block in enumerate(probabilities):
        np.testing.assert_allclose(block.sum(axis=1), 1)
        np.testing.assert_array_equal(model.classes_[j][block.argmax(axis=1)], predicted[:, j])
        np.testing.assert_allclose(model.predict_log_proba(X)[j], np.log(block))
    parts = MLPClassifier(16, random_state=0)
    for rows in (slice(0, 50), slice(50, 150)):
        parts.partial_fit(X[rows], y[rows], classes=[["u", "v", "w"], ["u", "v"]])
    assert parts.predict(X).shape == y.shape
    with pytest.raises(ValueError, match="y: expected 2 targets"):
        parts.partial_fit(X, y[:, 0])
    with pytest.raises(ValueError, match="classes not in"):
        parts.partial_fit(X, np.where(y == "u", "q", y))


def test_classes_of_validation_data_have_to_be_known():
    with pytest.raises(ValueError, match="classes not in"):
        MLPClassifier(max_iter=1).fit(X, Y, X_val=X, y_val=Y + 1)


# --- Validation, stopping, callbacks --------------------------------------------------------------


def test_validation_on_samples_of_ones_own():
    model = MLPClassifier(5, max_iter=6, random_state=0).fit(X, Y, X_val=X[::2], y_val=Y[::2])
    assert len(model.validation_scores_) == 6
    assert model.validation_scores_[-1] == model.score(X[::2], Y[::2])
    np.testing.assert_allclose(
        model.history_["val_loss"][-1], model.network_.cost(X[::2], Y[::2]), rtol=1e-6
    )
    plain = MLPClassifier(5, max_iter=6, random_state=0).fit(X, Y)
    assert model.loss_curve_ == plain.loss_curve_
    with pytest.raises(ValueError, match="X_val, y_val: expected both or neither"):
        model.fit(X, Y, X_val=X)


@pytest.mark.parametrize("monitor", ["val_loss", "val_score"])
def test_early_stopping_restores_the_best(monitor):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 3, 150)  # nothing to learn: the training sample is learnt by heart
    model = MLPClassifier(
        (60,), learning_rate_init=0.02, early_stopping=True, monitor=monitor, random_state=0
    )
    X_val, y_val = rng.standard_normal((60, 4)) + X.mean(axis=0), rng.integers(0, 3, 60)
    weight = rng.uniform(0.5, 2, 60)
    model.fit(X, noise, X_val=X_val, y_val=y_val, sample_weight_val=weight)
    scores = np.array(model.validation_scores_)
    assert model.n_iter_ < 200
    assert scores.argmax() == model.n_iter_ - 12
    assert model.best_validation_score_ == scores.max()
    if monitor == "val_loss":
        cost = model.network_.cost(X_val, y_val, weight)
        np.testing.assert_allclose(-cost, scores.max(), rtol=1e-6)
    else:
        assert model.score(X_val, y_val, weight) == pytest.approx(scores.max())


def test_scoring_and_min_delta():
    settings = {"early_stopping": True, "max_iter": 40, "random_state": 0, "n_iter_no_change": 3}
    model = MLPClassifier(5, scoring="neg_log_loss", min_delta=0.5, **settings).fit(X, Y)
    assert model.n_iter_ == 5
    assert model.validation_scores_ == model.history_["val_score"]
    np.testing.assert_allclose(model.validation_scores_, -np.array(model.history_["val_loss"]))


def test_a_time_budget():
    """Without it the fit would take hours."""
    model = MLPRegressor(max_iter=10**9, tol=0, n_iter_no_change=np.inf, max_time=0.05)
    model.fit(XR, YR)
    assert 0 < model.n_iter_ < 10**9


class Stop(Callback):
    def on_epoch_end(self, network, record):
        return record["epoch"] == 3


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_callbacks(solver):
    model = MLPRegressor(solver=solver, callbacks=[Stop()], random_state=0).fit(XR, YR)
    assert model.n_iter_ == 3
    assert len(model.history_) == 3
    assert model.history_["loss"][-1] == model.loss_ or solver == "lbfgs"
    with pytest.raises(TypeError, match="callbacks: expected None or a sequence"):
        MLPRegressor(callbacks=[Stop]).fit(XR, YR)


def test_threads(monkeypatch):
    seen = []
    limit = fastmlp.config.thread_limit

    class Look(Callback):
        def on_epoch_end(self, network, record):
            seen.append(limit(8))

    monkeypatch.setattr(fastmlp.config, "available_cpus", lambda: 4)
    for n_jobs in (1, 3, -1, None):
        MLPRegressor(max_iter=1, callbacks=[Look()], n_jobs=n_jobs).fit(XR, YR)
    assert seen == [1, 3, 4, limit(8)]


# --- Warm starts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"solver": "adam"},
        {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.1},
        {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.05, "n_iter_no_change": 1},
        {"optimizer": Adam(fastmlp.schedules.CosineDecay(0.01, 40))},
    ],
)
def test_a_warm_start_goes_on_as_if_nothing_had_come_between(settings):
    settings = {"random_state": 0, "shuffle": False, **settings}
    whole = MLPClassifier(5, max_iter=12, **settings).fit(X, Y)
    parts = MLPClassifier(5, max_iter=4, warm_start=True, **settings)
    for _ in range(3):
        parts.fit(X, Y)
    assert parts.loss_curve_ == whole.loss_curve_
    assert (parts.n_iter_, parts.t_) == (4, whole.t_)
    np.testing.assert_array_equal(parts.coefs_[0], whole.coefs_[0])


def test_a_warm_start_keeps_held_out_samples_apart():
    seen = []

    class Scorer:
        def __call__(self, estimator, X_val, y_val):
            seen.append(X_val.tobytes())
            return 0.5

    model = MLPClassifier(5, early_stopping=True, max_iter=2, warm_start=True, scoring=Scorer())
    model.fit(X, Y).fit(X, Y)
    assert len(seen) == 4
    assert len(set(seen)) == 1


def test_a_warm_start_of_another_shape_is_refused():
    model = MLPClassifier(5, max_iter=2, warm_start=True).fit(X, Y)
    with pytest.raises(ValueError, match=r"expected layers of \[4, 5, 3\]"):
        model.set_params(hidden_layer_sizes=6).fit(X, Y)
    model.set_params(hidden_layer_sizes=5, alpha=1.0, activation="tanh").fit(X, Y)
    assert model.network_.architecture.layers[0].l2 == 1.0
    with pytest.raises(ValueError, match="same classes as in the previous call to fit"):
        model.fit(X, np.minimum(Y, 1))


# --- Errors, warnings, output ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver": "newton"}, "solver: expected one of 'lbfgs', 'sgd', 'adam'"),
        ({"alpha": -1}, r"alpha: expected a number in \[0, inf\)"),
        ({"hidden_layer_sizes": (3, 0)}, "hidden_layer_sizes: expected an integer in"),
        ({"batch_size": 0}, "batch_size: expected one of 'auto' or an integer"),
        ({"learning_rate_init": 0}, r"learning_rate_init: expected a number in \(0, inf\)"),
        ({"momentum": 1.1}, r"momentum: expected a number in \[0, 1\]"),
        ({"shuffle": 1}, "shuffle: expected True or False"),
        ({"activation": "swish"}, "activation: expected one of"),
        ({"loss": "squared_error"}, "loss: expected one of 'log_loss'"),
        ({"label_smoothing": 1}, r"label_smoothing: expected a number in \[0, 1\)"),
        ({"class_weight": "even"}, "class_weight: expected None"),
    ],
)
def test_bad_parameters(settings, message):
    model = MLPClassifier().set_params(**settings)
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y)
    assert not hasattr(model, "network_")


def test_divergence_is_an_error():
    with pytest.raises(ValueError, match=r"Solver produced non-finite parameter weights.*epoch"):
        MLPRegressor(solver="sgd", learning_rate_init=1e6).fit(XR * 1e6, YR * 1e9)


def test_ctrl_c_keeps_the_last_step():
    class Interrupt(Callback):
        def on_epoch_begin(self, network, epoch):
            if epoch == 3:
                raise KeyboardInterrupt

    model = MLPRegressor(callbacks=[Interrupt()], random_state=0)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(XR, YR)
    expected = MLPRegressor(max_iter=2, random_state=0).fit(XR, YR)
    np.testing.assert_array_equal(model.predict(XR), expected.predict(XR))


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_what_verbose_prints_is_theirs(solver, capsys):
    settings = {"solver": solver, "learning_rate": "adaptive", "tol": 1.0, "verbose": True}
    settings |= {"n_iter_no_change": 1, "max_iter": 8, "random_state": 0, "early_stopping": True}
    theirs.MLPClassifier(**settings).fit(X, Y)
    expected = capsys.readouterr().out
    MLPClassifier(**settings).fit(X, Y)
    assert capsys.readouterr().out == expected
    assert "Iteration 1, loss = " in expected


def test_warnings():
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(2\) reached"):
        MLPClassifier(max_iter=2).fit(X, Y)
    with pytest.warns(ConvergenceWarning, match=r"lbfgs failed to converge after 2 iteration"):
        MLPClassifier(max_iter=2, solver="lbfgs").fit(X, Y)
    with pytest.warns(UserWarning, match="batch_size: got 500 for 150 samples"):
        MLPClassifier(max_iter=2, batch_size=500).fit(X, Y)


def test_one_class_has_probability_one():
    model = MLPClassifier(max_iter=2).fit(X, np.full(150, 7))
    np.testing.assert_array_equal(model.predict_proba(X), np.ones((150, 1)))
    assert set(model.predict(X)) == {7}


def test_partial_fit_is_there_where_it_can_be():
    assert hasattr(MLPRegressor(), "partial_fit")
    for settings in ({"solver": "lbfgs"}, {"early_stopping": True}):
        assert not hasattr(MLPRegressor(**settings), "partial_fit")
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        MLPClassifier().partial_fit(X, Y)
    model = MLPClassifier().partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="is not the same as on last call to partial_fit"):
        model.partial_fit(X, Y, classes=[0, 1])
    with pytest.raises(ValueError, match=r"`y` has classes not in `self.classes_`"):
        model.partial_fit(X, Y + 1)


def test_large_sparse_inputs_are_predicted_in_blocks(monkeypatch):
    monkeypatch.setattr("fastmlp.estimators.base.DENSE_BLOCK", 100)
    model = MLPClassifier(5, max_iter=2, random_state=0).fit(X, Y)
    np.testing.assert_allclose(
        model.predict_proba(scipy.sparse.csc_array(X)), model.predict_proba(X), rtol=1e-12
    )


# --- Imports --------------------------------------------------------------------------------------


def test_scikit_learn_is_imported_at_the_first_use_and_missed_in_one_line(run_python):
    out = run_python(
        """
        import sys
        import fastmlp
        print("sklearn" in sys.modules)
        sys.modules["sklearn"] = None
        try:
            from fastmlp import MLPClassifier
        except ImportError as error:
            print(error)
        try:
            fastmlp.MLPSomething
        except AttributeError as error:
            print(error)
        print("MLPRegressor" in dir(fastmlp))
        """
    )
    assert out.splitlines() == [
        "False",
        "fastmlp.MLPClassifier needs scikit-learn: pip install scikit-learn",
        "module 'fastmlp' has no attribute 'MLPSomething'",
        "True",
    ]


def test_the_loss_is_the_networks():
    model = MLPRegressor("huber", (5,), huber_delta=0.3, max_iter=2).fit(XR, YR)
    assert model.network_.architecture.loss == Huber(0.3).scaled(1, 1)
