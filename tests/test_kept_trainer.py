"""What a fit leaves with its network: the next one works in the same memory, to the same bits."""

from __future__ import annotations

import copy
import pickle
import weakref

import numpy as np
import pytest

from fastmlp import SGD, Adam, Dense, Network
from fastmlp.callbacks import LambdaCallback
from fastmlp.training import _Run


def network(backend, dtype="float64", n_inputs=20):
    layers = [Dense(9, "tanh", l2=0.01), Dense(3, "softmax")]
    return Network(n_inputs, layers, loss="cross_entropy", dtype=dtype, seed=0, backend=backend)


def pieces(dtype):
    """Data of every kind: dense, mostly zeros, pixels; labels, rows; with and without weights."""
    rng = np.random.default_rng(0)
    X, labels = rng.standard_normal((37, 20)).astype(dtype), rng.integers(0, 3, 37)
    weight = rng.uniform(0.5, 2, 37)
    sparse = X * (rng.uniform(size=X.shape) < 0.1)
    pixels = rng.integers(0, 256, X.shape).astype(np.uint8)
    yield X, labels, None
    yield sparse, labels, weight
    yield pixels, labels, None
    yield X, np.eye(3)[labels], weight
    yield sparse[:30], labels[:30], None
    yield X[:5], labels[:5], None


@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("optimizer", [SGD(0.1), Adam(0.01)])
def test_the_bits_of_a_new_trainer(backend, dtype, optimizer, batch_size):
    kept, fresh = network(backend, dtype), network(backend, dtype)
    for _ in range(2):
        for X, y, weight in pieces(dtype):
            for net in (kept, fresh):
                net._trainer = net._trainer if net is kept else None
                options = {"sample_weight": weight, "optimizer": optimizer, "epochs": 2}
                net.fit(X, y, batch_size=batch_size, **options)
            assert kept.arena.flat.tobytes() == fresh.arena.flat.tobytes()
            assert kept.history["loss"] == fresh.history["loss"]


def test_it_serves_what_it_was_made_for(backend):
    net = network(backend)
    (X, y, _), *_, (short, short_y, _) = pieces("float64")

    def trainer_of(**settings):
        settings = {"optimizer": Adam(), "epochs": 1, "batch_size": 8, **settings}
        net.fit(X, y, **settings)
        return net._trainer[1]

    first = trainer_of()
    assert trainer_of(epochs=3, shuffle=False) is first
    for change in (
        {"batch_size": 9},
        {"clip_norm": 1.0},
        {"optimizer": Adam(0.1)},
        {"batch_size": 8},
    ):
        other = trainer_of(**change)
        assert other is not first
        first = other
    net.fit(short, short_y, optimizer=Adam(), epochs=1, batch_size=8)  # one batch of 5
    assert net._trainer[1] is not first
    first = net._trainer[1]
    net.fit(X, y, epochs=0)
    assert net._trainer[1] is first


def test_it_lets_go_of_the_data(backend):
    net = network(backend)
    X, y, _ = next(pieces("float64"))
    X = X.copy()
    reference = weakref.ref(X)
    net.fit(X, y, optimizer=Adam(), epochs=1, batch_size=8)
    del X
    assert reference() is None


def test_copies_have_none(backend):
    net = network(backend)
    X, y, _ = next(pieces("float64"))
    net.fit(X, y, optimizer=Adam(), epochs=1, batch_size=8)
    assert net._trainer is not None
    for other in (copy.copy(net), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert other._trainer is None
    other.fit(X, y, epochs=1, batch_size=8)
    net.fit(X, y, epochs=1, batch_size=8)
    assert net.arena.flat.tobytes() == other.arena.flat.tobytes()


def test_large_memory_is_not_kept(backend, monkeypatch):
    monkeypatch.setattr(_Run, "KEPT_BYTES", 8 * 8 * (20 + 9 + 3))
    net = network(backend)
    X, y, _ = next(pieces("float64"))
    net.fit(X, y, optimizer=Adam(), epochs=1, batch_size=8)
    assert net._trainer is not None
    net.fit(X, y, optimizer=Adam(), epochs=1, batch_size=9)
    assert net._trainer is None


def test_a_fit_inside_a_fit_has_its_own(backend):
    """The outer one goes on with its data."""
    (X, y, _), (other_X, other_y, _), *_ = pieces("float64")
    settings = {"optimizer": SGD(0.1), "batch_size": 8, "shuffle": False}

    def inner(network, record):
        network.fit(other_X, other_y, epochs=1, **settings)

    nested, plain = network(backend), network(backend)
    nested.fit(X, y, epochs=2, callbacks=[LambdaCallback(on_epoch_end=inner)], **settings)
    for _ in range(2):
        plain.fit(X, y, epochs=1, **settings)
        plain.fit(other_X, other_y, epochs=1, **settings)
    assert nested.arena.flat.tobytes() == plain.arena.flat.tobytes()


@pytest.mark.parametrize("batch_size", [1, 8])
def test_without_data_it_does_nothing(backend, batch_size):
    net = network(backend)
    X, y, _ = next(pieces("float64"))
    net.fit(X, y, optimizer=SGD(0.1), epochs=1, batch_size=batch_size)
    with pytest.raises(RuntimeError, match="expected data"):
        net._trainer[1].epochs(np.arange(8), np.full(8 // batch_size, 0.1))
