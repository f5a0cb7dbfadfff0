"""What a fit records."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmlp import SGD, Adam, Callback, DivergenceError
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
    assert history["epoch"] == [4, 5, 6]
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


def test_it_goes_on_over_the_fits_of_a_network(net, make_data):
    X, y = make_data(net, 10)
    first = net.fit(X, y, epochs=2)
    with pytest.raises(DivergenceError, match="in epoch 3 at"):
        net.fit(X, y, optimizer=SGD(lambda step: np.nan), epochs=3)
    second = net.fit(X, y, optimizer=Adam(), epochs=1, validation_data=(X, y))
    assert (first["epoch"], second["epoch"]) == ([1, 2], [3])
    assert net.history.records == first.records + second.records
    assert net.history.last_epoch == 3
    assert net.history.names[-1] == "val_accuracy"
    np.testing.assert_array_equal(net.history["val_loss"], [np.nan, np.nan, *second["val_loss"]])
    assert net.astype("float64").history.records == []


def test_why_a_fit_ended(net, make_data):
    class Stop(Callback):
        def on_epoch_end(self, network, record):
            return True

    class Fail(Callback):
        def on_epoch_end(self, network, record):
            raise RuntimeError

    seen = []

    class Look(Callback):
        def on_fit_end(self, network, history):
            seen.append(history.stop_reason)

    data = make_data(net, 10)
    assert net.fit(*data, epochs=2, callbacks=[Look()]).stop_reason == "epochs"
    assert net.fit(*data, epochs=2, callbacks=[Stop(), Look(), Stop()]).stop_reason == "Stop"
    with pytest.raises(RuntimeError):
        net.fit(*data, epochs=2, callbacks=[Look(), Fail()])
    assert seen == ["epochs", "Stop", None]


numbers = st.floats(allow_nan=True) | st.integers(-(2**60), 2**60)
records = st.lists(
    st.tuples(st.integers(1, 10**6), st.dictionaries(st.text(), numbers)).map(
        lambda pair: {**pair[1], "epoch": pair[0]}
    )
)


@given(records)
def test_json_keeps_every_number(records):
    history = History(records)
    text = history.to_json()
    json.loads(text, parse_constant=pytest.fail)
    again = History.from_json(text)
    assert again == history
    assert repr(again.records) == repr(history.records)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "3", "null", '{"epoch": 1}', "[3]", '[{"loss": 1}]', '[{"epoch": 1.5}]'),
        *('[{"epoch": "1"}]', '[{"epoch": 1, "loss": null}]', '[{"epoch": 1, "loss": [1]}]'),
        *('[{"epoch": 1, "loss": true}]', "[" * 100_000),
    ],
)
def test_other_json_is_refused(text):
    with pytest.raises(ValueError, match="history: expected"):
        History.from_json(text)


def test_data_frame():
    pd = pytest.importorskip("pandas")
    history = History([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "val_loss": 1.0}])
    frame = history.to_frame()
    assert frame.index.tolist() == [1, 2]
    assert frame["loss"].tolist() == [0.5, 0.25]
    assert pd.isna(frame.loc[1, "val_loss"])
    assert len(History().to_frame()) == 0


def test_data_frames_need_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="to_frame needs pandas: pip install pandas"):
        History().to_frame()


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


def test_records_hold_numbers_of_python(net, make_data):
    X, y = make_data(net, 10)
    (record,) = net.fit(X, y, epochs=1, validation_data=(X, y)).records
    assert {type(value) for name, value in record.items() if name != "epoch"} == {float}
    assert type(record["epoch"]) is int
