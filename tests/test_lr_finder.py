"""The learning-rate finder: what it finds, and that it leaves no trace."""

from __future__ import annotations

import numpy as np
import pytest

from fastmlp import SGD, Adam, Averaged, Dense, Network, find_learning_rate
from fastmlp.lr_finder import LearningRateSearch


def test_the_network_is_as_before(backend, dtype, make_network, make_data, state_of):
    net = make_network(backend, dtype)
    X, y = make_data(net, 20)
    net.fit(X, y, optimizer=SGD(0.1, momentum=0.9), epochs=2)
    before, optimizer_state = state_of(net), net.optimizer_state
    find_learning_rate(net, X, y, optimizer=SGD(0.1), high=1e3, n_steps=50, batch_size=8)
    assert state_of(net) == before
    assert net.optimizer_state is optimizer_state
    assert net.history.last_epoch == 2


@pytest.mark.parametrize("batch_size", [1, 7])
def test_the_losses_are_those_of_a_training(backend, dtype, make_network, make_data, batch_size):
    """The same steps in a fit of one epoch with those rates."""
    net, twin = make_network(backend, dtype), make_network(backend, dtype)
    X, y = make_data(net, 70)
    n = 70 // batch_size
    search = find_learning_rate(
        *(net, X, y), optimizer=Adam(), low=1e-4, high=0.1, n_steps=n, batch_size=batch_size
    )
    np.testing.assert_allclose(search.rates, np.geomspace(1e-4, 0.1, n))
    rates = search.rates.tolist()
    twin.fit(X, y, optimizer=Adam(lambda step: rates[step]), epochs=1, batch_size=batch_size)
    assert search.losses.mean() == pytest.approx(twin.history["loss"][0], rel=1e-6)


def test_averages_are_left_out(make_network, make_data):
    net = make_network("numpy")
    X, y = make_data(net, 20)
    searches = [
        find_learning_rate(*(make_network("numpy"), X, y), optimizer=optimizer, n_steps=20)
        for optimizer in (Adam(), Averaged(Adam()))
    ]
    np.testing.assert_array_equal(searches[0].losses, searches[1].losses)


def test_it_ends_where_the_loss_overflows(backend):
    net = Network(3, [Dense(1)], loss="mse", seed=0, backend=backend)
    X = np.random.default_rng(0).standard_normal((500, 3))
    search = find_learning_rate(
        net, X, X[:, 0], optimizer=SGD(), high=1e30, n_steps=400, batch_size=50
    )
    assert 10 < len(search.rates) == len(search.losses) < 400
    assert np.isfinite(search.losses).all()
    assert 1e-5 < search.suggestion < 1
    assert np.isfinite(net.arena.flat).all()


def test_the_suggestion_trains(backend):
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    X = X / 16
    for optimizer in (SGD(), SGD(momentum=0.9), Adam()):
        net = Network(
            64, [Dense(32, "relu"), Dense(10, "softmax")], loss="cross_entropy", seed=0,
            backend=backend,
        )  # fmt: skip
        search = find_learning_rate(net, X, y, optimizer=optimizer, batch_size=32)
        settings = {"momentum": 0.9} if getattr(optimizer, "momentum", 0) else {}
        net.fit(X, y, optimizer=type(optimizer)(search.suggestion, **settings), epochs=10)
        assert net.evaluate(X, y)["accuracy"] > 0.9


def test_smoothing_and_suggestion():
    rates = np.geomspace(1e-4, 1, 41)
    losses = 2 - 1 / (1 + np.exp(-4 * np.log10(rates / 1e-2))) + (rates > 0.5) * 50
    search = LearningRateSearch(rates, losses)
    weights = 0.9 ** np.arange(41)[::-1]
    assert search.smoothed[-1] == pytest.approx(np.average(losses, weights=weights))
    assert search.smoothed[0] == pytest.approx(losses[0])
    assert 1e-2 < search.suggestion < 1e-1
    rising = LearningRateSearch(rates, np.arange(41.0))
    assert rising.suggestion == 1e-4


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"low": 0}, ValueError, "low, high: expected 0 < low < high, got 0 and 10"),
        ({"low": 1, "high": 0.5}, ValueError, "low, high: expected 0 < low < high"),
        ({"high": np.inf}, ValueError, "low, high: expected 0 < low < high"),
        ({"n_steps": 9}, ValueError, "n_steps: expected at least 10"),
        ({"batch_size": 0}, ValueError, "batch_size: expected at least 1"),
        ({"optimizer": 0.1}, TypeError, "optimizer: expected an optimizer, got float"),
    ],
)
def test_bad_settings_are_refused(make_network, make_data, settings, error, message):
    net = make_network("numpy")
    with pytest.raises(error, match=message):
        find_learning_rate(net, *make_data(net, 10), **settings)
