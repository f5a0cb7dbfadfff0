"""Whole fits: the backends against each other, threads, weights, divergence, interrupts, forks."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import warnings
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neural_network import MLPClassifier

from fastmlp import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Averaged,
    Callback,
    Dense,
    DivergenceError,
    Dropout,
    Nadam,
    Network,
    RMSprop,
    config,
    feeding,
    set_num_threads,
    training,
)
from fastmlp.backends import load_compiled
from fastmlp.backends.base import StepOptions, TrainingData
from fastmlp.backends.interrupts import InterruptsBetweenSteps
from fastmlp.optimizers import OptimizerState
from fastmlp.schedules import CosineDecay, ReduceOnPlateau, Schedule, WarmUp

needs_compiled = pytest.mark.skipif(load_compiled() is None, reason="needs the compiled core")


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return X / 16, y


def tolerance(dtype):
    return {"rtol": 1e-5, "atol": 2e-6} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-13}


# --- Digits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "hidden", "batch_size"),
    [
        (SGD(0.01), "sigmoid", 1),
        (SGD(0.01), "relu", 1),
        (SGD(0.05), "tanh", 32),
        (SGD(0.05, momentum=0.9), "relu", 32),
        (SGD(0.05, momentum=0.9, nesterov=True, weight_decay=1e-3), "sigmoid", 32),
        (RMSprop(), "tanh", 64),
        (Adagrad(), "leaky_relu", 64),
        (Adam(), "relu", 64),
        (Adam(), "gelu", 64),
        (Adam(), "selu", 1),
        (AdamW(), "silu", 64),
        (Nadam(), "elu", 64),
        (Nadam(), "softplus", 50),
    ],
    ids=str,
)
@needs_compiled
def test_backends_agree_on_digits(dtype, digits, optimizer, hidden, batch_size):
    n_epochs = 1 if batch_size == 1 else 3  # NumPy takes a second for one, sample by sample
    nets, histories = [], []
    for name in ("compiled", "numpy"):
        net = Network(
            64,
            [Dense(32, hidden), Dense(16, hidden), Dense(10, "softmax")],
            loss="cross_entropy",
            dtype=dtype,
            seed=0,
            backend=name,
        )
        options = {"optimizer": optimizer, "epochs": n_epochs, "batch_size": batch_size}
        histories.append(net.fit(*digits, **options))
        nets.append(net)
    bound = 1e-4 if dtype == "float32" else 1e-10
    assert np.abs(nets[0].arena.flat - nets[1].arena.flat).max() < bound
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=bound)
    np.testing.assert_allclose(histories[0]["accuracy"], histories[1]["accuracy"], atol=2e-3)


def test_digits_are_learnt(backend, dtype, digits):
    X, y = digits
    net = Network(
        64,
        [Dense(64, "relu"), Dense(10, "softmax")],
        loss="cross_entropy",
        dtype=dtype,
        seed=0,
        backend=backend,
    )
    net.fit(X[:1400], y[:1400], optimizer=Adam(0.003), epochs=15, batch_size=32)
    assert net.evaluate(X[1400:], y[1400:])["accuracy"] > 0.9


# --- The same bits --------------------------------------------------------------------------------


FIT_AND_HASH = """
import hashlib, sys
import numpy as np
from fastmlp import Adam, Dense, Network

def fitted(backend, dtype):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((200, 64)), rng.integers(0, 10, 200)
    net = Network(64, [Dense(128, "gelu"), Dense(10, "softmax")], loss="cross_entropy",
                  dtype=dtype, seed=0, backend=backend)
    net.fit(X, y, optimizer=Adam(), epochs=2, batch_size=32)
    return hashlib.sha256(net.arena.flat.tobytes()).hexdigest()
"""


def test_runs_give_the_same_bits(backend, dtype, run_python):
    code = FIT_AND_HASH + "print(fitted(*sys.argv[1:]))"
    first, second = (run_python(code, backend, dtype) for _ in range(2))
    assert first == second
    namespace = {}
    exec(FIT_AND_HASH, namespace)
    assert namespace["fitted"](backend, dtype) == namespace["fitted"](backend, dtype)


@pytest.fixture
def _eight_cpus(monkeypatch):
    """As on a larger machine; afterwards as before."""
    monkeypatch.setattr(config, "available_cpus", lambda: 8)
    yield
    set_num_threads(None)


def large_problem():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 784)).astype(np.float32) * (rng.random((300, 784)) < 0.4)
    net = Network(
        784,
        [Dense(256, "relu"), Dense(128, "relu"), Dense(10, "softmax")],
        loss="cross_entropy",
        dtype="float32",
        seed=0,
        backend="compiled",
    )
    return net, X, rng.integers(0, 10, 300)


@needs_compiled
@pytest.mark.usefixtures("_eight_cpus")
def test_threads_do_not_change_the_bits():
    """Minibatches with a ragged last one, on a network and batch that split across the threads."""
    if not load_compiled().describe()["openmp"]:
        pytest.skip("needs a build with OpenMP")
    outcomes = []
    for n_threads in (1, 2, 3, 8):
        set_num_threads(n_threads)
        net, X, y = large_problem()
        state = OptimizerState(Adam(), net.arena)
        data = TrainingData(X, y, None, 64)
        trainer = net.backend.trainer(net.architecture, net.arena, state, data)
        result = trainer.epochs(np.random.default_rng(1).permutation(300), np.full(5, 1e-3))
        assert trainer.n_threads == n_threads
        history = net.fit(X, y, optimizer=Adam(), epochs=2, batch_size=64)
        gradients = net.compute_gradient(X, y)
        outcomes.append(
            (
                *(result.sums[:, :4].tobytes(), result.losses.tobytes()),
                net.arena.flat.tobytes(),
                history["loss"],
                net.predict(X).tobytes(),
                [array.tobytes() for pair in gradients for array in pair],
            )
        )
    assert np.isfinite(history["loss"]).all()
    assert all(outcome == outcomes[0] for outcome in outcomes[1:])


@needs_compiled
def test_short_steps_take_the_faster_number_of_threads():
    from fastmlp.backends import compiled_backend

    pace, short = compiled_backend.Pace(), compiled_backend.SHORT_STEP - 1
    assert pace.threads(short, 1, 0.0) == 1
    assert pace.threads(short + 1, 4, 0.0) == 4  # not short: as wanted, whatever the pace
    assert pace.threads(short, 4, 1.0) == 4
    assert pace.threads(short, 4, 1.0) == 4  # not noted yet
    pace.note(short, 4, np.array([3.0, 2.0]), 10)
    assert pace.threads(short, 4, 1.1) == 1
    pace.note(short, 1, np.array([1.0, 5.0]), 10)
    assert pace.threads(short, 4, 1.2) == 1
    pace.note(short + 1, 4, np.array([0.5]), 10)  # other work
    pace.note(short, 4, np.array([0.5, 0.0]), 10)  # an end left the second epoch out
    assert pace.threads(short, 4, 1.3) == 1
    again = 1.1 + compiled_backend.TRY_AGAIN
    assert pace.threads(short, 4, again) == 4
    pace.note(short, 4, np.array([0.9]), 10)
    assert pace.threads(short, 4, again + 0.1) == 4
    assert pace.threads(short, 2, again + 0.1) == 2  # another number is wanted: nothing is known


@needs_compiled
@pytest.mark.usefixtures("_eight_cpus")
def test_threads_that_wait_for_a_cpu_leave_the_work_to_one_for_a_while(monkeypatch):
    if not load_compiled().describe()["openmp"]:
        pytest.skip("needs a build with OpenMP")
    # Beginning and end of each call; worked 1 second of 4, 1 of 1, 1 of 4 three times, ...
    wall = iter([0, 4, 5, 6, 10, 14, 20, 24, 30, 34, 50, 51, 154, 155])
    busy = iter([0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 7])
    from fastmlp.backends import compiled_backend

    monkeypatch.setattr(compiled_backend, "perf_counter", lambda: next(wall))
    monkeypatch.setattr(compiled_backend, "thread_time", lambda: next(busy))
    monkeypatch.setattr(compiled_backend, "CALLS", 3)
    monkeypatch.setattr(compiled_backend, "ALONE", 10)
    set_num_threads(2)
    net, X, y = large_problem()
    trainer = net.backend.trainer(
        net.architecture, net.arena, OptimizerState(Adam(), net.arena), TrainingData(X, y, None, 64)
    )
    used = []
    for _ in range(7):
        trainer.epochs(np.arange(300), np.full(5, 1e-3))
        used.append(trainer.n_threads)
    assert used == [2, 2, 2, 2, 2, 1, 2]  # one thread from second 34 to 154


def test_two_python_threads_train_two_networks(backend, dtype, make_network, make_data):
    def train(seed, outcomes, barrier=None):
        net = make_network(backend, dtype, widths=(50, 200, 100, 10), hidden="relu", seed=seed)
        X, y = make_data(net, 300, seed)
        if barrier is not None:
            barrier.wait()
        net.fit(X, y, optimizer=Adam(), epochs=4, batch_size=50)
        outcomes[seed] = net.arena.flat.tobytes(), net.predict(X).tobytes()

    serial, concurrent = {}, {}
    for seed in (1, 2):
        train(seed, serial)
    barrier = threading.Barrier(2)
    threads = [threading.Thread(target=train, args=(seed, concurrent, barrier)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert concurrent == serial
    assert serial[1] != serial[2]


# --- Weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_weights_are_repetitions(backend, dtype, make_network, make_data, loss):
    """For a full batch; with weights of 0 too."""
    output = "softmax" if loss == "cross_entropy" else "identity"
    weighted, repeated = (make_network(backend, dtype, output=output, loss=loss) for _ in range(2))
    X, y = make_data(weighted, 12)
    times = np.array([1, 2, 3, 0, 1, 5, 0, 1, 2, 2, 1, 1])
    X2, y2 = np.repeat(X, times, axis=0), np.repeat(y, times, axis=0)
    assert weighted.cost(X, y, times) == pytest.approx(repeated.cost(X2, y2), rel=1e-5)
    options = {"optimizer": Adam(0.01), "epochs": 3, "shuffle": False}
    with_weights = weighted.fit(X, y, sample_weight=times, batch_size=12, **options)
    with_copies = repeated.fit(X2, y2, batch_size=len(X2), **options)
    np.testing.assert_allclose(weighted.arena.flat, repeated.arena.flat, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(with_weights["loss"], with_copies["loss"], rtol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, 40])
def test_divided_penalties_are_those_of_scikit_learn(backend, weighted, batch_size):
    """Parameters, and the loss it reports: batches weighted by their number of samples."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 6)), np.arange(40) % 3
    weight = rng.uniform(0.5, 2, 40) if weighted else None
    options = {
        "activation": "tanh", "solver": "sgd", "alpha": 0.5, "batch_size": batch_size,
        "shuffle": False, "momentum": 0, "max_iter": 1, "random_state": 0,
    }  # fmt: skip
    theirs, start = (MLPClassifier((5,), learning_rate_init=lr, **options) for lr in (0.1, 1e-300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they did not converge
        for estimator in (theirs, start):
            estimator.fit(X, y, sample_weight=weight)
    layers = [Dense(5, "tanh", l2=0.5), Dense(3, "softmax", l2=0.5)]
    net = Network(6, layers, loss="cross_entropy", dtype="float64", seed=0, backend=backend)
    for (W, b), theirs_W, theirs_b in zip(
        net.parameters, start.coefs_, start.intercepts_, strict=True
    ):
        W[...], b[...] = theirs_W, theirs_b
    data = TrainingData(X, y, weight, batch_size)
    state = OptimizerState(SGD(0.1), net.arena)
    options = StepOptions(divide_penalty=True)
    trainer = net.backend.trainer(net.architecture, net.arena, state, data, options)
    result = trainer.epochs(np.arange(40), np.full(data.n_steps(40), 0.1))
    for (W, b), theirs_W, theirs_b in zip(
        net.parameters, theirs.coefs_, theirs.intercepts_, strict=True
    ):
        np.testing.assert_allclose(W, theirs_W, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(b, theirs_b, rtol=1e-11, atol=1e-13)
    counts = np.diff([*range(0, 40, batch_size), 40])
    assert counts @ result.losses / 40 == pytest.approx(theirs.loss_, rel=1e-12)


def test_the_loss_of_an_epoch_has_its_penalties(backend, dtype, make_data):
    layers = [Dense(5, "tanh", l2=0.5), Dense(3, "softmax", l1=0.1)]
    net = Network(6, layers, loss="cross_entropy", dtype=dtype, seed=0, backend=backend)
    X, y = make_data(net, 12)
    expected = net.cost(X, y, training=True)
    history = net.fit(X, y, optimizer=SGD(0.1), epochs=1, batch_size=12)
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("optimizer", [SGD(0.1), Adam(0.01)], ids=str)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_equal_weights_are_none(backend, dtype, make_network, make_data, optimizer, batch_size):
    plain, weighted = make_network(backend, dtype), make_network(backend, dtype)
    X, y = make_data(plain, 10)
    options = {"optimizer": optimizer, "epochs": 2, "batch_size": batch_size}
    losses = plain.fit(X, y, **options)["loss"]
    assert weighted.fit(X, y, sample_weight=np.full(10, 4.0), **options)["loss"] == pytest.approx(
        losses, rel=1e-6
    )
    np.testing.assert_allclose(weighted.arena.flat, plain.arena.flat, **tolerance(dtype))


@pytest.mark.parametrize("batch_size", [1, 4])
def test_batches_of_weight_zero_do_nothing(backend, dtype, make_network, make_data, batch_size):
    weighted, shorter = make_network(backend, dtype), make_network(backend, dtype)
    X, y = make_data(weighted, 12)
    weight = np.array([0.0] * 4 + [1.0] * 4 + [0.0] * 4)
    options = {"optimizer": SGD(0.1), "epochs": 2, "batch_size": batch_size, "shuffle": False}
    history = weighted.fit(X, y, sample_weight=weight, **options)
    expected = shorter.fit(X[4:8], y[4:8], **options)
    np.testing.assert_allclose(weighted.arena.flat, shorter.arena.flat, **tolerance(dtype))
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-5)


# --- Divergence -----------------------------------------------------------------------------------


class Snapshots(Callback):
    """The network's state at the beginning and after each epoch."""

    def __init__(self, state_of):
        self.state_of = state_of
        self.states = []

    def on_fit_begin(self, network, **_):
        self.states.append(self.state_of(network))

    def on_epoch_end(self, network, record):
        self.states.append(self.state_of(network))


@pytest.mark.parametrize("weight", [None, "with zeros"])
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("kind", [SGD, Adam])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_divergence(
    backend, dtype, make_network, make_data, state_of, loss, kind, batch_size, weight
):
    """Two good epochs; in the third the rate is 1e6 or, where that does no harm, infinite."""
    if loss == "mse":
        net = make_network(
            backend, dtype, widths=(6, 5, 2), hidden="relu", output="identity", loss=loss
        )
    else:
        net = make_network(backend, dtype, widths=(6, 5, 3), hidden="relu")
    X, y = make_data(net, 120)
    n_steps = 120 // batch_size
    rate = 1e6 if loss == "mse" and kind is SGD else np.inf
    optimizer = kind(lambda step: 1e-3 if step < 2 * n_steps else rate)
    snapshots = Snapshots(state_of)
    with pytest.raises(DivergenceError) as caught:
        net.fit(
            X,
            y,
            optimizer=optimizer,
            epochs=9,
            batch_size=batch_size,
            sample_weight=None if weight is None else np.arange(120) % 3,
            callbacks=[snapshots],
        )
    shown = "1e+06" if rate == 1e6 else "inf"
    assert f"in epoch 3 at learning rate {shown}: " in str(caught.value)
    assert isinstance(caught.value, FloatingPointError)
    assert len(snapshots.states) == 3
    assert state_of(net) == snapshots.states[-1]
    history = net.fit(X, y, optimizer=kind(1e-3), epochs=1, batch_size=batch_size)
    assert np.isfinite(history["loss"]).all()


def test_divergence_in_the_first_epoch(backend, dtype, make_network, make_data):
    net = make_network(backend, dtype, widths=(6, 2), output="identity", loss="mse")
    X, y = make_data(net, 300)
    before = net.arena.flat.tobytes()
    with pytest.raises(DivergenceError, match=r"in epoch 1 at learning rate 1e\+06"):
        net.fit(X, y, optimizer=SGD(1e6), epochs=3, batch_size=2)
    assert net.arena.flat.tobytes() == before


def test_parameters_that_overflow_in_the_last_step(backend, make_network, make_data):
    """The loss of that step was still finite."""
    net = make_network(backend, "float32", widths=(6, 2), output="identity", loss="mse")
    X, y = make_data(net, 4)
    before = net.arena.flat.tobytes()
    with pytest.raises(DivergenceError, match="in epoch 1"):
        net.fit(X, y, optimizer=SGD(1e39), epochs=1, batch_size=4)
    assert net.arena.flat.tobytes() == before


# --- Several epochs at once -----------------------------------------------------------------------


@dataclass(frozen=True)
class Jump(Schedule):
    """`lr` until step `at`, then `high` for good."""

    lr: float
    at: int
    high: float

    def values(self, t):
        return np.where(t < self.at, self.lr, self.high)


def without_times(records):
    return [{k: v for k, v in r.items() if k not in TIMES} for r in records]


TIMES = ("seconds", "samples_per_second")
RATES = {
    "a number": 0.01,
    "a schedule": WarmUp(CosineDecay(0.05, 20), 7),
    "a schedule that observes": WarmUp(ReduceOnPlateau(0.05, patience=1, min_delta=1.0), 3),
    "a function": lambda step: 0.1 / (1 + step),
}
OPTIMIZERS = {
    "sgd": SGD,
    "momentum": lambda lr: SGD(lr, momentum=0.9),
    "adam": Adam,
    "averaged": lambda lr: Averaged(Adam(lr), 0.5),
}


FITS = st.fixed_dictionaries(
    {
        "optimizer": st.sampled_from(list(OPTIMIZERS)),
        "lr": st.sampled_from(list(RATES)),
        "epochs": st.integers(0, 12),
        "n": st.integers(1, 30),
        "batch_size": st.sampled_from([1, 4, 30]),
        "at_once": st.integers(1, 400),
        "shuffle": st.sampled_from(
            [True, np.True_, False, "blocks", lambda rng, n: rng.integers(0, n, 5)]
        ),
        "weighted": st.booleans(),
        "dropout": st.booleans(),
        "options": st.sampled_from([{}, {"clip_norm": 0.5}, {"count_samples": True}]),
    }
)


@given(FITS)
def test_epochs_at_once_are_single_epochs(backend, dtype, make_data, state_of, fit):
    """To the bit, with their records; as with a callback that looks on, as with a fit for each."""
    dropout = [Dropout(0.5)] if fit["dropout"] else []
    layers = [Dense(6, "relu", l2=0.01), *dropout, Dense(3, "softmax")]
    nets = [
        Network(5, layers, loss="cross_entropy", dtype=dtype, seed=0, backend=backend)
        for _ in range(3)
    ]
    X, y = make_data(nets[0], fit["n"])
    epochs = fit["epochs"]
    arguments = {
        "optimizer": OPTIMIZERS[fit["optimizer"]](RATES[fit["lr"]]),
        "batch_size": fit["batch_size"],
        "shuffle": fit["shuffle"],
        "validation_data": None,
        "sample_weight": np.arange(1, len(X) + 1) if fit["weighted"] else None,
        "options": StepOptions(**fit["options"]),
        "metrics": (),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feeding, "SAMPLES_AT_ONCE", fit["at_once"])
        history = training.fit(nets[0], X, y, epochs=epochs, callbacks=[], **arguments)
        training.fit(nets[1], X, y, epochs=epochs, callbacks=[Callback()], **arguments)
        for _ in range(epochs):
            training.fit(nets[2], X, y, epochs=1, callbacks=[], **arguments)
    assert history.records == nets[0].history.records
    assert [record["epoch"] for record in history.records] == list(range(1, epochs + 1))
    assert history.stop_reason == "epochs"
    for net in nets[1:]:
        assert without_times(net.history.records) == without_times(history.records)
        if epochs:
            assert state_of(net) == state_of(nets[0])


def test_times_of_epochs_at_once(backend, make_network, make_data):
    net = make_network(backend)
    X, y = make_data(net, 40)
    began = perf_counter()
    history = net.fit(X, y, optimizer=SGD(0.1), epochs=20, batch_size=8)
    wall_time = perf_counter() - began
    assert min(history["seconds"]) > 0
    assert sum(history["seconds"]) < wall_time
    assert history["samples_per_second"] == [40 / seconds for seconds in history["seconds"]]


def test_how_many_epochs_at_once(backend, make_network, make_data, calls_of_the_loop):
    net, calls = make_network(backend), calls_of_the_loop
    X, y = make_data(net, 30)
    net.fit(X, y, optimizer=SGD(0.1), epochs=5)
    net.fit(X, y, optimizer=SGD(CosineDecay(0.1, 100)), epochs=5)
    assert calls == [5, 5]
    net.fit(X, y, optimizer=SGD(ReduceOnPlateau(0.1)), epochs=2)
    net.fit(X, y, optimizer=SGD(lambda step: 0.1), epochs=2)
    net.fit(X, y, optimizer=SGD(0.1), epochs=2, callbacks=[Callback()])
    net.fit(X, y, optimizer=SGD(0.1), epochs=2, verbose=2)
    net.fit(X, y, optimizer=SGD(0.1), epochs=2, validation_data=(X, y))
    net.fit([(X, y)], optimizer=SGD(0.1), epochs=2)
    assert calls == [5, 5, *[1] * 12]
    calls.clear()
    many = np.tile(X, (1000, 1)), np.tile(y, 1000)
    net.fit(*many, optimizer=SGD(0.1), epochs=5, batch_size=30_000)
    assert calls == [3, 2]


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("kind", [SGD, Adam])
@pytest.mark.parametrize("bad", [1, 3, 7])
def test_divergence_in_one_of_several_epochs(
    backend, dtype, make_network, make_data, state_of, kind, batch_size, bad
):
    """The epochs before it count, and it is named, with its rate."""
    nets = [make_network(backend, dtype, widths=(6, 5, 3), hidden="relu") for _ in range(2)]
    X, y = make_data(nets[0], 24)
    optimizer = kind(Jump(1e-3, (bad - 1) * 24 // batch_size + 1, 1e300))
    with pytest.raises(DivergenceError, match=f"in epoch {bad} at learning rate 0.001: "):
        nets[0].fit(X, y, optimizer=optimizer, epochs=9, batch_size=batch_size)
    nets[1].fit(X, y, optimizer=optimizer, epochs=bad - 1, batch_size=batch_size)
    assert state_of(nets[0]) == state_of(nets[1])
    assert without_times(nets[0].history.records) == without_times(nets[1].history.records)


def test_parameters_that_overflow_at_the_end_of_one_of_several_epochs(
    backend, make_network, make_data, state_of
):
    """The losses of that epoch were finite; those of the next are not."""
    nets = [make_network(backend, "float32", (6, 2), output="identity", loss="mse") for _ in "12"]
    X, y = make_data(nets[0], 12)
    optimizer = SGD(Jump(1e-3, 3 * 3 - 1, 1e39))
    with pytest.raises(DivergenceError, match="in epoch 3"):
        nets[0].fit(X, y, optimizer=optimizer, epochs=9, batch_size=4)
    nets[1].fit(X, y, optimizer=optimizer, epochs=2, batch_size=4)
    assert state_of(nets[0]) == state_of(nets[1])
    assert len(nets[0].history) == 2


INTERRUPTED_AMONG_EPOCHS = """
import sys
import numpy as np
from fastmlp import Adam, SGD, Callback, Dense, Network, feeding

backend, batch_size = sys.argv[1], int(sys.argv[2])
optimizer = SGD(1e-4) if batch_size == 1 else Adam(1e-4)
rng = np.random.default_rng(0)
X, y = rng.standard_normal((40, 100), np.float32), rng.integers(0, 10, 40)
at_once = 25_000  # epochs: seconds
feeding.SAMPLES_AT_ONCE = at_once * len(X)
steps = len(X) // batch_size

class StopAt(Callback):
    def __init__(self, step):
        self.every_n_steps = step

    def on_step_end(self, network, record):
        return True

def fitted(changes=None, callbacks=()):
    net = Network(100, [Dense(200, "relu"), Dense(10, "softmax")], loss="cross_entropy", seed=0,
                  backend=backend)
    if changes:
        interrupt_after(changes, lambda: net.arena.flat[-10:])
    try:
        net.fit(X, y, optimizer=optimizer, epochs=10**6, batch_size=batch_size,
                callbacks=callbacks)
    except KeyboardInterrupt:
        assert changes
    return net

net = fitted(changes=5 * steps)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
step = net.optimizer_state.step
twin = fitted(callbacks=[StopAt(step)])
assert net.arena.flat.tobytes() == twin.arena.flat.tobytes()
assert net.rng.bit_generator.state == twin.rng.bit_generator.state
finished = step // steps
assert [r["epoch"] for r in net.history.records] == list(range(1, finished + 1))
assert twin.history["loss"][:finished] == net.history["loss"]
assert twin.history["accuracy"][:finished] == net.history["accuracy"]
assert 2 <= finished < at_once, finished
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("batch_size", [1, 20])
def test_interrupt_among_epochs_at_once(backend, run_interrupted, batch_size):
    """Steps, random state and records are those of the finished steps and epochs."""
    run_interrupted(INTERRUPTED_AMONG_EPOCHS, backend, batch_size)


# --- Interrupts -----------------------------------------------------------------------------------

INTERRUPTED = """
import signal, sys
import numpy as np
from fastmlp import Adam, SGD, Callback, Dense, Network

backend, batch_size, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
optimizer = SGD(1e-4) if batch_size == 1 else Adam(1e-4)
rng = np.random.default_rng(0)
X = rng.integers(0, 256, (n, 784)).astype(np.uint8)
y = rng.integers(0, 10, n)

class Ready(Callback):
    def on_epoch_end(self, network, record):
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if record["epoch"] == 1:
            print("ready", flush=True)

def new_network():
    return Network(784, [Dense(300, "relu"), Dense(10, "softmax")], loss="cross_entropy", seed=0,
                   backend=backend)

def fit(net, X, y, epochs, callbacks=()):
    net.fit(X, y, optimizer=optimizer, epochs=epochs, batch_size=batch_size, shuffle=False,
            callbacks=callbacks)

net = new_network()
try:
    fit(net, X, y, 10**6, [Ready()])
except KeyboardInterrupt:
    step = net.optimizer_state.step
    parameters = net.arena.flat.copy()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert np.isfinite(parameters).all()
    assert np.isfinite(net.predict(X[:10])).all()
    fit(net, X[:256], y[:256], 1)
    assert np.isfinite(net.cost(X[:256], y[:256]))

    twin = new_network()
    epochs, steps = divmod(step, -(-n // batch_size))
    fit(twin, X, y, epochs)
    if steps:
        fit(twin, X[: steps * batch_size], y[: steps * batch_size], 1)
    assert twin.arena.flat.tobytes() == parameters.tobytes()
    print(step)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("batch_size", [1, 64])
def test_interrupt(backend, start_python, batch_size):
    """The fit would take days; the interrupt ends it, and the network can be used and trained.

    It is exactly what the finished steps made, bit for bit.
    """
    n = 10000 if backend == "compiled" else 1000
    with start_python(INTERRUPTED, backend, batch_size, n) as child:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        out, error = child.communicate(timeout=60)
    assert child.returncode == 0, error
    assert int(out) >= n // batch_size


# --- Forks ----------------------------------------------------------------------------------------

FORKS = """
import hashlib, json, multiprocessing, os, sys
import numpy as np
from fastmlp import Adam, Dense, Network

def fitted(backend):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((300, 784)), rng.integers(0, 10, 300)
    net = Network(784, [Dense(256, "relu"), Dense(128, "relu"), Dense(10, "softmax")],
                  loss="cross_entropy", seed=0, backend=backend)
    net.fit(X, y, optimizer=Adam(), epochs=1, batch_size=64)
    net.predict(X)
    return hashlib.sha256(net.arena.flat.tobytes()).hexdigest()

def forked(function, *arguments):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, json.dumps(function(*arguments)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = json.load(pipe)
    assert os.waitpid(pid, 0)[1] == 0
    return answer

def fitted_and_forked(backend):
    return [fitted(backend), forked(fitted, backend)]

def put(queue, backend):
    queue.put(fitted(backend))

backend = sys.argv[1]
hashes = [fitted(backend), *forked(fitted_and_forked, backend), fitted(backend)]
context = multiprocessing.get_context("fork")
queue = context.Queue()
children = [context.Process(target=put, args=(queue, backend)) for _ in range(2)]
for child in children:
    child.start()
hashes += [queue.get() for _ in children]
for child in children:
    child.join()
    assert child.exitcode == 0
print(json.dumps([*hashes, fitted(backend)]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_children_fit_too(backend, run_python):
    """After a fit with threads: a child, its own child, two processes at once, the parent again."""
    hashes = json.loads(run_python(FORKS, backend))
    assert len(hashes) == 7
    assert len(set(hashes)) == 1
    assert len(hashes[0]) == len(hashlib.sha256().hexdigest())


def test_an_order_of_ones_own(backend, make_network, make_data):
    a, b = make_network(backend), make_network(backend)
    X, y = make_data(a, 20)
    rows = np.array([3, 1, 4, 15, 9, 2, 6])
    settings = {"optimizer": SGD(0.1), "epochs": 2, "batch_size": 3}
    history = a.fit(X, y, shuffle=lambda rng, n: rows[: n - 13], **settings)
    expected = b.fit(X[rows], y[rows], shuffle=False, **settings)
    assert history["loss"] == expected["loss"]
    assert history["accuracy"] == expected["accuracy"]
    np.testing.assert_array_equal(a.arena.flat, b.arena.flat)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([0.5], r"numbers of samples, shape \(m,\), got float64"),
        ([], "numbers of samples"),
        ([[1]], r"got int64 of shape \(1, 1\)"),
        ([0, 20], "from 0 to 19, got 0 to 20"),
        ([-1], "from 0 to 19, got -1 to -1"),
    ],
)
def test_a_bad_order_changes_nothing(backend, make_network, make_data, state_of, order, message):
    net = make_network(backend)
    X, y = make_data(net, 20)
    before = net.arena.flat.copy()
    with pytest.raises(ValueError, match=f"shuffle: .*{message}"):
        net.fit(X, y, optimizer=SGD(0.1), epochs=1, shuffle=lambda rng, n: np.array(order))
    np.testing.assert_array_equal(net.arena.flat, before)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_an_interrupt_while_the_handler_changes_leaves_none_behind(monkeypatch):
    """Ctrl-C as soon as our handler is in place, and just before it is taken away."""
    real = signal.signal
    before = signal.getsignal(signal.SIGINT)

    def interrupted(number, handler):
        if handler is before:
            os.kill(os.getpid(), signal.SIGINT)
        real(number, handler)
        if handler is not before:
            os.kill(os.getpid(), signal.SIGINT)

    interrupts = InterruptsBetweenSteps()
    monkeypatch.setattr(signal, "signal", interrupted)
    reached = False
    with pytest.raises(KeyboardInterrupt), interrupts:  # noqa: PT012
        reached = True
        interrupts.updating = False
    assert reached
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt), interrupts:  # noqa: PT012
        interrupts._pending = None
        interrupts.updating = False
    assert signal.getsignal(signal.SIGINT) is before
