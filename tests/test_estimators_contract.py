"""The estimators among scikit-learn's own: its checks, pickles, workers, searches, callbacks."""

from __future__ import annotations

import copy
import inspect
import pickle

import joblib
import numpy as np
import pytest
import sklearn
from sklearn import neural_network as theirs
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris, make_regression
from sklearn.ensemble import VotingClassifier
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from threadpoolctl import threadpool_limits

from fastmlp import MLPClassifier, MLPFeatures, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_iris(return_X_y=True)


@pytest.fixture(autouse=True, scope="module")
def one_thread_for_blas():
    """Its threads wait for each other in SciPy's L-BFGS-B: milliseconds a step on a busy CPU."""
    with threadpool_limits(1, user_api="blas"):
        yield


class Float32:
    """Sees every input as float32."""

    def _validated(self, X, y, *, reset):
        X, y = super()._validated(X, y, reset=reset)
        return X.astype(np.float32), y


class Float32Classifier(Float32, MLPClassifier):
    pass


class Float32Regressor(Float32, MLPRegressor):
    pass


def expected_failures(estimator):
    reason = None
    if estimator.early_stopping:
        reason = "a sample of weight 2 is held out as one sample, two of weight 1 as two"
    elif isinstance(estimator, Float32):
        reason = "float32 sums round to 1e-7, in another order where samples are repeated"
    checks = [f"check_sample_weight_equivalence_on_{kind}_data" for kind in ("dense", "sparse")]
    failures = dict.fromkeys(checks, reason) if reason else {}
    if isinstance(estimator, Float32Regressor):
        failures["check_regressor_multioutput"] = "wants float64 for its float64 data"
    return failures


# Whether float32 sums of repeated samples round alike depends on NumPy's BLAS.
LENIENT = (
    {"xfail_strict": False}
    if "xfail_strict" in inspect.signature(parametrize_with_checks).parameters
    else {}
)


@parametrize_with_checks(
    [
        MLPClassifier(max_iter=60),
        MLPClassifier(solver="sgd", learning_rate="adaptive", max_iter=60),
        MLPClassifier(solver="lbfgs", max_iter=20),
        MLPClassifier(
            early_stopping=True, monitor="val_loss", validation_fraction=0.25, max_iter=60
        ),
        MLPClassifier(class_weight="balanced", max_iter=60),
        Float32Classifier(max_iter=60),
        MLPRegressor(max_iter=60),
        MLPRegressor(solver="sgd", learning_rate="adaptive", max_iter=60),
        MLPRegressor(solver="lbfgs", max_iter=20),
        MLPRegressor(early_stopping=True, validation_fraction=0.25, max_iter=60),
        Float32Regressor(max_iter=60),
    ],
    expected_failed_checks=expected_failures,
    **LENIENT,
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@parametrize_with_checks([MLPFeatures(MLPClassifier(5, max_iter=5, random_state=0))])
def test_scikit_learns_checks_of_the_transformer(estimator, check):
    check(estimator)


needs_1_9 = pytest.mark.skipif(
    not hasattr(MLPClassifier, "set_callbacks"), reason="needs scikit-learn 1.9"
)


@needs_1_9
def test_parameters_and_defaults_are_theirs():
    for ours, original in (
        (MLPClassifier, theirs.MLPClassifier),
        (MLPRegressor, theirs.MLPRegressor),
    ):
        expected = inspect.signature(original).parameters
        found = inspect.signature(ours).parameters
        assert {name: found[name].default for name in expected} == {
            name: parameter.default for name, parameter in expected.items()
        }
        assert [name for name in found if name in expected] == list(expected)
        for name in ("fit", "partial_fit", "predict"):
            expected = list(inspect.signature(getattr(original, name)).parameters)
            assert (
                list(inspect.signature(getattr(ours, name)).parameters)[: len(expected)] == expected
            )


@needs_1_9
def test_every_public_attribute_of_theirs_is_there():
    for solver in ("adam", "lbfgs"):
        for kind in ("MLPClassifier", "MLPRegressor"):
            settings = {"solver": solver, "max_iter": 3, "random_state": 0}
            original = getattr(theirs, kind)(**settings).fit(X, Y)
            ours = {"MLPClassifier": MLPClassifier, "MLPRegressor": MLPRegressor}[kind](**settings)
            missing = {name for name in dir(original) if name[0] != "_"} - set(dir(ours.fit(X, Y)))
            shown_by_mistake = {"partial_fit"} if solver == "lbfgs" else set()
            assert missing <= shown_by_mistake


# --- Pickles and copies ---------------------------------------------------------------------------


def test_a_pickle_holds_the_parameters_once():
    X, y = make_regression(100, 50, random_state=0)
    model = MLPRegressor(hidden_layer_sizes=(400,), max_iter=2, early_stopping=True).fit(X, y)
    size = sum(array.nbytes for array in model.coefs_ + model.intercepts_)
    assert len(pickle.dumps(model)) < 1.2 * size + 10_000
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    assert loaded.coefs_[0] is loaded.network_.parameters[0][0]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_training_goes_on_from_a_copy(copied):
    """partial_fit after partial_fit, and a warm start, as if nothing had come between."""
    one, other = (MLPClassifier(5, random_state=0) for _ in range(2))
    for rows in (slice(0, 80), slice(50, 150), slice(0, 150)):
        one.partial_fit(X[rows], Y[rows], classes=[0, 1, 2])
        other = copied(other.partial_fit(X[rows], Y[rows], classes=[0, 1, 2]))
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    one, other = (MLPClassifier(5, random_state=0, warm_start=True, max_iter=3) for _ in range(2))
    one.fit(X, Y).fit(X, Y)
    copied(other.fit(X, Y)).fit(X, Y)
    np.testing.assert_array_equal(copied(other).fit(X, Y).predict_proba(X), one.predict_proba(X))


def test_arrays_put_in_the_place_of_coefs_count():
    model = MLPClassifier((4,), max_iter=2, random_state=0).fit(X, Y)
    other = MLPClassifier((4,), max_iter=9, random_state=1).fit(X, Y)
    model.coefs_ = [W.copy() for W in other.coefs_]
    model.intercepts_[0], model.intercepts_[1] = (b.copy() for b in other.intercepts_)
    np.testing.assert_array_equal(model.predict_proba(X), other.predict_proba(X))
    model.coefs_[0][...] = 0  # in place
    assert not model.network_.parameters[0][0].any()
    model.coefs_[1] = np.zeros((3, 3))
    with pytest.raises(ValueError, match=r"coefs_\[1\]: expected shape \(4, 3\), got \(3, 3\)"):
        model.predict(X)


# --- Workers, searches, ensembles -----------------------------------------------------------------


@pytest.mark.parametrize("workers", ["loky", "threading", "multiprocessing"])
def test_workers(workers):
    """Each of joblib's backends, with X as a read-only memmap."""
    model = MLPClassifier(8, max_iter=4, random_state=0).fit(X, Y)
    large = np.tile(X, (10, 1))
    with joblib.parallel_config(backend=workers):
        fitted = joblib.Parallel(n_jobs=2, max_nbytes=1000)(
            joblib.delayed(clone(model).fit)(X if i else large, Y if i else np.tile(Y, 10))
            for i in range(3)
        )
        predicted = joblib.Parallel(n_jobs=2, max_nbytes=1000)(
            joblib.delayed(model.predict)(large) for _ in range(2)
        )
    for other in fitted[1:]:
        np.testing.assert_array_equal(other.coefs_[0], model.coefs_[0])
    np.testing.assert_array_equal(predicted[1], model.predict(large))


def test_searches_pipelines_and_ensembles():
    small = MLPClassifier(8, solver="lbfgs", max_iter=30, random_state=0)
    pipeline = make_pipeline(StandardScaler(), small)
    search = GridSearchCV(pipeline, {"mlpclassifier__alpha": [1e-4, 1.0]}, n_jobs=2).fit(X, Y)
    assert search.best_score_ > 0.9
    assert cross_val_score(pipeline, X, Y).mean() > 0.9
    assert cross_val_predict(pipeline, X, Y, method="predict_proba").shape == (150, 3)
    voting = VotingClassifier([("a", pipeline), ("b", clone(pipeline))], voting="soft").fit(X, Y)
    assert voting.score(X, Y) > 0.9
    assert CalibratedClassifierCV(pipeline, cv=3).fit(X, Y).score(X, Y) > 0.9
    features = make_pipeline(StandardScaler(), MLPFeatures(small), small).fit(X, Y)
    assert features.score(X, Y) > 0.9


def test_features():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    model = MLPClassifier((6, 3), activation=["tanh", "relu"], max_iter=9, random_state=0)
    features = MLPFeatures(model, layer=0).set_output(transform="pandas").fit(frame, Y)
    out = features.transform(frame)
    assert list(out.columns) == [f"mlpfeatures{i}" for i in range(6)]
    W, b = features.estimator_.network_.parameters[0]
    np.testing.assert_allclose(out, np.tanh(X @ W + b))
    last = MLPFeatures(features.estimator_, prefit=True).fit(frame, Y)
    W2, b2 = features.estimator_.network_.parameters[1]
    np.testing.assert_allclose(last.transform(frame), np.maximum(out.to_numpy() @ W2 + b2, 0))
    with pytest.raises(ValueError, match=r"layer: expected an integer in \[-2, 2\)"):
        MLPFeatures(model, layer=2).fit(X, Y)
    with pytest.raises(ValueError, match="estimator: expected MLPClassifier"):
        MLPFeatures(StandardScaler()).fit(X, Y)


def test_names_of_columns_are_kept():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    model = MLPClassifier(5, max_iter=2).fit(frame, Y)
    assert model.feature_names_in_.tolist() == list("abcd")
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        model.predict(X)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename(columns={"a": "z"}))
    model.fit(X[:, :3], Y)  # an array has none
    assert not hasattr(model, "feature_names_in_")
    assert model.n_features_in_ == 3
    model.predict(X[:, :3])


def test_validation_data_is_routed_and_transformed():
    model = MLPClassifier(8, early_stopping=True, max_iter=5, random_state=0)
    with sklearn.config_context(enable_metadata_routing=True):
        model.set_fit_request(X_val=True, y_val=True, sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, model)
        pipeline.set_params(transform_input=["X_val"])
        pipeline.fit(X, Y, X_val=X[::3], y_val=Y[::3], sample_weight=np.ones(150))
    expected = clone(model).fit(
        StandardScaler().fit_transform(X), Y, X_val=pipeline[0].transform(X[::3]), y_val=Y[::3]
    )
    assert pipeline[-1].validation_scores_ == expected.validation_scores_


def test_the_page_of_an_estimator():
    assert "MLPClassifier" in MLPClassifier()._repr_html_()
    assert repr(MLPClassifier(loss="focal")) == "MLPClassifier(loss='focal')"


# --- Callbacks of scikit-learn 1.9 ----------------------------------------------------------------


class Recorder:
    """Follows the protocol and notes every call."""

    def __init__(self, stop_after=None):
        self.calls, self.scores, self.stop_after = [], [], stop_after

    def setup(self, estimator, context):
        self.calls.append("setup")

    def teardown(self, estimator, context):
        self.calls.append("teardown")

    def on_fit_task_begin(self, estimator, context, *, X, y):
        assert len(X) == len(y) == 150
        self.calls.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X, y, fitted_estimator):
        self.calls.append(f"end {context.task_name}")
        self.scores.append((fitted_estimator, fitted_estimator.predict_proba(X)))
        return context.task_id + 1 == self.stop_after and context.task_name == "epoch"


@needs_1_9
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_their_callbacks(solver):
    recorder = Recorder(stop_after=3)
    model = MLPClassifier(5, solver=solver, max_iter=8, random_state=0).set_callbacks(recorder)
    model.fit(X, Y)
    epochs = ["begin epoch", "end epoch"] * 3
    assert recorder.calls == ["setup", "begin fit", *epochs, "end fit", "teardown"]
    assert model.n_iter_ == 3
    for fitted, probabilities in recorder.scores:  # each kept what it had
        np.testing.assert_array_equal(fitted.predict_proba(X), probabilities)
    assert not np.array_equal(recorder.scores[0][1], recorder.scores[1][1])
    np.testing.assert_array_equal(recorder.scores[-1][1], model.predict_proba(X))


@needs_1_9
def test_their_progress_bar_and_scoring(capsys):
    from sklearn.callback import ProgressBar, ScoringMonitor

    scores = ScoringMonitor(scoring="accuracy")
    model = MLPClassifier(5, max_iter=4, random_state=0).set_callbacks(ProgressBar(), scores)
    model.fit(X, Y)
    assert "MLPClassifier - fit" in capsys.readouterr().out
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(5, max_iter=4))
    pipeline.set_callbacks(ProgressBar()).fit(X, Y)
    assert "epoch" not in capsys.readouterr().err
