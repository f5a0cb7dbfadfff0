"""Epochs of the estimators that run together: the bits, figures and draws of epochs one by one."""

from __future__ import annotations

import os

import numpy as np
import pytest
from sklearn.datasets import load_iris, make_regression

from fastmlp import Adam, Callback, MLPClassifier, MLPRegressor, feeding

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_iris(return_X_y=True)
XR, YR = make_regression(60, 6, noise=5, random_state=0)


@pytest.fixture(autouse=True)
def on_backend(backend, monkeypatch):
    monkeypatch.setenv("FASTMLP_BACKEND", backend)


def figures(model):
    """All that a fit leaves, the position in its random numbers too."""
    names = ["n_iter_", "t_", "loss_", "loss_curve_", "best_loss_", "_no_improvement_count"]
    state = model.network_.optimizer_state
    return {name: getattr(model, name) for name in names} | {
        "rate": model._rate.value,
        "records": [(r["epoch"], r["loss"], r["lr"]) for r in model.history_.records],
        "stop": model.history_.stop_reason,
        "parameters": model.network_.arena.flat.tobytes(),
        "moments": [moment.flat.tobytes() for moment in state.moments],
        "step": state.step,
        "next draws": model.random_state.randint(1 << 31, size=3).tolist(),
    }


def pair(kind, **settings):
    """Two estimators, of which the second is looked at after each epoch."""
    return [
        kind(**settings, callbacks=callbacks, random_state=np.random.RandomState(3))
        for callbacks in (None, [Callback()])
    ]


SGD = {"solver": "sgd", "learning_rate_init": 0.05}
SETTINGS = [
    {},
    {"max_iter": 7},
    {"shuffle": False, "max_iter": 30},
    {"n_iter_no_change": 2, "tol": 0.01},
    {"n_iter_no_change": np.inf, "max_iter": 40},
    {**SGD, "n_iter_no_change": 3, "tol": 0.02, "batch_size": 1},
    {**SGD, "n_iter_no_change": 2, "tol": 0.05, "learning_rate": "adaptive"},
    {"optimizer": Adam(0.01), "clip_norm": 1.0, "max_iter": 20},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("at_once", [500, 100_000])
def test_they_are_single_epochs(settings, at_once, dtype, monkeypatch, calls_of_the_loop):
    monkeypatch.setattr(feeding, "SAMPLES_AT_ONCE", at_once)
    together, alone = pair(MLPClassifier, hidden_layer_sizes=5, **{"max_iter": 60, **settings})
    together.fit(X.astype(dtype), Y)
    assert max(calls_of_the_loop) > 1
    assert sum(calls_of_the_loop) == together.n_iter_
    calls_of_the_loop.clear()
    alone.fit(X.astype(dtype), Y)
    assert calls_of_the_loop == [1] * alone.n_iter_
    assert figures(together) == figures(alone)


def test_warm_starts_and_weights():
    weight = np.random.default_rng(0).uniform(0.5, 2, len(Y))
    models = pair(MLPClassifier, hidden_layer_sizes=5, warm_start=True, tol=0.01, max_iter=15)
    for _ in range(4):  # the third begins without patience left
        for model in models:
            model.fit(X, Y, sample_weight=weight)
        assert figures(models[0]) == figures(models[1])
    for model in models:
        model.partial_fit(X[:50], Y[:50])
    assert figures(models[0]) == figures(models[1])


def test_they_end_where_the_fit_could(calls_of_the_loop):
    """With no patience left, or a rate that changes there."""
    model = MLPClassifier(5, tol=10.0, n_iter_no_change=2, max_iter=20, random_state=0)
    model.fit(X, Y)
    assert (model.n_iter_, calls_of_the_loop) == (4, [3, 1])  # the first one is an improvement
    calls_of_the_loop.clear()
    model.set_params(solver="sgd", learning_rate="adaptive", max_iter=9).fit(X, Y)
    assert calls_of_the_loop == [3, 1, 3, 2]
    assert model._rate.value == 0.001 / 5 / 5


@pytest.mark.parametrize(
    "settings",
    [
        {"verbose": True},
        {"early_stopping": True},
        {"dropout": 0.2},
        {"solver": "sgd", "learning_rate": "invscaling"},
        {"optimizer": Adam(lambda step: 0.001)},
        {"max_time": 100.0},
        {"callbacks": [Callback()]},
    ],
)
def test_where_somebody_looks_they_run_one_by_one(settings, calls_of_the_loop):
    MLPClassifier(5, max_iter=4, random_state=0, **settings).fit(X, Y)
    MLPClassifier(5, max_iter=4, random_state=0).fit(X, Y, X_val=X, y_val=Y)
    assert calls_of_the_loop == [1] * 8


def test_divergence_in_the_middle(calls_of_the_loop):
    settings = {"solver": "sgd", "activation": "identity", "batch_size": 20, "max_iter": 99}
    models = pair(MLPRegressor, hidden_layer_sizes=(), learning_rate_init=1e8, **settings)
    errors = []
    for model in models:
        with pytest.raises(ValueError, match="training diverged in epoch") as error:
            model.fit(XR, YR)
        errors.append(str(error.value))
    assert errors[0] == errors[1]
    assert 2 <= models[0].n_iter_ < 10
    assert calls_of_the_loop[0] == 11
    assert figures(models[0]) == figures(models[1])


INTERRUPTED = """
import warnings
import numpy as np
from fastmlp import Callback, MLPClassifier, feeding

at_once = 25_000  # epochs: seconds
feeding.SAMPLES_AT_ONCE = at_once * 40
rng = np.random.default_rng(0)
X, y = rng.standard_normal((40, 100)), rng.integers(0, 10, 40)

class StopAt(Callback):
    def __init__(self, step):
        self.every_n_steps = step

    def on_step_end(self, network, record):
        return True

def new_model(callbacks=None):
    return MLPClassifier(200, batch_size=20, learning_rate_init=1e-5, n_iter_no_change=10**6,
                         max_iter=10**6, random_state=np.random.RandomState(0),
                         callbacks=callbacks)

model = new_model()
interrupt_after(20, lambda: model.network_.arena.flat[-10:] if hasattr(model, "network_") else y)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model.fit(X, y)
assert [str(w.message) for w in caught] == ["Training interrupted by user."], caught
step = model.network_.optimizer_state.step
twin = new_model([StopAt(step)]).fit(X, y)
assert model.network_.arena.flat.tobytes() == twin.network_.arena.flat.tobytes()
assert model.random_state.randint(1 << 31) == twin.random_state.randint(1 << 31)
finished = step // 2
assert model.n_iter_ == len(model.history_) == finished
assert model.t_ == 40 * finished
assert model.loss_curve_ == model.history_["loss"] == twin.loss_curve_[:finished]
assert model.best_loss_ == min(model.loss_curve_)
assert 2 <= finished < at_once, finished
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_ctrl_c_in_the_middle(backend, run_interrupted):
    """Figures, random numbers and parameters are those of the finished epochs and steps."""
    run_interrupted(INTERRUPTED, FASTMLP_BACKEND=backend)
