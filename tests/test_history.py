"""What a fit records."""

from __future__ import annotations

import numpy as np
import pytest

from fastmlp import SGD
from fastmlp.history import History


@pytest.fixture
def net(backend, dtype, make_network):
    return make_network(backend, dtype)


def test_what_is_recorded(net, make_data):
    X, y = make_data(net, 10)
    history = net.fit(X, y, epochs=3, batch_size=4)
    timing = ["lr", "seconds", "samples_per_second"]
    assert history.names == ["epoch", "loss", "accuracy", *timing]
    history = net.fit(X, y, epochs=3, batch_size=4, validation_data=(X[:4], y[:4]))
    assert history.names == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", *timing]
    assert len(history) == 3
    assert history["epoch"] == [1, 2, 3]
    assert history["lr"] == [0.001] * 3
    for record in history.records:
        assert record["seconds"] > 0
        assert record["samples_per_second"] == 10 / record["seconds"]


def test_losses_without_classes_record_no_accuracy(backend, make_network, make_data):
    net = make_network(backend, output="identity", loss="mse")
    X, Y = make_data(net, 10)
    history = net.fit(X, Y, epochs=1, validation_data=(X, Y))
    assert {"loss", "val_loss"} < set(history.names)
    assert not {"accuracy", "val_accuracy"} & set(history.names)


@pytest.mark.parametrize("batch_size", [1, 4, 10])
@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "mse", "mae", "huber"])
def test_loss_and_accuracy_are_those_before_each_update(
    backend, dtype, make_network, make_data, batch_size, loss
):
    """With a rate of 0 nothing moves, and both are those of the whole data."""
    output = {"cross_entropy": "softmax", "binary_cross_entropy": "sigmoid"}.get(loss, "identity")
    net = make_network(backend, dtype, output=output, loss=loss)
    X, y = make_data(net, 10)
    scores = net.evaluate(X, y)
    history = net.fit(X, y, optimizer=SGD(0.0), epochs=2, batch_size=batch_size)
    for name, value in scores.items():
        np.testing.assert_allclose(history[name], [value, value], rtol=1e-6)


def test_validation_scores_are_those_after_the_epoch(net, make_data):
    X, y = make_data(net, 10)
    history = net.fit(X, y, optimizer=SGD(0.1), epochs=1, validation_data=(X[:5], y[:5]))
    scores = net.evaluate(X[:5], y[:5])
    assert history["val_loss"] == [scores["loss"]]
    assert history["val_accuracy"] == [scores["accuracy"]]


def test_validation_does_not_change_the_training(
    net, backend, dtype, make_network, make_data, state_of
):
    twin = make_network(backend, dtype)
    X, y = make_data(net, 10)
    net.fit(X, y, epochs=2, batch_size=4, validation_data=[X, y])
    twin.fit(X, y, epochs=2, batch_size=4)
    assert state_of(net) == state_of(twin)


def test_unknown_quantities_are_refused():
    history = History()
    history.records.append({"epoch": 1, "loss": 0.25})
    with pytest.raises(KeyError, match="'val_loss' was not recorded; recorded: epoch, loss"):
        history["val_loss"]


def test_repr():
    history = History()
    assert repr(history) == "History(no epochs)"
    history.records.append({"epoch": 1, "loss": 0.25})
    assert repr(history) == "History(epoch=1, loss=0.25)"
